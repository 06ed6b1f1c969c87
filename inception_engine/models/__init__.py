"""Trained models that come with the package, as saved Networks with labels and preprocessing."""

from __future__ import annotations

from pathlib import Path

DIGITS = Path(__file__).parent / "digits.safetensors"  # of scikit-learn's handwritten digits
