"""The confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from inception_engine import packages

NAMED = 40  # classes, up to which the axes carry their names
COUNTED = 20  # up to which the cells carry their counts
DPI = 120


def png(confusion: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """A PNG of ``confusion`` (true class, class named), each row as parts of its true class's images.

    ``classes``: their names, or empty. Raises PackageError where matplotlib is not installed.
    """
    packages.load("matplotlib")
    from matplotlib.figure import Figure

    parts = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = len(confusion)
    inches = 3 + 0.35 * min(size, NAMED)
    figure = Figure(figsize=(inches + 1, inches), layout="constrained")
    axes = figure.add_subplot()
    # The many small ones off the diagonal are what one looks for: the scale is that of their square roots.
    image = axes.imshow(np.sqrt(parts), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="class named", ylabel="true class", title=title)
    if size <= NAMED:
        names = [_plain(name) for name in classes] or [str(index) for index in range(size)]
        axes.set_xticks(range(size), names, rotation=90)
        axes.set_yticks(range(size), names)
    if size <= COUNTED:
        for row, column in np.argwhere(confusion):
            colour = "white" if parts[row, column] > 0.25 else "black"
            axes.text(
                column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=7
            )
    bar = figure.colorbar(image, ax=axes, label="part of the true class")
    ticks = np.array([0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.set_ticks(list(np.sqrt(ticks)), labels=[f"{tick:g}" for tick in ticks])
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def _plain(name: str) -> str:
    """matplotlib reads what stands between dollars as mathematics."""
    return name.replace("$", r"\$")[:30]
