"""Kernel archives built by hand, with code that the driver's double understands.

Written from the numbered list of the format and sharing nothing with the project's writer, so that a misreading of it
shows up as a disagreement. ``Archive.to_bytes`` makes the file; change its fields, or its bytes, for a broken one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from tests.runtime.module_kernels import ModuleKernel

MAGIC = b"INCKERN\n"
WALK, COPY_OUTPUT = 1, 2
CUBIN, PTX = 1, 2
FP32, FP16, BF16 = 1, 2, 3
EXPORTS, RAGGED, PARTS = 1 << 0, 1 << 7, 1 << 8
ALL_KINDS = 0b1_1111_1111
INPUT, CONV, MAX_POOL, AVERAGE_POOL, LRN, SOFTMAX = (1 << kind for kind in range(1, 7))
WALK_PARAMS = (8,) * 10 + (4,) * 8 + (8,) * 2
COPY_PARAMS = (8, 8, 4, 4, 4, 4, 8, 8)
PROGRAMMATIC = 1

HEADER = struct.Struct("<8sIIQQI28x")
RECORD = struct.Struct("<12I32s32sQQ64x")
_NAMES = {WALK: "walk", COPY_OUTPUT: "copy_output"}
_FORMS = {CUBIN: "cubin", PTX: "ptx"}


@dataclass(frozen=True)
class Kernel:
    """One KernelRecord and its code. ``rows``, ``columns``: sizes, powers of two. ``shared``: bytes."""

    kernel: int = WALK
    form: int = CUBIN
    arch: int = 90
    dtype: int = FP16
    kinds: int = ALL_KINDS
    rows: tuple[int, ...] = (32, 64)
    columns: tuple[int, ...] = (32, 64)
    threads: int = 256
    shared: int = 24576
    registers: int = 128
    params: tuple[int, ...] = WALK_PARAMS
    flags: int = 0
    name: str = "walk"
    code: bytes = b""  # empty: what the double reads

    def words(self) -> tuple[int, ...]:
        return (
            self.kernel, self.form, self.arch, self.dtype, self.kinds, sum(self.rows), sum(self.columns), self.threads,
            self.shared, self.registers, len(self.params), self.flags,
        )  # fmt: skip

    def text(self) -> bytes:
        """What stands for the machine code: all that the double must know of the kernel."""
        if self.code:
            return self.code
        numbers = (
            self.dtype, self.kinds, sum(self.rows), sum(self.columns), self.threads, self.shared, self.registers,
            *self.params,
        )  # fmt: skip
        entry = " ".join(map(str, numbers))
        lines = [
            "inception driver double",
            f"code {_FORMS[self.form]} {self.arch}",
            f"entry {self.name} {_NAMES[self.kernel]} {entry}",
        ]
        return "\n".join(lines).encode() + b"\n\0"


def copy_output(walk: Kernel) -> Kernel:
    """The copy_output that belongs to a walk."""
    return replace(
        walk, kernel=COPY_OUTPUT, kinds=0, rows=(), columns=(), threads=128, shared=0, params=COPY_PARAMS, flags=0,
        name="copy_output", code=b"",
    )  # fmt: skip


@dataclass
class Archive:
    kernels: Sequence[Kernel]
    modules: Sequence[ModuleKernel] = ()
    magic: bytes = MAGIC
    version: int = 2
    overrides: dict[int, bytes] = field(
        default_factory=dict
    )  # offset in the file -> bytes, before it is hashed

    def to_bytes(self) -> bytes:
        offset = HEADER.size + RECORD.size * len(self.kernels) + 512 * len(self.modules)
        records, codes = b"", b""
        for kernel in self.kernels:
            gap = -(offset + len(codes)) % 64
            codes += bytes(gap)
            code = kernel.text()
            params = bytes(kernel.params)
            records += RECORD.pack(
                *kernel.words(), params, kernel.name.encode(), offset + len(codes), len(code)
            )
            codes += code
        for module in self.modules:
            codes += bytes(-(offset + len(codes)) % 64)
            code = module.text()
            records += module.record(offset + len(codes), len(code))
            codes += code
        body = bytearray(records + codes)
        for at, patch in self.overrides.items():
            body[at - HEADER.size : at - HEADER.size + len(patch)] = patch
        size = HEADER.size + len(body)
        hashed = xxhash.xxh64(body).intdigest()
        header = HEADER.pack(self.magic, self.version, len(self.kernels), size, hashed, len(self.modules))
        return header + body

    def save(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path


def standard(
    dtypes: Iterable[int] = (FP32, FP16, BF16), modules: Sequence[ModuleKernel] = (), **options: object
) -> Archive:
    """One walk for everything and one copy_output for each dtype, and ``modules``."""
    kernels = []
    for dtype in dtypes:
        walk = replace(Kernel(dtype=dtype), **options)  # type: ignore[arg-type]
        kernels += [walk, copy_output(walk)]
    return Archive(kernels, modules)
