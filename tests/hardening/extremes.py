"""Plans that ask for as much of the loader as a file of their size can: many of one thing, all of it right.

Each is accepted, so the whole proof has run; the fuzz target measures what that took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from tests.plans import (
    ALIGNMENT,
    INPUT,
    LAUNCH,
    MAX_POOL,
    NETWORK,
    NONE,
    TASK,
    WAIT,
    Builder,
    Program,
    Record,
    buffer_bytes,
    plan_file,
    tile_grid,
)

Maker = Callable[[], Program]

MAX_OPS = 1024  # of proof/limits.h: ops, and buffers
MAX_OUTPUTS = 4096
FREE_NAMES = 2**16  # of proof/limits.h: bytes of outputs' names beyond those of the strings


def _arranged(build: Builder) -> Program:
    """Buffers one behind the other; no tasks yet."""
    program, end = build.program, 0
    for index, buffer in enumerate(program.buffers):
        buffer.offset = end
        end += -(-buffer_bytes(program, index) // ALIGNMENT) * ALIGNMENT
    program.header.arena_bytes = end
    return program


def _scheduled(program: Program, waits: Callable[[int, Record], Sequence[int]]) -> Program:
    """Every tile a task with a counter of its own, which waits for the counters that ``waits`` names; one launch."""
    grid = [(i, row) for i, op in enumerate(program.ops) for row, _ in tile_grid(op, 1)]
    program.tasks = [TASK.new(op=op, row=row, signal=index) for index, (op, row) in enumerate(grid)]
    lists = [[WAIT.new(counter=c) for c in waits(i, task)] for i, task in enumerate(program.tasks)]
    program.set_wait_lists(lists)
    program.launches = [LAUNCH.new(task_count=len(program.tasks), mode=NETWORK)]
    program.header.counter_count = len(program.tasks)
    program.retarget()
    return program.count()


def _in_two_launches(program: Program) -> Program:
    """The first op in one, the others in another."""
    first = sum(task.op == 0 for task in program.tasks)
    counts = ((0, first), (first, len(program.tasks) - first))
    program.launches = [LAUNCH.new(first_task=begin, task_count=n, mode=NETWORK) for begin, n in counts]
    return program.count()


def _previous(index: int, task: Record) -> Sequence[int]:
    """All that went before is complete."""
    return (index - 1,) if index else ()


def _chain(ops: int) -> Builder:
    """An image of one pixel and pools of it, each with a buffer of its own."""
    build = Builder((1, 1, 1))
    value = build.buffer(1, 1)
    build.op(INPUT, NONE, value)
    for _ in range(ops - 1):
        following = build.buffer(1, 1)
        build.op(MAX_POOL, value, following, in_h=1, in_w=1)
        value = following
    build.output(value, 1, 1)
    return build


def _wide(pixels: int) -> Builder:
    """A line of pixels and a pool of each, tiles of one pixel."""
    build = Builder((1, 1, pixels))
    image, value = build.buffer(pixels, 1), build.buffer(pixels, 1)
    build.op(INPUT, NONE, image, tile_rows=1)
    build.op(MAX_POOL, image, value, in_h=1, in_w=pixels, tile_rows=1)
    build.output(value, 1, pixels)
    return build


def many_ops() -> Program:
    """As many ops and buffers as there may be, the buffers in the same memory by turns."""
    program = _arranged(_chain(MAX_OPS))
    for index, buffer in enumerate(program.buffers[:-1]):
        buffer.offset = ALIGNMENT * (index % 2)
    program.buffers[-1].offset = 2 * ALIGNMENT
    program.header.arena_bytes = 3 * ALIGNMENT
    return _scheduled(program, _previous)


def many_writers() -> Program:
    """Ops that write slices of one buffer, each of which the many others read: as many as the steps allow."""
    writers = 180
    build = Builder((1, 1, 1))
    image, joined = build.buffer(1, 1), build.buffer(1, writers)
    build.op(INPUT, NONE, image)
    for index in range(writers):
        build.op(MAX_POOL, image, joined, in_h=1, in_w=1, out_channel=index)
    for _ in range(MAX_OPS - writers - 1):
        value = build.buffer(1, writers)
        build.op(MAX_POOL, joined, value, in_h=1, in_w=1)
        build.output(value, 1, 1)
    return _scheduled(_arranged(build), _previous)


def many_outputs() -> Program:
    """As many outputs as there may be, with names as long as they may be."""
    program = _arranged(_chain(2))
    program.strings = b"n" * FREE_NAMES
    program.outputs = [Record(**vars(program.outputs[0])) for _ in range(MAX_OUTPUTS)]
    for output in program.outputs:
        output.name_bytes = 2 * FREE_NAMES // MAX_OUTPUTS
    return _scheduled(program, _previous)


def many_tasks() -> Program:
    """One row to a tile; the second op reads the whole of the first, which an earlier launch has written."""
    return _in_two_launches(_scheduled(_arranged(_wide(8000)), _previous))


def many_waits() -> Program:
    """Each task of the second op waits for each of the first."""
    return _scheduled(_arranged(_wide(300)), lambda _, task: range(300) if task.op else ())


def many_launches() -> Program:
    """A launch for each op."""
    program = _scheduled(_arranged(_chain(MAX_OPS)), lambda *_: ())
    program.launches = [LAUNCH.new(first_task=i, task_count=1, mode=NETWORK) for i in range(MAX_OPS)]
    return program.count()


def many_readers() -> Program:
    """Every op reads all of the first one's many tiles."""
    build = Builder((1, 1, 256))
    image = build.buffer(256, 1)
    build.op(INPUT, NONE, image, tile_rows=1)
    for _ in range(MAX_OPS - 1):
        value = build.buffer(1, 1)
        build.op(MAX_POOL, image, value, in_h=1, in_w=256, kernel_w=256)
        build.output(value, 1, 1)
    return _in_two_launches(_scheduled(_arranged(build), _previous))


def many_counters(count: int) -> Program:
    """All the ops there may be, and many more counters than they need."""
    program = many_launches()
    program.header.counter_count = count
    joins = [TASK.new(op=NONE, signal=NONE) for _ in range(count - len(program.tasks))]
    program.tasks += joins
    program.launches[-1].task_count += len(joins)
    program.set_wait_lists([[] for _ in program.tasks])
    return program.count()


def _classifier(classes: int, metadata: bytes) -> bytes:
    build = Builder((classes, 1, 1))
    image = build.buffer(1, classes)
    build.op(INPUT, NONE, image)
    build.output(image, 1, 1)
    return plan_file(_scheduled(_arranged(build), _previous), metadata=metadata)


def many_labels() -> bytes:
    """Names of classes as short as they can be."""
    return _classifier(30_000, b'{"labels":[' + b",".join([b'""'] * 30_000) + b"]}")


def long_texts() -> bytes:
    """A long key, a long name, and labels that are as long together."""
    text = b"n" * 2**17
    labels = b",".join([b'"' + text[: 2**16] + b'"'] * 2)
    return _classifier(
        2, b'{"labels":[' + labels + b'],"name":"' + text + b'","' + text + b'":"' + text + b'"}'
    )


def many_numbers() -> bytes:
    """A mean and a deviation for each of very many channels; a vector that doubles would end up nearly half empty."""
    channels = 3 * 2**16 + 1
    numbers = b"[" + b",".join([b"1"] * channels) + b"]"
    return _classifier(channels, b'{"preprocess":{"mean":' + numbers + b',"std":' + numbers + b"}}")


def long_name_of_many_classes() -> bytes:
    """A name that a string which doubles keeps in nearly twice as much, and no labels where very many could be."""
    channels, slices, length = 2400, 300, 15 * 2**17 + 1
    build = Builder((channels, 1, 1))
    joined = build.buffer(1, slices * channels)
    for index in range(slices):
        build.op(INPUT, NONE, joined, out_channel=index * channels)
    build.output(joined, 1, 1)
    text = b'{"name":"' + b"n" * length + b'","labels":[],"preprocess":{"mean":[0],"std":[1]}}'
    return plan_file(_scheduled(_arranged(build), _previous), metadata=text)


_PROGRAMS: tuple[Maker, ...] = (
    many_ops,
    many_writers,
    many_outputs,
    many_tasks,
    many_waits,
    many_launches,
    many_readers,
)
_FILES = (many_labels, long_texts)
_LARGE = (many_numbers, long_name_of_many_classes)  # of some MB: a MiB more is free


@lru_cache
def extremes() -> dict[str, bytes]:
    """The files, by what there is much of."""
    files = {make.__name__: plan_file(make()) for make in _PROGRAMS}
    return files | {make.__name__: make() for make in _FILES}


def large() -> dict[str, bytes]:
    """More of them, which are there for the memory that they take, and not for the time."""
    return {make.__name__: make() for make in _LARGE}
