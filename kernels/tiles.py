"""What one tile of each kind of op but convolutions computes: ``BM`` pixels by ``BN`` channels, from the arena into the
arena. Convolutions: convolution.py.

Arguments: ``op``, an ``Op`` (record.py); ``weights``, all of them, in the arena's dtype; ``source`` = (pointer, pitch)
of the slice that is read; ``out`` = (pointer, pitch, columns with padding) of the slice that is written; ``rows`` =
(numbers, which of them exist), each (BM,). What stands in ``source`` and ``out`` are multiples of 16, but for an INPUT.
Each function is inlined into ``walk``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from inception_engine.kernels.record import inside, windows


@triton.jit
def store(out, value, rows, o_columns):
    """A block of float32 results into the op's slice; the columns behind its last channel are zeros already."""
    p_tile = out[0] + ((rows[0] * out[1])[:, None] + o_columns[None, :])
    tl.store(p_tile, value.to(out[0].dtype.element_ty), rows[1][:, None] & (o_columns < out[2])[None, :])


@triton.jit
def export(op, column, out, result, shift, channels, rows):
    """A finished tile as the caller wants it: float32 (batch, ``channels``, height, width). ``shift``: how many
    channels the op's slice lies behind the result's first."""
    size = op.out_h * op.out_w
    end = tl.minimum(column + op.tile_columns, op.out_channels)
    for c in range(column, end, 32):
        o_columns = c + tl.arange(0, 32)
        m_tile = rows[1][:, None] & ((o_columns < end) & inside(o_columns + shift, channels))[None, :]
        value = tl.load(out[0] + ((rows[0] * out[1])[:, None] + o_columns[None, :]), m_tile, 0.0)
        o_result = (rows[0] // size * channels * size + rows[0] % size)[:, None]
        tl.store(result + (o_result + ((o_columns + shift) * size)[None, :]), value.to(tl.float32), m_tile)


@triton.jit
def pool(
    op, source, out, rows, o_columns, end, MAX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Largest or mean value of each window, in columns before ``end``. Pixels outside the image are absent."""
    p_in, pitch = source
    i_y, i_x, o_pixels = windows(op, pitch, rows)
    in_h, in_w, kernel_h, kernel_w = op.in_h, op.in_w, op.kernel_h, op.kernel_w
    NOTHING: tl.constexpr = float("-inf") if MAX else 0.0
    m_columns = (o_columns < end)[None, :]
    value = tl.full((BM, BN), NOTHING, tl.float32)
    for i_tap in tl.range(0, kernel_h * kernel_w, num_stages=STAGES):
        i_h, i_w = i_tap // kernel_w, i_tap % kernel_w
        m_pixels = inside(i_y + i_h, in_h) & inside(i_x + i_w, in_w)
        o_tile = (o_pixels + (i_h * in_w + i_w) * pitch)[:, None] + o_columns[None, :]
        pixel = tl.load(p_in + o_tile, m_pixels[:, None] & m_columns, NOTHING).to(tl.float32)
        value = tl.maximum(value, pixel, propagate_nan=tl.PropagateNan.ALL) if MAX else value + pixel
    if not MAX:
        # Lines and columns of the window inside the image, or with COUNT_INCLUDE_PAD inside the padded image.
        top, left = tl.maximum(i_y, 0), tl.maximum(i_x, 0)
        bottom, right = tl.minimum(i_y + kernel_h, in_h), tl.minimum(i_x + kernel_w, in_w)
        if op.flags & 2:
            top, left = i_y, i_x
            bottom = tl.minimum(i_y + kernel_h, in_h + tl.load(op.record + 19))
            right = tl.minimum(i_x + kernel_w, in_w + tl.load(op.record + 20))
        value /= tl.maximum((bottom - top) * (right - left), 1).to(tl.float32)[:, None]
    m_channels = o_columns < op.out_channels
    store((out[0], out[1], end), tl.where(m_channels[None, :], value, 0.0), rows, o_columns)


@triton.jit
def lrn(op, source, out, rows, BM: tl.constexpr, BN: tl.constexpr):
    """in * (k + alpha / size * sum of squares over the channels around) ** -beta, block of columns after block."""
    channels, size = op.channels, tl.load(op.record + 24)
    alpha = tl.load(op.record + 25).to(tl.float32, bitcast=True)
    beta = tl.load(op.record + 26).to(tl.float32, bitcast=True)
    k = tl.load(op.record + 27).to(tl.float32, bitcast=True)
    p_rows, m_rows = source[0] + (rows[0] * source[1])[:, None], rows[1][:, None]
    for c in range(0, out[2], BN):
        o_columns = c + tl.arange(0, BN)
        squares = tl.zeros((BM, BN), tl.float32)
        for i in range(size):
            o_c = o_columns + i - size // 2
            near = tl.load(p_rows + o_c[None, :], m_rows & inside(o_c, channels)[None, :], 0.0)
            squares += near.to(tl.float32) * near.to(tl.float32)
        value = tl.load(p_rows + o_columns[None, :], m_rows & (o_columns < channels)[None, :], 0.0)
        store(out, value * tl.exp2(-beta * tl.log2(k + alpha / size * squares)), rows, o_columns)


@triton.jit
def image(op, weights, image, pixels, out, rows):
    """The caller's images: float32 NCHW as they are, uint8 NHWC (``pixels`` is 1) scaled and shifted; zeros beside."""
    SIZE: tl.constexpr = weights.dtype.element_ty.primitive_bitwidth // 8
    in_h, in_w, channels = op.in_h, op.in_w, op.channels
    out_h, out_w = op.out_h, op.out_w
    i_n, i_y = rows[0] // out_w // out_h, rows[0] // out_w % out_h
    i_x = rows[0] % out_w - op.pad_left
    for c in range(0, out[2], 4):  # images have few channels
        o_columns = c + tl.arange(0, 4)
        m_columns = o_columns < channels
        m_tile = (rows[1] & inside(i_x, in_w))[:, None] & m_columns[None, :]
        if pixels != 0:
            p_scale = (weights + op.weights // SIZE).to(tl.pointer_type(tl.float32)) + o_columns
            scale, shift = tl.load(p_scale, m_columns, 0.0), tl.load(p_scale + channels, m_columns, 0.0)
            o_pixel = ((i_n * in_h + i_y) * in_w + i_x) * channels
            value = tl.load(image + (o_pixel[:, None] + o_columns[None, :]), m_tile, 0).to(tl.float32)
            store(out, tl.where(m_tile, value * scale[None, :] + shift[None, :], 0.0), rows, o_columns)
        else:
            p_image = image.to(tl.pointer_type(tl.float32))
            o_pixel = i_n * channels * in_h * in_w + i_y * in_w + i_x
            p_pixel = p_image + (o_pixel[:, None] + (o_columns * in_h * in_w)[None, :])
            store(out, tl.load(p_pixel, m_tile, 0.0), rows, o_columns)


@triton.jit
def softmax(op, source, out, rows, BM: tl.constexpr, BN: tl.constexpr):
    """exp(in - max) / sum, block of columns after block: largest, sum, result."""
    p_rows, m_rows, channels = source[0] + (rows[0] * source[1])[:, None], rows[1][:, None], op.channels
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
                store(out, tl.exp(value - largest) / total, rows, o_c)
