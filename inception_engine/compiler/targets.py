"""Targets: what the compiler knows of a machine, as data.

Elsewhere only what is stored for a CPU (``compile``) and what is counted (budget, inspect) ask for a target's kind.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inception_engine.compiler.plan import MAX_PARTS, PANEL, LaunchMode, OpFlag, OpKind, TargetKind
from inception_engine.network import Pair


@dataclass(frozen=True, kw_only=True)
class Target:
    """``channel_align``: channels of an activation's slice are padded to a multiple of it. ``fold_up_to``: elements of
    a first convolution's window row that are read as one run, from pixels padded to a multiple of ``fold_align``.

    ``tile_pixels``, ``tile_columns``: size that a tile aims at, or has if ``fixed_tiles``. ``tasks_per_op``: below
    it an op is cut by columns too. ``image_lines``: lines of the image in a tile of the INPUT op, which does so little
    per pixel that small tiles are mostly overhead; 0: as any other op.

    With ``fixed_tiles`` there may be smaller sides, too, ``shorter`` and ``narrower``. Rows: the most that cut a buffer
    into ``bands`` bands. Columns: the most that compute at most ``waste`` more than the fewest possible, and that cut
    the op into ``tasks_per_op`` tiles. Where no side does, the smallest.

    ``fuse_lrn``: whether an LRN becomes part of the convolution or maximum pool before it where it can. ``fuse_pools``:
    whether a maximum pool becomes part of the convolution behind it where it can.

    ``part_tasks``: K of a product is cut into parts, each a task of its own, as long as the op has no more tasks than
    that; 0: never. From ``least_depth`` elements of K on, into ``most_parts`` at most, multiples of ``part_align``.

    ``winograd``: square windows, 3 or 5, whose convolutions of stride 1 are computed by Winograd's algorithm if they
    read and write ``winograd_channels`` or more, and have ``winograd_patches`` or more in an image. Patches of windows
    of 3 are small where an output has ``small_patches`` pixels or fewer.

    ``group_images``: so many images go through all steps of a launch before the next ones do; 0: all at once. For
    launches inside which no memory is used again.

    ``launch``: what one launch holds. ``reuse``: whether activations may share memory. ``delay``: how many steps of the
    schedule a buffer's memory rests after its last use before it is reused, so that waiting for its last readers costs
    nothing; where that makes no larger arena.
    """

    name: str
    kind: TargetKind
    dtypes: tuple[str, ...]
    channel_align: int
    fold_up_to: int
    fold_align: int = 1
    tile_pixels: int
    tile_columns: int
    fixed_tiles: bool = False
    shorter: tuple[int, ...] = ()
    narrower: tuple[int, ...] = ()
    bands: int = 1
    waste: float = 0.0
    tasks_per_op: int = 1
    image_lines: int = 0
    winograd: tuple[int, ...] = ()
    winograd_channels: int = 0
    winograd_patches: int = 0
    small_patches: int = 0
    fuse_lrn: bool = False
    fuse_pools: bool = False
    part_tasks: int = 0
    least_depth: int = 0
    most_parts: int = MAX_PARTS
    part_align: int = 4 * PANEL
    launch: LaunchMode
    group_images: int = 0
    reuse: bool = True
    delay: int = 0

    def tile_rows(self, height: int, width: int, batch: int) -> int:
        """Rows of a tile of any op that writes a buffer of this size; if free: whole lines, whole images when small."""
        image = height * width
        if self.fixed_tiles:
            sides = [self.tile_pixels, *(side for side in self.shorter if side < self.tile_pixels)]
            cut = [side for side in sides if -(-batch * image // side) >= self.bands]
            return max(cut, default=min(sides))
        if image <= self.tile_pixels:
            return image * min(batch, max(1, self.tile_pixels // image))
        return width * max(1, self.tile_pixels // width)

    def tile(self, kind: OpKind, columns: int, tile_rows: int, rows: int) -> Pair:
        """(rows, columns) of an op's tiles. ``rows``: of the whole output at the maximum batch."""
        if kind in (OpKind.LRN, OpKind.SOFTMAX, OpKind.INPUT):
            return tile_rows, columns
        bands = -(-rows // tile_rows)
        if self.fixed_tiles:
            sides = [self.tile_columns, *(side for side in self.narrower if side < self.tile_columns)]
            computed = {side: -(-columns // side) * side for side in sides}
            cut = [
                side
                for side in sides
                if computed[side] <= (1 + self.waste) * min(computed.values())
                and bands * computed[side] // side >= self.tasks_per_op
            ]
            return tile_rows, max(cut, default=min(sides))
        parts = min(-(-self.tasks_per_op // bands), -(-columns // self.tile_columns))
        # Whole panels, and a last tile that is nearly full: 208 columns are 80, 80, 48 rather than 64, 64, 64, 16.
        panels = -(-columns // PANEL)
        wanted = -(-panels // parts)
        near = range(max(wanted - 1, 1), wanted + 2)
        return tile_rows, PANEL * min(near, key=lambda count: (-panels % count, abs(count - wanted)))

    def winograd_flags(self, kernel: Pair, stride: Pair, size: Pair, channels: Pair) -> OpFlag:
        """``size``: height and width of the output. ``channels``: read and written. None: a direct convolution."""
        if kernel[0] != kernel[1] or kernel[0] not in self.winograd or stride != (1, 1):
            return OpFlag(0)
        small = kernel[0] == 3 and size[0] * size[1] <= self.small_patches
        flags = OpFlag.WINOGRAD | (OpFlag.SMALL_PATCHES if small else OpFlag(0))
        side = flags.patch + 1 - kernel[0]
        patches = -(-size[0] // side) * -(-size[1] // side)
        takes = min(channels) >= self.winograd_channels and patches >= self.winograd_patches
        return flags if takes else OpFlag(0)

    def part_depth(self, depth: int, tiles: int) -> int:
        """Elements of K in each part of an op with so many tiles and K of ``depth``, or 0: K stays whole."""
        parts = min(self.part_tasks // tiles, self.most_parts)
        if depth < self.least_depth or parts < 2:
            return 0
        length = -(-depth // parts // self.part_align) * self.part_align
        return length if length < depth else 0


# From task times measured on one AVX-512 core, scheduled on two: 224 to 448 rows of 64 columns, 4 to 8 tasks an op are
# within a hair of each other, and multiples of 64 columns fit the micro-kernel of four panels.
CPU = Target(
    name="cpu",
    kind=TargetKind.CPU,
    dtypes=("fp32", "bf16"),
    channel_align=1,
    fold_up_to=64,
    tile_pixels=224,
    tile_columns=64,
    tasks_per_op=8,
    image_lines=8,
    fuse_lrn=True,
    fuse_pools=True,
    launch=LaunchMode.NETWORK,
    delay=1,
)

# Tiles as the Triton kernels compile them; slices of whole panels, so that loads are 16 bytes wide, and pixels of the
# folded image of 8 bytes. What the sides were chosen from stands in kernels/README.md.
CUDA = Target(
    name="cuda",
    kind=TargetKind.CUDA,
    dtypes=("fp16", "bf16", "fp32"),
    channel_align=PANEL,
    fold_up_to=64,
    fold_align=4,
    tile_pixels=64,
    tile_columns=64,
    fixed_tiles=True,
    shorter=(32,),
    narrower=(32,),
    bands=8,
    waste=0.2,
    tasks_per_op=64,
    image_lines=1,
    launch=LaunchMode.MODULE,
    group_images=32,  # at 28 x 28 pixels, 20 to 40 MB of what a module reads and writes: sized for an L2, not measured
)

# The whole network in one launch. Inside it nothing is used again: a JOIN for that would wait for a hundred counters.
CUDA_ONE_LAUNCH = dataclasses.replace(CUDA, launch=LaunchMode.NETWORK, reuse=False)

TARGETS = {target.name: target for target in (CPU, CUDA)}


TUNED = Path(__file__).parent / "tuned"


class Tuned:
    """What suits a batch, as data: fields of a Target that replace those of ``base``.

    ``document``: {"provenance": ..., "choices": [{"up_to_batch", "dtypes", "fields"}, ...]}; of the choices the first
    that fits is taken, and one without bounds fits always.
    """

    def __init__(self, document: Mapping[str, Any], base: Target = CUDA) -> None:
        self.provenance: Mapping[str, str] = document["provenance"]
        self.choices: list[Mapping[str, Any]] = document["choices"]
        self.targets = [_replaced(base, choice["fields"]) for choice in self.choices]

    def target(self, batch: int, dtype: str) -> Target:
        """For programs of up to ``batch`` images."""
        return next(
            target
            for choice, target in zip(self.choices, self.targets, strict=True)
            if batch <= choice.get("up_to_batch", batch) and dtype in choice.get("dtypes", [dtype])
        )


def _replaced(target: Target, fields: Mapping[str, Any]) -> Target:
    values: dict[str, Any] = dict(fields)
    if "launch" in values:
        values["launch"] = LaunchMode[values["launch"]]
    # Tuples, for a target is a key of caches.
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return dataclasses.replace(target, **values)


@functools.cache
def tuned(name: str) -> Tuned:
    """The choices for a target that come with the package. Raises KeyError."""
    base = TARGETS[name]
    return Tuned(json.loads((TUNED / f"{name}.json").read_text(encoding="utf-8")), base)


def target_for(name: str, batch: int, dtype: str) -> Target:
    """The target of that name for programs of up to ``batch`` images. Raises KeyError."""
    return tuned(name).target(batch, dtype)
