"""An op's record (plan_format.h) as ``walk`` reads it, and what several kinds of tiles make of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

# The interpreter runs block after block: it needs no fences, and knows no assembly.
COMPILED: tl.constexpr = tl.constexpr(not triton.knobs.runtime.interpret)


class Op(NamedTuple):
    """Fields of the record by their names there. ``record``: its words, for what few kinds need. ``weights``, ``bias``:
    bytes from the first of all weights, multiples of 64. ``part_depth``: 0 where K is whole."""

    record: Any
    kind: Any
    flags: Any
    channels: Any
    out_channels: Any
    out_padded: Any
    in_h: Any
    in_w: Any
    out_h: Any
    out_w: Any
    kernel_h: Any
    kernel_w: Any
    stride_h: Any
    stride_w: Any
    pad_top: Any
    pad_left: Any
    tile_rows: Any
    tile_columns: Any
    weights: Any
    bias: Any
    part_depth: Any


@triton.jit
def read(p):
    """What most kinds need of the record at ``p``. Nothing of it changes: it is read before a task waits, and not
    behind the wait, where each load would have to come from L2 again."""
    return Op(
        record=p,
        kind=tl.load(p),
        flags=tl.load(p + 1),
        channels=tl.load(p + 4),
        out_channels=tl.load(p + 7),
        out_padded=tl.load(p + 8),
        in_h=tl.load(p + 9),
        in_w=tl.load(p + 10),
        out_h=tl.load(p + 11),
        out_w=tl.load(p + 12),
        kernel_h=tl.load(p + 13),
        kernel_w=tl.load(p + 14),
        stride_h=tl.load(p + 15),
        stride_w=tl.load(p + 16),
        pad_top=tl.load(p + 17),
        pad_left=tl.load(p + 18),
        tile_rows=tl.load(p + 21),
        tile_columns=tl.load(p + 22),
        weights=load64(p + 32),
        bias=load64(p + 36),
        part_depth=tl.load(p + 40),
    )


@triton.jit
def load64(p):
    """The 64-bit number in two words of a table; all of them are below 2**63."""
    return tl.load(p).to(tl.uint32, bitcast=True).to(tl.int64) | (tl.load(p + 1).to(tl.int64) << 32)


@triton.jit
def fence(INSTRUCTION: tl.constexpr):
    """A fence, in every thread."""
    if COMPILED:
        FENCE: tl.constexpr = INSTRUCTION + "; mov.u32 $0, 0;"
        tl.inline_asm_elementwise(FENCE, "=r", [], tl.int32, is_pure=False, pack=1)


@triton.jit
def settled(sums):
    """The sums of a product, which is done when this returns.

    Without it a loop's product is waited for in the next turn. That is too late for an operand in registers: ptxas of
    CUDA 12.8, which Triton 3.6.0 brings, gives such a register to other numbers while wgmma still reads it.
    """
    if COMPILED:
        sums = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [sums], tl.float32, is_pure=True, pack=1)
    return sums


@triton.jit
def pause():
    """Some nanoseconds between two polls, in which a warp leaves its multiprocessor to those that work."""
    if COMPILED:
        tl.inline_asm_elementwise(
            "nanosleep.u32 20; mov.u32 $0, 0;", "=r", [], tl.int32, is_pure=False, pack=1
        )


@triton.jit
def inside(i, size):
    """0 <= i < size, as one comparison: without a sign, what is negative is large."""
    return i.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def windows(op, pitch, rows):
    """Line, column and offset of the first pixel of each row's window. Rows that do not exist lie outside of all
    images."""
    o_lines = rows[0] // op.out_w
    i_y = o_lines % op.out_h * op.stride_h - op.pad_top
    i_x = rows[0] % op.out_w * op.stride_w - op.pad_left
    o_pixels = ((o_lines // op.out_h * op.in_h + i_y) * op.in_w + i_x) * pitch
    return tl.where(rows[1], i_y, -(1 << 24)), i_x, o_pixels
