"""How far the results of two engines may lie apart, and the measure of it."""

from __future__ import annotations

import numpy as np

# max|d| / max|ref| of logits, by the coarser dtype of the two. float32 rounding through 22 layers gives some 1e-6; a
# weight that is off by 5 % gives 9e-4 at the logits and 2e-2 in its layer. float16 and bfloat16 round weights and every
# activation to 2^-11 and 2^-8: 3e-3 and 1.4e-2 at the logits. As the tests bound them (tests/tolerances.py).
BOUNDS = {"fp64": 1e-4, "fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}


def bound(*dtypes: str) -> float:
    """Of results of engines with these dtypes."""
    return max(BOUNDS[dtype] for dtype in dtypes)


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """max|d| / max|ref|; NaN if there is one. Raises ValueError when the shapes differ."""
    if actual.shape != expected.shape:
        raise ValueError(f"logits of shape {actual.shape}, expected {expected.shape}")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
