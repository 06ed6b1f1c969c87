"""The loader's proof: each rule has a plan that breaks it, and brute force agrees on ten thousand programs."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from inception_engine.binding import check_plan
from inception_engine.compiler import compile
from tests import happens_before, plans, proof_rules
from tests.loader import STATUS, verdict
from tests.plans import (
    ALIGNMENT,
    CLASSIFIER,
    CONV,
    CONV_1X1,
    CONV_3X3,
    COUNT_INCLUDE_PAD,
    CUDA,
    IMAGE,
    INPUT,
    LAUNCH,
    MEAN,
    NONE,
    NORM,
    PANEL,
    POOL,
    PROBABILITIES,
    RELU,
    TASK,
    WAIT,
    Builder,
    Program,
    buffer_bytes,
    plan_file,
    small_program,
)
from tests.random_networks import random_network
from tests.random_plans import mutated, random_program

Change = Callable[[Program], object]
HUGE = 0xFFFFFFFF
OPS = range(8)


def is_safe(program: Program) -> bool:
    try:
        happens_before.check(program)
    except happens_before.Hazard:
        return False
    return True


def set_op(index: int, **fields: int | float) -> Change:
    return lambda p: vars(p.ops[index]).update(fields)


def set_header(**fields: int) -> Change:
    return lambda p: vars(p.header).update(fields)


def set_buffer(index: int, **fields: int) -> Change:
    return lambda p: vars(p.buffers[index]).update(fields)


def set_output(**fields: int) -> Change:
    return lambda p: vars(p.outputs[0]).update(fields)


def set_task(number: int, **fields: int) -> Change:
    return lambda p: vars(p.tasks[number]).update(fields)


def set_launch(**fields: int) -> Change:
    return lambda p: vars(p.launches[0]).update(fields)


def tasks_of(program: Program, op: int) -> list[int]:
    return [number for number, task in enumerate(program.tasks) if task.op == op]


def edit_waits(change: Callable[[Program, list[list[plans.Record]]], object]) -> Change:
    """A change of the waits of tasks, after which the table is in order again."""

    def apply(program: Program) -> None:
        lists = program.wait_lists()
        change(program, lists)
        program.set_wait_lists(lists)

    return apply


def forget_waits(op: int) -> Change:
    """The last task of the op waits for nothing."""
    return edit_waits(lambda p, lists: lists[tasks_of(p, op)[-1]].clear())


def insert_task(program: Program, number: int, task: plans.Record, waits: list[plans.Record]) -> None:
    lists = program.wait_lists()
    program.tasks.insert(number, task)
    lists.insert(number, waits)
    program.set_wait_lists(lists)
    for launch in program.launches:
        if launch.first_task > number:
            launch.first_task += 1
        elif number <= launch.first_task + launch.task_count:
            launch.task_count += 1
    program.retarget()


def drop_a_tile(program: Program) -> None:
    lists = program.wait_lists()
    number = tasks_of(program, POOL)[-1]
    del program.tasks[number], lists[number]
    program.launches[0].task_count -= 1
    program.set_wait_lists(lists)
    program.retarget()


def compute_a_tile_twice(program: Program) -> None:
    number = tasks_of(program, POOL)[-1]
    again = plans.Record(**vars(program.tasks[number]))
    insert_task(program, number + 1, again, program.wait_lists()[number])


def wait_for_itself(program: Program) -> None:
    number = tasks_of(program, NORM)[0]
    lists = program.wait_lists()
    lists[number].append(WAIT.new(counter=program.tasks[number].signal))
    program.set_wait_lists(lists)
    program.retarget()


def wait_for_a_later_task(program: Program) -> None:
    """Every task of the average pool now runs before the branches that it waits for."""
    lists = program.wait_lists()
    late, early = tasks_of(program, MEAN)[0], tasks_of(program, POOL)[0]
    program.tasks.insert(early, program.tasks.pop(late))
    lists.insert(early, lists.pop(late))
    program.set_wait_lists(lists)


def cut_launch(op: int, tiles: int) -> Change:
    """The launch ends behind the first ``tiles`` tasks of the op."""

    def apply(program: Program) -> None:
        first = tasks_of(program, op)[0] + tiles
        rest = LAUNCH.new(first_task=first, task_count=len(program.tasks) - first, mode=plans.MODULE)
        program.launches[0].task_count = first
        program.launches.append(rest)

    return apply


def stack(op: int) -> Change:
    """The image lies where the op's output will lie."""

    def apply(program: Program) -> None:
        image, later = program.ops[IMAGE].out_buffer, program.ops[op].out_buffer
        program.buffers[image].offset = program.buffers[later].offset

    return apply


def wait_for_op(waiter: int, op: int) -> Change:
    def apply(program: Program) -> None:
        lists = program.wait_lists()
        counters = {program.tasks[number].signal for number in tasks_of(program, op)}
        for number in tasks_of(program, waiter):
            lists[number] += [WAIT.new(counter=counter) for counter in sorted(counters)]
        program.set_wait_lists(lists)
        program.retarget()

    return apply


def reuse_an_output(program: Program) -> None:
    """The means, which the caller reads in the end, make room for the probabilities, after their last use inside."""
    means, softmax = (program.ops[op].out_buffer for op in (MEAN, PROBABILITIES))
    program.outputs[0].buffer = means
    program.buffers[softmax].offset = program.buffers[means].offset
    plans.fit_arena(program)


def skip_a_tile(program: Program) -> None:
    """A JOIN stands where a tile was."""
    vars(program.tasks[tasks_of(program, POOL)[-1]]).update(op=NONE, row=0, column=0)


def far_away(program: Program) -> None:
    """An offset at which the end of the buffer overflows 64 bits."""
    program.buffers[0].offset = 2**64 - ALIGNMENT


def read_padding(program: Program) -> None:
    """The LRN's columns end two before those that its readers want."""
    op = program.ops[NORM]
    op.in_channels = op.out_channels = op.out_padded = 18


def write_zeros_over_values(program: Program) -> None:
    """The pool's 19 channels and a column of zeros; the convolution begins at those zeros."""
    vars(program.ops[POOL]).update(in_channels=19, out_channels=19)
    program.ops[CONV_1X1].out_channel = 19


def split_a_row(program: Program) -> None:
    """The two column tiles of a line of the convolution signal different counters, and readers know of one."""
    number = tasks_of(program, CONV_3X3)[-1]
    program.tasks[number].signal = program.header.counter_count - 1
    program.retarget()


def crowd_a_counter(program: Program) -> None:
    """Seventeen ops signal one counter."""
    counter = program.header.counter_count
    program.header.counter_count += 1
    for _ in range(17):
        buffer = plans.BUFFER.new(rows=1, pitch=1, dtype=plans.FP32, offset=program.header.arena_bytes)
        program.header.arena_bytes += ALIGNMENT
        program.buffers.append(buffer)
        op = plans.Record(**vars(program.ops[CLASSIFIER]))
        op.out_buffer, op.out_channels, op.out_padded = len(program.buffers) - 1, 1, 1
        program.ops.append(op)
        waits = program.wait_lists()[tasks_of(program, CLASSIFIER)[0]]
        task = TASK.new(op=len(program.ops) - 1, signal=counter)
        insert_task(program, len(program.tasks), task, waits)


def pool_for_days(kernel: int, *ops: int) -> Change:
    """The ops become pools of a window of kernel x kernel pixels at each of 2^23 pixels."""

    def apply(program: Program) -> None:
        offset = 2**30
        for op in (program.ops[index] for index in ops):
            op.in_buffer, op.out_buffer = len(program.buffers), len(program.buffers) + 1
            for _ in range(2):
                program.buffers.append(plans.BUFFER.new(rows=2**23, pitch=1, dtype=plans.FP32, offset=offset))
                offset += 2**26
            op.in_channels = op.out_channels = op.out_padded = 1
            op.in_h = op.out_h = 2**12
            op.in_w = op.out_w = 2**11
            op.stride_h = op.stride_w = 1
            op.kernel_h = op.kernel_w = kernel
            op.pad_top = op.pad_left = op.pad_bottom = op.pad_right = kernel // 2
            op.tile_rows = 2**24
        plans.fit_arena(program)

    return apply


def leave_rows_unwritten(program: Program) -> None:
    """A buffer has a line more than the LRN writes, and its readers want that line."""
    program.buffers[program.ops[NORM].out_buffer].rows = 20
    program.ops[POOL].in_h = program.ops[CONV_1X1].in_h = 5
    program.ops[CONV_1X1].stride_h = 3


def endless_proof() -> Program:
    """A thousand tasks that each read what four hundred ops write, known to be complete through one JOIN each."""
    build = Builder((1, 1, 1), 1)
    image, wide = build.buffer(1, 1), build.buffer(1, 400)
    build.op(INPUT, NONE, image)
    for channel in range(400):
        build.op(CONV, image, wide, in_h=1, in_w=1, out_channel=channel, out_channels=1)
    tall = build.buffer(1000, 1)
    pads = {"pad_bottom": 999}
    build.op(CONV, wide, tall, in_h=1, in_w=1, tile_rows=1, **pads)
    build.output(tall, 1000, 1)
    program = build.finish()
    join, counters = (
        program.header.counter_count,
        sorted({t.signal for t in program.tasks if 0 < t.op <= 400}),
    )
    program.header.counter_count += 1
    lists = program.wait_lists()
    first = tasks_of(program, 401)[0]
    for number in range(first, len(lists)):
        lists[number] = [WAIT.new(counter=join)]
    program.set_wait_lists(lists)
    joining = [WAIT.new(counter=counter) for counter in counters]
    insert_task(program, first, TASK.new(op=NONE, signal=join), joining)
    return program.count()


# (name, status, what is done to small_program): nothing else is wrong with the plan.
BROKEN: list[tuple[str, str, Change]] = [
    ("no target", "IE_PLAN_VALUE", set_header(target=0)),
    ("unknown target", "IE_PLAN_VALUE", set_header(target=3)),
    ("unknown dtype", "IE_PLAN_VALUE", set_header(dtype=4)),
    ("no batch", "IE_PLAN_VALUE", set_header(max_batch=0)),
    ("no input channels", "IE_PLAN_VALUE", set_header(input_channels=0)),
    ("huge input", "IE_PLAN_VALUE", set_header(input_height=HUGE)),
    ("no outputs", "IE_PLAN_VALUE", lambda p: p.outputs.clear()),
    ("buffer's dtype", "IE_PLAN_VALUE", set_buffer(1, dtype=plans.FP16)),
    *((f"kind {kind}", "IE_PLAN_VALUE", set_op(POOL, kind=kind)) for kind in (0, 7, HUGE)),
    ("ReLU of a pool", "IE_PLAN_VALUE", set_op(POOL, flags=RELU)),
    ("padding of a convolution counted", "IE_PLAN_VALUE", set_op(CONV_1X1, flags=COUNT_INCLUDE_PAD)),
    ("unknown flag", "IE_PLAN_VALUE", set_op(CONV_1X1, flags=4)),
    ("packing of a pool", "IE_PLAN_VALUE", set_op(POOL, packing=plans.PANEL_16)),
    ("no packing", "IE_PLAN_VALUE", set_op(CONV_1X1, packing=plans.NO_WEIGHTS)),
    *(
        (f"no {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: 0}))
        for name in (
            "in_channels",
            "out_channels",
            "out_padded",
            "in_h",
            "in_w",
            "out_h",
            "out_w",
            "kernel_h",
        )
    ),
    *(
        (f"no {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: 0}))
        for name in ("kernel_w", "stride_h", "stride_w", "tile_rows", "tile_columns")
    ),
    *(
        (f"huge {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: HUGE}))
        for name in ("in_channels", "out_channels", "out_padded", "in_h", "out_w", "kernel_h", "stride_w")
    ),
    *(
        (f"huge {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: HUGE}))
        for name in ("pad_top", "pad_left", "pad_bottom", "pad_right", "tile_rows", "tile_columns")
    ),
    ("no such output buffer", "IE_PLAN_VALUE", set_op(POOL, out_buffer=7)),
    ("no such input buffer", "IE_PLAN_VALUE", set_op(POOL, in_buffer=7)),
    ("a pool of nothing", "IE_PLAN_VALUE", set_op(POOL, in_buffer=NONE)),
    ("an image from a buffer", "IE_PLAN_VALUE", set_op(IMAGE, in_buffer=1)),
    # Such a window would let the proof believe that the task reads other lines than it does.
    ("LRN with padding", "IE_PLAN_VALUE", set_op(NORM, pad_top=4)),
    ("LRN with a stride", "IE_PLAN_VALUE", set_op(NORM, stride_h=4)),
    ("LRN with a window", "IE_PLAN_VALUE", set_op(NORM, kernel_h=2)),
    ("softmax with padding", "IE_PLAN_VALUE", set_op(PROBABILITIES, pad_left=1)),
    ("LRN over no channels", "IE_PLAN_VALUE", set_op(NORM, lrn_size=0)),
    ("LRN's constant is NaN", "IE_PLAN_VALUE", set_op(NORM, lrn_beta=float("nan"))),
    ("LRN's constant is infinite", "IE_PLAN_VALUE", set_op(NORM, lrn_k=float("inf"))),
    ("no such op", "IE_PLAN_VALUE", set_task(0, op=8)),
    ("no such counter to signal", "IE_PLAN_VALUE", lambda p: set_task(0, signal=p.header.counter_count)(p)),
    ("no such counter", "IE_PLAN_VALUE", lambda p: vars(p.waits[0]).update(counter=p.header.counter_count)),
    ("no such launch mode", "IE_PLAN_VALUE", set_launch(mode=0)),
    ("output of no buffer", "IE_PLAN_VALUE", set_output(buffer=7)),
    ("output without channels", "IE_PLAN_VALUE", set_output(channels=0)),
    ("op's name", "IE_PLAN_TABLES", set_op(POOL, name=2, name_bytes=2)),
    ("op's name overflows", "IE_PLAN_TABLES", set_op(POOL, name=HUGE, name_bytes=4)),
    ("module's name", "IE_PLAN_TABLES", set_op(POOL, module=4)),
    ("output's name", "IE_PLAN_TABLES", set_output(name=1, name_bytes=HUGE)),
    ("launch's name", "IE_PLAN_TABLES", set_launch(name=1)),
    ("waits out of order", "IE_PLAN_TABLES", set_task(9, wait_begin=0)),
    ("waits beyond their table", "IE_PLAN_TABLES", lambda p: set_task(len(p.tasks) - 1, wait_count=2)(p)),
    ("waits that overflow", "IE_PLAN_TABLES", lambda p: set_task(len(p.tasks) - 1, wait_count=HUGE)(p)),
    ("waits of no task", "IE_PLAN_TABLES", lambda p: p.waits.append(WAIT.new(target=1))),
    ("misaligned buffer", "IE_PLAN_BUFFER", set_buffer(0, offset=32)),
    ("buffer beyond the arena", "IE_PLAN_BUFFER", set_header(arena_bytes=64)),
    ("arena beyond the buffers", "IE_PLAN_BUFFER", set_header(arena_bytes=2**30)),
    ("buffer's end overflows", "IE_PLAN_BUFFER", far_away),
    ("buffer without rows", "IE_PLAN_BUFFER", set_buffer(0, rows=0)),
    ("buffer without columns", "IE_PLAN_BUFFER", set_buffer(0, pitch=0)),
    ("buffer of huge rows", "IE_PLAN_BUFFER", set_buffer(0, rows=HUGE, pitch=HUGE)),
    ("rows that nobody writes", "IE_PLAN_GEOMETRY", leave_rows_unwritten),
    ("output too high", "IE_PLAN_GEOMETRY", set_op(POOL, out_h=3)),
    ("output transposed", "IE_PLAN_GEOMETRY", set_op(MEAN, out_h=2)),
    ("input too low", "IE_PLAN_GEOMETRY", set_op(CONV_3X3, in_h=3, pad_bottom=2)),
    ("input too wide", "IE_PLAN_GEOMETRY", set_op(POOL, in_w=5)),
    ("kernel too large", "IE_PLAN_GEOMETRY", set_op(MEAN, kernel_h=3)),
    ("stride too small", "IE_PLAN_GEOMETRY", set_op(POOL, stride_h=1)),
    ("padding too large", "IE_PLAN_GEOMETRY", set_op(CONV_3X3, pad_bottom=2)),
    ("a pool changes the channels", "IE_PLAN_GEOMETRY", set_op(POOL, in_channels=19)),
    ("LRN changes the channels", "IE_PLAN_GEOMETRY", set_op(NORM, in_channels=19)),
    ("windows of padding alone", "IE_PLAN_GEOMETRY", set_op(POOL, pad_top=2, stride_h=4)),
    ("more values than columns", "IE_PLAN_GEOMETRY", set_op(CLASSIFIER, out_channels=6)),
    ("another image", "IE_PLAN_GEOMETRY", set_header(input_width=5)),
    ("image padded above", "IE_PLAN_GEOMETRY", set_op(IMAGE, pad_top=1)),
    ("not all of the image", "IE_PLAN_GEOMETRY", set_op(IMAGE, in_channels=2, out_channels=2)),
    ("output's shape", "IE_PLAN_GEOMETRY", set_output(height=2)),
    ("columns read beyond", "IE_PLAN_BOUNDS", set_op(CONV_1X1, in_channel=1)),
    ("columns read far beyond", "IE_PLAN_BOUNDS", set_op(CONV_1X1, in_channel=HUGE)),
    ("columns written beyond", "IE_PLAN_BOUNDS", set_op(CLASSIFIER, out_channel=1)),
    ("columns written far beyond", "IE_PLAN_BOUNDS", set_op(CLASSIFIER, out_channel=HUGE)),
    ("output beyond", "IE_PLAN_BOUNDS", set_output(channel=1)),
    ("output far beyond", "IE_PLAN_BOUNDS", set_output(channel=HUGE)),
    ("weights misaligned", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, weight_offset=4)),
    ("weights outside", "IE_PLAN_WEIGHTS", set_op(CONV_3X3, weight_offset=64)),
    ("weights far outside", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, weight_offset=2**64 - 64)),
    ("bias misaligned", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, bias_offset=4)),
    ("bias outside", "IE_PLAN_WEIGHTS", lambda p: set_op(CONV_1X1, bias_offset=p.weight_bytes)(p)),
    ("bias far outside", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, bias_offset=2**64 - 64)),
    ("too few weights", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, weight_bytes=64)),
    ("weights of a pool", "IE_PLAN_WEIGHTS", set_op(POOL, weight_bytes=64)),
    ("scale outside", "IE_PLAN_WEIGHTS", lambda p: set_op(IMAGE, weight_offset=p.weight_bytes)(p)),
    ("half a panel", "IE_PLAN_ALIGNMENT", set_op(CONV_3X3, tile_columns=8)),
    ("LRN of some columns", "IE_PLAN_ALIGNMENT", set_op(NORM, tile_columns=16)),
    ("softmax of some columns", "IE_PLAN_ALIGNMENT", set_op(PROBABILITIES, tile_columns=4)),
    ("half a panel on a GPU", "IE_PLAN_ALIGNMENT", set_header(target=CUDA)),
    ("a tile missing", "IE_PLAN_TILES", drop_a_tile),
    ("a JOIN instead of a tile", "IE_PLAN_TILES", skip_a_tile),
    ("a JOIN of a tile", "IE_PLAN_VALUE", lambda p: set_task(tasks_of(p, POOL)[-1], op=NONE)(p)),
    ("a tile twice", "IE_PLAN_TILES", compute_a_tile_twice),
    ("a tile elsewhere", "IE_PLAN_TILES", set_task(0, row=1)),
    ("a tile outside", "IE_PLAN_TILES", set_task(0, row=0xFFFFFFF8)),
    ("a column outside", "IE_PLAN_TILES", set_task(0, column=0xFFFFFFF0)),
    ("smaller tiles", "IE_PLAN_TILES", set_op(POOL, tile_rows=1)),
    ("larger tiles", "IE_PLAN_TILES", set_op(POOL, tile_rows=4)),
    ("more tiles than tasks", "IE_PLAN_TILES", set_op(IMAGE, tile_rows=1)),
    ("columns written twice", "IE_PLAN_OVERLAP", set_op(CONV_1X1, out_channel=19)),
    ("zeros over values", "IE_PLAN_OVERLAP", write_zeros_over_values),
    ("in place", "IE_PLAN_OVERLAP", set_op(NORM, in_buffer=2)),
    ("columns that nobody writes", "IE_PLAN_UNWRITTEN", read_padding),
    (
        "an output that nobody writes",
        "IE_PLAN_UNWRITTEN",
        set_op(PROBABILITIES, in_channels=4, out_channels=4, out_padded=4),
    ),
    ("launches begin late", "IE_PLAN_LAUNCH", set_launch(first_task=1)),
    ("launches end early", "IE_PLAN_LAUNCH", lambda p: set_launch(task_count=len(p.tasks) - 1)(p)),
    ("launches end late", "IE_PLAN_LAUNCH", set_launch(task_count=HUGE)),
    ("an empty launch", "IE_PLAN_LAUNCH", lambda p: p.launches.insert(0, LAUNCH.new(mode=1))),
    ("a launch twice", "IE_PLAN_LAUNCH", lambda p: p.launches.append(p.launches[0])),
    ("an op in two launches", "IE_PLAN_LAUNCH", cut_launch(POOL, 1)),
    ("target too high", "IE_PLAN_COUNTER", lambda p: vars(p.waits[-1]).update(target=p.waits[-1].target + 1)),
    ("target too low", "IE_PLAN_COUNTER", lambda p: vars(p.waits[-1]).update(target=p.waits[-1].target - 1)),
    (
        "a counter without signals",
        "IE_PLAN_COUNTER",
        edit_waits(lambda p, w: w[0].append(WAIT.new(counter=p.header.counter_count - 1))),
    ),
    ("waits for itself", "IE_PLAN_ORDER", wait_for_itself),
    ("waits for a later task", "IE_PLAN_ORDER", wait_for_a_later_task),
    ("a row of tiles with two counters", "IE_PLAN_MISSING_WAIT", split_a_row),
    *((f"op {op} does not wait", "IE_PLAN_MISSING_WAIT", forget_waits(op)) for op in OPS[1:]),
    ("memory used again too early", "IE_PLAN_REUSE", stack(NORM)),
    ("an output's memory used again", "IE_PLAN_REUSE", reuse_an_output),
    ("a crowd on one counter", "IE_PLAN_WORK", crowd_a_counter),
    ("one op works for days", "IE_PLAN_WORK", pool_for_days(1023, POOL)),
    ("two ops work for days", "IE_PLAN_WORK", pool_for_days(255, POOL, MEAN)),
]


def parts_task(number: int, **fields: int) -> Change:
    """Of the classifier's tasks, which are its parts."""
    return lambda p: vars(p.tasks[tasks_of(p, CLASSIFIER)[number]]).update(fields)


def place_of_parts(offset_of: int) -> Change:
    """The classifier's sums lie over a buffer of another op."""

    def apply(program: Program) -> None:
        sums = program.buffers[program.ops[CLASSIFIER].part_buffer]
        sums.offset = program.buffers[program.ops[offset_of].out_buffer].offset
        plans.fit_arena(program)

    return apply


def shorten_parts(program: Program) -> None:
    program.buffers[program.ops[CLASSIFIER].part_buffer].rows -= 1
    plans.fit_arena(program)


def signal_an_arrival(program: Program) -> None:
    program.tasks[tasks_of(program, PROBABILITIES)[0]].signal = program.ops[CLASSIFIER].first_arrival


def wait_for_an_arrival(program: Program) -> None:
    lists = program.wait_lists()
    lists[-1].append(WAIT.new(counter=program.ops[CLASSIFIER].first_arrival, target=3))
    program.set_wait_lists(lists)


def patches(
    window: int = 3, side: int = 4, tile_rows: int = 16, stride: int = 1, *, small: bool = False
) -> Program:
    """Two images of side * stride pixels square, and a convolution of them by Winograd's algorithm."""
    size = side * stride
    build = Builder((3, size, size), 2)
    image, out = build.buffer(size * size, 3), build.buffer(side * side, 20)
    build.op(INPUT, NONE, image, tile_rows=size)
    pads = dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), window // 2)
    fields = {"kernel_h": window, "kernel_w": window, "stride_h": stride, "stride_w": stride, **pads}
    flags = plans.WINOGRAD | (plans.SMALL_PATCHES if small else 0)
    fields |= {"in_h": size, "in_w": size, "flags": flags, "tile_rows": tile_rows}
    build.op(CONV, image, out, **fields)
    build.output(out, side, side)
    return build.finish()


@pytest.mark.parametrize(
    ("window", "side", "tile_rows"),
    [(3, 4, 16), (3, 8, 32), (3, 8, 128), (3, 7, 49), (5, 4, 8), (5, 6, 24), (5, 3, 9), (3, 12, 96)],
)
def test_tiles_of_whole_patches(window: int, side: int, tile_rows: int) -> None:
    program = patches(window, side, tile_rows)
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    happens_before.check(program)


@pytest.mark.parametrize(("side", "tile_rows"), [(4, 8), (8, 16), (7, 49), (6, 12), (2, 8)])
def test_tiles_of_whole_small_patches(side: int, tile_rows: int) -> None:
    program = patches(3, side, tile_rows, small=True)
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    happens_before.check(program)


@pytest.mark.parametrize(("side", "tile_rows"), [(4, 4), (8, 24), (7, 14), (6, 18)])
def test_tiles_that_cut_small_patches_are_refused(side: int, tile_rows: int) -> None:
    program = patches(3, side, tile_rows, small=True)
    assert verdict(plan_file(program)) == "IE_PLAN_ALIGNMENT"
    assert proof_rules.violations(program) == {"IE_PLAN_ALIGNMENT"}
    assert not is_safe(program)


@pytest.mark.parametrize(
    ("window", "side", "tile_rows"), [(3, 8, 16), (3, 7, 28), (5, 4, 4), (5, 7, 14), (3, 4, 8)]
)
def test_tiles_that_cut_patches_are_refused(window: int, side: int, tile_rows: int) -> None:
    """They would read lines that no wait stands for."""
    program = patches(window, side, tile_rows)
    assert verdict(plan_file(program)) == "IE_PLAN_ALIGNMENT"
    assert proof_rules.violations(program) == {"IE_PLAN_ALIGNMENT"}
    assert not is_safe(program)


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("IE_PLAN_VALUE", set_op(1, kernel_h=2, pad_top=0)),
        ("IE_PLAN_VALUE", set_op(1, kernel_w=1, pad_left=0, pad_right=0)),
        ("IE_PLAN_VALUE", set_op(1, part_depth=16)),
        ("IE_PLAN_VALUE", set_op(0, flags=plans.WINOGRAD)),
        ("IE_PLAN_VALUE", set_op(1, flags=plans.SMALL_PATCHES)),
        ("IE_PLAN_VALUE", set_op(0, flags=plans.SMALL_PATCHES)),
        ("IE_PLAN_VALUE", set_header(target=CUDA)),
        ("IE_PLAN_WEIGHTS", set_op(1, weight_bytes=36 * 3 * 32 * 4)),
        ("IE_PLAN_WEIGHTS", lambda p: set_op(1, weight_offset=p.weight_bytes)(p)),
    ],
)
def test_each_rule_of_patches_refuses(status: str, change: Change) -> None:
    program = patches()
    change(program)
    assert verdict(plan_file(program.count())) == status
    assert status in proof_rules.violations(program)


def test_small_patches_are_not_for_windows_of_5() -> None:
    program = patches(5)
    program.ops[1].flags |= plans.SMALL_PATCHES
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_windows_that_overlap_are_refused() -> None:
    """A machine makes four times as much of them: a small file must not ask for much memory."""
    build = Builder((3, 4, 4), 1)
    image, *outs = (build.buffer(16, pitch) for pitch in (3, 16, 16))
    build.op(INPUT, NONE, image)
    fields = dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1) | {
        "kernel_h": 3,
        "kernel_w": 3,
    }
    for out in outs:
        build.op(CONV, image, out, in_h=4, in_w=4, flags=plans.WINOGRAD, **fields)
        build.output(out, 4, 4)
    program = build.finish()
    assert verdict(plan_file(program)) == "IE_OK"  # they share
    program.ops[2].weight_offset = ALIGNMENT
    program.weight_bytes += ALIGNMENT
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"
    assert proof_rules.violations(program) == {"IE_PLAN_LIMIT"}
    program.weight_bytes = 2 * program.ops[2].weight_bytes
    program.ops[2].weight_offset = program.ops[2].weight_bytes
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()


@pytest.mark.parametrize(
    ("dtype", "flags"), [(plans.FP32, plans.WINOGRAD), (plans.BF16, plans.WINOGRAD), (plans.BF16, 0)]
)
def test_windows_of_other_channels_do_not_share(dtype: int, flags: int) -> None:
    """What is made of 9 x 32 channels is not what is made of 9 x 16 channels of twice as many outputs."""
    build = Builder((16, 4, 4), 1, dtype=dtype)
    image, deep, shallow = (build.buffer(16, pitch) for pitch in (16, 32, 16))
    build.op(INPUT, NONE, image)
    fields = {"kernel_h": 3, "kernel_w": 3, "in_h": 4, "in_w": 4, "flags": flags}
    fields |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
    build.op(CONV, image, deep, weight_offset=0, **fields)
    build.op(CONV, deep, shallow, weight_offset=0, **fields)
    build.output(shallow, 4, 4)
    program = build.finish()
    assert program.ops[1].weight_bytes == program.ops[2].weight_bytes
    need = program.ops[1].weight_bytes + program.ops[2].weight_bytes
    program.weight_bytes = need
    assert verdict(plan_file(program)) == "IE_OK"
    program.weight_bytes = need - ALIGNMENT
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"
    assert proof_rules.violations(program) == {"IE_PLAN_LIMIT"}


@pytest.mark.parametrize(("window", "flags", "places"), [(3, 0, 2), (1, 0, 1), (2, plans.MAX_POOL_FIRST, 1)])
def test_weights_of_one_tap_share_with_others_of_one_tap(window: int, flags: int, places: int) -> None:
    """What is made of 16 channels behind a pool is what is made of them behind another pool, or none; not what is made
    of 3 x 3 x 16 channels of as many weights."""
    build = Builder((16, 4, 4), 1, dtype=plans.BF16)
    image, pooled = build.buffer(16, 16), build.buffer(4, 144)
    build.op(INPUT, NONE, image)
    fields = {"in_h": 4, "in_w": 4, "weight_offset": 0}
    build.op(CONV, image, pooled, kernel_h=3, kernel_w=3, flags=plans.MAX_POOL_FIRST, **fields)
    size = 5 - window
    other = build.buffer(size**2, 16 if places == 2 else 144)
    build.op(CONV, image, other, kernel_h=window, kernel_w=window, flags=flags, **fields)
    build.output(pooled, 2, 2)
    build.output(other, size, size)
    program = build.finish()
    assert program.ops[1].weight_bytes == program.ops[2].weight_bytes
    program.weight_bytes = places * program.ops[1].weight_bytes
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    program.weight_bytes -= ALIGNMENT
    status = "IE_PLAN_LIMIT" if places == 2 else "IE_PLAN_WEIGHTS"
    assert verdict(plan_file(program)) == status
    assert proof_rules.violations(program) >= {status}


def test_windows_of_other_patches_do_not_share() -> None:
    """What is made of windows for small patches is not what is made of them for large ones."""
    build = Builder((3, 4, 4), 1)
    image, *outs = (build.buffer(16, pitch) for pitch in (3, 16, 16))
    build.op(INPUT, NONE, image)
    fields = {"kernel_h": 3, "kernel_w": 3, "in_h": 4, "in_w": 4, "weight_offset": 0}
    fields |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
    for out, flags in zip(outs, (plans.WINOGRAD, plans.WINOGRAD | plans.SMALL_PATCHES), strict=True):
        build.op(CONV, image, out, flags=flags, **fields)
        build.output(out, 4, 4)
    program = build.finish()
    program.weight_bytes = 2 * program.ops[1].weight_bytes
    assert verdict(plan_file(program)) == "IE_OK"
    program.weight_bytes -= ALIGNMENT
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"
    assert proof_rules.violations(program) == {"IE_PLAN_LIMIT"}


def test_patches_are_not_for_float16_or_stride_2() -> None:
    assert verdict(plan_file(patches(stride=2))) == "IE_PLAN_VALUE"
    assert proof_rules.violations(patches(stride=2)) == {"IE_PLAN_VALUE"}
    program = patches()
    program.ops[1].weight_bytes //= 2
    program.header.dtype = plans.BF16
    assert verdict(plan_file(program)) == "IE_OK"
    program.header.dtype = plans.FP16
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert "IE_PLAN_VALUE" in proof_rules.violations(program)


def normalised(flags: int = plans.THEN_LRN) -> Program:
    """A convolution and a maximum pool of two images, both with an LRN behind them."""
    build = Builder((3, 4, 4), 2)
    image, hidden, out = build.buffer(16, 3), build.buffer(16, 20), build.buffer(4, 21)
    half = {"kernel_h": 2, "kernel_w": 2, "stride_h": 2, "stride_w": 2}
    build.op(INPUT, NONE, image)
    build.op(CONV, image, hidden, in_h=4, in_w=4, tile_rows=8, flags=RELU | flags)
    fields = {"out_channel": 1, "tile_rows": 2, "flags": flags, **half}
    build.op(plans.MAX_POOL, hidden, out, in_h=4, in_w=4, **fields)
    build.output(out, 2, 2, channel=1, channels=20)
    return build.finish()


def cut_columns(op: int) -> Change:
    """The op's tiles have 16 of its 20 columns, and tasks for the others."""

    def apply(program: Program) -> None:
        program.ops[op].tile_columns = PANEL
        for number in reversed(tasks_of(program, op)):
            task = TASK.new(**vars(program.tasks[number]))
            task.column = PANEL
            insert_task(program, number + 1, task, program.wait_lists()[number])
        program.retarget()

    return apply


def test_lrn_behind_an_op() -> None:
    program = normalised()
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    assert is_safe(program)


@pytest.mark.parametrize("op", [1, 2])
@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("IE_PLAN_VALUE", {"lrn_size": 0}),
        ("IE_PLAN_VALUE", {"lrn_size": 2**24}),
        ("IE_PLAN_VALUE", {"lrn_alpha": float("inf")}),
        ("IE_PLAN_VALUE", {"lrn_beta": float("nan")}),
        ("IE_PLAN_VALUE", {"lrn_k": float("-inf")}),
        ("IE_PLAN_ALIGNMENT", {"tile_columns": 19}),
    ],
)
def test_each_rule_of_an_lrn_behind_an_op_refuses(status: str, change: dict[str, float], op: int) -> None:
    program = normalised()
    set_op(op, **change)(program)
    assert verdict(plan_file(program)) == status
    assert status in proof_rules.violations(program)


@pytest.mark.parametrize("op", [1, 2])
def test_an_lrn_behind_some_columns_is_refused(op: int) -> None:
    """It would read those of another task. Without an LRN the same tiles are sound."""
    plain = normalised(flags=0)
    cut_columns(op)(plain)
    assert verdict(plan_file(plain.count())) == "IE_OK"
    assert is_safe(plain)
    program = normalised()
    cut_columns(op)(program)
    assert verdict(plan_file(program.count())) == "IE_PLAN_ALIGNMENT"
    assert proof_rules.violations(program) == {"IE_PLAN_ALIGNMENT"}
    assert not is_safe(program)


@pytest.mark.parametrize("op", [IMAGE, NORM, MEAN, PROBABILITIES])
def test_ops_that_have_no_lrn_behind_them(op: int) -> None:
    program = small_program()
    set_op(op, flags=plans.THEN_LRN, lrn_size=5)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_no_lrn_behind_parts() -> None:
    program = small_program(1, part_depth=PANEL)
    set_op(CLASSIFIER, lrn_size=5)(program)
    assert verdict(plan_file(program)) == "IE_OK"
    set_op(CLASSIFIER, flags=plans.THEN_LRN)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_no_lrn_behind_ops_of_a_gpu() -> None:
    build = Builder((4, 2, 2), 1, CUDA)
    image, out = build.buffer(4, 4), build.buffer(4, PANEL)
    build.op(INPUT, NONE, image)
    build.op(CONV, image, out, in_h=2, in_w=2)
    build.output(out, 2, 2)
    program = build.finish()
    set_op(1, lrn_size=5)(program)
    assert verdict(plan_file(program)) == "IE_OK"
    set_op(1, flags=plans.THEN_LRN)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_an_lrn_behind_an_op_is_work() -> None:
    """2^20 pixels of a panel: of 2^44 multiply-adds, a window of LRN has 2^24 for each of its channels."""
    build = Builder((1, 1024, 1024))
    image, out = build.buffer(2**20, 1), build.buffer(2**20, PANEL)
    build.op(INPUT, NONE, image)
    build.op(CONV, image, out, in_h=1024, in_w=1024, flags=plans.THEN_LRN)
    build.output(out, 1024, 1024)
    program = build.finish()
    for size, status in ((2**20 - 2, "IE_OK"), (2**20 - 1, "IE_PLAN_WORK"), (2**24 - 1, "IE_PLAN_WORK")):
        program.ops[1].lrn_size = size
        assert verdict(plan_file(program)) == status
        assert (proof_rules.violations(program) or {"IE_OK"}) == {status}


def pool_first(**changed: int) -> Program:
    """Two images, and a 1x1 convolution of the maxima of 3 x 3 pixels."""
    build = Builder((3, 6, 6), 2)
    image, out = build.buffer(36, 3), build.buffer(9, 20)
    build.op(INPUT, NONE, image, tile_rows=6)
    fields = {"kernel_h": 3, "kernel_w": 3, "stride_h": 2, "stride_w": 2, "pad_top": 1, "pad_left": 1}
    fields |= {"in_h": 6, "in_w": 6, "tile_rows": 3, "flags": plans.MAX_POOL_FIRST}
    build.op(CONV, image, out, **(fields | changed))
    build.output(out, 3, 3)
    return build.finish()


def test_a_pool_in_front_of_a_convolution() -> None:
    """It reads as the pool reads, and has weights of one tap."""
    program = pool_first()
    assert program.ops[1].weight_bytes == 3 * 32 * 4
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    assert is_safe(program)
    lists = program.wait_lists()  # a tile's first line of pixels is the last of another band
    assert [len(waits) for waits in lists[-6:]] == [2, 3, 3, 2, 3, 3]
    lists[-2].pop(0)
    program.set_wait_lists(lists)
    assert verdict(plan_file(program.count())) != "IE_OK"
    assert not is_safe(program)


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("IE_PLAN_WEIGHTS", set_op(1, weight_bytes=9 * 3 * 32 * 4)),
        ("IE_PLAN_WEIGHTS", set_op(1, flags=0)),
        ("IE_PLAN_VALUE", set_op(1, part_depth=16)),
        ("IE_PLAN_VALUE", set_op(1, flags=plans.MAX_POOL_FIRST | plans.WINOGRAD)),
        ("IE_PLAN_VALUE", set_op(0, flags=plans.MAX_POOL_FIRST)),
        ("IE_PLAN_VALUE", set_header(target=CUDA)),
    ],
)
def test_each_rule_of_a_pool_in_front_refuses(status: str, change: Change) -> None:
    program = pool_first()
    change(program)
    assert verdict(plan_file(program.count())) == status
    assert status in proof_rules.violations(program)


def test_no_pool_in_front_of_a_folded_convolution() -> None:
    """It would choose among channels of several pixels."""
    fields = {"in_channels": 6, "kernel_w": 1, "pad_left": 0}
    program = pool_first(**fields, flags=0)
    assert verdict(plan_file(program)) == "IE_OK"
    program = pool_first(**fields)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_a_pool_in_front_sees_a_pixel() -> None:
    """Padding as high as the window: of no pixels there is no maximum."""
    program = pool_first(kernel_h=1, kernel_w=1, pad_top=1, pad_left=0, stride_h=3, stride_w=2)
    assert verdict(plan_file(program)) == "IE_PLAN_GEOMETRY"
    assert proof_rules.violations(program) == {"IE_PLAN_GEOMETRY"}


@pytest.mark.parametrize("op", [IMAGE, POOL, NORM, MEAN, PROBABILITIES])
def test_ops_that_have_no_pool_in_front(op: int) -> None:
    program = small_program()
    set_op(op, flags=plans.MAX_POOL_FIRST)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


# The same for small_program(part_depth=16), whose classifier's K of 48 is cut into three.
BROKEN_PARTS: list[tuple[str, str, Change]] = [
    ("a place without parts", "IE_PLAN_VALUE", set_op(CONV_1X1, part_buffer=1)),
    ("arrivals without parts", "IE_PLAN_VALUE", set_op(CONV_1X1, first_arrival=1)),
    ("parts of a pool", "IE_PLAN_VALUE", set_op(POOL, part_depth=16)),
    ("one part", "IE_PLAN_VALUE", set_op(CLASSIFIER, part_depth=48)),
    ("half a panel in a part", "IE_PLAN_ALIGNMENT", set_op(CLASSIFIER, part_depth=24)),
    ("no buffer for parts", "IE_PLAN_VALUE", set_op(CLASSIFIER, part_buffer=HUGE)),
    ("parts beyond their buffer", "IE_PLAN_BOUNDS", shorten_parts),
    ("parts of huge tiles", "IE_PLAN_BOUNDS", set_op(CLASSIFIER, tile_columns=2**24 - 16)),
    ("no such arrivals", "IE_PLAN_VALUE", set_op(CLASSIFIER, first_arrival=HUGE)),
    ("arrivals that are signals", "IE_PLAN_COUNTER", set_op(CLASSIFIER, first_arrival=0)),
    ("a signal for an arrival", "IE_PLAN_COUNTER", signal_an_arrival),
    ("a wait for an arrival", "IE_PLAN_COUNTER", wait_for_an_arrival),
    ("a part twice", "IE_PLAN_TILES", parts_task(1, part=0)),
    ("no such part", "IE_PLAN_TILES", parts_task(2, part=3)),
    ("a part of what has none", "IE_PLAN_TILES", set_task(0, part=1)),
    ("longer parts, fewer of them", "IE_PLAN_TILES", set_op(CLASSIFIER, part_depth=32)),
    (
        "parts in a buffer of another op",
        "IE_PLAN_OVERLAP",
        lambda p: set_op(CLASSIFIER, part_buffer=p.ops[CONV_3X3].out_buffer)(p),
    ),
    ("parts over the input", "IE_PLAN_REUSE", place_of_parts(MEAN)),
    ("parts over the result", "IE_PLAN_REUSE", place_of_parts(CLASSIFIER)),
]


@pytest.mark.parametrize(("status", "change"), [pytest.param(s, c, id=name) for name, s, c in BROKEN_PARTS])
def test_each_rule_of_parts_refuses(status: str, change: Change) -> None:
    program = small_program(1, part_depth=16)
    assert verdict(plan_file(program)) == "IE_OK"
    happens_before.check(program)
    change(program)
    assert verdict(plan_file(program.count())) == status
    assert status in proof_rules.violations(program)


@pytest.mark.parametrize("op", [CONV_1X1, PROBABILITIES])
def test_parts_in_memory_that_others_have_used_or_will_use(op: int) -> None:
    program = small_program(1, part_depth=16)
    place_of_parts(op)(program)
    assert verdict(plan_file(program)) == "IE_OK"
    happens_before.check(program)


def test_parts_are_float32() -> None:
    build = Builder((32, 1, 1), dtype=plans.FP16)
    image, result = build.buffer(1, 32), build.buffer(1, 5)
    build.op(INPUT, NONE, image)
    build.op(CONV, image, result, in_h=1, in_w=1, part_depth=PANEL)
    build.output(result, 1, 1)
    program = build.finish()
    assert verdict(plan_file(program)) == "IE_OK"
    sums = program.buffers[program.ops[1].part_buffer]
    sums.dtype, sums.rows = plans.FP16, 2 * sums.rows
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_at_most_64_parts() -> None:
    for channels, status in ((64 * PANEL, "IE_OK"), (65 * PANEL, "IE_PLAN_VALUE")):
        build = Builder((channels, 1, 1))
        image, result = build.buffer(1, channels), build.buffer(1, 5)
        build.op(INPUT, NONE, image)
        build.op(CONV, image, result, in_h=1, in_w=1, part_depth=PANEL)
        build.output(result, 1, 1)
        program = build.finish()
        assert verdict(plan_file(program)) == status
        assert (proof_rules.violations(program) or {"IE_OK"}) == {status}


def broken(change: Change) -> Program:
    program = small_program()
    program.header.counter_count += 1  # one more than is used, for a wait that nobody signals
    change(program)
    return program.count()


@pytest.mark.parametrize(("status", "change"), [pytest.param(s, c, id=name) for name, s, c in BROKEN])
def test_each_rule_refuses(status: str, change: Change) -> None:
    program = broken(change)
    assert verdict(plan_file(program)) == status
    assert status in proof_rules.violations(program)


def test_what_the_rules_break_is_sound() -> None:
    program = broken(lambda p: None)
    assert verdict(plan_file(program)) == "IE_OK"

    assert is_safe(program)


def test_every_status_of_the_proof_has_its_test() -> None:
    file = {
        "TRUNCATED",
        "FOREIGN",
        "VERSION",
        "HASH",
        "SECTIONS",
        "LIMIT",
        "RESERVED",
        "METADATA",
    }  # in test_plan_file.py and test_metadata.py
    names = {name.removeprefix("IE_PLAN_") for name in STATUS.values() if name.startswith("IE_PLAN_")}
    assert names - file == {status.removeprefix("IE_PLAN_") for _, status, _ in BROKEN}


def test_a_window_of_too_many_weights() -> None:
    program = small_program(1)
    program.buffers[0].pitch, program.buffers[0].offset = 2**20, 2**30
    plans.fit_arena(program)
    vars(program.ops[CONV_3X3]).update(in_channels=2**20, kernel_h=64, kernel_w=64)
    for name in ("pad_top", "pad_left"):
        setattr(program.ops[CONV_3X3], name, 63)
    vars(program.ops[CONV_3X3]).update(pad_bottom=0, pad_right=0)
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"


def test_counters_that_nobody_signals_take_no_memory() -> None:
    """The loader and every context hold memory for each counter; a counter without tasks is of no use."""
    program = small_program()
    program.header.counter_count = len(program.tasks)
    assert verdict(plan_file(program)) == "IE_OK"
    program.header.counter_count += 1
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"


def test_a_proof_that_takes_too_long() -> None:
    program = endless_proof()
    assert is_safe(program)
    status, message = check_plan(plan_file(program))
    assert STATUS[status] == "IE_PLAN_WORK"
    assert "proof" in message


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff\xfe\xfd", b"\0\0\0", b"%s%n"])
def test_a_message_is_one_printable_line_whatever_names_hold(name: bytes) -> None:
    program = small_program()
    program.strings = name
    for op in program.ops:
        op.name, op.name_bytes = 0, len(name)
    for record in (*program.outputs, *program.launches):
        record.name, record.name_bytes = 0, len(name)
    program.ops[POOL].stride_h = 1
    status, message = check_plan(plan_file(program.count()))
    assert STATUS[status] == "IE_PLAN_GEOMETRY"
    assert message.isprintable()


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("IE_OK", {}),
        ("IE_OK", {"in_channels": 4, "kernel_h": 1, "stride_h": 2}),
        ("IE_PLAN_BOUNDS", {"in_channels": 8}),
        ("IE_PLAN_BOUNDS", {"stride_w": 2}),
        ("IE_PLAN_BOUNDS", {"stride_w": 2**24 - 1}),
        ("IE_PLAN_GEOMETRY", {"in_channel": 1}),
        ("IE_PLAN_GEOMETRY", {"kernel_w": 2}),
        ("IE_PLAN_GEOMETRY", {"pad_left": 1}),
        ("IE_PLAN_GEOMETRY", {"pad_right": 1}),
        ("IE_PLAN_GEOMETRY", {"stride_h": 3}),
    ],
)
def test_a_convolution_folded_along_lines(status: str, fields: dict[str, int]) -> None:
    """Three pixels of two channels are one tap of six, in lines of six pixels."""
    build = Builder((2, 3, 6), 2)
    image, out = build.buffer(18, 2), build.buffer(8, 16)
    build.op(INPUT, NONE, image, tile_rows=6)
    build.op(CONV, image, out, in_h=3, in_w=6, in_channels=6, kernel_h=2, tile_rows=4)
    build.output(out, 2, 4)
    op = build.program.ops[1]
    vars(op).update(fields)
    op.weight_bytes = plans.window_bytes(build.program, op)
    build.program.weight_bytes = 2 * op.weight_bytes
    program = build.finish()
    assert verdict(plan_file(program)) == status
    assert proof_rules.violations(program) == ({status} if status != "IE_OK" else set())
    if status != "IE_PLAN_GEOMETRY":
        assert is_safe(program) == (status == "IE_OK")


@pytest.mark.parametrize(
    ("status", "op", "fields", "pitch"),
    [
        ("IE_OK", 1, {}, 16),
        ("IE_OK", 1, {}, 32),
        ("IE_PLAN_ALIGNMENT", 1, {"in_channels": 3}, 16),
        ("IE_PLAN_ALIGNMENT", 1, {"in_channel": 1, "in_channels": 3}, 16),
        ("IE_PLAN_ALIGNMENT", 1, {"out_padded": 8, "out_channels": 8}, 16),
        ("IE_PLAN_ALIGNMENT", 2, {"out_channel": 8}, 16),
        ("IE_PLAN_ALIGNMENT", 3, {"in_channel": 8}, 16),
        ("IE_PLAN_ALIGNMENT", 3, {}, 17),
        ("IE_PLAN_ALIGNMENT", 3, {"in_buffer": 0, "in_channels": 4, "out_channels": 4, "in_channel": 0}, 16),
        ("IE_PLAN_ALIGNMENT", 3, {"tile_columns": 8}, 16),
    ],
)
def test_slices_on_a_gpu(status: str, op: int, fields: dict[str, int], pitch: int) -> None:
    """Two convolutions of an image with four channels fill a buffer of 32; a pool takes the second half."""
    build = Builder((4, 2, 2), 2, CUDA, plans.FP16)
    image, joined, out = build.buffer(4, 4), build.buffer(4, 32), build.buffer(4, pitch)
    build.op(INPUT, NONE, image)
    for channel in (0, 16):
        build.op(CONV, image, joined, in_h=2, in_w=2, out_channel=channel, out_channels=16)
    build.op(plans.MAX_POOL, joined, out, in_h=2, in_w=2, in_channel=16, in_channels=16, out_channels=16)
    build.output(out, 2, 2, channels=4)
    vars(build.program.ops[op]).update(fields)
    for number in (1, 2):
        build.program.ops[number].weight_bytes = plans.window_bytes(build.program, build.program.ops[number])
    program = build.finish()
    assert verdict(plan_file(program)) == status
    assert (status in proof_rules.violations(program)) == (status != "IE_OK")


# Programs that are as safe as they are unusual.


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_reuse_behind_waits(max_batch: int) -> None:
    program = small_program(max_batch)
    stack(MEAN)(program)
    wait_for_op(MEAN, IMAGE)(program)
    wait_for_op(MEAN, CONV_3X3)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def test_reuse_behind_a_launch() -> None:
    program = small_program()
    stack(NORM)(program)
    cut_launch(NORM, 0)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def test_a_launch_orders_what_nothing_waits_for() -> None:
    program = small_program()
    cut_launch(MEAN, 0)(program)
    forget_waits(MEAN)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def join_before_mean(program: Program) -> int:
    """A JOIN waits for what the average pool waits for, which now waits for the JOIN alone. Returns its counter."""
    number = tasks_of(program, MEAN)[0]
    counter = program.header.counter_count
    program.header.counter_count += 1
    lists = program.wait_lists()
    waits, lists[number] = lists[number], [WAIT.new(counter=counter)]
    program.set_wait_lists(lists)
    insert_task(program, number, TASK.new(op=NONE, signal=counter), waits)
    return counter


def test_a_join_stands_for_complete_ops() -> None:
    program = small_program()
    join_before_mean(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def test_a_join_does_not_stand_for_tiles() -> None:
    """Refused though safe, because the proof asks for direct waits for tiles of an op that is not complete.

    The last tile of LRN needs the last two bands of the image only, through the convolution; here it gets the
    counters of the convolution's tiles through a JOIN.
    """
    program = small_program()
    number = tasks_of(program, NORM)[-1]
    counter = program.header.counter_count
    program.header.counter_count += 1
    lists = program.wait_lists()
    waits, lists[number] = lists[number], [WAIT.new(counter=counter)]
    program.set_wait_lists(lists)
    insert_task(program, number, TASK.new(op=NONE, signal=counter), waits)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_PLAN_MISSING_WAIT"


def test_tiles_of_tiles_do_not_make_an_op_complete() -> None:
    """Refused though safe: the average pool waits for all tiles of the branches, they for all tiles of the LRN, and so
    on back to the image, but no task waits for the whole image."""
    program = small_program()
    stack(MEAN)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_PLAN_REUSE"


def test_two_outputs_of_one_buffer_and_two_programs() -> None:
    program = small_program()
    program.outputs.append(plans.Record(**vars(program.outputs[0])))
    program.count()
    assert verdict(plan_file(program, small_program(1), small_program(3))) == "IE_OK"


# Brute force.


def judge(program: Program) -> str:
    """The loader's verdict, after comparing it with the rules and with brute force."""
    status = verdict(plan_file(program))
    broken_rules = proof_rules.violations(program)
    assert status in (broken_rules or {"IE_OK"}), broken_rules
    if status == "IE_OK":
        happens_before.check(program)
    return status


def test_random_and_mutated_programs() -> None:
    """Five thousand random programs, most of them mutated once to three times."""
    rng = random.Random(2014)
    found: Counter[str] = Counter()
    refused_though_safe: Counter[str] = Counter()
    cut = 0  # accepted programs with an op whose K is cut
    for _ in range(5000):
        program = random_program(rng)
        if rng.random() < 0.7:
            program = mutated(program, rng)
        status = judge(program)
        found[status] += 1
        cut += status == "IE_OK" and any(op.part_depth for op in program.ops)
        if status in ("IE_PLAN_MISSING_WAIT", "IE_PLAN_REUSE") and is_safe(program):
            refused_though_safe[status] += 1
    assert cut > 100
    print(f"verdicts: {dict(found.most_common())}; refused though safe: {dict(refused_though_safe)}")
    # Both sides of the border are well populated, and the rules lose few safe programs.
    assert 0.2 < found["IE_OK"] / 5000 < 0.6
    assert min(found["IE_PLAN_MISSING_WAIT"], found["IE_PLAN_REUSE"]) > 200
    assert sum(refused_though_safe.values()) < 0.2 * (found["IE_PLAN_MISSING_WAIT"] + found["IE_PLAN_REUSE"])


def test_programs_at_the_border() -> None:
    """Five thousand steps of an adversary who keeps every mutation that the loader lets pass."""
    rng = random.Random(1409)
    accepted = 0
    for _ in range(250):
        program = random_program(rng)
        for _ in range(20):
            candidate = mutated(program, rng)
            if judge(candidate) == "IE_OK":
                program, accepted = candidate, accepted + 1
    print(f"accepted: {accepted} of 5000")
    assert accepted > 1000


def test_programs_with_no_wait_to_spare() -> None:
    """Waits are dropped until the loader wants every one that is left; brute force wants no other."""
    rng = random.Random(5)
    dropped = 0
    for _ in range(60):
        program = random_program(rng)
        if verdict(plan_file(program)) != "IE_OK":
            continue
        places = [(t, w) for t, waits in enumerate(program.wait_lists()) for w in range(len(waits))]
        rng.shuffle(places)
        gone: set[tuple[int, int]] = set()
        lists = program.wait_lists()
        for place in places:
            lean = program.copy()
            lean.set_wait_lists(
                [
                    [w for i, w in enumerate(waits) if (t, i) not in gone | {place}]
                    for t, waits in enumerate(lists)
                ]
            )
            if verdict(plan_file(lean.count())) == "IE_OK":
                gone.add(place)
                leanest = lean
        if gone:
            happens_before.check(leanest)
            dropped += len(gone)
    assert dropped > 100


def test_compiled_programs() -> None:
    """What the compiler makes of random networks: the loader accepts it, and it is safe."""
    generator = np.random.default_rng(0)
    for _ in range(25):
        network = random_network(generator)
        data = compile(network, batches=(1, 3)).to_bytes()
        assert verdict(data) == "IE_OK"
        for program in plans.read_programs(data):
            assert not proof_rules.violations(program)
            happens_before.check(program)


def test_damaged_programs_with_a_mended_hash() -> None:
    """Each byte of a program in turn: what the loader lets pass is as safe as before."""
    data = plan_file(small_program(1))
    ((_, begin, size),) = [section for section in plans.read_sections(data) if section[0] == plans.PROGRAM]
    rng = random.Random(3)
    accepted = 0
    for position in range(begin, begin + size):
        for flip in (1 << rng.randrange(8), rng.randint(1, 255)):
            damaged = bytearray(data)
            damaged[position] ^= flip
            mended = plans.mend_hash(bytes(damaged))
            if verdict(mended) == "IE_OK":
                (program,) = plans.read_programs(mended)
                assert not proof_rules.violations(program), position
                happens_before.check(program)
                accepted += 1
    assert accepted > 0


# The judges themselves can fail.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forget_waits(NORM), r"not ordered"),
        (stack(NORM), r"not ordered"),
        (reuse_an_output, r"output 0 reads what task 26 wrote into another buffer"),
        (skip_a_tile, r"nothing has written"),
        (wait_for_itself, r"waits for task"),
        (drop_a_tile, r"nothing has written"),
        (set_op(CONV_1X1, in_channel=1), r"outside buffer"),
        (set_op(CLASSIFIER, out_channel=1), r"outside buffer"),
        (set_header(arena_bytes=64), r"leaves the arena"),
        (set_op(CONV_3X3, weight_offset=64), r"weights"),
        (lambda p: vars(p.waits[-1]).update(target=0), r"waits for 0 of"),
        (set_op(CONV_1X1, out_channel=19), r"not ordered"),
    ],
)
def test_brute_force_finds(change: Change, message: str) -> None:
    program = broken(change)
    with pytest.raises(happens_before.Hazard, match=message):
        happens_before.check(program)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (parts_task(1, part=0), r"lacks parts"),
        (signal_an_arrival, r"counted with something else"),
        (place_of_parts(MEAN), r"overwrites what it reads"),
        (set_op(CLASSIFIER, first_arrival=HUGE), r"counted with something else"),
        (lambda p: set_buffer(p.ops[CLASSIFIER].part_buffer, rows=2)(p), r"lie outside buffer"),
    ],
)
def test_brute_force_finds_in_parts(change: Change, message: str) -> None:
    program = small_program(1, part_depth=16)
    change(program)
    with pytest.raises(happens_before.Hazard, match=message):
        happens_before.check(program)


def test_brute_force_looks_at_smaller_batches() -> None:
    """The output's second image is the first image's memory: right for one image, wrong for two."""
    program = small_program(2)
    output = program.outputs[0]
    other = program.buffers[program.ops[PROBABILITIES].out_buffer]
    other.offset = program.buffers[output.buffer].offset + buffer_bytes(program, output.buffer) // 2
    with pytest.raises(happens_before.Hazard, match=re.escape("batch 2")):
        happens_before.check(program)
