"""Every tolerance of the tests with its reason, and the metric that they bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """Bounds on ``error``: of any layer's output, and of the logits."""

    layer: float
    logits: float


# Measured against the float64 reference on the seeded GoogLeNet, worst layer of six seeds and variants: torch, ONNX
# Runtime and the engine up to 4e-6, and 1.3e-6 at the logits; on 500 random small networks up to 5e-6, where few
# outputs cancel. Another order of summation moves these by a factor of two or so, and so do convolutions by Winograd's
# algorithm: its transforms cost about one more rounding of the largest terms, but its sums are shorter. What must be
# found is far away: a weight that is off by 5 % gives 2e-2 in its layer and 9e-4 at the logits, dropping the LRN layers
# 4e-3 and 2e-3.
# In float16 and bfloat16 weights and every activation are rounded (2^-11 and 2^-8, half a unit in the last place), sums
# are float32. Measured by the interpreted kernels against the float64 reference of unrounded weights: 6e-4 and 5e-3
# behind one module, 3.7e-3 and 2.7e-2 in the worst layer behind all of a small network, 3e-3 and 1.4e-2 at its
# logits. A halo that is off by one line gives 0.4 and more in its branch.
TOLERANCES = {
    "fp32": Tolerance(layer=1e-5, logits=1e-4),
    "fp16": Tolerance(layer=5e-3, logits=2e-2),
    "bf16": Tolerance(layer=3e-2, logits=1e-1),
}

# Weights and biases that were folded in float64 and rounded to float32 once, relative to the largest.
FOLDING = 1e-6

# Losses and weights of a training by two processes against one, relative to the largest: sums over the batch are taken
# in another order. Measured behind 8 steps: 1.3e-7. Other dropout masks or unshared gradients show in the first digits.
TRAINING = 1e-5


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """max|d| / max|ref|. Infinite where shapes differ or either is not finite; NaN never passes a bound."""
    if actual.shape != expected.shape or not np.isfinite(actual).all() or not np.isfinite(expected).all():
        return np.inf
    difference = float(np.abs(actual - expected).max())
    scale = float(np.abs(expected).max())
    if scale == 0:  # ReLU can leave nothing; then nothing must be there
        return 0.0 if difference == 0 else np.inf
    return difference / scale


def violations(
    actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], logits: str, dtype: str = "fp32"
) -> list[str]:
    """One line for every layer beyond its bound or missing from ``actual``. Arrays by layer name."""
    bounds = TOLERANCES[dtype]
    lines = []
    for name, reference in expected.items():
        bound = bounds.logits if name == logits else bounds.layer
        if name not in actual:
            lines.append(f"{name}: missing")
        elif not (found := error(actual[name], reference)) <= bound:
            lines.append(f"{name}: error {found:.3g} above {bound:.3g}")
    return lines
