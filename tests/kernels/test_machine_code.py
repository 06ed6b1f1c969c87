"""What `walk` compiles to, on every GPU generation that Triton knows; no GPU is needed, nothing is run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from functools import cache

import numpy as np
import pytest

import inception_engine as ie

pytest.importorskip("triton")

from inception_engine.kernels import machine_code, walk
from inception_engine.kernels.machine_code import ARCHITECTURES, LAUNCHES, MachineCode, compile_walk, read
from inception_engine.kernels.variants import VARIANTS, variant

from inception_engine.compiler.plan import PANEL, OpKind

CASES = [
    pytest.param(key, launch, arch, id=f"{key[0]}-{key[1]}x{key[2]}-{launch}-sm_{arch}")
    for key in VARIANTS
    for launch in LAUNCHES
    for arch in ARCHITECTURES
]
TENSOR = {
    80: "mma.sync",
    86: "mma.sync",
    89: "mma.sync",
    90: "wgmma.mma_async",
    100: "tcgen05.mma",
    120: "mma.sync",
}
# Bytes of shared memory that one SM has for blocks, of which each takes 1,024 more (CUDA programming guide).
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}


@cache
def code(key: tuple[str, int, int], launch: str, arch: int) -> MachineCode:
    return read(key[0], VARIANTS[key], launch, arch)


@pytest.mark.parametrize(("key", "launch", "arch"), CASES)
def test_machine_code(key: tuple[str, int, int], launch: str, arch: int) -> None:
    found = code(key, launch, arch)
    if (key[0], launch, arch) == ("fp32", "pool", 100):
        assert found.spills <= 2 and found.registers <= 64  # ptxas saves one register there, with 64 in use
    else:
        assert found.spills == 0 and found.stack == 0
    assert found.registers <= 128  # two blocks of eight warps on an SM
    assert 2 * (found.shared + 1024) <= SHARED[arch] * 1024
    # What other blocks store during a launch must never be read through the read-only cache.
    assert found.read_only_loads == 0
    assert found.parameters == machine_code.PARAMETERS
    assert found.wide_loads >= 1 and found.wide_stores >= 1
    if launch == "pool":
        assert found.copies == 0 and found.tensor == "none"
        return
    # Both operands of the product, each stage: in 16-byte pieces, none narrower. (In a stem, of its other
    # convolutions: the folded one reads runs of 21 elements, 2 bytes at a time.)
    stages = VARIANTS[key].stages
    assert found.copies == found.wide_copies >= 2 * stages
    if key[0] == "fp32":
        assert found.tensor == "none"  # TensorFloat-32 is off
    else:
        assert found.tensor.endswith(TENSOR[arch])


def test_launches_are_those_of_the_network() -> None:
    found = set()
    (program,) = ie.compile(ie.googlenet(), targets="cuda", dtype="fp16").programs
    for launch in program.launches:
        tasks = program.tasks[int(launch["first_task"]) :][: int(launch["task_count"])]
        ops = program.ops[np.unique(tasks["op"])]
        ragged = any(op["kind"] == OpKind.CONV and op["in_channels"] % PANEL for op in ops)
        found.add(sum({1 << int(op["kind"]) for op in ops}) | ragged << 7)
    assert found == set(LAUNCHES.values())


@pytest.mark.parametrize("arch", [80, 90])
def test_memory_order(arch: int) -> None:
    """Polls are volatile, the count is acquired, and the tile's stores are behind a barrier when it is released."""
    ptx: str = compile_walk("fp16", variant("fp16", 64, 64), LAUNCHES["module"], arch).asm["ptx"]
    assert re.search(r"ld\.volatile\.global", ptx)
    acquires = [
        m.start() for m in re.finditer(r"\b(?:ld|atom)\.global\S*\.acquire|\.acquire\.\S*global", ptx)
    ]
    releases = [m.start() for m in re.finditer(r"\.release\b", ptx)]
    stores = [m.start() for m in re.finditer(r"\bst\.global", ptx)]
    assert len(acquires) == 1 and len(releases) == 1
    assert acquires[0] < min(stores) < releases[0]
    assert "bar.sync" in ptx[acquires[0] : min(stores)]
    assert "bar.sync" in ptx[max(s for s in stores if s < releases[0]) : releases[0]]


def test_pixels_of_eight_bits() -> None:
    found = read("fp16", variant("fp16", 64, 64), "stem", 90, image="u8")
    assert found.spills == found.stack == found.read_only_loads == 0
    assert found.parameters == machine_code.PARAMETERS


def test_every_kind_in_one_launch() -> None:
    """A whole network may be one launch."""
    everything = sum(1 << kind for kind in (*OpKind, 7))
    assert everything & ~sum(1 << kind for kind in OpKind) == 1 << 7
    compile_walk("fp16", variant("fp16", 64, 64), everything, 90)


@pytest.mark.parametrize("tile", [(16, 16), (32, 64), (64, 128), (128, 32)])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_tiles_without_a_tuned_variant_compile(dtype: str, tile: tuple[int, int]) -> None:
    assert (dtype, *tile) not in VARIANTS
    assert read(dtype, variant(dtype, *tile), "module", 90).read_only_loads == 0


def test_spills_are_seen() -> None:
    """The measure can fail: sums of 128 x 128 alone take all registers of four warps."""
    cramped = dataclasses.replace(variant("fp32", 64, 64), block_rows=128, block_columns=128, warps=4)
    found = read("fp32", cramped, "module", 80)
    assert found.registers == 255 and found.spills > 0 and found.stack > 0


def test_parameters_are_those_of_walk() -> None:
    """The list that a driver passes follows the kernel's own."""
    (function,) = [
        node
        for node in ast.parse(inspect.getsource(walk)).body
        if isinstance(node, ast.FunctionDef) and node.name == "walk"
    ]
    plain = [a.arg for a in function.args.args if a.annotation is None]
    types = {True: "u32", False: "u64"}
    assert machine_code.PARAMETERS[:-2] == tuple(types[n in ("first", "count", "batch")] for n in plain)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    key = next(iter(VARIANTS))
    header, line = machine_code.render(iter([code(key, "module", 90)]))
    assert header.split()[:4] == ["arch", "dtype", "tile", "launch"]
    assert line.split()[:4] == ["sm_90", "fp16", "64x64x32", "module"] and "wgmma" in line


def test_interpreted_kernels_have_no_machine_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from inception_engine.cli import main

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert main(["kernels", "--table"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("inception: error: TRITON_INTERPRET") and err.count("\n") == 1
