"""FusedInception on Triton's interpreter: cases that give errors by dtype, each with NaN in all fresh memory.

For ``tests.kernels.interpreted.submit``: TRITON_INTERPRET has to be set before Triton is imported.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inception_engine.fused import DTYPES, FusedInception, fuse
from tests.tolerances import error
from tests.torch_modules import (
    RAGGED,
    WIDTHS,
    TorchvisionInception,
    TorchvisionNetwork,
    small_googlenet,
    trained,
)

Case = Callable[[], dict[str, float]]


def found(fused: nn.Module, original: nn.Module, x: Tensor) -> float:
    """max|d| / max|ref| against the original in float64."""
    expected = copy.deepcopy(original).double()(x.double())
    return error(fused(x).double().numpy(), expected.numpy())


def module(
    x: Tensor, widths: tuple[int, int, int, int, int, int] = WIDTHS, third: int = 3
) -> dict[str, float]:
    original = trained(TorchvisionInception(x.shape[1], widths, third))
    fused = FusedInception(original)
    y = fused(x)
    assert y.stride() == torch.empty(y.shape, memory_format=torch.channels_last).stride()
    return {DTYPES[x.dtype]: found(fused, original, x)}


def one_launch() -> dict[str, float]:
    """As many launches of the kernel as there are modules in the network."""
    from inception_engine.kernels import walk as kernel

    class Counted:
        launches = 0

        def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
            self.launches += 1
            return walk[grid]

    walk, counted = kernel.walk, Counted()
    fused = fuse(trained(TorchvisionNetwork()))
    kernel.walk = counted
    fused(torch.randn(1, 3, 4, 4))
    kernel.walk = walk
    modules = [m for m in fused.modules() if isinstance(m, FusedInception) and m.backend.name == "triton"]
    return {"modules": len(modules), "launches": counted.launches}


def ours() -> dict[str, float]:
    original = small_googlenet().trunk["4b"]
    fused = FusedInception(original)
    return {"fp32": found(fused, original, torch.randn(2, fused.in_channels, 5, 7))}


def network() -> dict[str, float]:
    model = trained(TorchvisionNetwork())
    return {"fp32": found(fuse(copy.deepcopy(model)), model, torch.randn(3, 3, 6, 6))}


def exported() -> dict[str, float]:
    """A program exported with the fake alone takes the launch when it runs; so does a compiled one."""
    original = trained(TorchvisionInception(16, WIDTHS))
    fused, x = FusedInception(original).eval(), torch.randn(1, 16, 4, 4)
    program = torch.export.export(fused, (x,)).module()
    compiled: Any = torch.compile(fused, backend="aot_eager", fullgraph=True)
    return {"fp32": max(found(program, original, x), found(compiled, original, x))}


def changed() -> dict[str, float]:
    """Weights that are changed in place are compiled anew; the result of before is no longer right."""
    original, other = (trained(TorchvisionInception(16, WIDTHS)) for _ in range(2))
    fused, x = FusedInception(original), torch.randn(1, 16, 3, 3)
    before = found(fused, original, x)
    fused.load_state_dict(FusedInception(other).state_dict())
    return {"fp32": max(before, found(fused, other, x)), "control": found(fused, original, x)}


def shapes() -> dict[str, float]:
    """One module, one shape after the other; results stay as they are when the next are computed."""
    original = trained(TorchvisionInception(16, WIDTHS))
    fused = FusedInception(original)
    images = [torch.randn(batch, 16, size, 2) for batch, size in ((1, 2), (2, 3), (1, 2))]
    results = [fused(x) for x in images]
    copies = [result.clone() for result in results]
    errors = [found(fused, original, x) for x in images]
    assert all(torch.equal(a, b) for a, b in zip(results, copies, strict=True))
    return {"fp32": max(errors)}


CASES: dict[str, Case] = {
    "module": lambda: module(torch.randn(2, 16, 9, 9)),
    "fp16, channels last": lambda: module(
        torch.randn(2, 32, 5, 7).half().contiguous(memory_format=torch.channels_last), third=5
    ),
    "bf16, one pixel": lambda: module(torch.randn(3, 16, 1, 1).bfloat16()),
    "a slice of a tensor": lambda: module(torch.randn(2, 40, 5, 7)[:, 3:35:2, :, 1:]),
    "odd channels": lambda: module(torch.randn(2, 21, 5, 7), RAGGED, third=5),
    "one launch": one_launch,
    "ours": ours,
    "torchvision's network": network,
    "exported and compiled": exported,
    "weights changed": changed,
    "several shapes": shapes,
}


def run(case: str) -> dict[str, float]:
    assert os.environ["TRITON_INTERPRET"] == "1"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # then torch.empty fills with NaN
    assert torch.empty(8).isnan().all()
    try:
        with torch.no_grad():
            return CASES[case]()
    finally:
        torch.use_deterministic_algorithms(False)
