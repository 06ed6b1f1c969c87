"""Weights in the order in which kernels read them."""

from __future__ import annotations

import numpy as np
import xxhash

from inception_engine.compiler.plan import ALIGNMENT, PANEL, Dtype


def panels(weight: np.ndarray, dtype: Dtype) -> np.ndarray:
    """(columns, kh, kw, channels) -> (columns / 16 rounded up, kh, kw, channels, 16) of ``dtype``; zeros fill up.

    A kernel that computes 16 columns reads one such panel from its beginning to its end. bfloat16 comes as uint16.
    Raises OverflowError if a finite weight is too large for ``dtype``.
    """
    columns, kh, kw, channels = weight.shape
    padded = np.zeros((-(-columns // PANEL) * PANEL, kh, kw, channels), np.float32)
    padded[:columns] = weight
    return _rounded(padded.reshape(-1, PANEL, kh, kw, channels).transpose(0, 2, 3, 4, 1), dtype)


def _rounded(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """float32 values in ``dtype``, contiguous, to the nearest and even in the middle."""
    values = np.ascontiguousarray(values)
    if dtype is Dtype.FP32:
        return values
    rounded: np.ndarray
    if dtype is Dtype.FP16:
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        finite = np.isfinite(rounded)
    else:
        bits = values.view(np.uint32)
        bits = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint32)
        bits = np.where(np.isnan(values), np.uint32(0x7FC0), bits)  # a carry could make it an infinity
        rounded, finite = bits.astype(np.uint16), (bits & 0x7F80) != 0x7F80
    if (np.isfinite(values) & ~finite).any():
        raise OverflowError(f"a weight is too large for {dtype.name.lower()}")
    return rounded


def padded_bias(bias: np.ndarray) -> np.ndarray:
    """Bias with zeros up to a whole panel, float32."""
    return np.pad(bias.astype(np.float32), (0, -len(bias) % PANEL))


class WeightStore:
    """The weights section while it grows. Equal arrays are stored once, whichever program they are for.

    But a CPU makes other weights of some, and the loader wants all that others are made of, each way of it counted
    once, to fit the section: a place serves one way at most, and equal arrays for another way are stored again.
    """

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._places: dict[tuple[int, bytes], list[tuple[int, tuple[int, ...]]]] = {}  # offset and way
        self._end = 0

    def add(self, array: np.ndarray, made: tuple[int, ...] = ()) -> int:
        """The offset, in bytes, at which ``array`` stands in the section.

        ``made``: the way in which others are made of it; empty where it is read as it is.
        """
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        places = self._places.setdefault((data.nbytes, xxhash.xxh3_128_digest(data.data)), [])
        for index, (offset, way) in enumerate(places):
            if not made or way in ((), made):
                places[index] = offset, way or made
                return offset
        places.append((self._end, made))
        self._chunks += [data, np.zeros(-data.nbytes % ALIGNMENT, np.uint8)]
        self._end += data.nbytes + len(self._chunks[-1])
        return places[-1][0]

    def section(self) -> np.ndarray:
        """All of it, uint8."""
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.uint8)
