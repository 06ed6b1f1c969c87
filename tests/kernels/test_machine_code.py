"""What `walk` compiles to, on every GPU generation that Triton knows; no GPU is needed, nothing is run."""

from __future__ import annotations

import ast
import atexit
import inspect
import re
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest

import inception_engine as ie

pytest.importorskip("triton")

from inception_engine.kernels import archive, machine_code, walk
from inception_engine.kernels.machine_code import ARCHITECTURES, MachineCode, compile_walk, read
from inception_engine.kernels.shipped import sizes_of
from inception_engine.kernels.variants import (
    DEPENDENT_FROM,
    KINDS,
    VARIANTS,
    Variant,
    kinds_for,
    variant,
)

from inception_engine.compiler.plan import PANEL, OpKind

CASES = {
    f"{dtype}-{'/'.join(map(str, each.rows))}-{kinds}-sm_{arch}": (dtype, each, kinds, arch)
    for dtype, variants in VARIANTS.items()
    for each in variants
    for kinds in each.kinds
    for arch in ARCHITECTURES
}
REGISTERS_OF_SM = 65536
ONE_BLOCK = {("fp32", "network", 100)}  # which would spill with the registers of two
# Of float32 alone: instructions that spill.
EXCEPTIONS: dict[tuple[str, str, int], int] = {}
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


def having(kinds: str) -> Variant:
    return next(variant for variant in VARIANTS["fp16"] if kinds in variant.kinds)


@cache
def _pool() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(2, get_context("spawn"))
    atexit.register(pool.shutdown, cancel_futures=True)
    return pool


@cache
def started(name: str) -> Future[MachineCode]:
    return _pool().submit(read, *CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_machine_code(name: str) -> None:
    names = list(CASES)
    for ahead in names[names.index(name) :][:3]:  # the compiler takes seconds, on one processor
        started(ahead)
    found = started(name).result()
    dtype, each, kinds, arch = CASES[name]
    if (dtype, kinds, arch) in EXCEPTIONS:
        assert found.spills <= EXCEPTIONS[dtype, kinds, arch]
    else:
        assert found.spills == 0 and found.stack == 0
    blocks = each.blocks_per_sm if arch in (80, 90) else min(each.blocks_per_sm, 2)
    blocks = 1 if (dtype, kinds, arch) in ONE_BLOCK else blocks
    assert found.registers * 32 * each.warps * blocks <= REGISTERS_OF_SM
    assert blocks * (found.shared + 1024) <= SHARED[arch] * 1024
    # What other blocks store during a launch must never be read through the read-only cache.
    assert found.read_only_loads == found.unsettled == 0
    assert found.parameters == machine_code.PARAMETERS
    assert found.wide_stores >= 1
    # Both operands of the product, each stage: asynchronously. Of each, 16 bytes a thread where a tile has as many.
    assert found.wide_copies >= 2 * each.stages
    if dtype == "fp32":
        assert found.tensor == "none"  # TensorFloat-32 is off
        assert found.copies == found.wide_copies
    else:
        assert found.tensor.endswith(TENSOR[arch])


@pytest.mark.parametrize("batch", [1, 32])
def test_kernels_have_what_the_network_needs(batch: int) -> None:
    """A module's launches take the small kernel; tiles are those that were tuned."""
    (program,) = ie.compile(ie.googlenet(), targets="cuda", dtype="fp16", max_batch=batch).programs
    needed = set()
    for launch in program.launches:
        tasks = program.tasks[int(launch["first_task"]) :][: int(launch["task_count"])]
        ops = program.ops[np.unique(tasks["op"])]
        ragged = any(op["kind"] == OpKind.CONV and op["in_channels"] % PANEL for op in ops)
        cut = any(op["part_depth"] for op in ops)
        kinds = sum({1 << int(op["kind"]) for op in ops}) | ragged << 7 | cut << 8
        needed.add(kinds_for(kinds))
        products = ops[ops["kind"] == OpKind.CONV]
        chosen = variant("fp16", set(products["tile_rows"].tolist()), set(products["tile_columns"].tolist()))
        assert chosen in VARIANTS["fp16"]
    assert needed == ({KINDS["network"]} if batch == 1 else {KINDS["module"], KINDS["network"]})


@pytest.mark.parametrize("arch", [80, 90])
def test_memory_order(arch: int) -> None:
    """Polls are volatile, a fence acquires what they saw, and the tile's stores are behind a barrier when it is
    released. The last block has acquired what the others did before it clears the state."""
    ptx: str = compile_walk("fp16", VARIANTS["fp16"][0], KINDS["module"], arch).asm["ptx"]
    assert re.search(r"ld\.volatile\.global", ptx)
    fences = [m.start() for m in re.finditer(r"fence\.acq_rel\.gpu", ptx)]
    releases = [m.start() for m in re.finditer(r"atom\.global\S*\.release\b", ptx)]
    last = [m.start() for m in re.finditer(r"atom\.global\S*\.acq_rel\.add\b", ptx)]
    stores = [m.start() for m in re.finditer(r"\bst\.global", ptx)]
    assert len(fences) == len(releases) == len(last) == 1
    tile = [s for s in stores if s < releases[0]]
    cleared = [s for s in stores if s > last[0]]
    assert fences[0] < min(tile) and releases[0] < last[0]
    assert len(cleared) >= 3 and len(tile) + len(cleared) == len(stores)  # ticket, blocks, counters
    assert "bar.sync" in ptx[fences[0] : min(tile)]
    assert "bar.sync" in ptx[max(tile) : releases[0]]


@pytest.mark.parametrize("arch", [80, 90])
def test_memory_order_of_parts(arch: int) -> None:
    """A part's sums are behind a barrier when it arrives, which releases and acquires; the last one's loads of all
    parts are behind a fence of all threads and a barrier, and ordinary ones."""
    ptx: str = compile_walk("fp16", having("parts"), KINDS["parts"], arch).asm["ptx"]
    adds = [m.start() for m in re.finditer(r"atom\.global\S*\.acq_rel\.add\b", ptx)]
    fences = [m.start() for m in re.finditer(r"fence\.acq_rel\.gpu", ptx)]
    arrivals = adds[:-1]  # the last one is the launch's end
    assert len(arrivals) == len(fences) - 1 == 4  # of each size of tile
    for arrival in arrivals:
        stores = [m.start() for m in re.finditer(r"\bst\.global", ptx[:arrival])]
        assert "bar.sync" in ptx[stores[-1] : arrival]
        fence = min(place for place in fences if place > arrival)
        load = re.search(r"\bld\.global\S*", ptx[fence:])
        assert load is not None and "nc" not in load[0].split(".")
        assert "bar.sync" in ptx[fence : fence + load.start()]


@pytest.mark.parametrize("kinds", KINDS)
def test_a_launch_waits_for_the_one_before_it_first(kinds: str) -> None:
    """Programmatic dependent launch: before anything in memory is read or written."""
    for arch in (80, 90):
        ptx: str = compile_walk("fp16", having(kinds), KINDS[kinds], arch).asm["ptx"]
        waits = [m.start() for m in re.finditer(r"griddepcontrol\.wait", ptx)]
        assert len(waits) == (arch >= DEPENDENT_FROM)
        memory = re.search(r"\b(ld|st|atom|red|cp|prefetch)\.\S*global", ptx)
        assert memory is not None
        if waits:
            assert waits[0] < memory.start()


@pytest.mark.parametrize("arch", [80, 90])
def test_what_a_task_needs_of_the_tables_is_there_before_it_waits(arch: int) -> None:
    """And its weights are asked for."""
    ptx: str = compile_walk("fp16", VARIANTS["fp16"][0], KINDS["module"], arch).asm["ptx"]
    (poll, *_) = re.finditer(r"ld\.volatile\.global", ptx)
    fetch = [m.start() for m in re.finditer(r"prefetch\.global\.L2", ptx)]
    assert fetch and max(fetch) < poll.start()
    words = [m.start() for m in re.finditer(r"\bld\.global\.b32", ptx)]
    begin = ptx.index(".entry")
    before = sum(begin < place < poll.start() for place in words)
    assert before > 25  # of the task's record and its op's


@pytest.mark.parametrize("arch", [80, 90])
def test_the_folded_stem_is_pipelined(arch: int) -> None:
    """Its runs are padded to 8 bytes, so they are copied asynchronously, as the other operand is."""
    stem = 1 << OpKind.CONV | 1 << 7
    plain, ragged = (
        re.findall(r"cp\.async\.c[ag]\.shared\.global .*?, (\w+)[,;]", compile_walk(
            "fp16", VARIANTS["fp16"][0], kinds, arch
        ).asm["ptx"])
        for kinds in (1 << OpKind.CONV, stem)
    )  # fmt: skip
    stages = VARIANTS["fp16"][0].stages
    assert len(ragged) - len(plain) >= 2 * stages
    assert {int(size, 0) for size in ragged} <= {8, 16}


@pytest.mark.parametrize("tile", [(16, 16), (64, 128), (16, 64)])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_tiles_without_a_tuned_variant_compile(dtype: str, tile: tuple[int, int]) -> None:
    chosen = variant(dtype, tile[:1], tile[1:])
    assert chosen not in VARIANTS[dtype]
    found = read(dtype, chosen, "module", 90)
    assert found.read_only_loads == found.unsettled == 0
    if dtype != "fp32":
        assert found.spills == found.stack == 0


def test_spills_are_seen() -> None:
    """The measure can fail: sums of 128 x 128 alone take all registers of four warps."""
    cramped = Variant(rows=(128,), columns=(128,), block_depth=32, stages=3, warps=4)
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
    assert machine_code.PARAMETERS[:-2] == tuple(types[n in walk.NUMBERS] for n in plain)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    header, line = machine_code.render(iter([read("fp16", VARIANTS["fp16"][0], "module", 90)]))
    assert header.split()[:5] == ["arch", "dtype", "kernel", "kinds", "tile"]
    assert line.split()[:5] == ["sm_90", "fp16", "walk", "module", "64x64x64"] and "wgmma" in line


def test_the_table_holds_what_the_archive_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; nothing is compiled here."""
    for compiler in ("compile_walk", "compile_copy", "compile_module"):
        monkeypatch.setattr(machine_code, compiler, lambda *_: None)
    monkeypatch.setattr(machine_code, "inspect", lambda _, *row: row[:4])
    names = {bits: name for name, bits in KINDS.items()}
    shipped = [
        (arch, dtype, "copy_output", "-") if each is None else (arch, dtype, "walk", names[kinds])
        for dtype, each, kinds, arch in archive.jobs()
    ]
    shipped += [(arch, dtype, "module", name) for dtype, name, arch in archive.module_jobs()]
    assert sorted(machine_code.table()) == sorted(shipped)


def test_rows_of_the_other_kernels() -> None:
    copied = machine_code.read_copy("bf16", 90)
    assert (copied.kernel, copied.tile, copied.tensor) == ("copy_output", "64x64", "none")
    assert copied.spills == copied.stack == 0 and copied.parameters == archive.COPY_PARAMETERS
    module = machine_code.read_module("fp16", sizes_of("5b"), 90, "5b")
    assert (module.kernel, module.kinds) == ("module", "5b") and module.bulk_copies > 0


def test_interpreted_kernels_have_no_machine_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from inception_engine.cli import main

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert main(["kernels", "--table"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("inception: error: TRITON_INTERPRET") and err.count("\n") == 1
