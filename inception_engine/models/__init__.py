"""Trained models that come with the package, as saved Networks with labels and preprocessing.

``DIGITS``: GoogLeNet at a quarter of its width for grey images of handwritten digits, trained by the project's own
recipe, ``RECIPE``: ``tools/train-digits`` runs ``inception train`` with it. The network's metadata say how well it does
on the fifth of scikit-learn's digits that it has not seen (``datasets.digits("held-out")``).
"""

from __future__ import annotations

from pathlib import Path

DIGITS = Path(__file__).with_name("digits.safetensors")
RECIPE = Path(__file__).with_name("digits.yaml")
