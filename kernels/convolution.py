"""A tile of a convolution: ``BM`` pixels by ``BN`` channels as an implicit GEMM.

With k = (kh * kernel_w + kw) * channels + c,

    out[r, n] = relu(bias[n] + sum over k of in[pixel(r, kh, kw), c] * weight[k, n])

K runs over taps and channels as one, so that a step of BK may hold the end of one tap and the start of the next, and
narrow reduces (16, 32 channels) waste nothing. Pixels outside the image are zero by mask, after bias and ReLU of the
layer before, as a padded convolution demands. Sums are float32.

Parts. Where a network has few pixels, few tiles sum over a long K one step after the other while most of a GPU idles.
Such an op is cut along K: the task of a part stores its sums, float32, and adds one to the tile's own counter of
arrivals; the task that comes last adds all parts up, in the order of their numbers whatever the order of their coming,
and finishes the tile. The add is release and acquire at once: the last one sees what all others stored.

Arguments: ``op``, an ``Op`` (record.py); ``weights``, all of them, in the arena's dtype; ``source`` = (pointer, pitch)
of the slice that is read, multiples of 16, if RAGGED of 4; ``out`` = (pointer, pitch, columns with padding) of the
slice that is written, multiples of 16; ``rows`` = (numbers, which of them exist), each (BM,). Inlined into ``walk``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from inception_engine.kernels.record import COMPILED, fence, inside, load64, windows
from inception_engine.kernels.tiles import store

_LINE: tl.constexpr = tl.constexpr(128)  # bytes
# K is divided by products and shifts, exactly if taps * units**2 < 1 << shift and taps * kernel_w < 1 << 16, a unit
# being 16 channels; ``counts`` says whether. Shifts by how many taps a window has at most: products fit into 31 bits.
SHIFTS = {63: 25, 1023: 21}
_FEW: tl.constexpr = tl.constexpr(min(SHIFTS))
_SHIFT: tl.constexpr = tl.constexpr(SHIFTS[min(SHIFTS)])
_OTHER_SHIFT: tl.constexpr = tl.constexpr(SHIFTS[max(SHIFTS)])


def counts(kernel_h: int, kernel_w: int, channels: int) -> bool:
    """Whether ``conv`` finds its way through K of such a window."""
    taps, units = kernel_h * kernel_w, -(-channels // 16)
    shift = next((shift for most, shift in SHIFTS.items() if taps <= most), 0)
    return taps * units**2 < 1 << shift and taps * kernel_w < 1 << 16


@triton.jit
def fetch_weights(op, weights, column, part):
    """Asks for a tile's weights, so that they are in L2 when its input is there. Nothing waits for them."""
    if COMPILED:
        SIZE: tl.constexpr = weights.dtype.element_ty.primitive_bitwidth // 8
        depth = op.kernel_h * op.kernel_w * op.channels
        begin = part * op.part_depth
        end = tl.where(op.part_depth > 0, tl.minimum(begin + op.part_depth, depth), depth)
        first = column // 16
        panels = (tl.minimum(column + op.tile_columns, op.out_padded) + 15) // 16 - first
        lines = ((end - begin) * (16 * SIZE) + _LINE - 1) // _LINE  # of a panel
        p_tile = weights.to(tl.int64) + op.weights + (first * depth + begin).to(tl.int64) * (16 * SIZE)
        for i in range(0, lines * panels, 256):
            o_lines = tl.minimum(i + tl.arange(0, 256), lines * panels - 1)
            p_lines = (
                p_tile + (o_lines // lines).to(tl.int64) * (depth * (16 * SIZE)) + o_lines % lines * _LINE
            )
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [p_lines], tl.int32, is_pure=False, pack=1
            )


@triton.jit
def _add_parts(op, sums, place, BM: tl.constexpr, BN: tl.constexpr):
    """Store a part's sums. Returns the sums over all of K, and whether this was the last part to come: if not, the
    sums mean nothing."""
    arena, buffers, state, row, column, part = place
    SIZE: tl.constexpr = arena.dtype.element_ty.primitive_bitwidth // 8
    # Read behind the sums and not before the wait as all else: kept through the loop they take registers that are rare.
    o_parts = load64(buffers + tl.load(op.record + 41) * 8) // 64 * (64 // SIZE)
    p_parts = (arena + o_parts).to(tl.pointer_type(tl.float32))
    p_arrivals = state + (tl.load(op.record + 42) + 1) * 32
    depth = op.kernel_h * op.kernel_w * op.channels
    count = (depth + op.part_depth - 1) // op.part_depth
    i_tile = row // BM * ((op.out_padded + BN - 1) // BN) + column // BN
    p_tile = p_parts + i_tile * count * (BM * BN)
    o_tile = (tl.arange(0, BM) * BN)[:, None] + tl.arange(0, BN)[None, :]
    tl.store(p_tile + part * (BM * BN) + o_tile, sums)
    tl.debug_barrier()
    is_last = tl.atomic_add(p_arrivals + i_tile * 32, 1, sem="acq_rel") == count - 1
    if is_last:
        fence("fence.acq_rel.gpu")
        tl.debug_barrier()
        sums = tl.zeros((BM, BN), tl.float32)
        for i in range(count):
            sums += tl.load(p_tile + i * (BM * BN) + o_tile)
            tl.debug_barrier()  # or LLVM unrolls the loop, which takes a hundred registers
    return sums, is_last


@triton.jit
def conv(
    op, weights, source, out, rows, o_columns, place, RAGGED: tl.constexpr, PARTS: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """relu(bias + windows * weight). Channels are a multiple of 16; if RAGGED, of 4, and a step of K is of one tap.

    ``place``: (arena, buffers, state, row, column, part) of the task, for PARTS. Returns whether the
    tile is finished.
    """
    SIZE: tl.constexpr = weights.dtype.element_ty.primitive_bitwidth // 8
    p_weights = weights + op.weights // 64 * (64 // SIZE)
    p_bias = (weights + op.bias // 64 * (64 // SIZE)).to(tl.pointer_type(tl.float32))
    p_in, pitch = source
    in_h, in_w, kernel_h, kernel_w = op.in_h, op.in_w, op.kernel_h, op.kernel_w
    i_y, i_x, o_pixels = windows(op, pitch, rows)
    p_rows = p_in + o_pixels
    channels = op.channels // 4 * 4 if RAGGED else op.channels // 16 * 16
    depth = kernel_h * kernel_w * channels
    # Panel of 16 columns after panel; within one, 16 columns of each k.
    o_panels = o_columns // 16 * (depth * 16) + o_columns % 16
    m_columns = o_columns < out[2]  # weights and bias are whole panels too
    sums = tl.zeros((BM, BN), tl.float32)
    b_bias = tl.load(p_bias + o_columns, m_columns, 0.0)  # is there when the sums are
    # K is counted in units of 16, which are of one tap; if RAGGED in steps of BK.
    UNIT: tl.constexpr = BK if RAGGED else 16
    units = (channels + UNIT - 1) // UNIT  # of a tap
    begin, end = 0, kernel_h * kernel_w * units
    if PARTS:  # noqa: SIM102 - a constant, and a number that is loaded
        if op.part_depth > 0:
            begin = place[5] * (op.part_depth // 16)
            end = tl.minimum(begin + op.part_depth // 16, end)
    shift = tl.where(kernel_h * kernel_w <= _FEW, _SHIFT, _OTHER_SHIFT)
    by_units, by_width = (1 << shift) // units + 1, 65536 // kernel_w + 1
    for i in tl.range(begin, end, BK // UNIT, num_stages=STAGES):
        # Quotients by products and shifts, for a division takes twenty instructions.
        o_units = i + tl.arange(0, BK) // UNIT
        o_taps = (o_units * by_units) >> shift
        o_h = (o_taps * by_width) >> 16
        o_w = o_taps - o_h * kernel_w
        o_c = (o_units - o_taps * units) * UNIT + tl.arange(0, BK) % UNIT
        o_tap = (o_h * in_w + o_w) * pitch + o_c
        if RAGGED:
            o_k, m_k = o_taps * channels + o_c, o_c < channels
        else:
            o_k, m_k = i * 16 + tl.arange(0, BK), o_units < end
        m_in = inside(i_y[:, None] + o_h[None, :], in_h) & inside(i_x[:, None] + o_w[None, :], in_w)
        b_in = tl.load(p_rows[:, None] + o_tap[None, :], m_in & m_k[None, :], 0.0)
        p_weight = p_weights + (o_panels[None, :] + o_k[:, None] * 16)
        b_weight = tl.load(p_weight, m_k[:, None] & m_columns[None, :], 0.0)
        sums = tl.dot(b_in, b_weight, sums, input_precision=PRECISION)
    finished = tl.full((), 1, tl.int1)
    if PARTS:  # noqa: SIM102
        if op.part_depth > 0:
            sums, finished = _add_parts(op, sums, place, BM, BN)
    if finished:
        sums += b_bias[None, :]
        if op.flags & 1:
            sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
        m_channels = o_columns < op.out_channels  # behind them, infinity times a zero weight would be NaN
        store(out, tl.where(m_channels[None, :], sums, 0.0), rows, o_columns)
    return finished
