"""What is counted: top-1, top-5, the confusion matrix, and on how many images two evaluations name the same class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOP = 5
UNKNOWN = -1  # the first class of an image whose probabilities hold NaN


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64. Rows with NaN or an infinity give NaN, which counts as wrong."""
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)


@dataclass
class Tally:
    """Counts over the images so far.

    ``confusion``: int64 (classes, classes), a row for each true class, a column for each one named. ``first``: the
    class named for each image, in order, or ``UNKNOWN``. Classes of one probability are ordered by index, as
    ``Engine.classify`` orders them. Where there are 5 classes or fewer, every answer is among the top 5.
    """

    classes: int
    images: int = 0
    hits1: int = 0
    hits5: int = 0
    unknown: int = 0
    first: list[int] = field(default_factory=list, repr=False)
    confusion: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.classes, self.classes), np.int64)

    def add(self, probabilities: np.ndarray, label: int) -> None:
        """One image: (classes,) and its true class."""
        self.images += 1
        if np.isnan(probabilities).any():
            self.unknown += 1
            self.first.append(UNKNOWN)
            return
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        self.hits1 += int(best[0] == label)
        self.hits5 += int(label in best)
        self.first.append(int(best[0]))
        self.confusion[label, best[0]] += 1

    @property
    def top1(self) -> float:
        """Percent of the images whose class is the most probable one."""
        return 100 * self.hits1 / self.images

    @property
    def top5(self) -> float:
        """Percent of the images whose class is among the five most probable ones."""
        return 100 * self.hits5 / self.images


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On how many of ``images`` A and B name the same first class. ``differing``: the numbers of the others; those for
    which either knows none are among them."""

    a: str
    b: str
    images: int
    differing: tuple[int, ...]

    @property
    def same(self) -> int:
        return self.images - len(self.differing)

    def document(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b, "images": self.images, "same": self.same,
                "differing": list(self.differing)}  # fmt: skip

    def __str__(self) -> str:
        return f"{self.a} and {self.b} name the same first class for {self.same} of {self.images} images"


def agreement(a: str, first_a: Sequence[int], b: str, first_b: Sequence[int]) -> Agreement:
    """Of the first classes that ``a`` and ``b`` (descriptions) name for the same images. Raises ValueError for other
    numbers of images."""
    pairs = enumerate(zip(first_a, first_b, strict=True))
    differing = tuple(index for index, (x, y) in pairs if x != y or x == UNKNOWN)
    return Agreement(a=a, b=b, images=len(first_a), differing=differing)
