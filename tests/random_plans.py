"""Random small programs and mutations of them: what a compiler might make, and what an attacker might."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.plans import (
    ALIGNMENT,
    AVERAGE_POOL,
    BF16,
    CONV,
    COUNT_INCLUDE_PAD,
    CPU,
    CUDA,
    FP16,
    FP32,
    INPUT,
    LAUNCH,
    LRN,
    MAX_POOL,
    MAX_POOL_FIRST,
    NETWORK,
    NONE,
    PANEL,
    SMALL_PATCHES,
    SOFTMAX,
    THEN_LRN,
    WINOGRAD,
    Builder,
    Program,
    Record,
    window_bytes,
)


@dataclass
class _Value:
    """Channels of a buffer that hold an activation."""

    buffer: int
    channel: int
    channels: int
    height: int
    width: int


def random_program(rng: random.Random) -> Program:
    """An image, one to five stages (chains, and branches that are concatenated), one or two outputs.

    Most are valid; some leave out a wait that they need.
    """
    channels, height, width = rng.randint(1, 4), rng.randint(1, 6), rng.randint(1, 6)
    batch = rng.choice((1, 2, 2, 3))
    target, dtype = rng.choice(((CPU, FP32),) * 6 + ((CPU, BF16), (CUDA, FP16), (CUDA, FP32)))
    build = Builder((channels, height, width), batch, target, dtype)
    pads = {"pad_left": rng.choice((0, 0, 1, 2)), "pad_right": rng.choice((0, 0, 1, 2))}
    wide = width + sum(pads.values())
    # On a GPU pixels of the image are a quarter of a panel.
    padded = 4 if target == CUDA else _padded(channels, rng)
    pitch = padded + rng.choice((0, 0, 0, 4, 8) if target == CUDA else (0, 0, 0, 1, 3))
    image = build.buffer(height * wide, pitch)
    build.op(
        INPUT, NONE, image, out_padded=padded, tile_rows=_tile_rows(rng, batch * height * wide, wide), **pads
    )
    values = [_Value(image, 0, padded, height, wide)]
    for _ in range(rng.randint(1, 5)):
        source = rng.choice((values[-1], values[-1], rng.choice(values)))
        values += _stage(build, source, rng)
    build.output(
        values[-1].buffer, values[-1].height, values[-1].width, values[-1].channel, values[-1].channels
    )
    if rng.random() < 0.3:
        value = rng.choice(values)
        build.output(value.buffer, value.height, value.width, value.channel, value.channels)
    for buffer in build.program.buffers:
        if rng.random() < 0.2:  # in a program of another dtype, too, some activations may be float32
            buffer.dtype = FP32
    _place_weights(build.program, rng)
    return build.finish(rng)


def _place_weights(program: Program, rng: random.Random) -> None:
    """Those of each convolution behind the last one's, or all at one place; mostly with room for what a CPU makes of
    them."""
    apart, end = rng.random() < 0.7, 0
    for op in program.ops:
        if op.kind == CONV:
            op.weight_offset = end if apart else 0
            end += -(-op.weight_bytes // ALIGNMENT) * ALIGNMENT
    if apart or rng.random() < 0.7:
        program.weight_bytes = max(program.weight_bytes, end)


def _tile_rows(rng: random.Random, rows: int, width: int) -> int:
    """At most eight tiles, so that programs stay small."""
    return max(-(-rows // 8), rng.choice((1, 2, 3, 5, width, 2 * width, rows)))


def _padded(channels: int, rng: random.Random) -> int:
    """Columns with zeros behind them, up to the end of the last panel."""
    return min(channels + rng.choice((0, 0, 0, 1, 3)), -(-channels // PANEL) * PANEL)


def _stage(build: Builder, source: _Value, rng: random.Random) -> list[_Value]:
    """One op, or up to three that write side by side into one buffer."""
    window = _window(source, rng)
    # On a GPU slices are whole panels, but for those of a convolution that has to do with a few channels.
    on_gpu = build.program.header.target == CUDA
    branches = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.choice((CONV, CONV, MAX_POOL, AVERAGE_POOL))
        if all(window[name] == 1 for name in ("kernel_h", "kernel_w", "stride_h", "stride_w")):
            kind = rng.choice((CONV, CONV, MAX_POOL, LRN, SOFTMAX))
        if on_gpu and build.program.buffers[source.buffer].pitch % PANEL:
            kind = CONV
        fields = dict(window)
        if kind != CONV and fields["pad_top"] + fields["pad_left"] == 0 and rng.random() < 0.1:
            fields["flags"] = COUNT_INCLUDE_PAD if kind == AVERAGE_POOL else 0
        channel, channels = source.channel, source.channels
        if channels > 1 and rng.random() < 0.15:
            channels = rng.randint(1, channels)
            shift = rng.randint(0, source.channels - channels)
            channel += shift // PANEL * PANEL if on_gpu else shift
        if on_gpu and kind == CONV:
            channels = -(-channels // 4) * 4
        out = rng.choice((1, 2, 4, 16, 17, 20, 33)) if kind == CONV else channels
        padded = -(-out // PANEL) * PANEL if on_gpu else _padded(out, rng)
        branches.append((kind, fields, channel, channels, out, padded))
    pitch = sum(padded for *_, padded in branches) + rng.choice((0, 0, PANEL if on_gpu else 2))
    height = (source.height + window["pad_top"] + window["pad_bottom"] - window["kernel_h"]) // window[
        "stride_h"
    ] + 1
    width = (source.width + window["pad_left"] + window["pad_right"] - window["kernel_w"]) // window[
        "stride_w"
    ] + 1
    whole = build.program.buffers[source.buffer].pitch
    can_fold = source.channel == 0 and source.channels == whole and not (on_gpu and whole == 8)
    if len(branches) == 1 and can_fold and rng.random() < 0.15:
        return [_folded(build, source, whole, rng)]
    rows = build.program.header.max_batch * height * width
    buffer = build.buffer(height * width, pitch)
    tile_rows = _tile_rows(rng, rows, width)
    values: list[_Value] = []
    begin = 0
    for kind, fields, channel, channels, out, padded in branches:
        if rng.random() < 0.3:
            tile_rows = _tile_rows(rng, rows, width)
        panels = -(-padded // PANEL)
        columns = panels if kind in (LRN, SOFTMAX) else rng.choice((1, panels, panels))
        fields |= {
            "in_channel": channel,
            "in_channels": channels,
            "out_channel": begin,
            "out_channels": out,
            "out_padded": padded,
            "tile_rows": tile_rows,
            "tile_columns": columns * PANEL,
        }
        steps = fields["kernel_h"] * fields["kernel_w"] * channels // PANEL
        if kind == CONV and channels % PANEL == 0 and steps > 1 and rng.random() < 0.6:
            fields["part_depth"] = PANEL * rng.randint(max(1, steps // 6), steps - 1)
        if kind == CONV and rng.random() < 0.8:
            fields |= _winograd(build, fields, height, width, rng)
        if kind == CONV and rng.random() < 0.15 and (not on_gpu or rng.random() < 0.05):
            cannot = fields.get("part_depth") or fields.get("flags", 0) & WINOGRAD
            fields["flags"] = fields.get("flags", 0) | (
                0 if cannot and rng.random() < 0.95 else MAX_POOL_FIRST
            )
        whole = columns == panels and not fields.get("part_depth") and not on_gpu
        if kind in (CONV, MAX_POOL) and rng.random() < (0.25 if whole else 0.01):
            fields["flags"] = THEN_LRN | fields.get("flags", 0)
        build.op(kind, source.buffer, buffer, in_h=source.height, in_w=source.width, **fields)
        values.append(_Value(buffer, begin, padded, height, width))
        begin += padded
    return [*values, _Value(buffer, 0, begin, height, width)]


def _winograd(
    build: Builder, fields: dict[str, int], height: int, width: int, rng: random.Random
) -> dict[str, int]:
    """What makes a convolution one by Winograd's algorithm, if it can be; in a few cases the tiles do not suit it."""
    window = [fields[name] for name in ("kernel_h", "kernel_w", "stride_h", "stride_w")]
    header = build.program.header
    runs = header.target == CPU and header.dtype != FP16 and not fields.get("part_depth")
    if not runs or window not in ([3, 3, 1, 1], [5, 5, 1, 1]):
        return {}
    small = SMALL_PATCHES if window[0] == 3 and rng.random() < 0.5 else 0
    side = (5 if small else 7) - window[0]
    unit = side * width if height % side == 0 and rng.random() < 0.7 else height * width
    rows = -(-fields["tile_rows"] // unit) * unit
    return {"flags": WINOGRAD | small | fields.get("flags", 0)} | (
        {"tile_rows": rows} if rng.random() < 0.95 else {}
    )


def _window(source: _Value, rng: random.Random) -> dict[str, int]:
    """A kernel, strides and pads that fit the image; often 1 x 1, 3 x 3 padded, or as large as the image."""
    style = rng.random()
    fields = {"kernel_h": 1, "kernel_w": 1, "stride_h": 1, "stride_w": 1}
    fields |= {"pad_top": 0, "pad_left": 0, "pad_bottom": 0, "pad_right": 0}
    if style < 0.35:
        return fields
    if style < 0.55:
        return {name: 3 if "kernel" in name else 1 for name in fields}
    if style < 0.65:
        return fields | {"kernel_h": source.height, "kernel_w": source.width}
    if style < 0.75:
        kernel = rng.choice((3, 5))
        pads = {name: rng.randint(kernel // 2, kernel // 2 + 1) for name in fields if "pad" in name}
        return fields | pads | {"kernel_h": kernel, "kernel_w": kernel}
    for axis, size, before, after in (
        ("h", source.height, "top", "bottom"),
        ("w", source.width, "left", "right"),
    ):
        kernel = rng.randint(1, 4)
        fields[f"kernel_{axis}"] = kernel
        fields[f"stride_{axis}"] = rng.choice((1, 1, 2, 3))
        fields[f"pad_{before}"] = rng.randint(0, kernel - 1)
        fields[f"pad_{after}"] = rng.randint(0, kernel - 1)
        while size + fields[f"pad_{before}"] + fields[f"pad_{after}"] < kernel:
            kernel -= 1
            fields[f"kernel_{axis}"] = kernel
            fields[f"pad_{before}"] = min(fields[f"pad_{before}"], kernel - 1)
            fields[f"pad_{after}"] = min(fields[f"pad_{after}"], kernel - 1)
    return fields


def _folded(build: Builder, source: _Value, pitch: int, rng: random.Random) -> _Value:
    """A convolution whose taps along a line are folded into its channels."""
    taps = rng.randint(1, min(3, source.width))
    kernel, stride = rng.randint(1, min(3, source.height)), rng.choice((1, 2))
    height, width = (source.height - kernel) // stride + 1, (source.width - taps) // stride + 1
    out = rng.choice((2, 16, 18)) if build.program.header.target != CUDA else PANEL
    buffer = build.buffer(height * width, out)
    fields = {"kernel_h": kernel, "stride_h": stride, "stride_w": stride, "in_channels": taps * pitch}
    tile_rows = _tile_rows(rng, build.program.header.max_batch * height * width, width)
    build.op(
        CONV, source.buffer, buffer, in_h=source.height, in_w=source.width, tile_rows=tile_rows, **fields
    )
    return _Value(buffer, 0, out, height, width)


# Mutations. Each changes the program in place, and may by chance leave it valid.


def _sort_waits(program: Program) -> None:
    """Tasks that have moved take their waits along: the table is in the order of tasks."""
    program.set_wait_lists(program.wait_lists())


def drop_wait(program: Program, rng: random.Random) -> None:
    lists = program.wait_lists()
    waiting = [waits for waits in lists if waits]
    if waiting:
        waits = rng.choice(waiting)
        waits.remove(rng.choice(waits))
        program.set_wait_lists(lists)


def drop_waits_of_a_task(program: Program, rng: random.Random) -> None:
    lists = program.wait_lists()
    rng.choice(lists).clear()
    program.set_wait_lists(lists)


def add_wait(program: Program, rng: random.Random) -> None:
    lists = program.wait_lists()
    donor = rng.choice(lists)
    if donor:
        rng.choice(lists).append(Record(**vars(rng.choice(donor))))
        program.set_wait_lists(lists)


def exchange_waits(program: Program, rng: random.Random) -> None:
    first, second = rng.choice(program.tasks), rng.choice(program.tasks)
    for name in ("wait_begin", "wait_count"):
        a, b = getattr(first, name), getattr(second, name)
        setattr(first, name, b)
        setattr(second, name, a)
    _sort_waits(program)


def change_target(program: Program, rng: random.Random) -> None:
    if program.waits:
        wait = rng.choice(program.waits)
        wait.target = max(0, wait.target + rng.choice((-1, 1, -wait.target)))


def change_wait_counter(program: Program, rng: random.Random) -> None:
    if program.waits:
        rng.choice(program.waits).counter = rng.randint(0, program.header.counter_count)
        program.retarget()


def change_signal(program: Program, rng: random.Random) -> None:
    choices = [NONE, *range(program.header.counter_count + (rng.random() < 0.2))]
    rng.choice(program.tasks).signal = rng.choice(choices)
    program.retarget()


def merge_counters(program: Program, rng: random.Random) -> None:
    if program.header.counter_count > 1:
        kept, gone = rng.sample(range(program.header.counter_count), 2)
        for task in program.tasks:
            task.signal = kept if task.signal == gone else task.signal
        for wait in program.waits:
            wait.counter = kept if wait.counter == gone else wait.counter
        program.retarget()


def swap_tasks(program: Program, rng: random.Random) -> None:
    first, second = rng.randrange(len(program.tasks)), rng.randrange(len(program.tasks))
    tasks = program.tasks
    tasks[first], tasks[second] = tasks[second], tasks[first]
    _sort_waits(program)


def swap_neighbours(program: Program, rng: random.Random) -> None:
    if len(program.tasks) > 1:
        first = rng.randrange(len(program.tasks) - 1)
        tasks = program.tasks
        tasks[first], tasks[first + 1] = tasks[first + 1], tasks[first]
        _sort_waits(program)


def exchange_tiles(program: Program, rng: random.Random) -> None:
    first, second = rng.choice(program.tasks), rng.choice(program.tasks)
    for name in ("op", "row", "column"):
        a, b = getattr(first, name), getattr(second, name)
        setattr(first, name, b)
        setattr(second, name, a)


def drop_task(program: Program, rng: random.Random) -> None:
    number = rng.randrange(len(program.tasks))
    del program.tasks[number]
    _resize_launch(program, number, -1)
    _sort_waits(program)
    program.retarget()


def duplicate_task(program: Program, rng: random.Random) -> None:
    number = rng.randrange(len(program.tasks))
    program.tasks.insert(number, Record(**vars(program.tasks[number])))
    _resize_launch(program, number, 1)
    _sort_waits(program)
    program.retarget()


def _resize_launch(program: Program, number: int, change: int) -> None:
    for launch in program.launches:
        if launch.first_task > number:
            launch.first_task += change
        elif number < launch.first_task + launch.task_count:
            launch.task_count += change


def move_tile(program: Program, rng: random.Random) -> None:
    task = rng.choice(program.tasks)
    if task.op != NONE:
        op = program.ops[task.op]
        task.row = min(max(0, task.row + rng.choice((-1, 1, op.tile_rows, -op.tile_rows))), NONE)
        if rng.random() < 0.3:
            task.column = max(0, task.column + rng.choice((-PANEL, PANEL, 1)))


def shift_buffer(program: Program, rng: random.Random) -> None:
    buffer = rng.choice(program.buffers)
    step = rng.choice((ALIGNMENT, ALIGNMENT, 4, 1))
    buffer.offset = max(0, buffer.offset + step * rng.choice((-4, -2, -1, 1, 2, 4)))


def stack_buffers(program: Program, rng: random.Random) -> None:
    rng.choice(program.buffers).offset = rng.choice(program.buffers).offset


def grow_arena(program: Program, rng: random.Random) -> None:
    program.header.arena_bytes = max(0, program.header.arena_bytes + ALIGNMENT * rng.choice((-1, 1, 8)))


def change_tiles(program: Program, rng: random.Random) -> None:
    op = rng.choice(program.ops)
    if rng.random() < 0.7:
        op.tile_rows = max(0, op.tile_rows + rng.choice((-1, 1, 2)))
    else:
        op.tile_columns = max(0, op.tile_columns + rng.choice((-PANEL, PANEL, 1)))


def change_window(program: Program, rng: random.Random) -> None:
    """Another kernel, stride or pads, sometimes such that the output is as large as before."""
    op = rng.choice(program.ops)
    axis, before, after = rng.choice((("h", "top", "bottom"), ("w", "left", "right")))
    kernel, top, bottom = f"kernel_{axis}", f"pad_{before}", f"pad_{after}"
    if rng.random() < 0.2:
        setattr(op, f"stride_{axis}", rng.randint(0, 3))
        return
    change = rng.choice((-1, 1))
    setattr(op, kernel, max(0, getattr(op, kernel) + change))
    name = rng.choice((top, bottom))
    setattr(op, name, max(0, getattr(op, name) + change))
    _fit_weights(program, op)


def _fit_weights(program: Program, op: Record) -> None:
    """The weights become as long as the op wants them, within reason."""
    if op.kind == CONV and window_bytes(program, op) < 2**20:
        op.weight_bytes = window_bytes(program, op)
        program.weight_bytes = max(program.weight_bytes, op.weight_offset + op.weight_bytes)


def shift_window(program: Program, rng: random.Random) -> None:
    op = rng.choice(program.ops)
    before, after = rng.choice((("pad_top", "pad_bottom"), ("pad_left", "pad_right")))
    if getattr(op, after):
        setattr(op, after, getattr(op, after) - 1)
        setattr(op, before, getattr(op, before) + 1)
    elif getattr(op, before):
        setattr(op, before, getattr(op, before) - 1)
        setattr(op, after, getattr(op, after) + 1)


def change_channels(program: Program, rng: random.Random) -> None:
    op = rng.choice(program.ops)
    name = rng.choice(("in_channel", "in_channels", "out_channel", "out_channels", "out_padded"))
    setattr(op, name, max(0, getattr(op, name) + rng.choice((-2, -1, 1, 2))))
    _fit_weights(program, op)


def change_buffers_of_op(program: Program, rng: random.Random) -> None:
    op = rng.choice(program.ops)
    setattr(op, rng.choice(("in_buffer", "out_buffer")), rng.randint(0, len(program.buffers)))


def change_buffer(program: Program, rng: random.Random) -> None:
    buffer = rng.choice(program.buffers)
    name = rng.choice(("rows", "pitch", "dtype"))
    setattr(buffer, name, max(0, getattr(buffer, name) + rng.choice((-1, 1))))


def change_op_field(program: Program, rng: random.Random) -> None:
    op = rng.choice(program.ops)
    name = rng.choice([n for n in vars(op) if not n.startswith(("lrn_", "reserved", "nominal"))])
    setattr(op, name, rng.choice((0, 1, 2, 3, 4, 16, 64, 0x7FFFFFFF, 0xFFFFFF00)))


def change_output(program: Program, rng: random.Random) -> None:
    output = rng.choice(program.outputs)
    name = rng.choice(("buffer", "channel", "channels", "height", "width"))
    setattr(output, name, max(0, getattr(output, name) + rng.choice((-1, 1, 2))))


def change_batch(program: Program, rng: random.Random) -> None:
    program.header.max_batch = max(0, program.header.max_batch + rng.choice((-1, 1)))


def change_parts(program: Program, rng: random.Random) -> None:
    """Of an op whose K is cut, if there is one: where its parts lie or arrive, how long they are, or which one a task
    computes."""
    cut = [number for number, op in enumerate(program.ops) if op.part_depth]
    op = program.ops[rng.choice(cut)] if cut else rng.choice(program.ops)
    tasks = [task for task in program.tasks if task.op in cut] or program.tasks
    record, name = rng.choice(
        (
            (op, "part_depth"),
            (op, "part_buffer"),
            (op, "first_arrival"),
            (rng.choice(tasks), "part"),
            (rng.choice(program.tasks), "part"),
        )
    )
    step = PANEL if name == "part_depth" and rng.random() < 0.8 else 1
    setattr(record, name, max(0, getattr(record, name) + step * rng.choice((-1, 1))))


def exchange_parts(program: Program, rng: random.Random) -> None:
    """Two ops share a place or counters for their parts, or two tasks of one swap theirs."""
    cut = [op for op in program.ops if op.part_depth]
    if cut:
        name = rng.choice(("part_buffer", "first_arrival"))
        setattr(rng.choice(cut), name, getattr(rng.choice(cut), name))
    tasks = [task for task in program.tasks if task.part]
    if tasks:
        first, second = rng.choice(tasks), rng.choice(program.tasks)
        first.part, second.part = second.part, first.part


def change_algorithm(program: Program, rng: random.Random) -> None:
    """A convolution becomes one by Winograd's algorithm, or no longer is; sometimes with tiles that suit it."""
    convolutions = [op for op in program.ops if op.kind == CONV]
    if convolutions:
        op = rng.choice([op for op in convolutions if op.kernel_h in (3, 5)] or convolutions)
        if rng.random() < 0.2:
            op.flags ^= MAX_POOL_FIRST
            op.weight_bytes = window_bytes(program, op)
            return
        op.flags ^= rng.choice((WINOGRAD, WINOGRAD, WINOGRAD | SMALL_PATCHES, SMALL_PATCHES))


def change_lrn(program: Program, rng: random.Random) -> None:
    """An op gets an LRN behind it, or loses it; or the LRN of one gets another window."""
    ops = [op for op in program.ops if op.kind in (CONV, MAX_POOL)]
    if ops:
        op = rng.choice([op for op in ops if op.flags & THEN_LRN] or ops)
        op.lrn_size = 0 if rng.random() < 0.05 else rng.choice((1, 2, 5, 7))
        if program.header.target == CPU or rng.random() < 0.2:
            op.flags ^= rng.choice((THEN_LRN, 0))


def join_launches(program: Program, rng: random.Random) -> None:
    if len(program.launches) > 1:
        first = rng.randrange(len(program.launches) - 1)
        program.launches[first].task_count += program.launches.pop(first + 1).task_count


def cut_launch(program: Program, rng: random.Random) -> None:
    index = rng.randrange(len(program.launches))
    launch = program.launches[index]
    count = rng.randint(0, launch.task_count)
    rest = LAUNCH.new(
        first_task=launch.first_task + count, task_count=launch.task_count - count, mode=NETWORK
    )
    launch.task_count = count
    program.launches.insert(index + 1, rest)


def change_ranges(program: Program, rng: random.Random) -> None:
    """The bounds of a launch or of a task's waits, or the number of counters."""
    record: Any
    record, name = rng.choice(
        (
            (rng.choice(program.tasks), "wait_begin"),
            (rng.choice(program.tasks), "wait_count"),
            (rng.choice(program.launches), "first_task"),
            (rng.choice(program.launches), "task_count"),
            (program.header, "counter_count"),
        )
    )
    setattr(record, name, max(0, getattr(record, name) + rng.choice((-1, 1, 2))))


MUTATIONS: tuple[Callable[[Program, random.Random], None], ...] = (
    drop_wait,
    drop_wait,
    drop_waits_of_a_task,
    add_wait,
    exchange_waits,
    change_target,
    change_wait_counter,
    change_signal,
    merge_counters,
    swap_tasks,
    swap_neighbours,
    exchange_tiles,
    drop_task,
    duplicate_task,
    move_tile,
    shift_buffer,
    stack_buffers,
    stack_buffers,
    grow_arena,
    change_tiles,
    change_window,
    change_window,
    shift_window,
    shift_window,
    change_channels,
    change_buffers_of_op,
    change_buffer,
    change_op_field,
    change_output,
    change_batch,
    join_launches,
    join_launches,
    cut_launch,
    change_ranges,
    change_parts,
    change_parts,
    change_algorithm,
    change_lrn,
    change_lrn,
    exchange_parts,
)


def mutated(program: Program, rng: random.Random) -> Program:
    """A copy with one to three mutations."""
    copy = program.copy()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not (copy.tasks and copy.launches):
            break
        rng.choice(MUTATIONS)(copy, rng)
    return copy.count()
