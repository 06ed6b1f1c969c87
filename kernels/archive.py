"""The kernel archive: `walk`, `copy_output` and `module`, compiled ahead of time, in one file beside the C library.

    python kernels inception_engine.kernels

The format stands in runtime/cuda/archive.h. The package's build runs this; it needs Triton and no GPU. A kernel that is
not what the runtime launches (other parameters, scratch memory, another block) ends the build. The same sources make
the same bytes, wherever they lie, but for `module` on 10.0: of the same PTX ptxas makes other machine code at times.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import xxhash
from inception_engine.kernels import module_record, shipped
from inception_engine.kernels.copy_output import NUMBERS
from inception_engine.kernels.machine_code import (
    ARCHITECTURES,
    PARAMETERS,
    compile_copy,
    compile_walk,
    resources,
)
from inception_engine.kernels.module_record import ModuleKernel
from inception_engine.kernels.variants import DEPENDENT_FROM, KINDS, VARIANTS, Variant
from triton.compiler import CompiledKernel

MAGIC, VERSION, ALIGNMENT = b"INCKERN\n", 2, 64
DTYPES = {"fp32": 1, "fp16": 2, "bf16": 3}  # as in plan_format.h
WALK, COPY_OUTPUT = 1, 2
CUBIN, PTX = 1, 2
WAITS_ITSELF = 1  # a flag: for the launch before it
# PTX of newer generations holds what later ones may lack; this one is translated by the driver for all that follow.
PORTABLE = 89
COPY_PARAMETERS = ("u64", "u64", *("u32",) * len(NUMBERS), "u64", "u64")
_HEADER = struct.Struct("<8sIIQQI28x")
_RECORD = struct.Struct("<12I32s32sQQ64x")
_SIZES = {"u64": 8, "u32": 4}


class ArchiveError(ValueError):
    """The compiler made something that the runtime cannot launch; or a file is no archive. The message is one line."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A KernelRecord with its code; ``rows``, ``columns``: sums of tile sides. ``params``: bytes of each parameter."""

    kernel: int
    form: int
    arch: int
    dtype: int
    kinds: int = 0
    rows: int = 0
    columns: int = 0
    threads: int
    shared: int
    registers: int
    params: tuple[int, ...]
    flags: int = 0
    name: str
    code: bytes


Job = tuple[str, Variant | None, int, int]  # dtype, variant or copy_output, kinds, architecture
ModuleJob = tuple[str, str, int]  # dtype, name of the module, architecture


def jobs(dtypes: Sequence[str] = tuple(DTYPES), architectures: Sequence[int] = ARCHITECTURES) -> list[Job]:
    """All that is compiled, in the order of preference: the first that fits a launch is taken.

    Newer generations first: machine code for 8.0 runs on 8.9, too.
    """
    newest_first = sorted(architectures, reverse=True)
    return [
        *(
            (dtype, variant, KINDS[name], arch)
            for dtype in dtypes
            for variant in VARIANTS[dtype]
            for name in variant.kinds
            for arch in newest_first
        ),
        *((dtype, None, 0, arch) for dtype in dtypes for arch in newest_first),
    ]


def module_jobs() -> list[ModuleJob]:
    return [
        (dtype, name, arch)
        for arch in reversed(shipped.ARCHITECTURES)
        for dtype in shipped.DTYPES
        for name in shipped.MODULES
    ]


def build(job: Job) -> list[Kernel]:
    """The cubin, and of one architecture the PTX. Raises ArchiveError."""
    dtype, variant, kinds, arch = job
    sides = (variant.rows, variant.columns) if variant else ()
    tile = "x".join("/".join(map(str, numbers)) for numbers in sides)
    what = f"walk {dtype} {tile} {kinds:#04x} sm_{arch}" if variant else f"copy_output {dtype} sm_{arch}"
    parameters = PARAMETERS if variant else COPY_PARAMETERS
    try:
        with triton.knobs.compilation.scope():
            # Line numbers are longer than the code, and name this machine's folders.
            triton.knobs.compilation.disable_line_info = True
            compiled = compile_walk(dtype, variant, kinds, arch) if variant else compile_copy(dtype, arch)
        registers, stack, found = resources(compiled)
    except Exception as error:  # the compiler's are many, of several lines, and not all can leave a process
        raise ArchiveError(f"{what}: {' '.join(str(error).split())}") from None
    if fault := _fault(compiled, found, parameters, stack if dtype != "fp32" else 0):
        raise ArchiveError(f"{what}: {fault}")
    common: dict[str, Any] = {
        "kernel": COPY_OUTPUT if variant is None else WALK,
        "arch": arch,
        "dtype": DTYPES[dtype],
        "kinds": kinds,
        "rows": sum(variant.rows) if variant else 0,
        "columns": sum(variant.columns) if variant else 0,
        "threads": 32 * compiled.metadata.num_warps,
        "shared": compiled.metadata.shared,
        "params": tuple(_SIZES[kind] for kind in parameters),
        "flags": WAITS_ITSELF if variant and arch >= DEPENDENT_FROM else 0,
        "name": compiled.metadata.name,
    }
    kernels = [Kernel(form=CUBIN, registers=registers, code=compiled.asm["cubin"], **common)]
    if arch == PORTABLE:
        kernels.append(Kernel(form=PTX, registers=0, code=compiled.asm["ptx"].encode() + b"\0", **common))
    return kernels


def build_module(job: ModuleJob) -> ModuleKernel:
    """``module`` for one of the modules that are shipped. Raises ArchiveError."""
    dtype, name, arch = job
    try:
        return module_record.build(dtype, shipped.sizes_of(name), arch)
    except Exception as error:  # as in ``build``
        raise ArchiveError(f"module {dtype} {name} sm_{arch}: {' '.join(str(error).split())}") from None


def _fault(compiled: CompiledKernel, found: tuple[str, ...], parameters: tuple[str, ...], stack: int) -> str:
    """What the runtime cannot launch, or nobody wants; or nothing."""
    metadata, ptx = compiled.metadata, compiled.asm["ptx"]
    threads = re.search(r"\.reqntid (\d+)", ptx)
    if f".entry {metadata.name}(" not in ptx:
        return "no such entry"
    if found != parameters:
        return f"parameters {' '.join(found)}, not {' '.join(parameters)}"
    if threads is None or int(threads[1]) != 32 * metadata.num_warps or metadata.num_ctas != 1:
        return f"a block is not {metadata.num_warps} warps"
    if ("griddepcontrol.wait" in ptx) != (
        parameters == PARAMETERS and metadata.target.arch >= DEPENDENT_FROM
    ):
        return "it waits for the launch before it where it should not, or does not where it should"
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        return "it wants scratch memory, which the runtime does not give"
    if stack:
        return f"{stack} bytes of stack: it spills registers"
    if metadata.target.arch == PORTABLE and f".target sm_{PORTABLE}\n" not in ptx:
        return "its PTX is for one generation only"
    return ""


def packed(kernels: Sequence[Kernel], modules: Sequence[ModuleKernel] = ()) -> bytes:
    """The file."""
    begin = _HEADER.size + _RECORD.size * len(kernels) + module_record.RECORD.size * len(modules)
    records, codes = b"", b""
    for kernel in kernels:
        codes += bytes(-(begin + len(codes)) % ALIGNMENT)
        numbers = (
            kernel.kernel,
            kernel.form,
            kernel.arch,
            kernel.dtype,
            kernel.kinds,
            kernel.rows,
            kernel.columns,
        )
        counts = kernel.threads, kernel.shared, kernel.registers, len(kernel.params), kernel.flags
        place = begin + len(codes), len(kernel.code)
        records += _RECORD.pack(*numbers, *counts, bytes(kernel.params), kernel.name.encode(), *place)
        codes += kernel.code
    for module in modules:
        codes += bytes(-(begin + len(codes)) % ALIGNMENT)
        records += module.record(begin + len(codes))
        codes += module.code
    body = records + codes
    hashed = xxhash.xxh64(body).intdigest()
    size = _HEADER.size + len(body)
    return _HEADER.pack(MAGIC, VERSION, len(kernels), size, hashed, len(modules)) + body


def unpacked(content: bytes) -> tuple[list[Kernel], list[ModuleKernel]]:
    """The kernels of a file, for looking at it. Raises ArchiveError."""
    if len(content) < _HEADER.size or not content.startswith(MAGIC):
        raise ArchiveError("not a kernel archive")
    _, version, count, size, hashed, modules = _HEADER.unpack_from(content)
    if (version, size) != (VERSION, len(content)) or xxhash.xxh64(
        content[_HEADER.size :]
    ).intdigest() != hashed:
        raise ArchiveError("a damaged kernel archive, or one of another version")
    kernels = []
    for i in range(count):
        *numbers, params, name, offset, length = _RECORD.unpack_from(content, _HEADER.size + i * _RECORD.size)
        kernel, form, arch, dtype, kinds, rows, columns, threads, shared, registers, number, flags = numbers
        kernels.append(
            Kernel(
                kernel=kernel,
                form=form,
                arch=arch,
                dtype=dtype,
                kinds=kinds,
                rows=rows,
                columns=columns,
                threads=threads,
                shared=shared,
                registers=registers,
                params=tuple(params[:number]),
                flags=flags,
                name=name.rstrip(b"\0").decode(),
                code=content[offset : offset + length],
            )
        )
    begin = _HEADER.size + count * _RECORD.size
    places = range(begin, begin + modules * module_record.RECORD.size, module_record.RECORD.size)
    return kernels, [module_record.unpacked(content, place) for place in places]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python kernels", description="Compile the kernels for all GPU generations into one file."
    )
    parser.add_argument("file", type=Path)
    path: Path = parser.parse_args(arguments).file
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        # A process for each core: what takes the time is the compiler's own code. Forked, they find this package as it
        # was found here.
        with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
            building, building_modules = pool.map(build, jobs()), pool.map(build_module, module_jobs())
            built = [kernel for kernels in building for kernel in kernels]
            modules = list(building_modules)
        partial.write_bytes(packed(sorted(built, key=lambda kernel: kernel.form), modules))  # PTX last
        partial.replace(path)
    except (ArchiveError, RuntimeError, OSError) as error:
        partial.unlink(missing_ok=True)
        print(f"kernel archive: error: {error}", file=sys.stderr)
        return 1
    return 0
