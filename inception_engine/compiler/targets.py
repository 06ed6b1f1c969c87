"""Targets: what the compiler knows of a machine. Nothing else in the compiler does."""

from __future__ import annotations

from dataclasses import dataclass

from inception_engine.compiler.plan import PANEL, LaunchMode, OpKind, TargetKind
from inception_engine.network import Pair


@dataclass(frozen=True, kw_only=True)
class Target:
    """``channel_align``: channels of an activation's slice are padded to a multiple of it. ``fold_up_to``: elements of
    a first convolution's window row that are read as one run.

    ``tile_pixels``, ``tile_columns``: size that a tile aims at, or has if ``fixed_tiles``. ``tasks_per_op``: below
    it an op is cut by columns too. ``image_lines``: lines of the image in a tile of the INPUT op, which does so little
    per pixel that small tiles are mostly overhead; 0: as any other op.

    ``launch``: what one launch holds. ``delay``: how many steps of the schedule a buffer's memory rests after its last
    use before it is reused, so that waiting for its last readers costs nothing.
    """

    name: str
    kind: TargetKind
    dtypes: tuple[str, ...]
    channel_align: int
    fold_up_to: int
    tile_pixels: int
    tile_columns: int
    fixed_tiles: bool = False
    tasks_per_op: int = 1
    image_lines: int = 0
    launch: LaunchMode
    delay: int = 0

    def tile_rows(self, height: int, width: int, batch: int) -> int:
        """Rows of a tile of any op that writes a buffer of this size; if free: whole lines, whole images when small."""
        image = height * width
        if self.fixed_tiles:
            return self.tile_pixels
        if image <= self.tile_pixels:
            return image * min(batch, max(1, self.tile_pixels // image))
        return width * max(1, self.tile_pixels // width)

    def tile(self, kind: OpKind, columns: int, tile_rows: int, rows: int) -> Pair:
        """(rows, columns) of an op's tiles. ``rows``: of the whole output at the maximum batch."""
        if kind in (OpKind.LRN, OpKind.SOFTMAX, OpKind.INPUT):
            return tile_rows, columns
        if self.fixed_tiles:
            return tile_rows, self.tile_columns
        bands = -(-rows // tile_rows)
        parts = min(-(-self.tasks_per_op // bands), -(-columns // self.tile_columns))
        # Whole panels, and a last tile that is nearly full: 208 columns are 80, 80, 48 rather than 64, 64, 64, 16.
        panels = -(-columns // PANEL)
        wanted = -(-panels // parts)
        near = range(max(wanted - 1, 1), wanted + 2)
        return tile_rows, PANEL * min(near, key=lambda count: (-panels % count, abs(count - wanted)))


# From task times measured on one AVX-512 core, scheduled on two: 224 to 448 rows of 64 columns, 4 to 8 tasks an op are
# within a hair of each other, and multiples of 64 columns fit the micro-kernel of four panels.
CPU = Target(
    name="cpu",
    kind=TargetKind.CPU,
    dtypes=("fp32",),
    channel_align=1,
    fold_up_to=64,
    tile_pixels=224,
    tile_columns=64,
    tasks_per_op=8,
    image_lines=8,
    launch=LaunchMode.NETWORK,
    delay=1,
)

# Tiles as the Triton kernels compile them; slices of whole panels, so that loads are 16 bytes wide.
CUDA = Target(
    name="cuda",
    kind=TargetKind.CUDA,
    dtypes=("fp16", "bf16", "fp32"),
    channel_align=PANEL,
    fold_up_to=64,
    tile_pixels=64,
    tile_columns=64,
    fixed_tiles=True,
    launch=LaunchMode.MODULE,
)

TARGETS = {target.name: target for target in (CPU, CUDA)}
