"""How `walk` finds its way through K: quotients by products and shifts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("triton")

from inception_engine.kernels.convolution import SHIFTS, counts

# The last channels of each kind of window that are still exact by the bounds, and others.
WINDOWS = [
    (1, 1, 16), (1, 1, 1024), (1, 1, 16 * 5792), (3, 3, 160), (5, 5, 48), (7, 7, 16 * 827), (1, 63, 16),
    (63, 1, 16 * 729), (8, 8, 16 * 181), (9, 9, 16 * 160), (31, 33, 16 * 45), (36, 28, 16),
]  # fmt: skip


@pytest.mark.parametrize(("kernel_h", "kernel_w", "channels"), WINDOWS)
def test_quotients_are_exact(kernel_h: int, kernel_w: int, channels: int) -> None:
    """In 31 bits, for every unit of K. Those behind its end, which a last step asks for, are masked."""
    assert counts(kernel_h, kernel_w, channels)
    taps, units = kernel_h * kernel_w, channels // 16
    shift = next(shift for most, shift in SHIFTS.items() if taps <= most)
    number = np.arange(taps * units, dtype=np.int64)
    products = number * ((1 << shift) // units + 1)
    assert products.max() < 1 << 31
    np.testing.assert_array_equal(products >> shift, number // units)
    tap = np.arange(taps)
    np.testing.assert_array_equal((tap * (65536 // kernel_w + 1)) >> 16, tap // kernel_w)


@pytest.mark.parametrize(
    "window", [(1, 1, 16 * 5793), (7, 7, 16 * 828), (8, 8, 16 * 182), (32, 32, 16), (1, 1023, 16)]
)
def test_larger_windows_are_refused(window: tuple[int, int, int]) -> None:
    assert not counts(*window)
