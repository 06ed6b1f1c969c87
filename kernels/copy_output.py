"""copy_output: a slice of the arena as the caller wants it, for the outputs that ``walk`` does not store itself.

    result[n, c, p] = float32(source[n * pixels + p, c])        for c in [0, channels)

``source``: first element of the slice, in the arena's dtype, rows of ``pitch`` elements; ``result``: float32 (images,
channels, pixels). A block copies 64 rows by 64 channels: grid (images * pixels / 64, channels / 64), both rounded up.
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = 64  # rows, and channels
NUMBERS = ("pixels", "pitch", "channels", "images")
_BLOCK: tl.constexpr = tl.constexpr(BLOCK)


@triton.jit(do_not_specialize=NUMBERS)
def copy_output(source, result, pixels, pitch, channels, images):
    o_rows = tl.program_id(0) * _BLOCK + tl.arange(0, _BLOCK)
    o_channels = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    m_tile = (o_rows < images * pixels)[:, None] & (o_channels < channels)[None, :]
    value = tl.load(source + (o_rows * pitch)[:, None] + o_channels[None, :], m_tile, 0.0)
    o_result = (o_rows // pixels * channels * pixels + o_rows % pixels)[:, None] + (o_channels * pixels)[
        None, :
    ]
    tl.store(result + o_result, value.to(tl.float32), m_tile)
