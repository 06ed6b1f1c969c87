"""How ``walk`` is compiled: for a dtype, for the kinds and the tiles of a launch. Choices that change its speed and
none of its results; what was measured stands in README.md.

A plan says which tile each op has. The rest is chosen here, as data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

# Bits of plan_format.h's kinds; bit 7: convolutions whose runs of channels are no whole panels (the folded stem); bit
# 8: those whose K is cut into parts; bit 0: storing the caller's result. Code that a launch does not need costs
# registers; a kernel for each need compilation.
KINDS = {
    "module": 1 << 2 | 1 << 3,  # CONV, MAX_POOL: what an Inception module holds
    "network": 0b0_1111_1111,
    "parts": 0b1_1111_1111,
}


# From this compute capability on a launch may begin while the one before it ends.
DEPENDENT_FROM = 90


RUN_DEPTH = 32  # of a step of a folded stem, which does not cross from run to run


@dataclass(frozen=True, kw_only=True)
class Variant:
    """``rows``: sides of the blocks that tiles are computed in. ``columns``: sides that tiles may have.
    ``block_depth``: of a step of K. ``stages``: steps in flight. ``kinds``: names in KINDS that the archive has.

    ``registers``: by name in KINDS, of a thread at most, from each architecture on; without: as the compiler likes,
    which spills rather than take more than 128, for a second block on a multiprocessor.

    ``warps``: of a block. ``blocks_per_sm``: how many blocks a grid has for each multiprocessor; any number is right.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    block_depth: int
    stages: int
    warps: int
    kinds: tuple[str, ...] = ()
    registers: Mapping[str, Mapping[int, int]] = field(default_factory=dict, hash=False)
    blocks_per_sm: int = 2

    def block_rows(self, tile_rows: int) -> int:
        """Of a tile's blocks: the largest of ``rows`` that divides the tile. Raises ValueError where none does."""
        return max(side for side in self.rows if tile_rows % side == 0)

    @property
    def constants(self) -> dict[str, Any]:
        """walk's arguments that follow from it, by name."""
        return {
            "ROWS": sum(self.rows),
            "COLUMNS": sum(self.columns),
            "BK": self.block_depth,
            "STAGES": self.stages,
            "PRECISION": "ieee",
        }

    def options(self, kinds: int, arch: int) -> dict[str, int]:
        """Triton's compile options for compute capability ``arch`` (80 to 120)."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        name = next((name for name, bits in KINDS.items() if bits == kinds), "")
        known = [number for first, number in sorted(self.registers.get(name, {}).items()) if first <= arch]
        return options | {"maxnreg": known[-1]} if known else options


# For many tiles: 168 registers are three blocks on a multiprocessor of sm_90. sm_100 would spill, and has two.
_MANY = Variant(
    rows=(64,),
    columns=(64,),
    block_depth=64,
    stages=3,
    warps=4,
    kinds=("module", "network"),
    registers={name: {80: 168, 100: 192, 120: 168} for name in KINDS},
    blocks_per_sm=3,
)
_FEW = Variant(
    rows=(32, 64),
    columns=(32, 64),
    block_depth=64,
    stages=3,
    warps=4,
    kinds=("network",),
)
# K is cut for the sake of tensor cores, which float32 has not. Sums of parts beside all else spill with four warps.
_PARTS = dataclasses.replace(_FEW, warps=8, kinds=("parts",), blocks_per_sm=1)
# By dtype, the first that has all tiles of a launch is taken.
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "fp16": (_MANY, _FEW, _PARTS),
    "bf16": (_MANY, _FEW, _PARTS),
    "fp32": (
        Variant(
            rows=(32, 64),
            columns=(32, 64),
            block_depth=32,
            stages=3,
            warps=8,
            kinds=("module", "network"),
            registers={"network": {80: 128, 100: 144, 120: 128}},  # sm_100 would spill, and has one block
        ),
    ),
}


def variant(
    dtype: str, rows: Collection[int], columns: Collection[int], whole: Collection[int] = ()
) -> Variant:
    """The variant for "fp16", "bf16" or "fp32" and tiles with these sides. A tile is computed in blocks of the largest
    of the variant's ``rows`` that divides its own; those of ops whose K is cut, ``whole``, in one.

    Where none was tuned: 32 deep, two stages, four warps, which compile for any tile. Raises ValueError for tiles that
    ``walk`` cannot have: columns that are not 16, 32, 64 or 128, rows that are no multiple of 16, parts of other tiles.
    """
    blocks = {next((side for side in (128, 64, 32, 16) if row % side == 0), row) for row in rows}
    for side in (*blocks, *columns, *whole):
        if side not in (16, 32, 64, 128):
            tiles = f"{'/'.join(map(str, rows))} x {'/'.join(map(str, columns))}"
            raise ValueError(f"no kernel has tiles of {tiles}; sides are 16, 32, 64 or 128")
    for tuned in VARIANTS[dtype]:
        divided = all(any(row % side == 0 for side in tuned.rows) for row in rows)
        if divided and {*whole} <= {*tuned.rows} and {*columns} <= {*tuned.columns}:
            return tuned
    # Of small tiles ptxas takes 80 registers when it is not told a number, and spills.
    small = max(blocks) * max(columns) <= 32 * 32
    registers = {name: {80: 128} for name in KINDS} if small else {}
    return Variant(
        rows=tuple(sorted({*blocks, *whole})),
        columns=tuple(columns),
        block_depth=32,
        stages=2,
        warps=4,
        registers=registers,
    )


def kinds_for(kinds: int) -> int:
    """The smallest of KINDS that has all the bits of ``kinds``."""
    return next(bits for bits in KINDS.values() if not kinds & ~bits)
