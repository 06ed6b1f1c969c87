"""walk: takes tasks by ticket from a plan's table and runs them; one launch is a range of tasks.

    while there is a ticket:
        task = tasks[ticket]
        wait until each of its counters has reached its target
        out[rows, columns] = op(in[rows that the windows touch])       (what an op computes: tiles.py)
        add one to the counter that it signals

Why it is right. Producer: store, barrier (all threads of the block have stored), one release add. Consumer: poll,
one acquire when the count is reached, barrier, then loads that bypass nothing: the arena is read with ordinary
loads only, never through the read-only cache, for other blocks write it during the launch. Tickets are taken in
order and each task is finished before the next is taken, and waits point to earlier tasks (the loader proves it),
so the lowest unfinished task can always run: any number of blocks makes progress. Every spin is bounded: a block
that gives up raises ``status`` and goes on, so that all others end too.

Layouts: tasks int32 (n, 8), waits int32 (n, 2), ops int32 (n, 48), buffers int32 (n, 8), as in plan_format.h; weights
in panels of 16 columns (K, 16) in the arena's dtype, bias float32 in the same bytes; state int32: status, and from
STRIDE on one counter per STRIDE words, each on a cache line of its own. Each launch of a run has a ticket of its own.
Counters and tickets are zero when a run begins.
"""

from __future__ import annotations

import triton
import triton.language as tl
from inception_engine.kernels import tiles

STRIDE = 32  # words between two counters: 128 bytes
STATUS = 0  # word of the state; counter i lies at STRIDE * (i + 1)

# Kinds of plan_format.h, and bits of KINDS: which of them a launch holds. RAGGED: a convolution whose runs are no
# multiple of 16 elements (the folded stem), which needs a loop of its own.
INPUT: tl.constexpr = tl.constexpr(1)
CONV: tl.constexpr = tl.constexpr(2)
MAX_POOL: tl.constexpr = tl.constexpr(3)
AVERAGE_POOL: tl.constexpr = tl.constexpr(4)
LRN: tl.constexpr = tl.constexpr(5)
SOFTMAX: tl.constexpr = tl.constexpr(6)
_HAS_INPUT: tl.constexpr = tl.constexpr(1 << 1)
_HAS_CONV: tl.constexpr = tl.constexpr(1 << 2)
_HAS_MAX_POOL: tl.constexpr = tl.constexpr(1 << 3)
_HAS_AVERAGE_POOL: tl.constexpr = tl.constexpr(1 << 4)
_HAS_LRN: tl.constexpr = tl.constexpr(1 << 5)
_HAS_SOFTMAX: tl.constexpr = tl.constexpr(1 << 6)
_HAS_RAGGED: tl.constexpr = tl.constexpr(1 << 7)
_STRIDE: tl.constexpr = tl.constexpr(STRIDE)
_STATUS: tl.constexpr = tl.constexpr(STATUS)


@triton.jit
def _wait(p_wait, count, state, SPINS: tl.constexpr):
    """Until each counter has reached its target, at most SPINS polls each; then what its signallers wrote is seen."""
    for _ in range(count):
        p_counter = state + _STRIDE + tl.load(p_wait) * _STRIDE
        target = tl.load(p_wait + 1)
        seen = tl.load(p_counter, volatile=True)
        spins = 0
        while (seen < target) & (spins < SPINS):
            seen = tl.load(p_counter, volatile=True)
            spins += 1
            # When another block has given up: drain, and do not wait for each task anew.
            if spins % 1024 == 0:  # noqa: SIM102 - Triton's `and` would load in every turn
                if tl.load(state + _STATUS, volatile=True) != 0:
                    spins = SPINS
        if tl.atomic_add(p_counter, 0, sem="acquire") < target:
            tl.atomic_max(state + _STATUS, 1)
        p_wait += 2
    tl.debug_barrier()


@triton.jit(do_not_specialize=["first", "count", "batch"])
def walk(
    tasks, waits, ops, buffers, weights, arena, image, state, p_ticket, first, count, batch,
    KINDS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, LOOP: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Tasks [first, first + count) of the table, for a batch of images.

    ``weights`` and ``arena`` point to elements of the arena's dtype, ``image`` to float32 or uint8. ``KINDS``: bits of
    the kinds that the launch holds. ``LOOP``: whether a block takes tickets until there are none, or one.
    """
    SIZE: tl.constexpr = arena.dtype.element_ty.primitive_bitwidth // 8
    ticket = tl.atomic_add(p_ticket, 1, sem="relaxed")
    while ticket < count:
        p_task = tasks + (first + ticket) * 8
        i_op, row, column = tl.load(p_task), tl.load(p_task + 1), tl.load(p_task + 2)
        _wait(waits + 2 * tl.load(p_task + 3), tl.load(p_task + 4), state, SPINS)
        p_op = ops + tl.maximum(i_op, 0) * 48
        all_rows = batch * tl.load(p_op + 11) * tl.load(p_op + 12)
        if (i_op >= 0) & (row < all_rows):  # not a JOIN, nor a tile of images that this batch does not have
            kind = tl.load(p_op)
            o_rows = row + tl.arange(0, BM)
            rows = (o_rows, o_rows < all_rows)
            p_buffer, out_padded = buffers + tl.load(p_op + 5) * 8, tl.load(p_op + 8)
            o_out, out_pitch = tiles.load64(p_buffer) // SIZE + tl.load(p_op + 6), tl.load(p_buffer + 3)
            if _HAS_INPUT & KINDS and kind == INPUT:
                tiles.image(p_op, weights, image, (arena + o_out, out_pitch, out_padded), rows)
            else:
                p_buffer = buffers + tl.load(p_op + 2) * 8
                o_in, in_pitch = tiles.load64(p_buffer) // SIZE + tl.load(p_op + 3), tl.load(p_buffer + 3)
                # Multiples of 16, the loader proved. Triton sees that in a product with a constant, and loads and
                # stores 16 bytes at once; tl.multiple_of is lost on the way into a function.
                out = (arena + o_out // 16 * 16, out_pitch // 16 * 16, out_padded // 16 * 16)
                source = (arena + o_in // 16 * 16, in_pitch // 16 * 16)
                o_columns = column // 16 * 16 + tl.arange(0, BN)
                if _HAS_RAGGED & KINDS and (kind == CONV) & (tl.load(p_op + 4) % 16 != 0):
                    source = (arena + o_in, in_pitch)
                    tiles.conv(p_op, weights, source, out, rows, o_columns, True, BM, BN, BK, 1, PRECISION)
                elif _HAS_CONV & KINDS and kind == CONV:
                    tiles.conv(
                        p_op, weights, source, out, rows, o_columns, False, BM, BN, BK, STAGES, PRECISION
                    )
                elif _HAS_MAX_POOL & KINDS and kind == MAX_POOL:
                    tiles.pool(p_op, source, out, rows, o_columns, True, BM, BN)
                elif _HAS_AVERAGE_POOL & KINDS and kind == AVERAGE_POOL:
                    tiles.pool(p_op, source, out, rows, o_columns, False, BM, BN)
                elif _HAS_LRN & KINDS and kind == LRN:
                    tiles.lrn(p_op, source, out, rows, BM, BN)
                elif _HAS_SOFTMAX & KINDS and kind == SOFTMAX:
                    tiles.softmax(p_op, source, out, rows, BM, BN)
        tl.debug_barrier()
        signal = tl.load(p_task + 5)
        if signal >= 0:
            tl.atomic_add(state + _STRIDE + signal * _STRIDE, 1, sem="release")
        ticket = count
        if LOOP:
            ticket = tl.atomic_add(p_ticket, 1, sem="relaxed")
