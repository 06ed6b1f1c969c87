"""What the kernels become on each GPU generation: compiled and read without a GPU.

Triton compiles for any GPU and brings NVIDIA's disassembler along, so registers, spills and instructions can be looked
at anywhere. What the kernels' correctness rests on (no read-only loads of the arena, the parameter list) and what their
speed rests on (tensor cores, asynchronous copies, no spills) is asserted by the tests.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import triton
from inception_engine.kernels import shipped
from inception_engine.kernels.copy_output import BLOCK, copy_output
from inception_engine.kernels.copy_output import NUMBERS as COPY_NUMBERS
from inception_engine.kernels.module import module
from inception_engine.kernels.sizes import Sizes
from inception_engine.kernels.variants import DEPENDENT_FROM, KINDS, VARIANTS, Variant
from inception_engine.kernels.walk import NUMBERS, walk
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.runtime.jit import JITFunction

# Compute capabilities: A100; A10 and RTX 30; L4, L40 and RTX 40; H100 and H200; B200; RTX 50 and RTX PRO.
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
SPINS = 1 << 24
_POINTERS = ("tasks", "waits", "ops", "buffers", "weights", "arena", "image", "state", "p_ticket", "result")
_UNALIGNED = ("image", "result")  # a caller's
# What a driver passes: the arguments, and two pointers to scratch memory that Triton adds (null: walk uses none).
PARAMETERS = ("u64",) * len(_POINTERS) + ("u32",) * len(NUMBERS) + ("u64", "u64")


@dataclass(frozen=True, kw_only=True)
class MachineCode:
    """One compiled kernel: ``walk`` for ``kinds``, a name in KINDS; ``module``, whose ``kinds`` is a name in shipped.py
    or "-"; ``copy_output``.

    ``registers`` and ``stack`` (bytes) of a thread; ``spills``: loads and stores of local memory; ``shared``: bytes of
    a block. ``tensor``: number and name of the tensor cores' instructions, or "none". ``copies``: asynchronous ones, of
    which ``wide_copies`` take 16 bytes a thread; ``bulk_copies``: by TMA. ``wide_loads``, ``wide_stores``: of 16 bytes.
    ``unsettled``: see the function. ``read_only_loads``: through the cache that does not see other blocks' stores.
    ``parameters``: PTX types of the entry's.
    """

    arch: str
    dtype: str
    kernel: str
    kinds: str
    tile: str
    registers: int
    stack: int
    spills: int
    shared: int
    tensor: str
    unsettled: int
    copies: int
    wide_copies: int
    bulk_copies: int
    wide_loads: int
    wide_stores: int
    read_only_loads: int
    parameters: tuple[str, ...]


def compile_walk(dtype: str, variant: Variant, kinds: int, arch: int) -> CompiledKernel:
    """``walk`` for compute capability ``arch``. ``dtype``: "fp16", "bf16" or "fp32"; ``kinds``: KINDS of ``walk``.

    Raises RuntimeError where Triton was told to interpret.
    """
    if not isinstance(walk, JITFunction):
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted, not compiled")
    types = dict.fromkeys(_POINTERS, "*i32") | dict.fromkeys(NUMBERS, "i32")
    types |= {"weights": f"*{dtype}", "arena": f"*{dtype}", "image": "*u8", "result": "*fp32"}
    constants = {"KINDS": kinds, "LOOP": True, "SPINS": SPINS, "SOURCE": -1, **variant.constants}
    constants["DEPENDENT"] = arch >= DEPENDENT_FROM
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(_POINTERS) if name not in _UNALIGNED}
    source = ASTSource(walk, types | dict.fromkeys(constants, "constexpr"), constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=variant.options(kinds, arch))


def table() -> Iterator[MachineCode]:
    """All that the archive holds; seconds each, unless Triton's cache has it."""
    for dtype, variants in VARIANTS.items():
        for variant in variants:
            for kinds in variant.kinds:
                for arch in ARCHITECTURES:
                    yield read(dtype, variant, kinds, arch)
    for dtype in VARIANTS:
        for arch in ARCHITECTURES:
            yield read_copy(dtype, arch)
    for dtype in shipped.DTYPES:
        for name in shipped.MODULES:
            for arch in shipped.ARCHITECTURES:
                yield read_module(dtype, shipped.sizes_of(name), arch, name)


def read(dtype: str, variant: Variant, kinds: str, arch: int) -> MachineCode:
    """Compile ``walk`` for a name in KINDS and read its PTX and SASS. Raises what ``compile_walk`` raises."""
    sides = variant.rows, variant.columns, (variant.block_depth,)
    tile = "x".join("/".join(map(str, numbers)) for numbers in sides)
    return inspect(compile_walk(dtype, variant, KINDS[kinds], arch), arch, dtype, "walk", kinds, tile)


def compile_copy(dtype: str, arch: int) -> CompiledKernel:
    """``copy_output``; pointers may have any alignment."""
    types = {"source": f"*{dtype}", "result": "*fp32"} | dict.fromkeys(COPY_NUMBERS, "i32")
    return triton.compile(ASTSource(copy_output, types, {}), target=GPUTarget("cuda", arch, 32))


def read_copy(dtype: str, arch: int) -> MachineCode:
    """Compile ``copy_output`` and read its PTX and SASS. Raises RuntimeError."""
    return inspect(compile_copy(dtype, arch), arch, dtype, "copy_output", "-", f"{BLOCK}x{BLOCK}")


def compile_module(dtype: str, sizes: Sizes, arch: int) -> CompiledKernel:
    """``module`` for compute capability ``arch``, 90 or newer. ``dtype``: "fp16" or "bf16". Raises RuntimeError."""
    if not isinstance(module, JITFunction):
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted, not compiled")
    sizes = sizes.on(arch)
    types = {name: f"tensordesc<{dtype}{block}>" for name, block in sizes.blocks.items()}
    pointers = {
        "x": dtype,
        "r": dtype,
        "p": dtype,
        "out": dtype,
        "bias": "fp32",
        "state": "i32",
        "p_ticket": "i32",
    }
    types |= {name: f"*{element}" for name, element in pointers.items()} | {"batch": "i32"}
    constants = {"LOOP": True, "SPINS": SPINS, **sizes.constants()}
    aligned = {(len(sizes.blocks) + i,): [["tt.divisibility", 16]] for i in range(len(pointers))}
    source = ASTSource(module, types | dict.fromkeys(constants, "constexpr"), constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=sizes.options)


def read_module(dtype: str, sizes: Sizes, arch: int, name: str = "-") -> MachineCode:
    """Compile ``module`` and read its PTX and SASS. Raises what ``compile_module`` raises."""
    tile = f"128x{sizes.block_columns}x64"
    return inspect(compile_module(dtype, sizes, arch), arch, dtype, "module", name, tile)


def inspect(
    compiled: CompiledKernel, arch: int, dtype: str, kernel: str, kinds: str, tile: str
) -> MachineCode:
    """What a kernel's PTX and SASS hold. Raises RuntimeError if they cannot be read."""
    ptx: str = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        registers, stack = usage(cubin)
        sass = _output(knobs.nvidia.nvdisasm.path, "-c", str(cubin))
    if "EXIT" not in sass:
        raise RuntimeError(f"the machine code for sm_{arch} cannot be read")
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global .*?, (\w+)[,;]", ptx)
    return MachineCode(
        arch=f"sm_{arch}",
        dtype=dtype,
        kernel=kernel,
        kinds=kinds,
        tile=tile,
        registers=registers,
        stack=stack,
        spills=_count(r"\b(LDL|STL)\b", sass),
        shared=compiled.metadata.shared,
        tensor=_tensor(ptx),
        unsettled=unsettled(ptx),
        copies=len(copies),
        wide_copies=sum(int(size, 0) == 16 for size in copies),
        bulk_copies=_count(r"\bcp\.async\.bulk\.tensor\b", ptx),
        wide_loads=_count(r"\bLDG\.E\.128\b", sass),
        wide_stores=_count(r"\bSTG\.E\.128\b", sass),
        read_only_loads=_count(r"\bld\.global\S*\.nc\b", ptx) + _count(r"\bLDG\S*\.CONSTANT\b", sass),
        parameters=_parameters(ptx),
    )


def resources(kernel: CompiledKernel) -> tuple[int, int, tuple[str, ...]]:
    """Registers and stack (bytes; 0 where nothing spills) of a thread, and parameters: what takes no disassembling.
    Raises RuntimeError if they cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(kernel.asm["cubin"])
        return *usage(cubin), _parameters(kernel.asm["ptx"])


def unsettled(ptx: str) -> int:
    """How many of wgmma's products may still be reading registers when the code behind them goes on: ptxas gives
    such a register away (``record.settled``). Products of operands in shared memory may go on."""
    events = re.findall(r"wgmma\.mma_async\S+ \{[^}]*\}, (\{)?|wgmma\.wait_group\S+ (\d)", ptx)
    reading = found = 0
    for register, pending in events:
        if register:
            reading += 1
        elif pending:
            found += reading if pending != "0" else 0
            reading = 0
    return found + reading


def usage(cubin: Path) -> tuple[int, int]:
    """Registers and stack of the one kernel in a file. Raises RuntimeError."""
    found = re.search(
        r"REG:(\d+) STACK:(\d+)", _output(knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin))
    )
    if found is None:
        raise RuntimeError("the machine code's registers cannot be read")
    return int(found[1]), int(found[2])


def _parameters(ptx: str) -> tuple[str, ...]:
    """PTX types of the entry's parameters; of arrays with their length, as in "b8[128]"."""
    entry = re.search(r"\.entry \w+\((.*?)\)", ptx, re.DOTALL)
    if entry is None:
        raise RuntimeError("the PTX has no entry")
    found = re.findall(r"\.param (?:\.align \d+ )?\.(\w+)[^,\[]*(\[\d+\])?", entry[1])
    return tuple(kind + length for kind, length in found)


def _tensor(ptx: str) -> str:
    for name in ("wgmma.mma_async", "tcgen05.mma", "mma.sync"):
        if number := _count(rf"\b{re.escape(name)}\b", ptx):
            return f"{number} {name}"
    return "none"


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


_WIDTHS = {"tensor": 18, "kernel": 11, "tile": 14}


def render(rows: Iterator[MachineCode]) -> Iterator[str]:
    """Lines of a table, each as soon as its row is there; parameter lists are left out."""
    columns = [field.name for field in fields(MachineCode) if field.name != "parameters"]
    widths = {name: max(len(name), _WIDTHS.get(name, 8)) for name in columns}
    yield "  ".join(f"{name.replace('_', ' '):<{widths[name]}}" for name in columns).rstrip()
    for row in rows:
        yield "  ".join(f"{getattr(row, name):<{widths[name]}}" for name in columns).rstrip()
