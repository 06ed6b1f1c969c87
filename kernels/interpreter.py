"""bfloat16 in Triton's interpreter, held as bits there: 3.6.0 multiplies them as integers and rounds towards zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

_dot = InterpreterBuilder.create_dot
_cast = InterpreterBuilder.cast_impl


def mend_bfloat16() -> None:
    """From now on a product of bfloat16 blocks is one, and float32 becomes the nearest bfloat16 as on a GPU."""
    InterpreterBuilder.create_dot = _create_dot
    InterpreterBuilder.cast_impl = _cast_impl


def _create_dot(self: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
    a, b = (TensorHandle(_widen(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
    return _dot(self, a, b, d, *options)


def _cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
    kinds = src.dtype.scalar, dst_type.scalar
    if kinds == (tl.bfloat16, tl.float32):
        return TensorHandle(_widen(src.data), tl.float32)
    if kinds == (tl.float32, tl.bfloat16):
        return TensorHandle(_round(src.data), tl.bfloat16)
    return _cast(self, src, dst_type)


def _widen(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round(values: np.ndarray) -> np.ndarray:
    """To the nearest, in the middle to the even; NaN stays NaN."""
    bits = np.asarray(values, order="C").view(np.uint32)
    nearest = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(values), 0x7FC0, nearest).astype(np.uint16)
