"""Layers while the graph is read: what follows a convolution may still become part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.onnx.file import shown
from inception_engine.importers.onnx.front import Front
from inception_engine.importers.onnx.graph import Node
from inception_engine.network import Conv, Layer, Linear, Pads, Shape

if TYPE_CHECKING:
    from inception_engine.importers.onnx.translate import Translation

LARGEST = float(np.finfo(np.float32).max)
NO_PADS: Pads = (0, 0, 0, 0)


@dataclass(eq=False, kw_only=True)
class Draft:
    """A layer: ``relu(scale * (weight . x + bias) + shift)`` if it has weights. ``value``: the file's name for it.

    ``weight`` None in a Conv or Linear is the identity: what stands in the graph where no layer can take it in.
    ``scale`` and ``shift`` are float64 (outputs,), multiplied in at the end, so that weights are rounded once.
    ``nonnegative``: no output is below 0, so that another ReLU changes nothing.
    """

    kind: type[Layer]
    name: str
    op: str
    value: str
    inputs: tuple[Draft, ...]
    shape: Shape
    fields: dict[str, Any] = field(default_factory=dict)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    relu: bool = False
    nonnegative: bool = False

    @property
    def weighted(self) -> bool:
        return self.kind in (Conv, Linear)

    def affine(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Behind what is there: ``scale * x + shift``."""
        self.shift = shift if self.shift is None else scale * self.shift + shift
        self.scale = scale if self.scale is None else scale * self.scale

    def layer(self, name: str, inputs: tuple[str, ...]) -> Layer:
        """The layer that it has become. Raises ImportFailed where folding leaves float32."""
        if not self.weighted:
            return self.kind(name=name, inputs=inputs, **self.fields)
        weight, bias = self._folded()
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ImportFailed(
                f"layer {shown(name)}: folding its normalisation makes weights that are not finite"
            )
        fields: dict[str, Any] = {**self.fields, "weight": weight, "bias": bias, "relu": self.relu}
        return self.kind(name=name, inputs=inputs, **fields)

    def _folded(self) -> tuple[np.ndarray, np.ndarray]:
        outputs = self.shape[0]
        scale = np.ones(outputs) if self.scale is None else self.scale
        if self.weight is None:
            weight = np.diag(scale).astype(np.float32)
            weight = weight[:, :, None, None] if self.kind is Conv else weight
        elif (scale == 1).all():
            weight = self.weight
        else:
            weight = self.weight * scale.reshape(-1, *(1,) * (self.weight.ndim - 1))
        bias = np.zeros(outputs, np.float32) if self.bias is None else self.bias
        if self.scale is not None or self.shift is not None:
            bias = bias * scale + (0.0 if self.shift is None else self.shift)
        self.weight = self.bias = None  # one copy at a time: networks are large
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)


@dataclass(frozen=True)
class Activation:
    """A value that is the output of a layer, perhaps seen otherwise.

    ``flat``: (batch, channels * height * width). ``pads``: pixels of value ``fill`` around it that are not part of a
    layer yet. ``owned``: nothing else reads the layer, so what follows may become part of it.
    """

    draft: Draft
    flat: bool = False
    pads: Pads = NO_PADS
    fill: float = 0.0
    owned: bool = True

    @property
    def channels(self) -> int:
        return self.draft.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """With the padding."""
        _, height, width = self.draft.shape
        return height + self.pads[0] + self.pads[2], width + self.pads[1] + self.pads[3]

    @property
    def features(self) -> int:
        return self.channels * self.size[0] * self.size[1]


Value = Activation | Front | np.ndarray  # what a name in the graph stands for; an array is a constant
Rule = Callable[["Translation", Node], Value | None]  # what a node makes; None: it stored its outputs itself
