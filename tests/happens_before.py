"""The judge of the loader's proof: brute force over every byte of the arena and every pair of tasks.

`hazards` knows no rules. It lists the addresses that each task reads and writes, at every batch up to the
maximum, builds the whole happens-before relation, and asks of every pair of conflicting accesses whether they are
ordered and of every byte that is read whether the last value written there is the one meant. It is the definition
of what a safe program is. Written from plan_format.h, items 7 to 13, and quadratic on purpose.
"""

from __future__ import annotations

from math import gcd

from tests.plans import (
    CONV,
    ELEMENT_BYTES,
    FP32,
    INPUT,
    LRN,
    NONE,
    PANEL,
    SOFTMAX,
    THEN_LRN,
    WINOGRAD,
    Program,
    Record,
    buffer_bytes,
    is_folded,
    part_count,
    patch_side,
    patch_size,
    taps,
    task_grid,
    tile_grid,
)

# Bit sets of arena addresses, in units of `_unit` bytes: read; written; of these, the sums of parts of K.
Masks = tuple[int, int, int]


class Hazard(Exception):
    """What could go wrong when the program runs; the message names the tasks."""


def happens_before(program: Program) -> list[int]:
    """For each task the bit set of tasks that are done before it begins.

    A worker's own order does not count: any number of workers may run the program. Raises Hazard where the
    program might never end, or where a wait may be satisfied by some of the signals on its counter.
    """
    signallers: dict[int, list[int]] = {}
    for number, task in enumerate(program.tasks):
        if task.signal != NONE:
            signallers.setdefault(task.signal, []).append(number)
    launch_of = [n for n, launch in enumerate(program.launches) for _ in range(launch.task_count)]
    if len(launch_of) != len(program.tasks):
        raise Hazard("launches do not cover the tasks")
    before: list[int] = []
    earlier_launches = 0
    for number, task in enumerate(program.tasks):
        if number and launch_of[number] != launch_of[number - 1]:
            earlier_launches = (1 << number) - 1
        done = earlier_launches
        for wait in program.waits[task.wait_begin : task.wait_begin + task.wait_count]:
            sources = signallers.get(wait.counter, [])
            if wait.target != len(sources):
                raise Hazard(f"task {number} waits for {wait.target} of {len(sources)} signals")
            for source in sources:
                if source >= number:
                    raise Hazard(f"task {number} waits for task {source}")
                done |= before[source] | 1 << source
        before.append(done)
    return before


class Accesses:
    """The addresses of every task of a program, from its ops' geometry."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.unit = _unit(program)
        self.rows: dict[tuple[int, int, int, int], int] = {}

    def of(self, task: Record, batch: int) -> Masks:
        """Addresses that the task reads and writes in a run of ``batch`` images. Raises Hazard outside a buffer."""
        if task.op == NONE:
            return 0, 0, 0
        op = self.program.ops[task.op]
        begin = task.row
        end = min(begin + op.tile_rows, batch * op.out_h * op.out_w)
        column, column_end = task.column, min(task.column + op.tile_columns, op.out_padded)
        if op.flags & THEN_LRN and (column, column_end) != (0, op.out_padded):
            raise Hazard(f"op {task.op} reads again what other tasks write")
        reads = writes = 0
        if op.kind in (CONV, LRN, SOFTMAX):
            channel, channel_end = 0, op.in_channels
        else:
            channel, channel_end = column, min(column_end, op.in_channels)
        for row in range(begin, end):
            writes |= self.run(
                op.out_buffer, row, op.out_channel + column, op.out_channel + column_end, batch
            )
            if op.kind != INPUT and channel < channel_end:
                reads |= self.window(task.op, row, channel, channel_end, batch)
        parts = self.parts(task, op) if op.part_depth and begin < end else 0
        return reads, writes | parts, parts

    def parts(self, task: Record, op: Record) -> int:
        """Addresses of all parts of the task's tile: it stores one, and reads them all if it is the last to come."""
        across = -(-op.out_padded // op.tile_columns)
        tile = task.row // op.tile_rows * across + task.column // op.tile_columns
        size = part_count(op) * op.tile_rows * op.tile_columns * ELEMENT_BYTES[FP32]
        if (tile + 1) * size > buffer_bytes(self.program, op.part_buffer):
            raise Hazard(f"the parts of op {task.op} lie outside buffer {op.part_buffer}")
        begin = self.program.buffers[op.part_buffer].offset + tile * size
        if begin + size > self.program.header.arena_bytes:
            raise Hazard(f"buffer {op.part_buffer} leaves the arena")
        begin, end = begin // self.unit, (begin + size) // self.unit
        return ((1 << (end - begin)) - 1) << begin

    def window(self, index: int, row: int, channel: int, channel_end: int, batch: int) -> int:
        """Addresses of channels [channel, channel_end), counted from in_channel, under one output pixel's window."""
        key = (index, row, channel, channel_end)
        if key not in self.rows:
            op = self.program.ops[index]
            image, pixel = divmod(row, op.out_h * op.out_w)
            y, x = divmod(pixel, op.out_w)
            pitch = self.program.buffers[op.in_buffer].pitch
            mask = 0
            if op.kind in (LRN, SOFTMAX):
                begin, end = op.in_channel + channel, op.in_channel + channel_end
                return self.run(op.in_buffer, row, begin, end, batch)
            folded = is_folded(self.program, op)
            height, width = op.kernel_h, op.kernel_w
            if op.flags & WINOGRAD:  # the whole patch, whichever of its outputs the tile stores
                y, x = y - y % patch_side(op), x - x % patch_side(op)
                height = width = patch_size(op)
            for kh in range(height):
                for kw in range(width):
                    in_y = y * op.stride_h + kh - op.pad_top
                    in_x = x * op.stride_w + kw - op.pad_left
                    # A folded convolution has its padding in the buffer: it does not ask where a line ends.
                    if folded and in_x * pitch + channel_end > op.in_w * pitch:
                        raise Hazard(f"op {index} reads beyond the end of a line")
                    if not (0 <= in_y < op.in_h and 0 <= in_x < op.in_w):
                        continue
                    pixel = (image * op.in_h + in_y) * op.in_w + in_x
                    begin, end = op.in_channel + channel, op.in_channel + channel_end
                    mask |= self.run(op.in_buffer, pixel, begin, end, batch, folded)
            self.rows[key] = mask
        return self.rows[key]

    def run(
        self, index: int, row: int, channel: int, channel_end: int, batch: int, folded: bool = False
    ) -> int:
        """Addresses of one row's channels [channel, channel_end) in the buffer ``index``."""
        buffer = self.program.buffers[index]
        if row >= buffer.rows * batch:
            raise Hazard(f"row {row} lies outside buffer {index}")
        if channel_end > buffer.pitch and not folded:
            raise Hazard(f"channel {channel_end - 1} lies outside buffer {index}")
        size = ELEMENT_BYTES[buffer.dtype]
        begin = buffer.offset + (row * buffer.pitch + channel) * size
        end = buffer.offset + (row * buffer.pitch + channel_end) * size
        if end > self.program.header.arena_bytes:
            raise Hazard(f"buffer {index} leaves the arena")
        begin, end = begin // self.unit, end // self.unit
        return ((1 << (end - begin)) - 1) << begin


def _unit(program: Program) -> int:
    """The largest number of bytes that divides every address, so that the bit sets are small."""
    sums = [ELEMENT_BYTES[FP32] for op in program.ops if op.part_depth]
    return gcd(*sums, *(gcd(b.offset, ELEMENT_BYTES[b.dtype]) for b in program.buffers))


def check_parts(program: Program) -> None:
    """Raises Hazard unless the last part of a tile to come is known as that, and finds all others."""
    signalled = {task.signal for task in program.tasks}
    arrivals: set[int] = set()
    for index, op in enumerate(program.ops):
        if not op.part_depth:
            continue
        tasks = sorted((t.row, t.column, t.part) for t in program.tasks if t.op == index)
        if tasks != task_grid(op, program.header.max_batch):
            raise Hazard(f"op {index} lacks parts, or has some twice")
        tiles = len(tile_grid(op, program.header.max_batch))
        own = set(range(op.first_arrival, op.first_arrival + tiles))
        if own & (arrivals | signalled) or max(own) >= program.header.counter_count:
            raise Hazard(f"arrivals of op {index} are counted with something else")
        arrivals |= own


def _same_tile(first: Record, second: Record) -> bool:
    """Whether two tasks are parts of one tile: its arrivals say which of them reads and goes on."""
    return (first.op, first.row, first.column) == (second.op, second.row, second.column)


def check_weights(program: Program) -> None:
    """Raises Hazard if a kernel would read weights or biases outside their section."""
    for index, op in enumerate(program.ops):
        if op.kind == CONV:
            panels = -(-op.out_padded // PANEL)
            elements = panels * taps(op) * op.in_channels * PANEL
            weights = elements * ELEMENT_BYTES[program.header.dtype]
            biases = op.bias_offset + -(-op.out_channels // PANEL) * PANEL * 4
        elif op.kind == INPUT:
            weights, biases = 2 * op.in_channels * 4, 0
        else:
            continue
        if max(op.weight_offset + weights, biases) > program.weight_bytes:
            raise Hazard(f"op {index} reads weights beyond their section")


def check(program: Program) -> None:
    """Raises Hazard unless every run of the program, with any batch and any workers, computes what the ops say."""
    before = happens_before(program)
    check_weights(program)
    check_parts(program)
    accesses = Accesses(program)
    tasks = program.tasks
    for batch in range(program.header.max_batch, 0, -1):
        touched = [accesses.of(task, batch) for task in tasks]
        for second, (reads, writes, _) in enumerate(touched):
            unordered = ~before[second] & ((1 << second) - 1)
            while unordered:
                first = unordered.bit_length() - 1
                unordered ^= 1 << first
                first_reads, first_writes, _ = touched[first]
                conflict = first_writes & (reads | writes) or first_reads & writes
                if conflict and not _same_tile(tasks[first], tasks[second]):
                    raise Hazard(f"batch {batch}: tasks {first} and {second} conflict and are not ordered")
            task = tasks[second]
            if reads & writes:
                raise Hazard(f"batch {batch}: task {second} overwrites what it reads")
            if reads:
                source = program.ops[task.op].in_buffer
                _check_source(program, touched, second, reads, source, f"batch {batch}: task {second}")
        for index, output in enumerate(program.outputs):
            reads = 0
            for row in range(batch * output.height * output.width):
                reads |= accesses.run(
                    output.buffer, row, output.channel, output.channel + output.channels, batch
                )
            _check_source(
                program, touched, len(tasks), reads, output.buffer, f"batch {batch}: output {index}"
            )


def is_safe(program: Program) -> bool:
    """Whether `check` finds no hazard."""
    try:
        check(program)
    except Hazard:
        return False
    return True


def _check_source(
    program: Program, touched: list[Masks], end: int, reads: int, buffer: int, reader: str
) -> None:
    """Raises Hazard unless the last task before ``end`` that wrote each address wrote it as part of ``buffer``.

    Every writer is ordered against the reader and against the other writers (`check` has seen to it), and a task
    comes before those with higher numbers, so the last in number is the last in time.
    """
    for number in range(end - 1, -1, -1):
        written = touched[number][1] & reads
        if written:
            other = program.ops[program.tasks[number].op].out_buffer != buffer
            if other or touched[number][2] & written:
                raise Hazard(f"{reader} reads what task {number} wrote into another buffer")
            reads ^= written
            if not reads:
                return
    raise Hazard(f"{reader} reads what nothing has written")
