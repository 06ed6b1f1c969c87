"""How ``walk`` is compiled for a dtype and a tile: choices that change its speed and none of its results.

A plan says which tile each op has. The rest is chosen here, as data, with what was measured in README.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """``block_rows``, ``block_columns``: the plan's tile. ``block_depth``: of a step of K. ``stages``: steps in flight.

    ``warps``: of a block. ``blocks_per_sm``: how many blocks a grid has for each multiprocessor; any number is right.
    """

    block_rows: int
    block_columns: int
    block_depth: int
    stages: int
    warps: int
    blocks_per_sm: int = 2

    @property
    def options(self) -> dict[str, int]:
        """Triton's compile options."""
        return {"num_warps": self.warps, "num_stages": self.stages}


def _variant(rows: int, columns: int, depth: int, stages: int, warps: int) -> Variant:
    return Variant(block_rows=rows, block_columns=columns, block_depth=depth, stages=stages, warps=warps)


# fmt: off
VARIANTS: dict[tuple[str, int, int], Variant] = {
    ("fp16", 64, 64): _variant(64, 64, 32, stages=4, warps=8),
    ("bf16", 64, 64): _variant(64, 64, 32, stages=4, warps=8),
    ("fp32", 64, 64): _variant(64, 64, 32, stages=3, warps=8),
}
# fmt: on


def variant(dtype: str, rows: int, columns: int) -> Variant:
    """The variant for "fp16", "bf16" or "fp32" and tiles of ``rows`` x ``columns``.

    Where none was tuned: 32 deep, two stages, four warps, which compile for any tile. Raises ValueError for tiles that
    ``walk`` cannot have: less than 16 on a side or no power of two.
    """
    if min(rows, columns) < 16 or rows & (rows - 1) or columns & (columns - 1):
        raise ValueError(f"no kernel has tiles of {rows} x {columns}; sides are powers of two from 16 on")
    return VARIANTS.get((dtype, rows, columns)) or _variant(rows, columns, depth=32, stages=2, warps=4)
