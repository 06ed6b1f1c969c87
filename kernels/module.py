"""module: an Inception module in one launch, specialised for its shapes; for many images.

    r   = relu(x * w_reduce)            both reduces as one product, their channels side by side
    p   = max of 3 x 3 of x
    out = [relu(x * w_1) | relu(conv 3x3 (r[:C3]) * w_3) | relu(conv (r[C3:]) * w_5) | relu(p * w_pool)]

Where ``walk`` reads a table, this kernel knows all sizes when it is compiled. Operands of the products come by tensor
descriptors (the TMA engine of sm_90 and newer): a box of x is pixels by channels; a box of r for one tap of a window is
images by lines by columns by channels, shifted, and zero where it leaves the image, so a halo needs no masks.

Order. Images go in groups, so small that r and p of a group are still in the L2 cache when they are read. Tickets run

    first(0), first(1), second(0), first(2), second(1), ...        first(g): r and p of group g; second(g): out

and a tile of second(g) waits until all tiles of first(g) are done. They have lower tickets, and blocks finish a task
before they take another, so the lowest unfinished task can always run, with any number of blocks. Spins are bounded.

Memory. r and p are written by ordinary stores and read by descriptors: the writer's fence makes its stores visible to
TMA before its release, the reader's keeps TMA behind its acquire. State as in ``walk``: all zero before and after.

Layouts: x, r, p and out NHWC in fp16 or bf16, with C, C3 + C5, C, and N1 + N3 + N5 + NP channels, all multiples of 16;
weights (columns, K), K = (tap, channel); bias float32 of r, then of out. Szegedy et al. 2014, figure 2b.
"""

from __future__ import annotations

import triton
import triton.language as tl
from inception_engine.kernels.record import fence, settled
from inception_engine.kernels.walk import STATUS, STRIDE

_STRIDE: tl.constexpr = tl.constexpr(STRIDE)
_STATUS: tl.constexpr = tl.constexpr(STATUS)


@triton.jit
def _store(out, pitch, sums, bias, o_rows, m_rows, i_column, columns, values):
    """relu(sums + bias) in columns [i_column, ...) of ``columns``, zeros from ``values`` on. ``out``, ``bias``: of the
    first of them."""
    o_columns = i_column + tl.arange(0, sums.shape[1])
    m_columns = o_columns < columns
    sums += tl.load(bias + o_columns, m_columns, 0.0)[None, :]
    sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
    sums = tl.where((o_columns < values)[None, :], sums, 0.0)  # infinity times a zero weight would be NaN
    p_out = out + (o_rows.to(tl.int64) * pitch)[:, None] + o_columns[None, :]
    tl.store(p_out, sums.to(out.dtype.element_ty), m_rows[:, None] & m_columns[None, :])


@triton.jit
def _product(a, i_row, weights, i_column, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
             STAGES: tl.constexpr):  # fmt: skip
    """BM pixels by BN columns of a 1x1 convolution."""
    sums = tl.zeros((BM, BN), tl.float32)
    for k in tl.range(0, K, BK, num_stages=STAGES):
        sums = tl.dot(a.load([i_row, k]), weights.load([i_column, k]).T, sums)
    return sums


@triton.jit
def _windows(r, i_image, i_line, i_channel, weights, i_column, KERNEL: tl.constexpr, C: tl.constexpr, BM: tl.constexpr,
             BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    """A box of pixels by BN columns of a KERNEL x KERNEL convolution of channels [i_channel, + C) of r."""
    STEPS: tl.constexpr = C // BK
    HALF: tl.constexpr = KERNEL // 2
    sums = tl.zeros((BM, BN), tl.float32)
    for step in tl.range(0, KERNEL * KERNEL * STEPS, num_stages=STAGES):
        i_tap, i_c = step // STEPS, step % STEPS * BK
        box = r.load([i_image, i_line + i_tap // KERNEL - HALF, i_tap % KERNEL - HALF, i_channel + i_c])
        # A box becomes an operand by way of registers.
        sums = settled(tl.dot(box.reshape(BM, BK), weights.load([i_column, step * BK]).T, sums))
    return sums


@triton.jit
def _pool(x, p, i_row, end, i_column, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, BM: tl.constexpr,
          BN: tl.constexpr):  # fmt: skip
    """BM pixels by BN channels of p. Pixels outside the image are absent, not zero."""
    o_rows, o_columns = i_row + tl.arange(0, BM), i_column + tl.arange(0, BN)
    i_y, i_x = o_rows // W % H, o_rows % W
    m_tile = (o_rows < end)[:, None] & (o_columns < C)[None, :]
    o_tile = (o_rows.to(tl.int64) * C)[:, None] + o_columns[None, :]
    value = tl.full((BM, BN), float("-inf"), tl.float32)
    for i_h in range(-1, 2):  # a loop that stays one: nine loads in flight would take all registers
        for i_w in tl.static_range(-1, 2):
            m_pixels = (i_y + i_h >= 0) & (i_y + i_h < H) & (i_x + i_w >= 0) & (i_x + i_w < W)
            pixel = tl.load(x + (o_tile + (i_h * W + i_w) * C), m_tile & m_pixels[:, None], float("-inf"))
            value = tl.maximum(value, pixel.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    tl.store(p + o_tile, value.to(p.dtype.element_ty), m_tile)


@triton.jit
def _wait(p_counter, target, state, SPINS: tl.constexpr):
    """Until the counter has reached its target, at most SPINS polls; as in ``walk``."""
    seen = tl.load(p_counter, volatile=True)
    spins = 0
    while (seen < target) & (spins < SPINS):
        seen = tl.load(p_counter, volatile=True)
        spins += 1
        if spins % 1024 == 0:  # noqa: SIM102 - Triton's `and` would load in every turn
            if tl.load(state + _STATUS, volatile=True) != 0:
                spins = SPINS
    if tl.atomic_add(p_counter, 0, sem="acquire") < target:
        tl.atomic_max(state + _STATUS, 1)
    tl.debug_barrier()
    fence("fence.proxy.async")


@triton.jit(do_not_specialize=["batch"])
def module(
    d_x, d_p, d_r3, d_r5, d_reduce, d_1, d_3, d_5, d_pool, x, r, p, out, bias, state, p_ticket, batch,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, C3: tl.constexpr, C5: tl.constexpr, REDUCED: tl.constexpr,
    N1: tl.constexpr, N3: tl.constexpr, N5: tl.constexpr, NP: tl.constexpr, THIRD: tl.constexpr, GROUP: tl.constexpr,
    BOX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BK3: tl.constexpr, BK5: tl.constexpr,
    STAGES: tl.constexpr, LOOP: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """A batch of images. Descriptors (``d_*``) and constants: sizes.py; ``state``, ``p_ticket``: as of ``walk``."""
    ROWS: tl.constexpr = (GROUP * H * W + BM - 1) // BM
    BANDS: tl.constexpr = H // BOX[1]
    BOXES: tl.constexpr = (GROUP + BOX[0] - 1) // BOX[0] * BANDS
    T_R: tl.constexpr = (C3 + C5 + BN - 1) // BN
    T_C: tl.constexpr = (C + BN // 2 - 1) // (BN // 2)  # pools hold windows in registers
    T_1: tl.constexpr = (N1 + BN - 1) // BN
    T_3: tl.constexpr = (N3 + BN - 1) // BN
    T_5: tl.constexpr = (N5 + BN - 1) // BN
    T_P: tl.constexpr = (NP + BN - 1) // BN
    FIRST: tl.constexpr = ROWS * (T_R + T_C)
    SECOND: tl.constexpr = BOXES * (T_3 + T_5) + ROWS * (T_1 + T_P)
    PITCH: tl.constexpr = N1 + N3 + N5 + NP
    groups = (batch + GROUP - 1) // GROUP
    tickets = FIRST + groups * (FIRST + SECOND)
    ticket = tl.atomic_add(p_ticket, 1, sem="relaxed")
    while ticket < tickets:
        place = (ticket - FIRST) % (FIRST + SECOND)
        group = (ticket - FIRST) // (FIRST + SECOND)
        is_first = (ticket < FIRST) | (place < FIRST)
        if ticket < FIRST:
            place = ticket
            group = 0
        elif is_first:
            group += 1
        i_first = group * GROUP  # image
        end = tl.minimum(i_first + GROUP, batch) * (H * W)  # of the group's pixels
        p_counter = state + _STRIDE + group * _STRIDE
        if is_first:
            if group < groups:
                i_row = i_first * (H * W) + place // (T_R + T_C) * BM
                i_tile = place % (T_R + T_C)
                o_rows = i_row + tl.arange(0, BM)
                if i_row < end:
                    if i_tile < T_R:
                        sums = _product(d_x, i_row, d_reduce, i_tile * BN, C, BM, BN, BK, STAGES)
                        _store(r, C3 + C5, sums, bias, o_rows, o_rows < end, i_tile * BN, C3 + C5, REDUCED)
                    else:
                        _pool(x, p, i_row, end, (i_tile - T_R) * (BN // 2), H, W, C, BM, BN // 2)
                fence("fence.proxy.async")
                tl.debug_barrier()
                tl.atomic_add(p_counter, 1, sem="release")
        else:
            place -= FIRST
            _wait(p_counter, FIRST, state, SPINS)
            if place < BOXES * (T_3 + T_5):
                i_box, i_tile = place // (T_3 + T_5), place % (T_3 + T_5)
                i_image, i_line = i_first + i_box // BANDS * BOX[0], i_box % BANDS * BOX[1]
                o_m = tl.arange(0, BM)
                i_n, i_x = i_image + o_m // (BOX[1] * BOX[2]), o_m % BOX[2]
                o_rows = (i_n * H + i_line + o_m // BOX[2] % BOX[1]) * W + i_x
                m_rows = (i_x < W) & (i_n < tl.minimum(i_first + GROUP, batch))
                if i_tile < T_3:
                    i_column = i_tile * BN
                    sums = _windows(d_r3, i_image, i_line, 0, d_3, i_column, 3, C3, BM, BN, BK3, STAGES)
                    _store(out + N1, PITCH, sums, bias + (C3 + C5 + N1), o_rows, m_rows, i_column, N3, N3)
                else:
                    i_column = (i_tile - T_3) * BN
                    sums = _windows(d_r5, i_image, i_line, C3, d_5, i_column, THIRD, C5, BM, BN, BK5, STAGES)
                    _store(
                        out + (N1 + N3),
                        PITCH,
                        sums,
                        bias + (C3 + C5 + N1 + N3),
                        o_rows,
                        m_rows,
                        i_column,
                        N5,
                        N5,
                    )
            else:
                place -= BOXES * (T_3 + T_5)
                i_row, i_tile = i_first * (H * W) + place // (T_1 + T_P) * BM, place % (T_1 + T_P)
                o_rows = i_row + tl.arange(0, BM)
                if i_row < end:
                    if i_tile < T_1:
                        i_column = i_tile * BN
                        sums = _product(d_x, i_row, d_1, i_column, C, BM, BN, BK, STAGES)
                        _store(out, PITCH, sums, bias + (C3 + C5), o_rows, o_rows < end, i_column, N1, N1)
                    else:
                        i_column = (i_tile - T_1) * BN
                        sums = _product(d_p, i_row, d_pool, i_column, C, BM, BN, BK, STAGES)
                        p_bias = bias + (C3 + C5 + N1 + N3 + N5)
                        _store(
                            out + (N1 + N3 + N5), PITCH, sums, p_bias, o_rows, o_rows < end, i_column, NP, NP
                        )
        ticket = tickets
        if LOOP:
            ticket = tl.atomic_add(p_ticket, 1, sem="relaxed")
    if tl.atomic_add(p_ticket + 1, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        tl.store(p_ticket, 0)
        tl.store(p_ticket + 1, 0)
        for i in range(0, groups, 128):
            o_counters = i + tl.arange(0, 128)
            tl.store(state + _STRIDE + o_counters * _STRIDE, 0, o_counters < groups)
