"""What one tile of each kind of op computes: ``BM`` pixels by ``BN`` channels, from the arena into the arena.

A convolution is an implicit GEMM: with k = (kh * kernel_w + kw) * channels + c,

    out[r, n] = relu(bias[n] + sum over k of in[pixel(r, kh, kw), c] * weight[k, n])

K runs over taps and channels as one, so that a step of BK may hold the end of one tap and the start of the next, and
narrow reduces (16, 32 channels) waste nothing. Pixels outside the image are zero by mask, after bias and ReLU of the
layer before, as a padded convolution demands. Sums are float32.

Arguments: ``p_op``, the OpRecord as words; ``weights``, all of them, in the arena's dtype; ``source`` = (pointer,
pitch) of the slice that is read; ``out`` = (pointer, pitch, columns with padding) of the slice that is written;
``rows`` = (numbers, which of them exist), each (BM,). What stands in ``source`` and ``out`` are multiples of 16, but
for an INPUT, and of 4 for the source of a ragged convolution. Each function is inlined into ``walk``.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The interpreter runs block after block: it needs no fences, and knows no assembly.
_COMPILED: tl.constexpr = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def fence(INSTRUCTION: tl.constexpr):
    """A fence, in every thread."""
    if _COMPILED:
        FENCE: tl.constexpr = INSTRUCTION + "; mov.u32 $0, 0;"
        tl.inline_asm_elementwise(FENCE, "=r", [], tl.int32, is_pure=False, pack=1)


@triton.jit
def load64(p):
    """The 64-bit number in two words of a table; all of them are below 2**63."""
    return tl.load(p).to(tl.uint32, bitcast=True).to(tl.int64) | (tl.load(p + 1).to(tl.int64) << 32)


@triton.jit
def _inside(i, size):
    """0 <= i < size, as one comparison: without a sign, what is negative is large."""
    return i.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def _store(out, value, rows, o_columns):
    """A block of float32 results into the op's slice; the columns behind its last channel are zeros already."""
    p_tile = out[0] + ((rows[0] * out[1])[:, None] + o_columns[None, :])
    tl.store(p_tile, value.to(out[0].dtype.element_ty), rows[1][:, None] & (o_columns < out[2])[None, :])


@triton.jit
def export(p_op, column, out, result, shift, channels, rows):
    """A finished tile as the caller wants it: float32 (batch, ``channels``, height, width). ``shift``: how many
    channels the op's slice lies behind the result's first."""
    size = tl.load(p_op + 11) * tl.load(p_op + 12)
    end = tl.minimum(column + tl.load(p_op + 22), tl.load(p_op + 7))
    for c in range(column, end, 32):
        o_columns = c + tl.arange(0, 32)
        m_tile = rows[1][:, None] & ((o_columns < end) & _inside(o_columns + shift, channels))[None, :]
        value = tl.load(out[0] + ((rows[0] * out[1])[:, None] + o_columns[None, :]), m_tile, 0.0)
        o_result = (rows[0] // size * channels * size + rows[0] % size)[:, None]
        tl.store(result + (o_result + ((o_columns + shift) * size)[None, :]), value.to(tl.float32), m_tile)


@triton.jit
def _windows(p_op, pitch, rows):
    """Line, column and offset of the first pixel of each row's window, and the input's size. Rows that do not exist
    lie outside of all images."""
    in_h, in_w, out_h, out_w = tl.load(p_op + 9), tl.load(p_op + 10), tl.load(p_op + 11), tl.load(p_op + 12)
    o_lines = rows[0] // out_w
    i_y = o_lines % out_h * tl.load(p_op + 15) - tl.load(p_op + 17)
    i_x = rows[0] % out_w * tl.load(p_op + 16) - tl.load(p_op + 18)
    o_pixels = ((o_lines // out_h * in_h + i_y) * in_w + i_x) * pitch
    return tl.where(rows[1], i_y, -(1 << 24)), i_x, o_pixels, in_h, in_w


@triton.jit
def conv(
    p_op, weights, source, out, rows, o_columns, RAGGED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """relu(bias + windows * weight). Channels are a multiple of 16; if RAGGED, of 4, and a step of K is of one tap."""
    SIZE: tl.constexpr = weights.dtype.element_ty.primitive_bitwidth // 8
    p_weights = weights + load64(p_op + 32) // 64 * (64 // SIZE)
    p_bias = (weights + load64(p_op + 36) // 64 * (64 // SIZE)).to(tl.pointer_type(tl.float32))
    p_in, pitch = source
    i_y, i_x, o_pixels, in_h, in_w = _windows(p_op, pitch, rows)
    kernel_h, kernel_w = tl.load(p_op + 13), tl.load(p_op + 14)
    channels = tl.load(p_op + 4) // 4 * 4 if RAGGED else tl.load(p_op + 4) // 16 * 16
    depth = kernel_h * kernel_w * channels
    # Panel of 16 columns after panel; within one, 16 columns of each k.
    o_panels = o_columns // 16 * (depth * 16) + o_columns % 16
    m_columns = o_columns < out[2]  # weights and bias are whole panels too
    sums = tl.zeros((BM, BN), tl.float32)
    i_panel, i_c, i_h, i_w = 0, 0, 0, 0  # of the next 16 of K, or if RAGGED of the next step
    steps = kernel_h * kernel_w * ((channels + BK - 1) // BK * BK) if RAGGED else depth
    for k in tl.range(0, steps, BK, num_stages=STAGES):
        # A division for each k takes more registers than the sums. Count instead, whole steps or 16 at a time.
        if RAGGED:
            o_c = i_c + tl.arange(0, BK)
            o_h, o_w = i_h + tl.zeros((BK,), tl.int32), i_w + tl.zeros((BK,), tl.int32)
            o_k, m_k = (i_h * kernel_w + i_w) * channels + o_c, o_c < channels
            o_tap = (i_h * in_w + i_w) * pitch + o_c
            i_c = tl.where(i_c + BK < channels, i_c + BK, 0)
            i_w += tl.where(i_c == 0, 1, 0)
            i_h += tl.where(i_w == kernel_w, 1, 0)
            i_w = tl.where(i_w == kernel_w, 0, i_w)
        else:
            o_k = k + tl.arange(0, BK)
            m_k = o_k < depth
            o_h, o_w, o_tap = tl.zeros((BK,), tl.int32), tl.zeros((BK,), tl.int32), tl.zeros((BK,), tl.int32)
            for i in tl.static_range(BK // 16):
                here = tl.arange(0, BK) // 16 == i
                o_h, o_w = tl.where(here, i_h, o_h), tl.where(here, i_w, o_w)
                o_tap = tl.where(here, (i_h * in_w + i_w) * pitch + i_panel * 16, o_tap)
                i_panel = tl.where((i_panel + 1) * 16 == channels, 0, i_panel + 1)
                i_w += tl.where(i_panel == 0, 1, 0)
                i_h += tl.where(i_w == kernel_w, 1, 0)
                i_w = tl.where(i_w == kernel_w, 0, i_w)
            o_tap += tl.arange(0, BK) % 16
        m_in = _inside(i_y[:, None] + o_h[None, :], in_h) & _inside(i_x[:, None] + o_w[None, :], in_w)
        b_in = tl.load(p_in + (o_pixels[:, None] + o_tap[None, :]), m_in & m_k[None, :], 0.0)
        p_weight = p_weights + (o_panels[None, :] + o_k[:, None] * 16)
        b_weight = tl.load(p_weight, m_k[:, None] & m_columns[None, :], 0.0)
        sums = tl.dot(b_in, b_weight, sums, input_precision=PRECISION)
    sums += tl.load(p_bias + o_columns, m_columns, 0.0)[None, :]
    if tl.load(p_op + 1) & 1:
        sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
    m_channels = o_columns < tl.load(p_op + 7)  # behind them, infinity times a zero weight would be NaN
    _store(out, tl.where(m_channels[None, :], sums, 0.0), rows, o_columns)


@triton.jit
def pool(
    p_op, source, out, rows, o_columns, end, MAX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Largest or mean value of each window, in columns before ``end``. Pixels outside the image are absent."""
    p_in, pitch = source
    i_y, i_x, o_pixels, in_h, in_w = _windows(p_op, pitch, rows)
    kernel_h, kernel_w = tl.load(p_op + 13), tl.load(p_op + 14)
    NOTHING: tl.constexpr = float("-inf") if MAX else 0.0
    m_columns = (o_columns < end)[None, :]
    value = tl.full((BM, BN), NOTHING, tl.float32)
    for i_tap in tl.range(0, kernel_h * kernel_w, num_stages=STAGES):
        i_h, i_w = i_tap // kernel_w, i_tap % kernel_w
        m_pixels = _inside(i_y + i_h, in_h) & _inside(i_x + i_w, in_w)
        o_tile = (o_pixels + (i_h * in_w + i_w) * pitch)[:, None] + o_columns[None, :]
        pixel = tl.load(p_in + o_tile, m_pixels[:, None] & m_columns, NOTHING).to(tl.float32)
        value = tl.maximum(value, pixel, propagate_nan=tl.PropagateNan.ALL) if MAX else value + pixel
    if not MAX:
        # Lines and columns of the window inside the image, or with COUNT_INCLUDE_PAD inside the padded image.
        top, left = tl.maximum(i_y, 0), tl.maximum(i_x, 0)
        bottom, right = tl.minimum(i_y + kernel_h, in_h), tl.minimum(i_x + kernel_w, in_w)
        if tl.load(p_op + 1) & 2:
            top, left = i_y, i_x
            bottom = tl.minimum(i_y + kernel_h, in_h + tl.load(p_op + 19))
            right = tl.minimum(i_x + kernel_w, in_w + tl.load(p_op + 20))
        value /= tl.maximum((bottom - top) * (right - left), 1).to(tl.float32)[:, None]
    m_channels = o_columns < tl.load(p_op + 7)
    _store((out[0], out[1], end), tl.where(m_channels[None, :], value, 0.0), rows, o_columns)


@triton.jit
def lrn(p_op, source, out, rows, BM: tl.constexpr, BN: tl.constexpr):
    """in * (k + alpha / size * sum of squares over the channels around) ** -beta, block of columns after block."""
    channels, size = tl.load(p_op + 4), tl.load(p_op + 24)
    alpha = tl.load(p_op + 25).to(tl.float32, bitcast=True)
    beta = tl.load(p_op + 26).to(tl.float32, bitcast=True)
    k = tl.load(p_op + 27).to(tl.float32, bitcast=True)
    p_rows, m_rows = source[0] + (rows[0] * source[1])[:, None], rows[1][:, None]
    for c in range(0, out[2], BN):
        o_columns = c + tl.arange(0, BN)
        squares = tl.zeros((BM, BN), tl.float32)
        for i in range(size):
            o_c = o_columns + i - size // 2
            near = tl.load(p_rows + o_c[None, :], m_rows & _inside(o_c, channels)[None, :], 0.0)
            squares += near.to(tl.float32) * near.to(tl.float32)
        value = tl.load(p_rows + o_columns[None, :], m_rows & (o_columns < channels)[None, :], 0.0)
        _store(out, value * tl.exp2(-beta * tl.log2(k + alpha / size * squares)), rows, o_columns)


@triton.jit
def image(p_op, weights, image, pixels, out, rows):
    """The caller's images: float32 NCHW as they are, uint8 NHWC (``pixels`` is 1) scaled and shifted; zeros beside."""
    SIZE: tl.constexpr = weights.dtype.element_ty.primitive_bitwidth // 8
    in_h, in_w, channels = tl.load(p_op + 9), tl.load(p_op + 10), tl.load(p_op + 4)
    out_h, out_w = tl.load(p_op + 11), tl.load(p_op + 12)
    i_n, i_y = rows[0] // out_w // out_h, rows[0] // out_w % out_h
    i_x = rows[0] % out_w - tl.load(p_op + 18)
    for c in range(0, out[2], 4):  # images have few channels
        o_columns = c + tl.arange(0, 4)
        m_columns = o_columns < channels
        m_tile = (rows[1] & _inside(i_x, in_w))[:, None] & m_columns[None, :]
        if pixels != 0:
            p_scale = (weights + load64(p_op + 32) // SIZE).to(tl.pointer_type(tl.float32)) + o_columns
            scale, shift = tl.load(p_scale, m_columns, 0.0), tl.load(p_scale + channels, m_columns, 0.0)
            o_pixel = ((i_n * in_h + i_y) * in_w + i_x) * channels
            value = tl.load(image + (o_pixel[:, None] + o_columns[None, :]), m_tile, 0).to(tl.float32)
            _store(out, tl.where(m_tile, value * scale[None, :] + shift[None, :], 0.0), rows, o_columns)
        else:
            p_image = image.to(tl.pointer_type(tl.float32))
            o_pixel = i_n * channels * in_h * in_w + i_y * in_w + i_x
            p_pixel = p_image + (o_pixel[:, None] + (o_columns * in_h * in_w)[None, :])
            _store(out, tl.load(p_pixel, m_tile, 0.0), rows, o_columns)


@triton.jit
def softmax(p_op, source, out, rows, BM: tl.constexpr, BN: tl.constexpr):
    """exp(in - max) / sum, block of columns after block: largest, sum, result."""
    p_rows, m_rows, channels = source[0] + (rows[0] * source[1])[:, None], rows[1][:, None], tl.load(p_op + 4)
    # As columns: of a vector, Triton 3.6 cannot compile the loops for float32 (an assertion, where it has two uses).
    largest, total = tl.full((BM, 1), float("-inf"), tl.float32), tl.zeros((BM, 1), tl.float32)
    for i in tl.static_range(3):
        for c in range(0, out[2] if i == 2 else channels, BN):
            o_c = c + tl.arange(0, BN)
            m_tile = m_rows & (o_c < channels)[None, :]
            value = tl.load(p_rows + o_c[None, :], m_tile, float("-inf")).to(tl.float32)
            if i == 0:
                largest = tl.maximum(largest, tl.max(value, 1, keep_dims=True))
            elif i == 1:
                total += tl.sum(tl.exp(value - largest), 1, keep_dims=True)
            else:
                _store(out, tl.exp(value - largest) / total, rows, o_c)
