"""Sizes: how ``module`` cuts an Inception module, and what it is called with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import triton
from triton.tools.tensor_descriptor import TensorDescriptor

GROUP = 32  # images; at 28 x 28 pixels, 20 to 30 MB of what they read and write


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """``widths``: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection; all, and ``channels``, are multiples of 16.
    ``reduced``: channels of both reduces without padding, or 0 if they have none. ``third``: kernel of the 5x5 branch.
    ``group``: images that are worked on together."""

    height: int
    width: int
    channels: int
    widths: tuple[int, int, int, int, int, int]
    reduced: int = 0
    third: int = 5
    group: int = GROUP
    block_columns: int = 64
    stages: int = 3
    warps: int = 4

    @property
    def options(self) -> dict[str, int]:
        """Triton's compile options; with so many registers ``blocks_per_sm`` fit."""
        registers = 168 if self.warps == 4 else 128
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": registers}

    @property
    def blocks_per_sm(self) -> int:
        """As many as shared memory allows: 74 or 98 kB."""
        return 3 if self.warps == 4 else 2

    def on(self, arch: int) -> Sizes:
        """For compute capability ``arch``: from sm_100 on four warps spill."""
        return dataclasses.replace(self, stages=4, warps=8) if arch >= 100 else self

    @cached_property
    def box(self) -> tuple[int, int, int]:
        """Images, lines, columns of a tile of 128 pixels of a convolution: whole lines, which divide the image.

        Lines are rounded up to a power of two: 28, 14 and 7 pixels waste an eighth, and need no mask when they are
        read. Raises ValueError for lines of more than 128 pixels.
        """
        columns = triton.next_power_of_2(self.width)
        if columns > 128:
            raise ValueError(f"lines of {self.width} pixels; the kernel takes up to 128")
        lines = max(n for n in (1, 2, 4, 8) if self.height % n == 0 and n * columns <= 128)
        return 128 // columns // lines, lines, columns

    def constants(self) -> dict[str, Any]:
        n1, c3, n3, c5, n5, n_pool = self.widths
        sizes = {"H": self.height, "W": self.width, "C": self.channels, "C3": c3, "C5": c5}
        sizes["REDUCED"] = self.reduced or c3 + c5
        sizes |= {"N1": n1, "N3": n3, "N5": n5, "NP": n_pool, "THIRD": self.third, "GROUP": self.group}
        tile = {"BM": 128, "BN": self.block_columns, "BOX": self.box, "STAGES": self.stages}
        return sizes | tile | {"BK": 64, "BK3": _step(c3), "BK5": _step(c5)}

    @property
    def phases(self) -> tuple[int, int]:
        """Tickets of a group: of r and p, and of out."""
        n1, _, n3, _, n5, n_pool = (-(-width // self.block_columns) for width in self.widths)
        rows = -(-self.group * self.height * self.width // 128)
        columns = -(-(self.widths[1] + self.widths[3]) // self.block_columns)
        columns += -(-self.channels // (self.block_columns // 2))
        boxes = -(-self.group // self.box[0]) * (self.height // self.box[1])
        return rows * columns, rows * (n1 + n_pool) + boxes * (n3 + n5)

    def tickets(self, batch: int) -> int:
        """Of a launch, as the kernel counts them."""
        first, second = self.phases
        return first + -(-batch // self.group) * (first + second)

    @cached_property
    def blocks(self) -> dict[str, list[int]]:
        """The boxes of the kernel's descriptors, by name."""
        three, five = _step(self.widths[1]), _step(self.widths[3])
        steps = {"d_reduce": 64, "d_1": 64, "d_3": three, "d_5": five, "d_pool": 64}
        pixels = {"d_x": [128, 64], "d_p": [128, 64], "d_r3": [*self.box, three], "d_r5": [*self.box, five]}
        return pixels | {name: [self.block_columns, step] for name, step in steps.items()}

    def descriptors(self, x: Any, p: Any, r: Any, weights: Sequence[Any]) -> list[TensorDescriptor]:
        """For tensors x and p (pixels, channels), r (batch, height, width, both reduces) and weights (columns, K) of
        the reduces, 1x1, 3x3, 5x5 and projection; all dense."""
        return [
            TensorDescriptor.from_tensor(tensor, block)
            for tensor, block in zip((x, p, r, r, *weights), self.blocks.values(), strict=True)
        ]


def _step(channels: int) -> int:
    """Of K in a window: whole taps."""
    return next(step for step in (64, 32, 16) if channels % step == 0)
