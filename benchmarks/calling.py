"""What a call of the C API costs over the bare executor, how far a second context on a second core goes, and what a
plan costs to load.

    python -m benchmarks.calling

The program of calling.cpp is linked with the static library, whose inside it reaches. All figures are from turns in
one run: medians of ie_run and of the executor on a plan of one layer, 2 x 12 weights; runs per second of two contexts
of one thread over those of one, on GoogLeNet; and loading its plan with the proof, from the page cache, over reading
the file into fresh memory. Where other processes take the cores, the ratio of processor times says what two contexts
take from each other; it counts no waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import inception_engine as ie
from inception_engine.network import Linear, Network

RUNTIME = Path(ie.__file__).parent / "runtime"
SOURCE = Path(__file__).with_suffix(".cpp")


def static_library(folder: Path) -> Path:
    """Compiles the runtime, for a minute."""
    cmake = Path(sys.executable).parent / "cmake"
    command = str(cmake) if cmake.exists() else "cmake"
    for step in (
        ("-S", RUNTIME, "-B", folder, "-DIE_KERNELS=OFF"),
        ("--build", folder, "--target", "static"),
    ):
        subprocess.run([command, *step], check=True, stdout=subprocess.DEVNULL)
    return folder / "libinception_engine.a"


def link(folder: Path, library: Path) -> Path:
    """The program of calling.cpp, in ``folder``."""
    program = folder / "calling"
    flags = ("-std=c++17", "-O2", f"-I{RUNTIME}", "-o", program)
    subprocess.run(["g++", *flags, SOURCE, library, "-pthread", "-ldl"], check=True)
    return program


def measure(program: Path, plan: Path, *what: object) -> dict[str, float]:
    """What the program prints. Raises CalledProcessError."""
    done = subprocess.run([program, plan, *map(str, what)], check=True, capture_output=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def tiny() -> Network:
    """One linear layer of 2 x 12 weights: next to nothing beside the call."""
    layer = Linear(
        name="fc", inputs=("input",), weight=np.ones((2, 12), np.float32), bias=np.zeros(2, np.float32)
    )
    return Network(name="tiny", input_shape=(3, 2, 2), layers=(layer,), logits="fc")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--loads", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = link(folder, static_library(folder / "build"))
        ie.compile(tiny()).save(folder / "tiny.plan")
        ie.compile(ie.googlenet(seed=0)).save(folder / "googlenet.plan")
        call = measure(program, folder / "tiny.plan", "overhead", arguments.pairs)
        print(f"load before: {os.getloadavg()[0]:.2f}, cores: {len(os.sched_getaffinity(0))}")
        print(f"ie_run                  {1e6 * call['ie_run']:8.3f} us, median")
        print(f"executor alone          {1e6 * call['executor']:8.3f} us, median")
        print(f"difference of medians   {1e6 * call['difference']:8.3f} us")
        print(f"median of differences   {1e6 * call['difference_of_pairs']:8.3f} us")
        two = measure(program, folder / "googlenet.plan", "contexts", arguments.seconds)
        print(f"two contexts over one   {two['ratio']:8.3f} [{two['least']:.3f}..{two['most']:.3f}]")
        print(f"  by processor time     {two['ratio_by_processor_time']:8.3f}")
        load = measure(program, folder / "googlenet.plan", "load", arguments.loads)
        print(f"load and proof          {1e3 * load['load']:8.3f} ms, median")
        print(f"  over reading alone    {load['ratio']:8.3f} [{load['least']:.3f}..{load['most']:.3f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
