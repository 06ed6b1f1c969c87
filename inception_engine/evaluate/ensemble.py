"""Softmax averages over the crops of an image and over the models of an ensemble, and what they score."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from inception_engine.backends.base import Backend
from inception_engine.datasets import Dataset
from inception_engine.errors import BackendError, DatasetError, ImageError
from inception_engine.evaluate.crops import check_count, largest_side, views
from inception_engine.evaluate.metrics import Tally, softmax
from inception_engine.network import Preprocess, Shape

USUAL_BATCH, LARGEST_BATCH = 64, 256  # of a backend that takes any; of one that takes more
CROPS_AT_ONCE = 288  # made before the models run: 43 MB of 224 x 224 pixels
PROBABILITIES = "probabilities"  # the output of a model exported with its softmax
READERS = min(4, len(os.sched_getaffinity(0)))  # threads that decode while the models run

Input = tuple[Preprocess, Shape]
Views = dict[Input, np.ndarray]


class Member:
    """A model of the ensemble. ``passes``: images that went through its network, crops each counted."""

    def __init__(self, backend: Backend) -> None:
        """Raises BackendError for a model that does not say how images become its input, or gives no classes."""
        face = backend.face
        if face.preprocess is None:
            raise BackendError(
                f"{face.description}: the file does not say how images are normalised; "
                "what `inception import` makes of it does"
            )
        output, shape = next(iter(face.outputs.items()))
        if shape[1:] != (1, 1):
            raise BackendError(f"{face.description}: gives {shape}, not one number per class")
        self.backend = backend
        self.classes = shape[0]
        self.gives_probabilities = output == PROBABILITIES
        self.input: Input = (face.preprocess, face.input_shape)
        self.smallest = face.batches[0]
        self.batch = max(self.smallest, min(face.batches[1] or USUAL_BATCH, LARGEST_BATCH))
        self.passes = 0

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (crops, height, width, channels), any number of them, to float64 (crops, classes)."""
        results = []
        for begin in range(0, len(crops), self.batch):
            given = crops[begin : begin + self.batch]
            self.passes += len(given)
            # A backend of one batch size gets the last crop more often; those results are dropped.
            padding = max(self.smallest - len(given), 0)
            padded = np.concatenate([given, np.repeat(given[-1:], padding, 0)]) if padding else given
            result = self.backend.run(np.ascontiguousarray(padded))[: len(given)].reshape(len(given), -1)
            results.append(result.astype(np.float64) if self.gives_probabilities else softmax(result))
        return np.concatenate(results)


class Ensemble:
    """Models of one set of classes. They may differ in everything else: width, input size, preprocessing, backend."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        """The backends stay the caller's. Raises BackendError where they do not know the same classes."""
        if not backends:
            raise BackendError("no models")
        self.members = [Member(backend) for backend in backends]
        self.classes = self.members[0].classes
        labelled = [backend.face for backend in backends if backend.face.labels]
        self.labels = labelled[0].labels if labelled else ()
        for member in self.members:
            if member.classes != self.classes:
                raise BackendError(
                    f"{member.backend.description}: has {member.classes} classes, the first model {self.classes}"
                )
        for face in labelled:
            if face.labels != self.labels:
                raise BackendError(
                    f"{face.description}: its labels are not those of {labelled[0].description}"
                )

    def classes_of(self, dataset: Dataset) -> tuple[list[int], bool]:
        """The network's class of each class of the data set, and whether that was told by names.

        By names where the labels hold all of the data set's, each once; by order where they hold none, or there are no
        labels, and the numbers are the same. Raises DatasetError otherwise.
        """
        names, labels = dataset.classes, self.labels
        known = [name for name in names if name in labels]
        if len(known) == len(names) and all(labels.count(name) == 1 for name in names):
            return [labels.index(name) for name in names], True
        if known and len(known) < len(names):
            strange = next(name for name in names if name not in labels)
            raise DatasetError(f"the network has classes of the data's names, but none called {strange!r}")
        if len(names) != self.classes:
            raise DatasetError(
                f"the data has {len(names)} classes and the network {self.classes}, "
                + ("whose labels are other names" if labels else "without labels to tell them by")
            )
        return list(range(len(names))), False

    def probabilities(
        self, dataset: Dataset, count: int, unreadable: Callable[[ImageError], None] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The number of each image, in order, with the means over its ``count`` crops: float64 (models, classes).

        Images that cannot be read are given to ``unreadable`` and left out. Without it: raises ImageError. Raises what
        ``views`` and running raise, too.
        """
        check_count(count)
        inputs = {member.input for member in self.members}
        side = max(largest_side(count, *each) for each in inputs)

        def made(index: int) -> Views:
            image, what = dataset.image(index, side), dataset.name(index)
            return {each: views(image, count, *each, what) for each in inputs}

        chunk: list[tuple[int, Views]] = []
        size = self._images_at_once(count)
        for index, future in _ahead(made, len(dataset), size):
            try:
                chunk.append((index, future.result()))
            except ImageError as error:
                if unreadable is None:
                    raise
                unreadable(error)
            if len(chunk) == size:
                yield from self._run(chunk)
                chunk = []
        yield from self._run(chunk)

    def _images_at_once(self, count: int) -> int:
        """So many, within a factor of two, that their crops fill the models' batches best."""
        least = max(1, max(CROPS_AT_ONCE, *(member.batch for member in self.members)) // count)

        def paid(images: int) -> float:
            """Places in batches for each image, with those that the last batch leaves empty."""
            batches = (member.batch * math.ceil(images * count / member.batch) for member in self.members)
            return sum(batches) / images

        return min(range(least, 2 * least + 1), key=paid)

    def _run(self, chunk: Sequence[tuple[int, Views]]) -> Iterator[tuple[int, np.ndarray]]:
        if not chunk:
            return
        means = []
        for member in self.members:
            crops = np.concatenate([made[member.input] for _, made in chunk])
            of_crops = member.probabilities(crops)
            means.append(of_crops.reshape(len(chunk), -1, self.classes).mean(axis=1))
        for place, (index, _) in enumerate(chunk):
            yield index, np.stack([mean[place] for mean in means])


def _ahead(made: Callable[[int], Views], count: int, ahead: int) -> Iterator[tuple[int, Future[Views]]]:
    """Each image's crops in order, made by threads, of which ``ahead`` images at most are waiting."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="crops") as pool:
        waiting: deque[Future[Views]] = deque()
        try:
            for index in range(count + ahead):
                if index < count:
                    waiting.append(pool.submit(made, index))
                if index >= ahead and waiting:
                    yield index - ahead, waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table. ``cost``: forward passes per image, as counted."""

    models: int
    crops: int
    cost: float
    tally: Tally


def evaluate(
    ensemble: Ensemble,
    dataset: Dataset,
    counts: Sequence[int] = (1,),
    classes: Sequence[int] | None = None,
    unreadable: Callable[[ImageError], None] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Of every number of crops in ``counts``: the first model alone, then, where there are more, all models together.

    ``classes``: the network's class of each of the data set's, default the same. ``progress`` is called for each image
    and number of crops. Rows of the first model come first, as in the paper's table. Raises as
    ``Ensemble.probabilities``, and BackendError if no image is left.
    """
    translated = range(len(dataset.classes)) if classes is None else classes
    rows: list[Row] = []
    for count in dict.fromkeys(counts):
        groups = sorted({1, len(ensemble.members)})
        tallies = [Tally(ensemble.classes) for _ in groups]
        before = [member.passes for member in ensemble.members]

        def refused(error: ImageError) -> None:
            assert unreadable is not None
            unreadable(error)
            progress()

        images = ensemble.probabilities(dataset, count, refused if unreadable is not None else None)
        for index, probabilities in images:
            for group, tally in zip(groups, tallies, strict=True):
                tally.add(probabilities[:group].mean(axis=0), translated[dataset.label(index)])
            progress()
        if not tallies[0].images:
            raise BackendError("no images to evaluate on")
        passes = [member.passes - was for member, was in zip(ensemble.members, before, strict=True)]
        for group, tally in zip(groups, tallies, strict=True):
            rows.append(Row(models=group, crops=count, cost=sum(passes[:group]) / tally.images, tally=tally))
    return sorted(rows, key=lambda row: (row.models, row.crops))
