"""The loader's rules, stated plainly: which statuses a program deserves.

The loader refuses some programs that are safe, because its proof must be linear: it wants direct waits where a chain
of waits would do, one launch for each op, and so on. This is that set of rules, written as definitions over sets of
tasks and rows with no care for speed. Together with `happens_before` it pins the loader down from both sides:

    the loader accepts  <=>  no rule is broken  =>  brute force finds no hazard
"""

from __future__ import annotations

import math

from tests.plans import (
    ALIGNMENT,
    AVERAGE_POOL,
    BF16,
    CONV,
    COUNT_INCLUDE_PAD,
    CPU,
    CUDA,
    ELEMENT_BYTES,
    FP16,
    FP32,
    INPUT,
    LAYER,
    LRN,
    MAX_POOL,
    MAX_POOL_FIRST,
    MODULE,
    NETWORK,
    NO_WEIGHTS,
    NONE,
    PANEL,
    PANEL_16,
    RELU,
    SMALL_PATCHES,
    SOFTMAX,
    THEN_LRN,
    WINOGRAD,
    Program,
    Record,
    buffer_bytes,
    buffers_used,
    buffers_written,
    has_lrn,
    is_folded,
    overlapping,
    part_count,
    patch_side,
    patch_size,
    taps,
    taps_across,
    task_grid,
    tile_grid,
)

MAX_SIZE = 2**24  # of a channel count, a height, a width, a stride
MAX_WINDOW = 2**10  # of a kernel or a pad
MAX_ROWS = 2**31  # of a buffer at the maximum batch
MAX_WORK = 2**44  # multiply-adds
MAX_OPS_PER_COUNTER = 16
MAX_PARTS = 64


def violations(program: Program) -> set[str]:
    """Statuses that the loader may refuse the program with; none if it must accept it.

    Tables are judged only when fields are sound, and order only when tables are.
    """
    return _fields(program) or _tables(program) or _ordering(program)


def _fields(program: Program) -> set[str]:
    header = program.header
    found = set()
    if header.target not in (CPU, CUDA) or header.dtype not in (FP32, FP16, BF16):
        found.add("IE_PLAN_VALUE")
    if header.max_batch == 0 or not (program.ops and program.tasks and program.launches and program.outputs):
        found.add("IE_PLAN_VALUE")
    if not all(1 <= v < MAX_SIZE for v in (header.input_channels, header.input_height, header.input_width)):
        found.add("IE_PLAN_VALUE")
    if header.counter_count > len(program.tasks):
        found.add("IE_PLAN_LIMIT")
    end = 0
    for index, buffer in enumerate(program.buffers):
        if buffer.dtype not in (FP32, header.dtype) or buffer.dtype not in ELEMENT_BYTES:
            found.add("IE_PLAN_VALUE")
            continue
        whole = (
            buffer.rows >= 1 and buffer.rows * header.max_batch < MAX_ROWS and 1 <= buffer.pitch < MAX_SIZE
        )
        inside = buffer.offset + buffer_bytes(program, index) <= header.arena_bytes
        if not whole or not inside or buffer.offset % ALIGNMENT:
            found.add("IE_PLAN_BUFFER")
        end = max(end, buffer.offset + buffer_bytes(program, index))
    if header.arena_bytes - end >= ALIGNMENT:
        found.add("IE_PLAN_BUFFER")
    if found:
        return found
    for op in program.ops:
        found |= _op(program, op)
    made = set()  # what the CPU makes other weights of, and how
    for op in program.ops:
        patches = patch_size(op) if op.flags & WINOGRAD else 0
        if header.target == CPU and op.kind == CONV and (header.dtype != FP32 or patches):
            made.add((op.weight_offset, op.weight_bytes, patches, taps(op), taps_across(op), op.in_channels))
    if sum(one[1] for one in made) > program.weight_bytes:
        found.add("IE_PLAN_LIMIT")
    work = sum(_work(program, op) for op in program.ops if op.out_buffer < len(program.buffers))
    return found | ({"IE_PLAN_WORK"} if work > MAX_WORK else set())


def _text(program: Program, begin: int, size: int) -> bool:
    return begin + size <= len(program.strings)


def _op(program: Program, op: Record) -> set[str]:
    found = set()
    if not _text(program, op.name, op.name_bytes) or not _text(program, op.module, op.module_bytes):
        found.add("IE_PLAN_TABLES")
    convolution = RELU | WINOGRAD | SMALL_PATCHES | THEN_LRN | MAX_POOL_FIRST
    flags = {CONV: convolution, MAX_POOL: THEN_LRN, AVERAGE_POOL: COUNT_INCLUDE_PAD}.get(op.kind, 0)
    sizes = (op.in_channels, op.out_channels, op.out_padded, op.in_h, op.in_w, op.out_h, op.out_w)
    pads = (op.pad_top, op.pad_left, op.pad_bottom, op.pad_right)
    window = (op.kernel_h, op.kernel_w, op.stride_h, op.stride_w)
    if (
        op.kind not in (INPUT, CONV, MAX_POOL, AVERAGE_POOL, LRN, SOFTMAX)
        or op.flags & ~flags
        or op.packing != (PANEL_16 if op.kind == CONV else NO_WEIGHTS)
        or not all(1 <= size < MAX_SIZE for size in (*sizes, op.stride_h, op.stride_w, op.tile_columns))
        or not all(pad <= MAX_WINDOW for pad in pads)
        or not all(1 <= kernel <= MAX_WINDOW for kernel in (op.kernel_h, op.kernel_w))
        or not 1 <= op.tile_rows < MAX_ROWS
        or op.out_buffer >= len(program.buffers)
        or (op.kind == INPUT) != (op.in_buffer == NONE)
        or (op.kind != INPUT and op.in_buffer >= len(program.buffers))
        or (op.kind in (INPUT, LRN, SOFTMAX) and window != (1, 1, 1, 1))
        or (op.kind in (LRN, SOFTMAX) and any(pads))
    ):
        return found | {"IE_PLAN_VALUE"}
    if op.in_buffer == op.out_buffer:
        found.add("IE_PLAN_OVERLAP")
    return (
        found
        | _geometry(program, op)
        | _normalisation(program, op)
        | _pool_first(program, op)
        | _patches(program, op)
        | _weights(program, op)
        | _alignment(program, op)
        | _parts(program, op)
    )


def _normalisation(program: Program, op: Record) -> set[str]:
    """LRN, by itself or behind an op; that on the CPU, not behind parts of K."""
    if not has_lrn(op):
        return set()
    constants = op.lrn_alpha, op.lrn_beta, op.lrn_k
    runs = op.kind == LRN or (program.header.target == CPU and not op.part_depth)
    sound = 1 <= op.lrn_size < MAX_SIZE and all(map(math.isfinite, constants))
    return set() if runs and sound else {"IE_PLAN_VALUE"}


def _pool_first(program: Program, op: Record) -> set[str]:
    """A pool in front of a convolution: on the CPU, of whole products by no algorithm, not of folded images."""
    cannot = program.header.target != CPU or op.part_depth or op.flags & WINOGRAD or is_folded(program, op)
    return {"IE_PLAN_VALUE"} if op.flags & MAX_POOL_FIRST and cannot else set()


def _patches(program: Program, op: Record) -> set[str]:
    """Winograd's algorithm: windows of 3x3 or 5x5 of stride 1; on the CPU, not in float16; whole patches in tiles."""
    if op.flags & SMALL_PATCHES and not (op.flags & WINOGRAD and op.kernel_h == 3):
        return {"IE_PLAN_VALUE"}
    if not op.flags & WINOGRAD:
        return set()
    window = (op.kernel_h, op.kernel_w, op.stride_h, op.stride_w)
    runs = program.header.target == CPU and program.header.dtype != FP16 and not is_folded(program, op)
    if not runs or window not in ((3, 3, 1, 1), (5, 5, 1, 1)) or op.part_depth:
        return {"IE_PLAN_VALUE"}
    # Tiles begin in an image at the multiples of this many rows: at none but 0, or where lines of patches do.
    step = math.gcd(op.tile_rows, op.out_h * op.out_w)
    aligned = step == op.out_h * op.out_w or step % (patch_side(op) * op.out_w) == 0
    return set() if aligned else {"IE_PLAN_ALIGNMENT"}


def _parts(program: Program, op: Record) -> set[str]:
    """Parts of K are whole panels, 2 to 64 of them, of a convolution; a buffer of float32 holds them all."""
    if not op.part_depth:
        return {"IE_PLAN_VALUE"} if op.part_buffer or op.first_arrival else set()
    depth = op.kernel_h * op.kernel_w * op.in_channels
    if op.kind != CONV or op.part_depth >= depth or part_count(op) > MAX_PARTS:
        return {"IE_PLAN_VALUE"}
    found = {"IE_PLAN_ALIGNMENT"} if op.part_depth % PANEL or op.in_channels % PANEL else set()
    if op.part_buffer >= len(program.buffers) or program.buffers[op.part_buffer].dtype != FP32:
        return found | {"IE_PLAN_VALUE"}
    rows = program.buffers[op.out_buffer].rows * program.header.max_batch
    tiles = -(-rows // op.tile_rows) * -(-op.out_padded // op.tile_columns)
    size = tiles * part_count(op) * op.tile_rows * op.tile_columns * ELEMENT_BYTES[FP32]
    if tiles > len(program.tasks) or size > buffer_bytes(program, op.part_buffer):
        found.add("IE_PLAN_BOUNDS")
    if op.first_arrival + tiles > program.header.counter_count:
        found.add("IE_PLAN_VALUE")
    return found


def _geometry(program: Program, op: Record) -> set[str]:
    header, out = program.header, program.buffers[op.out_buffer]
    found = set()
    panels = -(-op.out_channels // PANEL)
    fits = out.rows == op.out_h * op.out_w
    fits &= op.out_channels <= op.out_padded <= panels * PANEL
    if op.out_channel + op.out_padded > out.pitch:
        found.add("IE_PLAN_BOUNDS")
    if op.kind == INPUT:
        image = (header.input_channels, header.input_height, header.input_width)
        fits &= (op.in_channels, op.in_h, op.in_w) == image and op.in_channel == 0
        fits &= (op.out_channels, op.out_h, op.out_w) == (
            op.in_channels,
            op.in_h,
            op.pad_left + op.in_w + op.pad_right,
        )
        fits &= op.pad_top == op.pad_bottom == 0
        return found if fits else found | {"IE_PLAN_GEOMETRY"}
    source = program.buffers[op.in_buffer]
    fits &= source.rows == op.in_h * op.in_w
    height, width = op.in_h + op.pad_top + op.pad_bottom, op.in_w + op.pad_left + op.pad_right
    fits_h = height >= op.kernel_h and (height - op.kernel_h) // op.stride_h + 1 == op.out_h
    fits_w = width >= op.kernel_w and (width - op.kernel_w) // op.stride_w + 1 == op.out_w
    if is_folded(program, op):
        fits &= fits_h and op.in_channel == 0 and op.kernel_w == 1 and op.pad_left == op.pad_right == 0
        if (op.out_w - 1) * op.stride_w * source.pitch + op.in_channels > op.in_w * source.pitch:
            found.add("IE_PLAN_BOUNDS")
    else:
        fits &= fits_h and fits_w
        if op.in_channel + op.in_channels > source.pitch:
            found.add("IE_PLAN_BOUNDS")
    if op.kind != CONV:
        fits &= op.in_channels == op.out_channels
    if op.kind in (MAX_POOL, AVERAGE_POOL) or op.flags & MAX_POOL_FIRST:
        fits &= max(op.pad_top, op.pad_bottom) < op.kernel_h
        fits &= max(op.pad_left, op.pad_right) < op.kernel_w
    return found if fits else found | {"IE_PLAN_GEOMETRY"}


def _weights(program: Program, op: Record) -> set[str]:
    if op.kind not in (CONV, INPUT):
        return {"IE_PLAN_WEIGHTS"} if op.weight_bytes else set()
    offsets = [op.weight_offset]
    if op.kind == INPUT:
        size = 2 * op.in_channels * 4
        fits = op.weight_offset + size <= program.weight_bytes
    else:
        offsets.append(op.bias_offset)
        columns = -(-op.out_channels // PANEL) * PANEL
        window = taps(op) * op.in_channels
        if window > MAX_ROWS:
            return {"IE_PLAN_LIMIT"}
        size = columns * window * ELEMENT_BYTES[program.header.dtype]
        fits = op.weight_offset + size <= program.weight_bytes
        fits &= op.bias_offset + columns * 4 <= program.weight_bytes
    if op.weight_bytes != size or not fits or any(offset % ALIGNMENT for offset in offsets):
        return {"IE_PLAN_WEIGHTS"}
    return set()


def _alignment(program: Program, op: Record) -> set[str]:
    """A tile has all columns, or, where columns are independent, whole panels.

    On a GPU so have the slices that are read and written, and the rows that they are cut from, except those of the
    image; convolutions whose channels are no whole panels read rows of quarters.
    """
    numbers: list[int] = []
    quarters: list[int] = []
    if op.tile_columns < op.out_padded:
        independent = op.kind in (CONV, MAX_POOL, AVERAGE_POOL) and not has_lrn(op)
        numbers.append(op.tile_columns if independent else 1)
    if program.header.target == CUDA and op.kind != INPUT:
        numbers += [op.out_channel, op.out_padded, program.buffers[op.out_buffer].pitch]
        numbers.append(op.in_channel)
        pitch = program.buffers[op.in_buffer].pitch
        if op.kind != CONV or op.in_channels % PANEL == 0:
            numbers.append(pitch)
        else:
            quarters = [op.in_channels, pitch]
    wrong = any(number % PANEL for number in numbers) or any(number % 4 for number in quarters)
    return {"IE_PLAN_ALIGNMENT"} if wrong else set()


def _points(op: Record) -> int:
    """Products of a pair of channels for one output, or at most so many."""
    return patch_size(op) ** 2 if op.flags & WINOGRAD else int(op.kernel_h * op.kernel_w)


def _work(program: Program, op: Record) -> int:
    """Multiply-adds, or what stands for them, of one run, in whole panels."""
    rows = program.buffers[op.out_buffer].rows * program.header.max_batch
    inner = _points(op) * (op.in_channels if op.kind == CONV else 1)
    if has_lrn(op):
        inner = (0 if op.kind == LRN else inner) + op.lrn_size
    return int(rows * -(-op.out_padded // PANEL) * PANEL * inner)


def _columns_read(program: Program, op: Record) -> tuple[int, int]:
    pitch = program.buffers[op.in_buffer].pitch
    return (0, pitch) if is_folded(program, op) else (op.in_channel, op.in_channel + op.in_channels)


def _writers(program: Program, buffer: int, begin: int, end: int) -> list[int]:
    """Ops that write any of the columns [begin, end) of a buffer."""
    return [
        index
        for index, op in enumerate(program.ops)
        if op.out_buffer == buffer and op.out_channel < end and begin < op.out_channel + op.out_padded
    ]


def _written(program: Program, buffer: int, begin: int, end: int) -> bool:
    columns = set(range(begin, end))
    for index in _writers(program, buffer, begin, end):
        op = program.ops[index]
        columns -= set(range(op.out_channel, op.out_channel + op.out_padded))
    return not columns


def _tables(program: Program) -> set[str]:
    ops, buffers, tasks = program.ops, program.buffers, program.tasks
    found = set()
    for index, op in enumerate(ops):
        if _writers(program, op.out_buffer, op.out_channel, op.out_channel + op.out_padded) != [index]:
            found.add("IE_PLAN_OVERLAP")
        others = (other for other in ops if other is not op)
        if op.part_depth and (
            any(op.part_buffer == other.out_buffer for other in ops)
            or any(other.part_depth and op.part_buffer == other.part_buffer for other in others)
        ):
            found.add("IE_PLAN_OVERLAP")
        if op.kind != INPUT and not _written(program, op.in_buffer, *_columns_read(program, op)):
            found.add("IE_PLAN_UNWRITTEN")
    for output in program.outputs:
        if output.buffer >= len(buffers):
            found.add("IE_PLAN_VALUE")
            continue
        if not all(1 <= size < MAX_SIZE for size in (output.channels, output.height, output.width)):
            found.add("IE_PLAN_VALUE")
        if not _text(program, output.name, output.name_bytes):
            found.add("IE_PLAN_TABLES")
        if output.height * output.width != buffers[output.buffer].rows:
            found.add("IE_PLAN_GEOMETRY")
        if output.channel + output.channels > buffers[output.buffer].pitch:
            found.add("IE_PLAN_BOUNDS")
        elif not _written(program, output.buffer, output.channel, output.channel + output.channels):
            found.add("IE_PLAN_UNWRITTEN")

    covered: list[int] = []
    for launch in program.launches:
        if launch.mode not in (NETWORK, MODULE, LAYER):
            found.add("IE_PLAN_VALUE")
        if not _text(program, launch.name, launch.name_bytes):
            found.add("IE_PLAN_TABLES")
        if launch.task_count == 0 or launch.first_task + launch.task_count > len(tasks):
            found.add("IE_PLAN_LAUNCH")
        else:
            covered += range(launch.first_task, launch.first_task + launch.task_count)
    if covered != list(range(len(tasks))):
        found.add("IE_PLAN_LAUNCH")

    end = 0
    for task in tasks:
        if task.wait_begin != end:
            found.add("IE_PLAN_TABLES")
        end += task.wait_count
        if task.signal != NONE and task.signal >= program.header.counter_count:
            found.add("IE_PLAN_VALUE")
        if (task.op != NONE and task.op >= len(ops)) or (
            task.op == NONE and (task.row or task.column or task.part)
        ):
            found.add("IE_PLAN_VALUE")
    if end != len(program.waits):
        found.add("IE_PLAN_TABLES")
    for index, op in enumerate(ops):
        mine = sorted((task.row, task.column, task.part) for task in tasks if task.op == index)
        rows = program.header.max_batch * op.out_h * op.out_w
        count = -(-rows // op.tile_rows) * -(-op.out_padded // op.tile_columns) * part_count(op)
        if count != len(mine) or mine != task_grid(op, program.header.max_batch):
            found.add("IE_PLAN_TILES")
        launches = {
            number
            for number, launch in enumerate(program.launches)
            for task in tasks[launch.first_task : launch.first_task + launch.task_count]
            if task.op == index
        }
        if len(launches) > 1:
            found.add("IE_PLAN_LAUNCH")
    return found


def _ordering(program: Program) -> set[str]:
    ops, tasks, waits = program.ops, program.tasks, program.wait_lists()
    signallers: dict[int, int] = {}  # of each counter: the set of tasks, as bits
    tasks_of: list[int] = [0] * len(ops)
    ops_on: dict[int, set[int]] = {}  # of each counter: the ops that signal it
    for number, task in enumerate(tasks):
        if task.signal != NONE:
            signallers[task.signal] = signallers.get(task.signal, 0) | 1 << number
        if task.op != NONE:
            tasks_of[task.op] |= 1 << number
            ops_on.setdefault(task.signal, set()).add(task.op)
    ops_on.pop(NONE, None)

    found = set()
    arrivals: list[int] = []
    for op in ops:
        if op.part_depth:
            tiles = len(tile_grid(op, program.header.max_batch))
            arrivals += range(op.first_arrival, op.first_arrival + tiles)
    if len({*arrivals}) < len(arrivals) or {*arrivals} & signallers.keys():
        found.add("IE_PLAN_COUNTER")
    for number, waited in enumerate(waits):
        for wait in waited:
            sources = signallers.get(wait.counter, 0)
            if wait.counter >= program.header.counter_count:
                found.add("IE_PLAN_VALUE")
            if wait.target == 0 or wait.target != sources.bit_count():
                found.add("IE_PLAN_COUNTER")
            if sources >> number:
                found.add("IE_PLAN_ORDER")
    if any(len(on) > MAX_OPS_PER_COUNTER for on in ops_on.values()):
        found.add("IE_PLAN_WORK")
    if found:
        # Which of its tasks the loader looks at first is its own affair.
        return found | {"IE_PLAN_MISSING_WAIT", "IE_PLAN_REUSE"}

    for output in program.outputs:
        for other in overlapping(program, output.buffer):
            if _first_writer(program, output.buffer) < _first_writer(program, other) < math.inf:
                found.add("IE_PLAN_REUSE")
    complete = _complete(program, signallers, tasks_of)
    for number, task in enumerate(tasks):
        if task.op == NONE:
            continue
        op = ops[task.op]
        counters = {wait.counter for wait in waits[number]}
        if op.kind != INPUT and not _reads_are_waited_for(program, task, counters, complete[number]):
            found.add("IE_PLAN_MISSING_WAIT")
        for buffer in buffers_written(op):
            for other in overlapping(program, buffer):
                if _first_writer(program, other) < _first_writer(program, buffer):
                    users = {i for i, user in enumerate(ops) if other in buffers_used(user)}
                    if not users <= complete[number]:
                        found.add("IE_PLAN_REUSE")
                elif (
                    _first_writer(program, other) == task.op
                ):  # its own sums and result: neither is the older
                    found.add("IE_PLAN_REUSE")
    return found


def _first_writer(program: Program, buffer: int) -> float:
    return next((i for i, op in enumerate(program.ops) if buffer in buffers_written(op)), math.inf)


def _complete(program: Program, signallers: dict[int, int], tasks_of: list[int]) -> list[set[int]]:
    """For each task the ops that are complete at it."""
    complete: list[set[int]] = []
    waits = program.wait_lists()
    starts = [
        launch.first_task for launch in program.launches for _ in range(launch.task_count)
    ]  # of each task: the first of its launch
    for number in range(len(program.tasks)):
        launched = (1 << starts[number]) - 1
        direct = 0
        ready: set[int] = set()
        for wait in waits[number]:
            direct |= signallers[wait.counter]
        for source in range(number):
            if direct >> source & 1:
                ready |= complete[source]
        ready |= {i for i, own in enumerate(tasks_of) if not own & ~launched or not own & ~direct}
        complete.append(ready)
    return complete


def _reads_are_waited_for(program: Program, task: Record, counters: set[int], complete: set[int]) -> bool:
    """Whether each op that writes what the task reads is complete, or its tiles' counters are waited for."""
    op = program.ops[task.op]
    lines = set()
    for row in range(task.row, min(task.row + op.tile_rows, program.header.max_batch * op.out_h * op.out_w)):
        image, y = row // (op.out_h * op.out_w), row // op.out_w % op.out_h
        for tap in range(op.kernel_h):
            line = y * op.stride_h + tap - op.pad_top
            lines.add(image * op.in_h + min(max(line, 0), op.in_h - 1))
    rows = range(min(lines) * op.in_w, (max(lines) + 1) * op.in_w)
    for writer in _writers(program, op.in_buffer, *_columns_read(program, op)):
        if writer in complete:
            continue
        tile_rows = program.ops[writer].tile_rows
        for begin in {row // tile_rows * tile_rows for row in rows}:
            signals = {t.signal for t in program.tasks if t.op == writer and t.row == begin}
            if len(signals) != 1 or not signals <= counters:
                return False
    return True
