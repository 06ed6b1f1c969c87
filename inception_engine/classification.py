"""What images show: predictions by an engine, of whatever callers have images in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_engine.errors import ArgumentError, ImageError, InputShapeError, InputTypeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from inception_engine.engine import Engine

    Source = str | os.PathLike[str] | Image | np.ndarray
    _Decoded = tuple[str | None, np.ndarray | ImageError]  # with its file's path

CLASSIFY_BATCH = 64  # images decoded before a run: more would only hold memory and results back


@dataclass(frozen=True)
class Prediction:
    """A class with its probability (softmax of the logits, 0 to 1)."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Classification:
    """What an image shows: ``top``, most probable first.

    ``path``: of its file, or None. ``nan``: the network's output holds NaN, so nothing can be said and ``top`` is
    empty. ``error``: why the file could not be used; then ``top`` is empty, too.
    """

    path: str | None
    top: tuple[Prediction, ...] = ()
    nan: bool = False
    error: ImageError | None = None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "error": None if self.error is None else str(self.error),
            "nan": self.nan,
            "top": [asdict(prediction) for prediction in self.top],
        }


def rank(logits: np.ndarray, labels: Sequence[str], top_k: int, path: str | None) -> Classification:
    """The ``top_k`` most probable classes of logits, float32 (classes,). ``labels``: of the classes, or empty. Raises
    InputShapeError."""
    if logits.ndim != 1:
        raise InputShapeError(f"the network's output is of shape {logits.shape}, not one number per class")
    with np.errstate(invalid="ignore"):  # infinities become NaN, which is reported
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = exponentials / exponentials.sum()
    if np.isnan(probabilities).any():
        return Classification(path, nan=True)
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    label = labels.__getitem__ if labels else "class {}".format
    return Classification(path, tuple(Prediction(label(i), int(i), float(probabilities[i])) for i in best))


def classify_each(engine: Engine, images: Source | Iterable[Source], top_k: int) -> Iterator[Classification]:
    """``Engine.classify_each``, which says what ``images`` may be, by an engine's runs. Tensors are arrays here."""
    if isinstance(images, bytes | bytearray | memoryview):
        raise InputTypeError("bytes are not an image; give a path, a PIL image or an array")
    if not isinstance(top_k, int) or top_k < 1:
        raise ArgumentError(f"top_k is {top_k}, not a positive number")
    if isinstance(images, np.ndarray) and images.dtype != np.uint8:
        if images.ndim not in (3, 4):
            raise InputShapeError(f"images of shape {images.shape}; give one image or a batch")
        yield from _normalised(engine, images[None] if images.ndim == 3 else images, top_k)
        return
    batch = min(engine.max_batch, CLASSIFY_BATCH)
    waiting: list[_Decoded] = []
    for path, source in _each(images):
        waiting.append((path, _decode(engine, source)))
        if len(waiting) == batch:
            yield from _batch(engine, waiting, top_k)
            waiting = []
    yield from _batch(engine, waiting, top_k)


def _decode(engine: Engine, source: Source) -> np.ndarray | ImageError:
    from inception_engine.preprocess import pixels

    try:
        return pixels(source, engine.preprocess, engine.input_shape)
    except ImageError as error:
        return error


def _batch(engine: Engine, waiting: Sequence[_Decoded], top_k: int) -> Iterator[Classification]:
    arrays = [image for _, image in waiting if isinstance(image, np.ndarray)]
    logits = iter(engine.run(np.stack(arrays)) if arrays else ())
    for path, image in waiting:
        if isinstance(image, ImageError):
            yield Classification(path, error=image)
        else:
            yield engine.rank(next(logits), top_k, path)


def _normalised(engine: Engine, images: np.ndarray, top_k: int) -> Iterator[Classification]:
    for begin in range(0, max(len(images), 1), engine.max_batch):
        for logits in engine.run(images[begin : begin + engine.max_batch]):
            yield engine.rank(logits, top_k)


def _each(images: Source | Iterable[Source]) -> Iterator[tuple[str | None, Source]]:
    """Single images with their paths, folders expanded."""
    from PIL.Image import Image

    from inception_engine.preprocess import find_images

    if isinstance(images, str | os.PathLike):
        for path in find_images([images]):
            yield str(path), path
    elif isinstance(images, Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        yield None, images
    elif isinstance(images, Iterable):
        for image in images:
            yield from _each(image) if isinstance(image, str | os.PathLike) else ((None, image),)
    else:
        raise InputTypeError(f"images are a {type(images).__name__}; give paths, images or an array")
