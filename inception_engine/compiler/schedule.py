"""Ops -> tasks: tiles, their order, the counters that they wait for, and memory that may be reused.

A counter stands for a band: one row of tiles of a buffer. Every task that writes the band signals it, whichever
branch it belongs to, so that a reader waits for a band once and not once per branch. A task waits for the bands
that hold the rows it reads. When it writes memory that another buffer used before, all that touched that
buffer must be done as well; one JOIN task, which only waits, says so for all tasks of a step.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from inception_engine.compiler.arena import Lifetime, place, rested
from inception_engine.compiler.errors import CompileError
from inception_engine.compiler.fuse import fuse_lrn, fuse_pools
from inception_engine.compiler.ops import Buffer, Lowered, Op
from inception_engine.compiler.plan import (
    MAX_ARENA_BYTES,
    MAX_PITCH,
    MAX_ROWS,
    MAX_TASKS,
    NONE,
    PANEL,
    Dtype,
    LaunchMode,
    OpKind,
)
from inception_engine.compiler.targets import Target
from inception_engine.network import Pair

Tile = tuple[Op, int, int, int]  # first row, first column, part of K


@dataclass(eq=False)
class Task:
    """A tile of ``op``, or a part of it, or a JOIN when ``op`` is None. ``waits``: counters. ``signal``: a counter, or
    NONE."""

    op: Op | None
    row: int = 0
    column: int = 0
    part: int = 0
    waits: tuple[int, ...] = ()
    signal: int = NONE


@dataclass(frozen=True)
class Launch:
    name: str  # empty: of the whole network
    mode: LaunchMode
    first_task: int
    task_count: int


@dataclass(eq=False)
class Schedule:
    tasks: list[Task] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)  # how many tasks signal each counter
    offsets: dict[Buffer, int] = field(default_factory=dict)
    arena_bytes: int = 0


def schedule(lowered: Lowered, target: Target, *, batch: int, element: int, reuse: bool) -> Schedule:
    """Cut the ops into tiles, order them, place the buffers. ``element``: bytes of an activation."""
    return _Scheduler(lowered, target, batch, element).run(reuse)


class _Scheduler:
    def __init__(self, lowered: Lowered, target: Target, batch: int, element: int) -> None:
        self.lowered = lowered
        self.target = target
        self.batch = batch
        self.element = element
        self.result = Schedule()
        self.last_join = NONE  # counter of the newest JOIN of the launch
        self.tile_rows = {b: target.tile_rows(b.height, b.width, batch) for b in lowered.buffers}
        for op in lowered.ops:
            buffer = op.target.buffer
            if op.kind == OpKind.INPUT and target.image_lines:
                self.tile_rows[buffer] = target.image_lines * buffer.width
            op.tile = target.tile(op.kind, op.target.padded, self.tile_rows[buffer], batch * buffer.rows)
            if op.kind == OpKind.CONV:
                channels = op.in_channels, op.target.padded
                winograd = target.winograd_flags(op.kernel, op.stride, op.out_size, channels)
                side = winograd.patch + 1 - op.kernel[0]
                if winograd and whole_patches(op.out_size, side, op.tile[0]):
                    op.flags |= winograd
            if op.kind == OpKind.CONV and op.in_channels % PANEL == 0:
                op.part_depth = target.part_depth(op.depth, op.tile_count(batch))
        gone = fuse_lrn(lowered) if target.fuse_lrn else []
        gone += fuse_pools(lowered) if target.fuse_pools else []
        for buffer in gone:
            del self.tile_rows[buffer]
        self._cut_into_parts()
        self._check_limits()
        steps = _steps(lowered.ops)
        # Of two buffers that share memory the loader takes the one with the lower op for the older.
        lowered.ops = [op for step in steps for op in step]
        self.launches = _launches(steps, target.launch)
        self.readers: dict[Buffer, list[Op]] = defaultdict(list)
        self.writers: dict[Buffer, list[Op]] = defaultdict(list)
        for op in lowered.ops:
            self.writers[op.target.buffer].append(op)
            if op.source is not None:
                self.readers[op.source.buffer].append(op)
            if op.parts is not None:
                self.writers[op.parts].append(op)
                self.readers[op.parts].append(op)
        self.counters: dict[Buffer, range] = {}  # one per band
        for buffer in self.tile_rows:
            bands = -(-batch * buffer.rows // self.tile_rows[buffer])
            begin = len(self.result.signals)
            self.counters[buffer] = range(begin, begin + bands)
            self.result.signals += [0] * bands
        for op in lowered.ops:
            if op.part_depth:
                op.first_arrival = len(self.result.signals)
                self.result.signals += [0] * op.tile_count(batch)

    def _cut_into_parts(self) -> None:
        """Room for the sums of ops that are cut along K: whole tiles, one after the other."""
        for op in self.lowered.ops:
            if op.part_depth:
                rows = op.tile_count(self.batch) * op.part_count * op.tile[0]
                op.parts = Buffer(
                    f"parts of {op.name}", -(-rows // self.batch), 1, pitch=op.tile[1], is_parts=True
                )
                self.lowered.buffers.append(op.parts)

    def _check_limits(self) -> None:
        """What the loader would refuse, before work is put into it. Raises CompileError."""
        for buffer in self.lowered.buffers:
            if self.batch * buffer.rows >= MAX_ROWS or buffer.pitch >= MAX_PITCH:
                size = f"{self.batch} x {buffer.height} x {buffer.width} x {buffer.pitch}"
                raise CompileError(f"layer {buffer.name}: an activation of {size} is too large")
        tiles = sum(op.tile_count(self.batch) * op.part_count for op in self.lowered.ops)
        if tiles > MAX_TASKS // 2:  # JOINs come on top
            raise CompileError(f"{tiles} tiles are more than a program holds; take a smaller batch")

    def run(self, reuse: bool) -> Schedule:
        earlier = self._place_buffers(reuse)
        done: set[Op] = set()  # before the current step: in an earlier launch, or behind a JOIN of this one
        for name, mode, steps in self.launches:
            first = len(self.result.tasks)
            self.last_join = NONE
            written = {op.target.buffer for step in steps for op in step}
            for step in self._groups(steps, written):
                due = {user for op, *_ in step for user in earlier[op]} - done
                if due:
                    self._join(due)
                    done |= due
                for op, row, column, part in step:
                    waits = self._bands_read(op, row) if op.source and op.source.buffer in written else ()
                    if earlier[op] and self.last_join != NONE:
                        # The newest JOIN stands for those before it, which it waits for.
                        waits = (self.last_join, *waits)
                    band = self._band(op, row)
                    self.result.tasks.append(Task(op, row, column, part, waits, band))
                    self.result.signals[band] += 1
            done.update(op for step in steps for op in step)
            self.result.launches.append(Launch(name, mode, first, len(self.result.tasks) - first))
        return self.result

    def _groups(self, steps: list[list[Op]], written: set[Buffer]) -> list[list[Tile]]:
        """The tiles of a launch in order: step by step, or, if the target says so, all steps of some images and then
        all steps of the next, so that what one step writes is still in a cache when the next one reads it."""
        tiles = [_interleaved(step, self.batch) for step in steps]
        images = self.target.group_images
        if not images or images >= self.batch:
            return tiles
        queues = [deque(step) for step in tiles]
        left: Counter[int] = (
            Counter()
        )  # tiles to come, of each band; a tile that holds two groups' pixels is late
        for op, row, *_ in itertools.chain(*tiles):
            left[self._band(op, row)] += 1
        groups: list[list[Tile]] = []
        for end in range(images, self.batch + images, images):
            for queue in queues:
                group: list[Tile] = []
                while queue:
                    op, row, *_ = queue[0]
                    reads = self._bands_read(op, row) if op.source and op.source.buffer in written else ()
                    if row >= end * op.target.buffer.rows or any(left[band] for band in reads):
                        break
                    left[self._band(op, row)] -= 1
                    group.append(queue.popleft())
                groups.append(group)
        return groups

    def _band(self, op: Op, row: int) -> int:
        """The counter of the band that a tile writes."""
        return self.counters[op.target.buffer][row // op.tile[0]]

    def _join(self, due: set[Op]) -> None:
        """A task that waits until all of ``due`` are done, and for the JOIN before it."""
        waits = [] if self.last_join == NONE else [self.last_join]
        buffers = dict.fromkeys(op.target.buffer for op in self.lowered.ops if op in due)
        for buffer in buffers:
            waits += self.counters[buffer]
        self.last_join = len(self.result.signals)
        self.result.signals.append(1)
        self.result.tasks.append(Task(None, waits=tuple(waits), signal=self.last_join))

    def _bands_read(self, op: Op, row: int) -> tuple[int, ...]:
        """Counters of the bands that hold the input rows of the tile whose first row is ``row``."""
        assert op.source is not None
        out_h, out_w = op.out_size
        in_h, in_w = op.in_size
        last = min(row + op.tile[0], self.batch * out_h * out_w) - 1
        first_line = _line(row, out_h, out_w, in_h, op.stride[0], -op.pads[0])
        last_line = _line(last, out_h, out_w, in_h, op.stride[0], op.kernel[0] - 1 - op.pads[0])
        tile = self.tile_rows[op.source.buffer]
        bands = self.counters[op.source.buffer]
        return tuple(bands[first_line * in_w // tile : ((last_line + 1) * in_w - 1) // tile + 1])

    def _place_buffers(self, reuse: bool) -> dict[Op, list[Op]]:
        """Offsets for all buffers. Returns, per op, the ops that used the memory that it writes before it."""
        # Within a launch that is a whole network memory is reused from step to step; shorter launches keep theirs,
        # so that they need no JOIN.
        whole = self.target.launch == LaunchMode.NETWORK
        moments = [[step] for _, _, steps in self.launches for step in steps]
        if not whole:
            moments = [steps for _, _, steps in self.launches]
        moment_of = {op: i for i, steps in enumerate(moments) for step in steps for op in step}
        kept = {view.buffer for view in self.lowered.outputs.values()}
        buffers = self.lowered.buffers
        lifetimes = []
        for buffer in buffers:
            # A reader's signals are those of the buffer that it writes, so it counts as done with that buffer.
            done = [moment_of[w] for op in self.readers[buffer] for w in self.writers[op.target.buffer]]
            last = max(done + [moment_of[op] for op in self.writers[buffer]])
            if buffer in kept or not reuse:
                last = len(moments)
            first = min(moment_of[op] for op in self.writers[buffer]) if reuse else 0
            element = Dtype.FP32.bytes if buffer.is_parts else self.element
            lifetimes.append(Lifetime(first, last, self.batch * buffer.rows * buffer.pitch * element))
        if self.target.delay and reuse:
            lifetimes = rested(lifetimes, self.target.delay)
        offsets, self.result.arena_bytes = place(lifetimes)
        if self.result.arena_bytes > MAX_ARENA_BYTES:
            raise CompileError(
                f"activations of {self.result.arena_bytes / 2**30:.0f} GiB; take a smaller batch"
            )
        self.result.offsets = dict(zip(buffers, offsets, strict=True))
        earlier: dict[Buffer, list[Op]] = {buffer: [] for buffer in buffers}
        for i, mine in enumerate(buffers):
            for j, other in enumerate(buffers):
                meets = (
                    offsets[i] < offsets[j] + lifetimes[j].size
                    and offsets[j] < offsets[i] + lifetimes[i].size
                )
                if meets and lifetimes[j].last < lifetimes[i].first:
                    earlier[mine] += [*self.writers[other], *self.readers[other]]
        return {
            op: earlier[op.target.buffer] + (earlier[op.parts] if op.parts else []) for op in self.lowered.ops
        }


def whole_patches(size: Pair, side: int, tile_rows: int) -> bool:
    """Whether tiles of an output of this size hold whole patches of Winograd's algorithm, which make ``side`` x
    ``side`` outputs and begin at the corner of every image."""
    height, width = size
    return tile_rows % (height * width) == 0 or (height % side == 0 and tile_rows % (side * width) == 0)


def _line(row: int, out_h: int, out_w: int, in_h: int, stride: int, reach: int) -> int:
    """The input line, counted over the batch, that is ``reach`` lines off the window origin of an output row."""
    image, y = divmod(row // out_w, out_h)
    return image * in_h + min(max(y * stride + reach, 0), in_h - 1)


def _steps(ops: list[Op]) -> list[list[Op]]:
    """Groups of ops, in order, whose tiles may be mixed: no op of a group reads what the group writes.

    The ops of a module are sorted by depth; within a depth, what others in the module wait for goes first and the
    rest fills the time (the 1x1 branch between the reduces and the 3x3).
    """
    modules: list[list[Op]] = []
    for op in ops:
        if op.module and modules and modules[-1][0].module == op.module:
            modules[-1].append(op)
        else:
            modules.append([op])
    steps: list[list[Op]] = []
    for module in modules:
        depth: dict[Op, int] = {}
        awaited: set[Op] = set()
        for op in module:
            feeds = [other for other in depth if op.source and _reads(op, other)]
            awaited.update(feeds)
            depth[op] = 1 + max((depth[other] for other in feeds), default=-1)
        for level in range(max(depth.values()) + 1):
            same = [op for op in module if depth[op] == level]
            groups = [[op for op in same if op in awaited], [op for op in same if op not in awaited]]
            steps += [group for group in groups if group]
    return steps


def _launches(steps: list[list[Op]], mode: LaunchMode) -> list[tuple[str, LaunchMode, list[list[Op]]]]:
    """(name, mode, steps) of each launch: everything, or one per module and one for what lies between two modules."""
    if mode == LaunchMode.NETWORK:
        return [("", mode, steps)]
    launches: list[tuple[str, LaunchMode, list[list[Op]]]] = []
    for module, group in itertools.groupby(steps, key=lambda step: step[0].module):
        inside = list(group)
        ends = dict.fromkeys((inside[0][0].name, inside[-1][-1].name))
        name = module or " to ".join(ends)
        launches.append((name, LaunchMode.MODULE if module else LaunchMode.LAYER, inside))
    return launches


def _reads(op: Op, other: Op) -> bool:
    return op.source is not None and op.source.buffer is other.target.buffer


def _interleaved(step: list[Op], batch: int) -> list[Tile]:
    """Every tile of a step, from the top of the images to the bottom; the parts of one stand together."""
    tiles = [
        (op, row, column, part)
        for op in step
        for row in range(0, batch * op.target.buffer.rows, op.tile[0])
        for column in range(0, op.target.padded, op.tile[1])
        for part in range(op.part_count)
    ]
    return sorted(tiles, key=lambda tile: tile[1] / (batch * tile[0].target.buffer.rows))
