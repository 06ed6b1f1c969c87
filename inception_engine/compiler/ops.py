"""What a network is between its layers and a plan: ops on views of buffers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inception_engine.compiler.plan import OpFlag, OpKind
from inception_engine.network import LRN, Pads, Pair


@dataclass(eq=False)
class Buffer:
    """An activation in memory: ``height * width`` rows per image of ``pitch`` elements.

    ``is_parts``: not an activation, but the float32 sums of an op whose K is cut into parts.
    """

    name: str
    height: int
    width: int
    pitch: int = 0
    is_parts: bool = False

    @property
    def rows(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class View:
    """Channels of a buffer. ``segments`` are (channels, channels with padding): the padding holds zeros."""

    buffer: Buffer
    channel: int
    segments: tuple[Pair, ...]

    @property
    def channels(self) -> int:
        return sum(used for used, _ in self.segments)

    @property
    def extent(self) -> int:
        """Physical channels from the first to the last that is used."""
        return sum(padded for _, padded in self.segments[:-1]) + self.segments[-1][0]

    @property
    def padded(self) -> int:
        return sum(padded for _, padded in self.segments)

    def positions(self) -> np.ndarray:
        """Physical position of each channel, counted from ``channel``; shape (channels,), int64."""
        starts = np.cumsum([0, *(padded for _, padded in self.segments[:-1])])
        parts = [start + np.arange(used) for start, (used, _) in zip(starts, self.segments, strict=True)]
        return np.concatenate(parts)


@dataclass(eq=False, kw_only=True)
class Op:
    """One row of the plan's op table, before packing: ``weight`` is (columns, kh, kw, physical channels)."""

    kind: OpKind
    name: str
    module: str
    source: View | None  # None: the caller's image
    target: View
    in_size: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    flags: OpFlag = OpFlag(0)
    in_channels: int
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    lrn: LRN | None = None
    macs: int = 0
    tile: Pair = (0, 0)  # rows, columns; chosen by the target
    part_depth: int = 0  # of K, where that is cut into parts; chosen by the target
    parts: Buffer | None = None
    first_arrival: int = 0

    @property
    def out_size(self) -> Pair:
        return self.target.buffer.height, self.target.buffer.width

    @property
    def taps(self) -> int:
        """Pixels of a convolution's window, or the one that a pool makes of them."""
        return 1 if self.flags & OpFlag.MAX_POOL_FIRST else self.kernel[0] * self.kernel[1]

    @property
    def taps_across(self) -> int:
        """Those side by side."""
        return 1 if self.flags & OpFlag.MAX_POOL_FIRST else self.kernel[1]

    @property
    def depth(self) -> int:
        """K of a convolution: elements of a window, or of what a pool makes of it."""
        return self.taps * self.in_channels

    @property
    def part_count(self) -> int:
        return -(-self.depth // self.part_depth) if self.part_depth else 1

    def tile_count(self, batch: int) -> int:
        """Tiles of a whole batch."""
        return -(-batch * self.target.buffer.rows // self.tile[0]) * -(-self.target.padded // self.tile[1])


@dataclass(eq=False)
class Lowered:
    """Ops in an order in which inputs come before uses; outputs by name.

    Of the layers that are kept for comparison, those are left out whose channels have padding inside: concatenations
    of slices that the target pads. Their branches are all there.
    """

    buffers: list[Buffer] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outputs: dict[str, View] = field(default_factory=dict)
