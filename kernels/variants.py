"""How ``walk`` is compiled: for a dtype, for the kinds and the tiles of a launch. Choices that change its speed and
none of its results; what was measured stands in README.md.

A plan says which tile each op has. The rest is chosen here, as data.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

# Bits of plan_format.h's kinds; bit 7: convolutions whose runs of channels are no whole panels (the folded stem); bit
# 0: storing the caller's result. Code that a launch does not need costs registers; a kernel for each need compilation.
KINDS = {
    "module": 1 << 2 | 1 << 3,  # CONV, MAX_POOL: what an Inception module holds
    "network": 0b11111111,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """``rows``, ``columns``: sides that its tiles may have. ``block_depth``: of a step of K. ``stages``: steps in
    flight.

    ``registers``: of a thread at most, in kernels that have all kinds; 0: as the compiler likes. Left alone it stays at
    128 before sm_90, for a second block on a multiprocessor, and spills three numbers.

    ``warps``: of a block. ``blocks_per_sm``: how many blocks a grid has for each multiprocessor; any number is right.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    block_depth: int
    stages: int
    warps: int
    registers: int = 0
    blocks_per_sm: int = 2

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

    def options(self, kinds: int) -> dict[str, int]:
        """Triton's compile options."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return (
            options | {"maxnreg": self.registers} if self.registers and kinds == KINDS["network"] else options
        )


# By dtype, the first that has all tiles of a launch is taken.
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "fp16": (Variant(rows=(32, 64), columns=(32, 64), block_depth=32, stages=4, warps=8, registers=136),),
    "bf16": (Variant(rows=(32, 64), columns=(32, 64), block_depth=32, stages=4, warps=8, registers=136),),
    "fp32": (Variant(rows=(32, 64), columns=(32, 64), block_depth=32, stages=3, warps=8),),
}


def variant(dtype: str, rows: Collection[int], columns: Collection[int]) -> Variant:
    """The variant for "fp16", "bf16" or "fp32" and tiles with these sides.

    Where none was tuned: 32 deep, two stages, four warps, which compile for any tile. Raises ValueError for tiles that
    ``walk`` cannot have: a side that is not 16, 32, 64 or 128.
    """
    for side in (*rows, *columns):
        if side not in (16, 32, 64, 128):
            tiles = f"{'/'.join(map(str, rows))} x {'/'.join(map(str, columns))}"
            raise ValueError(f"no kernel has tiles of {tiles}; sides are 16, 32, 64 or 128")
    for tuned in VARIANTS[dtype]:
        if {*rows} <= {*tuned.rows} and {*columns} <= {*tuned.columns}:
            return tuned
    return Variant(rows=tuple(rows), columns=tuple(columns), block_depth=32, stages=2, warps=4)


def kinds_for(kinds: int) -> int:
    """The smallest of KINDS that has all the bits of ``kinds``."""
    return next(bits for bits in KINDS.values() if not kinds & ~bits)
