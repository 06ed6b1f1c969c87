"""Batch norm multiplied into the convolution before it: the one place where that arithmetic stands."""

from __future__ import annotations

import numpy as np


def folded(
    weight: np.ndarray,
    bias: np.ndarray | None,
    *,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    scale: np.ndarray | None = None,
    shift: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of one convolution that computes shift + scale * (conv(x) - mean) / sqrt(variance + epsilon).

    ``weight``: (out, ...), ``bias``: (out,) or None; of the batch norm all (out,), ``scale`` and ``shift`` None where
    it has none. Returns float64 whatever came in: the caller rounds, once.
    """
    factor = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    if scale is not None:
        factor *= scale
    offset = -mean.astype(np.float64) if bias is None else bias - mean.astype(np.float64)
    offset *= factor
    if shift is not None:
        offset += shift
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), offset
