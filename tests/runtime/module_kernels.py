"""Records of the kernel `module` in an archive made by hand (archives.py), from the numbered list of the format.

Its boxes are those of the kernel's description: 128 pixels by 64 channels, 64 columns by 64 of K; for a window a box of
whole lines, and the widest step of K that divides the channels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FP16, BF16 = 2, 3
RECORD = struct.Struct("<22IQ64s32sQQ288s16x")
NEVER = 2**64 - 1
_MAP = [(128, *(4,) * rank, *(8,) * rank) for rank in (2, 2, 4, 4, 2, 2, 2, 2, 2)]
PARAMS = (*(size for each in _MAP for size in each), *(8,) * 7, 4, 8, 8)
TYPES = {FP16: 6, BF16: 9}  # CUtensorMapDataType
SWIZZLES = {64: 3, 32: 2, 16: 1}  # CUtensorMapSwizzle by the elements that a line of a box has

Map = tuple[int, int, tuple[int, ...]]  # type, swizzle, box


@dataclass(frozen=True)
class ModuleKernel:
    """One ModuleRecord and its code. ``widths``: 1x1, 3x3 reduce, 3x3, third reduce, third, projection."""

    height: int
    width: int
    channels: int
    widths: tuple[int, int, int, int, int, int]
    reduced: int = 0  # 0: as many as there are
    third: int = 5
    group: int = 2
    arch: int = 90
    dtype: int = FP16
    form: int = 1
    first: int = 5
    second: int = 7
    threads: int = 256
    shared: int = 98304
    registers: int = 96
    from_pixels: int = NEVER
    params: tuple[int, ...] = PARAMS
    name: str = "special"
    maps: tuple[Map, ...] = ()  # empty: as described above
    coded_maps: tuple[Map, ...] = ()  # what the machine code wants; empty: the same

    def described(self) -> tuple[Map, ...]:
        if self.maps:
            return self.maps
        columns = next(2**n for n in range(8) if 2**n >= self.width)
        lines = max(n for n in (1, 2, 4, 8) if self.height % n == 0 and n * columns <= 128)
        box = columns, lines, 128 // columns // lines
        three, third = (next(n for n in (64, 32, 16) if self.widths[i] % n == 0) for i in (1, 3))
        boxes = (
            (64, 128),
            (64, 128),
            (three, *box),
            (third, *box),
            *((n, 64) for n in (64, 64, three, third, 64)),
        )
        return tuple((TYPES[self.dtype], SWIZZLES[each[0]], each) for each in boxes)

    def numbers(self) -> tuple[int, ...]:
        reduced = self.reduced or self.widths[1] + self.widths[3]
        return (
            self.height, self.width, self.channels, *self.widths, reduced, self.third, self.group, self.first,
            self.second,
        )  # fmt: skip

    def record(self, offset: int, size: int) -> bytes:
        maps = b"".join(
            struct.pack("<8I", len(box), kind, swizzle, *(*box, 0, 0, 0, 0)[:5])
            for kind, swizzle, box in self.described()
        )
        words = self.form, self.arch, self.dtype, *self.numbers()
        counts = self.threads, self.shared, self.registers, len(self.params), 0
        return RECORD.pack(
            *words, *counts, self.from_pixels, bytes(self.params), self.name.encode(), offset, size, maps
        )

    def text(self) -> bytes:
        """What the driver's double reads."""
        maps = [
            number
            for kind, swizzle, box in self.coded_maps or self.described()
            for number in (kind, swizzle, *(*box, 0, 0)[:4])
        ]
        numbers = self.dtype, *self.numbers(), self.threads, self.shared, self.registers, *maps, *self.params
        form = {1: "cubin", 2: "ptx"}[self.form]
        lines = "inception driver double", f"code {form} {self.arch}"
        return (
            "\n".join((*lines, f"entry {self.name} module {' '.join(map(str, numbers))}")).encode() + b"\n\0"
        )
