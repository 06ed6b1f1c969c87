"""The face of every backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self, overload

import numpy as np

from inception_engine.errors import (
    BackendError,
    BatchError,
    ClosedError,
    InputShapeError,
    InputTypeError,
    OutputNameError,
)
from inception_engine.network import Network, Preprocess, Shape
from inception_engine.preprocess import normalise


@dataclass(frozen=True, kw_only=True)
class Face:
    """What is known of an opened backend.

    ``description``: one line with versions and devices. ``input_shape``: (channels, height, width). ``outputs``:
    (channels, height, width) by name, logits first. ``layers``: those outputs that are layers, in the order of
    computation; empty unless ``keep_all``. ``dtype``: of the arithmetic, "fp64", "fp32", "fp16" or "bf16". ``batches``:
    the smallest and the largest number of images of a run; None: any. ``preprocess``: how images become the input, or
    None where the file does not say. ``random_weights``: the file says that nobody trained them.
    """

    description: str
    input_shape: Shape
    outputs: Mapping[str, Shape]
    layers: tuple[str, ...] = ()
    dtype: str = "fp32"
    batches: tuple[int, int | None] = (1, None)
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    random_weights: bool = False


class Backend(ABC):
    """An opened model. ``face`` says what it is; ``run`` runs it; ``close`` or leaving a ``with`` frees it."""

    name: ClassVar[str]
    face: Face

    def __init__(self) -> None:
        self._closed = False

    @property
    def description(self) -> str:
        return self.face.description

    @property
    def input_shape(self) -> Shape:
        return self.face.input_shape

    @property
    def outputs(self) -> dict[str, Shape]:
        return dict(self.face.outputs)

    @overload
    def run(self, images: np.ndarray, outputs: None = None) -> np.ndarray: ...
    @overload
    def run(self, images: np.ndarray, outputs: Sequence[str]) -> dict[str, np.ndarray]: ...

    def run(
        self, images: np.ndarray, outputs: Sequence[str] | None = None
    ) -> np.ndarray | dict[str, np.ndarray]:
        """As ``Engine.run``: (batch, channels, height, width) float32, normalised, or (batch, height, width, channels)
        uint8 where the file says how to normalise. Returns the logits, or a dict of the ``outputs`` named: float32
        (float64 from "reference"), (batch, channels), or (batch, channels, height, width) if larger than 1 x 1.

        Raises InputTypeError, InputShapeError, BatchError, OutputNameError, ClosedError and BackendError.
        """
        if self._closed:
            raise ClosedError(f"the backend {self.name} is closed")
        face = self.face
        if isinstance(outputs, str):
            raise OutputNameError(f"outputs takes a list of names, not {outputs!r}")
        names = [next(iter(face.outputs))] if outputs is None else list(dict.fromkeys(outputs))
        for name in names:
            if name not in face.outputs:
                raise OutputNameError(f"no output {name!r}; there is {', '.join(face.outputs)}")
        results = self._run(self._checked(images), names)
        shaped = {name: _squeezed(results[name], face.outputs[name]) for name in names}
        return shaped if outputs is not None else shaped[names[0]]

    @abstractmethod
    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """``images``: float32, of the right shape. Results have a batch in front and any rank behind."""

    def _checked(self, images: np.ndarray) -> np.ndarray:
        if not isinstance(images, np.ndarray):
            raise InputTypeError(f"images are a {type(images).__name__}; give a NumPy array")
        channels, height, width = self.face.input_shape
        if images.dtype not in (np.float32, np.uint8):
            raise InputTypeError(f"images are {images.dtype}; give float32 (normalised) or uint8 (pixels)")
        pixels = images.dtype == np.uint8
        wanted = (height, width, channels) if pixels else (channels, height, width)
        if images.ndim != 4 or images.shape[1:] != wanted:
            text = ", ".join(map(str, wanted))
            raise InputShapeError(
                f"images of shape {images.shape}; {images.dtype} images are (batch, {text})"
            )
        smallest, largest = self.face.batches
        if len(images) < smallest or (largest is not None and len(images) > largest):
            raise BatchError(
                f"batch of {len(images)}; it takes {smallest} to {largest or 'any number of'} images"
            )
        if pixels:
            if self.face.preprocess is None:
                raise InputTypeError(
                    "images are uint8, and the model does not say how to normalise; give float32"
                )
            images = normalise(images, self.face.preprocess)
        return np.ascontiguousarray(images)

    def close(self) -> None:
        """Free what it holds; it cannot run any more. Twice is once."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def network_face(network: Network, description: str, keep_all: bool, dtype: str = "fp32") -> Face:
    """Of a backend that runs a network's layers under their names."""
    shapes = network.shapes()
    layers = tuple(layer.name for layer in network.layers) if keep_all else ()
    outputs = {"logits": shapes[network.logits], **{name: shapes[name] for name in layers}}
    return Face(
        description=description,
        input_shape=network.input_shape,
        outputs=outputs,
        layers=layers,
        dtype=dtype,
        preprocess=network.preprocess,
        labels=network.labels,
        random_weights=network.metadata.get("weights") == "random",
    )


def refuse(backend: str, takes: str, source: object) -> BackendError:
    from inception_engine.backends.sources import describe

    return BackendError(f"backend {backend} takes {takes}, not {describe(source)}")


def _squeezed(result: np.ndarray, shape: Shape) -> np.ndarray:
    """A view of the agreed rank; a copy only where the dtype was another, as float16 is."""
    wanted = shape[:1] if shape[1:] == (1, 1) else shape
    shaped = result.reshape(len(result), *wanted)
    return shaped if shaped.dtype in (np.float32, np.float64) else shaped.astype(np.float32)
