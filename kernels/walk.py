"""walk: takes tasks by ticket from a plan's table and runs them; one launch is a range of tasks.

    while there is a ticket:
        task = tasks[ticket]
        read the op's record, ask for the weights: neither changes in a run
        wait until each of its counters has reached its target
        out[rows, columns] = op(in[rows that the windows touch])       (convolution.py, tiles.py)
        add one to the counter that it signals

Why it is right. Producer: store, barrier (all threads of the block have stored), one release add. Consumer: poll
(volatile loads, which are relaxed ones), one fence when all counts are reached, barrier, then loads that bypass
nothing: the arena is read with ordinary loads only, never through the read-only cache, for other blocks write it
during the launch. Tickets are taken in
order and each task is finished before the next is taken, and waits point to earlier tasks (the loader proves it),
so the lowest unfinished task can always run: any number of blocks makes progress. Every spin is bounded: a block
that gives up raises ``status`` and goes on, so that all others end too.

Layouts: tasks int32 (n, 8), waits int32 (n, 2), ops int32 (n, 48), buffers int32 (n, 8), as in plan_format.h; weights
in panels of 16 columns (K, 16) in the arena's dtype, bias float32 in the same bytes; state int32: status, and from
STRIDE on one counter per STRIDE words, each on a cache line of its own. Each launch of a run has such a line too, with
its ticket and the number of its blocks that are done.

A run leaves counters and tickets as it found them: zero. The last block of a launch to be done (no other will look
again) sets the ticket back, and in a run's last launch the counters too. So a run is its launches and nothing else,
and a CUDA graph can repeat it.

From sm_90 on a launch may begin while the one before it ends (programmatic dependent launch): each block waits for that
one before it touches arena, state or result.
"""

from __future__ import annotations

import triton
import triton.language as tl
from inception_engine.kernels import tiles
from inception_engine.kernels.convolution import conv, fetch_weights
from inception_engine.kernels.record import fence, load64, pause, read
from inception_engine.kernels.variants import RUN_DEPTH
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

STRIDE = 32  # words between two counters: 128 bytes
STATUS = 0  # word of the state; counter i lies at STRIDE * (i + 1)

# Kinds of plan_format.h, and bits of KINDS: which of them a kernel has. RAGGED: a convolution whose runs are no
# multiple of 16 elements (the folded stem), which needs a loop of its own. PARTS: one whose K is cut. EXPORTS: whether
# it stores ``result``.
INPUT: tl.constexpr = tl.constexpr(1)
CONV: tl.constexpr = tl.constexpr(2)
MAX_POOL: tl.constexpr = tl.constexpr(3)
AVERAGE_POOL: tl.constexpr = tl.constexpr(4)
LRN: tl.constexpr = tl.constexpr(5)
SOFTMAX: tl.constexpr = tl.constexpr(6)
_EXPORTS: tl.constexpr = tl.constexpr(1 << 0)
_HAS_INPUT: tl.constexpr = tl.constexpr(1 << 1)
_HAS_MAX_POOL: tl.constexpr = tl.constexpr(1 << 3)
_HAS_AVERAGE_POOL: tl.constexpr = tl.constexpr(1 << 4)
_HAS_LRN: tl.constexpr = tl.constexpr(1 << 5)
_HAS_SOFTMAX: tl.constexpr = tl.constexpr(1 << 6)
_HAS_RAGGED: tl.constexpr = tl.constexpr(1 << 7)
_HAS_PARTS: tl.constexpr = tl.constexpr(1 << 8)
_STRIDE: tl.constexpr = tl.constexpr(STRIDE)
_STATUS: tl.constexpr = tl.constexpr(STATUS)
_RUN_DEPTH: tl.constexpr = tl.constexpr(RUN_DEPTH)


# Parameters that no kernel is compiled anew for.
NUMBERS = (
    "first", "count", "batch", "pixels", "counters", "result_buffer", "result_channel", "result_channels",
)  # fmt: skip


@triton.jit
def _wait(p_waits, count, state, SPINS: tl.constexpr):
    """Until each counter has reached its target, at most SPINS polls; then what its signallers wrote is seen."""
    for i in range(0, count, 32):  # a warp polls 32 counters at once
        o_waits = i + tl.arange(0, 32)
        m_waits = o_waits < count
        p_counters = state + _STRIDE + tl.load(p_waits + 2 * o_waits, m_waits, 0) * _STRIDE
        targets = tl.load(p_waits + 2 * o_waits + 1, m_waits, 0)
        missing = tl.max((tl.load(p_counters, m_waits, 0, volatile=True) < targets).to(tl.int32))
        spins = 0
        while (missing > 0) & (spins < SPINS):
            pause()
            missing = tl.max((tl.load(p_counters, m_waits, 0, volatile=True) < targets).to(tl.int32))
            spins += 1
            # When another block has given up: drain, and do not wait for each task anew.
            if spins % 1024 == 0:  # noqa: SIM102 - Triton's `and` would load in every turn
                if tl.load(state + _STATUS, volatile=True) != 0:
                    spins = SPINS
        if missing > 0:
            tl.atomic_max(state + _STATUS, 1)
    if count > 0:
        fence("fence.acq_rel.gpu")
    tl.debug_barrier()


@triton.jit
def _rows(begin, end, BM: tl.constexpr):
    """Rows from ``begin`` on, and which of them exist."""
    o_rows = begin + tl.arange(0, BM)
    return o_rows, o_rows < end


@triton.jit
def _is_cut_by(rows, SIDE: tl.constexpr, ROWS: tl.constexpr):
    """Whether SIDE is the largest in ROWS that divides a tile's rows. If the next one does not, none beyond does."""
    LARGER: tl.constexpr = ROWS // (2 * SIDE) * (2 * SIDE)
    if LARGER == 0:
        return rows % SIDE == 0
    else:  # noqa: RET505 - of constants
        return (rows % SIDE == 0) & (rows % (LARGER & -LARGER) != 0)


@triton.jit
def _task(
    op, row, end, column, weights, source, out, place, image, pixels, KINDS: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of rows [row, end). ``source``: (first element, pitch); ``out``: (first element, pitch, columns with
    padding); ``place``: see ``conv``. A product is computed in one piece, all else in blocks that take few registers.
    Returns whether the tile is finished."""
    # Multiples of 16, the loader proved. Triton sees that in a product with a constant, and loads and stores 16 bytes
    # at once; tl.multiple_of is lost on the way into a function.
    whole = (source[0], source[1] // 16 * 16)
    quads = (source[0], source[1] // 4 * 4)
    to = (out[0], out[1] // 16 * 16, out[2] // 16 * 16)
    column, tile_columns = column // 16 * 16, op.tile_columns
    last = tl.minimum((column + tile_columns) // 16 * 16, to[2])
    PARTS: tl.constexpr = (_HAS_PARTS & KINDS) > 0
    # Of a pool, in flight, for nothing but their latency takes time: no more memory than a product's operands.
    TAPS: tl.constexpr = 8 if weights.dtype.element_ty.primitive_bitwidth == 16 else 5
    finished = tl.full((), 1, tl.int1)
    if _HAS_RAGGED & KINDS and (op.kind == CONV) & (op.channels % 16 != 0):
        # In one size, the largest, for there is one such op in a network and each size of it takes registers.
        BM: tl.constexpr = 128 if ROWS >= 128 else (64 if ROWS >= 64 else (32 if ROWS >= 32 else 16))
        BN: tl.constexpr = 128 if COLUMNS >= 128 else (64 if COLUMNS >= 64 else (32 if COLUMNS >= 32 else 16))
        o_columns = column + tl.arange(0, BN)
        out = (to[0], to[1], last)
        for i in range(row, end, BM):
            rows = _rows(i, end, BM)
            conv(
                op, weights, quads, out, rows, o_columns, place, True, False, BM, BN, _RUN_DEPTH, STAGES, PRECISION
            )  # fmt: skip
    elif op.kind == CONV:
        for i in tl.static_range(4, 8):
            for j in tl.static_range(4, 8):
                if (ROWS >> i) % 2 == 1 and (COLUMNS >> j) % 2 == 1:  # noqa: SIM102
                    if _is_cut_by(op.tile_rows, 1 << i, ROWS) & (tile_columns == 1 << j):
                        o_columns = column + tl.arange(0, 1 << j)
                        for block in range(row, end, 1 << i):
                            rows = _rows(block, end, 1 << i)
                            finished = conv(
                                op, weights, whole, to, rows, o_columns, place, False, PARTS, 1 << i, 1 << j, BK,
                                STAGES, PRECISION,
                            )  # fmt: skip
    elif _HAS_INPUT & KINDS and op.kind == INPUT:
        for i in range(row, end, 256):
            tiles.image(op, weights, image, pixels, out, _rows(i, end, 256))
    elif _HAS_LRN & KINDS and op.kind == LRN:
        for i in range(row, end, 32):
            tiles.lrn(op, whole, to, _rows(i, end, 32), 32, 64)
    elif _HAS_SOFTMAX & KINDS and op.kind == SOFTMAX:
        for i in range(row, end, 8):
            tiles.softmax(op, whole, to, _rows(i, end, 8), 8, 256)
    else:
        for i in range(row, end, 32):
            for c in range(column, last, 64):
                rows, o_columns = _rows(i, end, 32), c // 16 * 16 + tl.arange(0, 64)
                if _HAS_MAX_POOL & KINDS and op.kind == MAX_POOL:
                    tiles.pool(op, whole, to, rows, o_columns, last, True, 32, 64, TAPS)
                elif _HAS_AVERAGE_POOL & KINDS and op.kind == AVERAGE_POOL:
                    tiles.pool(op, whole, to, rows, o_columns, last, False, 32, 64, TAPS)
    return finished


@triton.jit
def _finish(state, p_ticket, counters):
    """Behind a block's last task. The last block clears what the launch leaves behind."""
    if tl.atomic_add(p_ticket + 1, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        tl.store(p_ticket, 0)
        tl.store(p_ticket + 1, 0)
        for i in range(0, counters, 128):
            o_counters = i + tl.arange(0, 128)
            tl.store(state + _STRIDE + o_counters * _STRIDE, 0, o_counters < counters)


@triton.jit(do_not_specialize=NUMBERS)
def walk(
    tasks, waits, ops, buffers, weights, arena, image, state, p_ticket, result, first, count, batch, pixels, counters,
    result_buffer, result_channel, result_channels,
    KINDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, LOOP: tl.constexpr, SPINS: tl.constexpr, SOURCE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Tasks [first, first + count) of the table, for a batch of images; the grid may have any size.

    ``weights`` and ``arena`` point to elements of the arena's dtype. ``image``: bytes, of uint8 NHWC where ``pixels``
    is 1 and of float32 NCHW where it is 0. ``p_ticket``: the launch's line. ``counters``: how many there are, in the
    last launch of a run; 0 in others. ``result``: where channels [result_channel, + result_channels) of buffer
    ``result_buffer`` (-1: none) are stored, too, as float32 NCHW.

    ``KINDS``: see variants.py. ``ROWS``, ``COLUMNS``: sums of sides, 16 to 128, of the blocks of rows that tiles are
    computed in, and of tiles' columns; images have any of both, LRN and softmax any columns.
    ``LOOP``: whether a block takes tickets until there are none, or one.
    ``SOURCE``: a buffer that lies at ``image``, in the arena's dtype, and not in the arena; or -1. Where there is one,
    ``result_buffer`` lies at ``result`` in the same way, and nothing is stored as float32.
    ``DEPENDENT``: whether it may be launched before the launch in front of it has ended; sm_90 and newer.
    """
    SIZE: tl.constexpr = arena.dtype.element_ty.primitive_bitwidth // 8
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    ticket = tl.atomic_add(p_ticket, 1, sem="relaxed")
    while ticket < count:
        p_task = tasks + (first + ticket) * 8
        i_op, row, column = tl.load(p_task), tl.load(p_task + 1), tl.load(p_task + 2)
        p_waits, wait_count = waits + 2 * tl.load(p_task + 3), tl.load(p_task + 4)
        signal, part = tl.load(p_task + 5), tl.load(p_task + 6)
        p_op = ops + tl.maximum(i_op, 0) * 48
        op = read(p_op)
        i_in, i_out = tl.maximum(tl.load(p_op + 2), 0), tl.load(p_op + 5)  # an INPUT reads no buffer
        p_in, p_out = buffers + i_in * 8, buffers + i_out * 8
        # Slices begin at multiples of 16 elements.
        o_in = (load64(p_in) // SIZE + tl.load(p_op + 3)) // 16 * 16
        o_out = (load64(p_out) // SIZE + tl.load(p_op + 6)) // 16 * 16
        p_source, p_target = arena + o_in, arena + o_out
        if SOURCE >= 0:
            p_source = tl.where(i_in == SOURCE, image + tl.load(p_op + 3) // 16 * 16, p_source)
            p_target = tl.where(i_out == result_buffer, result + tl.load(p_op + 6) // 16 * 16, p_target)
        source, out = (p_source, tl.load(p_in + 3)), (p_target, tl.load(p_out + 3), op.out_padded)
        place = (arena, buffers, state, row, column, part)
        all_rows = batch * op.out_h * op.out_w
        # Not a JOIN, nor a tile of images that this batch does not have.
        runs = (i_op >= 0) & (row < all_rows)
        # Other rows' tiles find in L2 what the first one's have asked for.
        if runs & (op.kind == CONV) & (row == 0):
            fetch_weights(op, weights, column, part)
        _wait(p_waits, wait_count, state, SPINS)
        if runs:
            end = tl.minimum(row + op.tile_rows, all_rows)
            finished = _task(
                op, row, end, column, weights, source, out, place, image, pixels, KINDS, ROWS, COLUMNS, BK, STAGES,
                PRECISION,
            )  # fmt: skip
            if _EXPORTS & KINDS and (i_out == result_buffer) & finished:
                tl.debug_barrier()  # the whole tile is stored
                shift = tl.load(p_op + 6) - result_channel
                for i in range(row, end, 32):
                    tiles.export(op, column, out, result, shift, result_channels, _rows(i, end, 32))
        tl.debug_barrier()
        if signal >= 0:
            tl.atomic_add(state + _STRIDE + signal * _STRIDE, 1, sem="release")
        ticket = count
        if LOOP:
            ticket = tl.atomic_add(p_ticket, 1, sem="relaxed")
    _finish(state, p_ticket, counters)
