"""What a batch holds: which images, in which order, and those that stand in for the unreadable ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inception_engine.datasets import Dataset
from inception_engine.errors import ImageError, LoaderError
from inception_engine.train.augment import Augmentation, Stream, augment, bits, generator

SUBSTITUTES = 100  # images in a row that may be unreadable


def order(seed: int, epoch: int, length: int) -> np.ndarray:
    """In which order an epoch shows ``length`` images: int64 indices."""
    return np.argsort(bits(seed, epoch, 0, Stream.ORDER).random_raw(length), kind="stable")


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """One batch: which images; ``epoch``: of training, None: as validation sees them."""

    indices: np.ndarray
    epoch: int | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A batch: ``images`` uint8 (batch, height, width, channels), ``labels`` and ``indices`` int64 (batch,);
    ``skipped``: what was wrong with images that were left out.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    skipped: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Recipe:
    """How a batch is made of a task, whichever process does it. ``skip_unreadable``: leave out what cannot be read."""

    dataset: Dataset
    augmentation: Augmentation
    seed: int
    skip_unreadable: bool

    def prepare(self, task: Task) -> Prepared:
        """Raises ImageError, and LoaderError where images are to be skipped and too many are unreadable."""
        augmentation = self.augmentation.off() if task.epoch is None else self.augmentation
        images: list[np.ndarray] = []
        indices: list[int] = []
        skipped: list[str] = []
        for index in map(int, task.indices):
            for chosen in self._candidates(index, task.epoch):
                try:
                    images.append(self._image(chosen, task.epoch or 0, augmentation))
                    indices.append(chosen)
                    break
                except ImageError as error:
                    if not self.skip_unreadable:
                        raise
                    skipped.append(str(error))
            else:
                if task.epoch is not None:
                    raise LoaderError(
                        f"{SUBSTITUTES} images in a row cannot be used; the last: {skipped[-1]}"
                    )
        channels, height, width = self.augmentation.input_shape
        return Prepared(
            images=np.stack(images) if images else np.empty((0, height, width, channels), np.uint8),
            labels=np.array([self.dataset.label(index) for index in indices], np.int64),
            indices=np.array(indices, np.int64),
            skipped=tuple(skipped),
        )

    def _image(self, index: int, epoch: int, augmentation: Augmentation) -> np.ndarray:
        image, name = self.dataset.image(index, augmentation.side), self.dataset.name(index)
        return augment(image, augmentation, generator(self.seed, epoch, index), name)

    def _candidates(self, index: int, epoch: int | None) -> Iterator[int]:
        """The image, then those that take its place in training if it is unreadable, so that batches stay whole."""
        yield index
        if epoch is not None:
            random = generator(self.seed, epoch, index, Stream.SUBSTITUTE)
            for _ in range(SUBSTITUTES - 1):
                yield int(random.integers(len(self.dataset)))
