"""A backend whose answers are known, and data whose images are: for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from inception_engine.backends.base import Backend, Face
from inception_engine.errors import ImageDamaged
from inception_engine.network import Preprocess, Shape

CLASSES = 8
AS_IT_IS = Preprocess(mean=(0.0,), std=(1.0,), resize=8)


class Brightness(Backend):
    """Names the class of the image's mean brightness, in steps of 256 / ``CLASSES``: logits are ``scale`` there, 0
    elsewhere. Keeps the number of images of each run."""

    name = "brightness"

    def __init__(
        self,
        scale: float = 4.0,
        input_shape: Shape = (1, 7, 7),
        classes: int = CLASSES,
        labels: Sequence[str] = (),
        batches: tuple[int, int | None] = (1, 16),
        preprocess: Preprocess | None = AS_IT_IS,
        output: str = "logits",
        description: str = "brightness",
    ) -> None:
        super().__init__()
        self.scale, self.runs = scale, []  # type: tuple[float, list[int]]
        self.face = Face(
            description=description,
            input_shape=input_shape,
            outputs={output: (classes, 1, 1)},
            batches=batches,
            preprocess=preprocess,
            labels=tuple(labels),
        )

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        self.runs.append(len(images))
        (shape,) = self.face.outputs.values()
        classes = (images.mean(axis=(1, 2, 3)) // (256 // CLASSES)).astype(int)
        logits = np.zeros((len(images), shape[0]), np.float32)
        logits[np.arange(len(images)), classes] = self.scale
        return dict.fromkeys(names, logits)


class Greys:
    """An image for each label given, of that class's brightness for ``Brightness``; ``damaged`` ones cannot be read."""

    def __init__(
        self, labels: Sequence[int], damaged: Sequence[int] = (), size: tuple[int, int] = (9, 8)
    ) -> None:
        self.labels, self.damaged, self.size = labels, damaged, size
        self.classes = tuple(map(str, range(CLASSES)))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int, side: int | None = None) -> Image.Image:
        if index in self.damaged:
            raise ImageDamaged(f"{self.name(index)}: damaged")
        return Image.new("L", self.size, 16 + self.labels[index] * 32)

    def label(self, index: int) -> int:
        return self.labels[index]

    def name(self, index: int) -> str:
        return f"grey {index}"
