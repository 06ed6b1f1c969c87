"""Two backends on the same images: how far apart they are, layer by layer and at the logits, and where that begins.

A is judged by B: errors are relative to the largest value of B.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inception_engine.backends.base import Backend
from inception_engine.errors import BackendError
from inception_engine.network import Preprocess, Shape
from inception_engine.parity import bound

LOGITS = "logits"
LARGEST_BATCH = 8  # layers of that many images are held at once, 40 MB each for GoogLeNet
RANDOM_IMAGES = 4


@dataclass
class Difference:
    """Of one layer, over all images so far, in float64.

    ``largest``: max|d|. ``scale``: max|B|. ``mean``: of |d|. ``rmse``: root of the mean square of d. ``cosine``: of the
    angle between A and B. ``where``: (image, channel, row, column) of the largest difference, or of the first value
    that is not finite; ``a`` and ``b``: the values there. ``finite``: whether all values are.
    """

    name: str
    shape: Shape
    largest: float = 0.0
    scale: float = 0.0
    finite: bool = True
    where: tuple[int, int, int, int] = (0, 0, 0, 0)
    a: float = 0.0
    b: float = 0.0
    _sums: np.ndarray = field(default_factory=lambda: np.zeros(5), repr=False)  # |d|, d d, a b, a a, b b
    _values: int = 0

    def add(self, a: np.ndarray, b: np.ndarray, first_image: int) -> None:
        """The layer's output for the next images, of which the first has this number."""
        a, b = a.reshape(-1, *self.shape).astype(np.float64), b.reshape(-1, *self.shape).astype(np.float64)
        spoilt = ~(np.isfinite(a) & np.isfinite(b))
        if spoilt.any():
            if self.finite:
                self._at(a, b, int(spoilt.argmax()), first_image)
            self.finite, self.largest = False, np.inf
            return
        d = np.abs(a - b)
        place = int(d.argmax())
        if self.finite and d.flat[place] > self.largest:
            self.largest = float(d.flat[place])
            self._at(a, b, place, first_image)
        self.scale = max(self.scale, float(np.abs(b).max()))
        self._sums += d.sum(), (d * d).sum(), (a * b).sum(), (a * a).sum(), (b * b).sum()
        self._values += d.size

    def _at(self, a: np.ndarray, b: np.ndarray, place: int, first_image: int) -> None:
        image, channel, row, column = (int(index) for index in np.unravel_index(place, a.shape))
        self.where, self.a, self.b = (
            (first_image + image, channel, row, column),
            float(a.flat[place]),
            float(b.flat[place]),
        )

    @property
    def error(self) -> float:
        """max|d| / max|B|; infinite where something is not finite, or where B is 0 and A is not."""
        if self.scale == 0 or not self.finite:
            return 0.0 if self.largest == 0 else np.inf
        return self.largest / self.scale

    @property
    def mean(self) -> float:
        return float(self._sums[0]) / self._values if self.finite else np.inf

    @property
    def rmse(self) -> float:
        return float(np.sqrt(self._sums[1] / self._values)) if self.finite else np.inf

    @property
    def cosine(self) -> float:
        """1 where both are 0; NaN where something is not finite."""
        if not self.finite:
            return np.nan
        lengths = float(np.sqrt(self._sums[3]) * np.sqrt(self._sums[4]))
        return float(self._sums[2]) / lengths if lengths else float(self._sums[3] == self._sums[4])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``layers``: in the order of computation. ``first``: the first layer beyond the tolerance, "logits" if no layer is
    and they are, or None. ``top1``: the part of images for which both name the same class."""

    a: str
    b: str
    images: int
    tolerance: float
    layers: tuple[Difference, ...]
    logits: Difference
    first: str | None
    top1: float

    @property
    def agree(self) -> bool:
        return self.first is None

    def document(self) -> dict[str, Any]:
        """For JSON, which has no infinity and no NaN: they are null."""
        fields = ("error", "mean", "rmse", "cosine")

        def row(difference: Difference) -> dict[str, Any]:
            values = {k: v for k, v in asdict(difference).items() if not k.startswith("_")}
            values |= {name: getattr(difference, name) for name in fields}
            return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}

        return {
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "tolerance": self.tolerance,
            "agree": self.agree,
            "first_diverging_layer": self.first,
            "top1_agreement": self.top1,
            "logits": row(self.logits),
            "layers": [row(layer) for layer in self.layers],
        }


def compare(
    a: Backend, b: Backend, images: Iterable[np.ndarray], tolerance: float | None = None
) -> Comparison:
    """``images``: each (channels, height, width) float32, normalised. ``tolerance``: of every layer's and the logits'
    error; default: by the coarser dtype of the two. Layers are compared that both have under one name.

    Raises BackendError where input shapes, numbers of classes, or shapes of layers of one name differ, or there are no
    images, and what running raises.
    """
    batch = common_batch(a, b)
    layers = {name: Difference(name, a.outputs[name]) for name in a.face.layers if name in b.face.layers}
    for name in layers:
        if a.outputs[name] != b.outputs[name]:
            raise BackendError(f"layer {name} is {a.outputs[name]} in A and {b.outputs[name]} in B")
    first_a, first_b = next(iter(a.outputs)), next(iter(b.outputs))
    logits = Difference(LOGITS, a.outputs[first_a])
    count = same = 0
    for given in _batches(images, batch):
        padded = np.stack([given[min(i, len(given) - 1)] for i in range(max(len(given), _smallest(a, b)))])
        results_a, results_b = a.run(padded, [first_a, *layers]), b.run(padded, [first_b, *layers])
        for name, difference in layers.items():
            difference.add(results_a[name][: len(given)], results_b[name][: len(given)], count)
        of_a, of_b = results_a[first_a][: len(given)], results_b[first_b][: len(given)]
        logits.add(of_a, of_b, count)
        classes_a, classes_b = (of.reshape(len(given), -1) for of in (of_a, of_b))
        known = np.isfinite(classes_a).all(axis=1) & np.isfinite(classes_b).all(axis=1)
        same += int((known & (classes_a.argmax(axis=1) == classes_b.argmax(axis=1))).sum())
        count += len(given)
    if count == 0:
        raise BackendError("no images to compare on")
    limit = bound(a.face.dtype, b.face.dtype) if tolerance is None else tolerance
    beyond = [difference.name for difference in (*layers.values(), logits) if not difference.error <= limit]
    return Comparison(
        a=a.description,
        b=b.description,
        images=count,
        tolerance=limit,
        layers=tuple(layers.values()),
        logits=logits,
        first=beyond[0] if beyond else None,
        top1=same / count,
    )


def common_batch(a: Backend, b: Backend) -> int:
    """Images per run that both take. Raises BackendError where they cannot be compared at all."""
    if a.input_shape != b.input_shape:
        raise BackendError(f"A takes images of {a.input_shape}, B of {b.input_shape}")
    (first_a, shape_a), (first_b, shape_b) = (next(iter(one.outputs.items())) for one in (a, b))
    if shape_a != shape_b:
        raise BackendError(f"A gives {first_a} of {shape_a}, B {first_b} of {shape_b}")
    largest = min(one.face.batches[1] or LARGEST_BATCH for one in (a, b))
    smallest = _smallest(a, b)
    if smallest > largest:
        raise BackendError(f"A takes batches of {_range(a)}, B of {_range(b)}")
    return max(smallest, min(largest, LARGEST_BATCH))


def _smallest(a: Backend, b: Backend) -> int:
    return max(one.face.batches[0] for one in (a, b))


def _range(backend: Backend) -> str:
    smallest, largest = backend.face.batches
    return f"{smallest} to {largest or 'any'}"


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    waiting: list[np.ndarray] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def random_images(shape: Shape, count: int, seed: int) -> Iterator[np.ndarray]:
    """As a normalised photograph's: mean 0, deviation 1. The same seed gives the same images, whatever their number."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.standard_normal(shape, dtype=np.float32)


def folder_images(
    path: Path, shape: Shape, preprocess: Preprocess, count: int | None
) -> Iterator[np.ndarray]:
    """The first ``count`` JPEG and PNG files of a folder (default: all), or a file. Raises ImageError, BackendError."""
    from itertools import islice

    from inception_engine.preprocess import find_images, normalise, pixels

    found = False
    for file in islice(find_images([path]), count):
        found = True
        yield normalise(pixels(file, preprocess, shape)[None], preprocess)[0]
    if not found:
        raise BackendError(f"{path}: holds no JPEG or PNG files")
