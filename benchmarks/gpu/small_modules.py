"""Two small modules and a small network by the executor, once: what compute-sanitizer and ncu look at.

python -m benchmarks.gpu.small_modules [--module NAME --batch N]: the one module, at full size.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.gpu.cases import ModuleCase, NetworkCase
from benchmarks.gpu.device import open_device
from benchmarks.gpu.rehearsal import interpret, is_interpreted
from benchmarks.gpu.runners import jit
from benchmarks.gpu.scale import FULL, REHEARSED
from inception_engine.fused import FusedInception


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--module")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    if is_interpreted():
        interpret()
    device = open_device(is_interpreted())
    small = REHEARSED.spec
    if options.module:
        spec = small if is_interpreted() else FULL.spec
        cases = [ModuleCase(options.module, spec, options.batch, "fp16")]
    else:
        cases = [ModuleCase("3a", small, 3, "fp16"), ModuleCase("5b", small, 3, "fp32")]
        network = NetworkCase("tiny", small, 2, "fp16")
        with jit(network, device) as prepared:
            error = network.error(prepared.call(network.images(device.torch_device)))
            prepared.check()
        assert error <= network.bound, f"network: error {error:g}"
    for case in cases:
        with torch.no_grad():
            x = case.x(device.torch_device)
            fused = FusedInception(case.module).to(x.device, x.dtype)
            error = case.error(fused(x))
            fused.check()
        assert error <= case.bound, f"module {case.name}: error {error:g}"


if __name__ == "__main__":
    main()
