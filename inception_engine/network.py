"""Network: a model as data. A directed graph of layers with folded float32 weights, and no framework.

Every importer makes one; the compiler, the exporters and the reference take one. Nothing in it says
"GoogLeNet": width, classes, input size, padding and kernel sizes are data.

Activations are (channels, height, width) per image. Pads are (top, left, bottom, right). Ceil-mode pooling
is expressed by larger pads at the bottom and right, so that every consumer computes output sizes in one way:
``(size + pad_before + pad_after - kernel) // stride + 1``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from inception_engine.files import write_atomically

Shape = tuple[int, int, int]
Pads = tuple[int, int, int, int]
Pair = tuple[int, int]
# No plan holds more ops (runtime/proof/limits.h), and what walks a network may take the square of its layers.
MAX_LAYERS = 1024
MAX_CHANNELS = 1 << 20  # layers of a few bytes double them, and each may cost a piece of a layout
MAX_ELEMENTS = 1 << 31  # of a layer's output per image: 8 GiB
INPUT = "input"  # the name by which layers refer to the image


class NetworkError(ValueError):
    """The graph is not one that a Network can hold; the message names the layer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One node: ``inputs`` are names of earlier layers or ``INPUT``; ``module`` names its Inception module."""

    name: str
    inputs: tuple[str, ...]
    module: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Layer):
    """Cross-correlation plus bias, then ReLU if ``relu``. Weight (out, in, kh, kw), bias (out,), float32."""

    weight: np.ndarray
    bias: np.ndarray
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    relu: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Layer):
    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Layer):
    """``count_include_pad``: divide by all window pixels inside the padded image, else by those inside the image."""

    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)
    count_include_pad: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class LRN(Layer):
    """x / (k + alpha / size * sum of squares over `size` channels around) ** beta (ONNX's and torch's scaling)."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Layer):
    """Along channels, in the order of ``inputs``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Layer):
    """Weight (out, channels * height * width of the input, flattened as NCHW), bias (out,), float32."""

    weight: np.ndarray
    bias: np.ndarray
    relu: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Layer):
    """Over channels; the input is 1 x 1."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image file becomes the network's input; ``x = (pixel - mean) / std`` per channel, pixel in 0..255.

    ``resize``: the shorter side, in pixels, before the centre crop to the input size. ``order``: "RGB" or "BGR".
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    order: str = "RGB"
    resize: int = 256

    @classmethod
    def default(cls, channels: int) -> Preprocess:
        """Where nothing else is said: ImageNet's mean and deviation, or to -1..1 if there are not three channels."""
        return cls() if channels == 3 else cls(mean=(127.5,), std=(127.5,))

    def check(self, channels: int) -> None:
        """Raises NetworkError where no image of so many channels can be treated so."""
        self.constants(channels)
        if self.order not in ("RGB", "BGR"):
            raise NetworkError(f"preprocessing: channel order {self.order!r}")
        if not isinstance(self.resize, int | np.integer) or self.resize < 1:
            raise NetworkError(f"preprocessing: resize to {self.resize!r}")

    def constants(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 (channels,). One value serves all channels. Raises NetworkError."""
        try:
            with np.errstate(over="ignore"):  # infinity is refused below
                values = [np.asarray(value, np.float64).astype(np.float32) for value in (self.mean, self.std)]
        except (OverflowError, TypeError, ValueError):
            raise NetworkError("preprocessing: a mean or deviation is not a number") from None
        if any(value.shape not in ((1,), (channels,)) for value in values):
            raise NetworkError(f"preprocessing has {len(self.mean)} means and {len(self.std)} deviations "
                               f"for {channels} channels")  # fmt: skip
        mean, std = (np.broadcast_to(value, channels).copy() for value in values)
        if not np.isfinite(mean).all() or not np.isfinite(std).all() or (std == 0).any():
            raise NetworkError("preprocessing: a mean or deviation is not finite, or a deviation is 0")
        return mean, std


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """``layers`` in an order in which every input comes before its use. ``logits`` names the classifier's output."""

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    logits: str
    labels: tuple[str, ...] = ()
    preprocess: Preprocess = field(default_factory=Preprocess)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes()

    def shapes(self) -> dict[str, Shape]:
        """(channels, height, width) of the input and of every layer, by name. Raises NetworkError at construction."""
        return dict(self._shapes)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise NetworkError(f"input shape {self.input_shape} is not (channels, height, width)")
        self.preprocess.check(self.input_shape[0])
        for text in (self.name, *self.labels, *self.metadata, *self.metadata.values()):
            try:
                text.encode()
            except UnicodeEncodeError:  # half of a surrogate pair, which no file can hold
                raise NetworkError(f"{text!r} is not text") from None
        if len(self.layers) > MAX_LAYERS:
            raise NetworkError(f"{len(self.layers)} layers, more than {MAX_LAYERS}")
        check_size("the input", self.input_shape)
        shapes = {INPUT: self.input_shape}
        for layer in self.layers:
            if layer.name in shapes:
                raise NetworkError(f"layer {layer.name}: the name is taken")
            for name in layer.inputs:
                if name not in shapes:
                    raise NetworkError(f"layer {layer.name}: input {name} is not an earlier layer")
            wanted = "one or more inputs" if isinstance(layer, Concat) else "one input"
            if not layer.inputs or (len(layer.inputs) > 1 and not isinstance(layer, Concat)):
                raise NetworkError(f"layer {layer.name}: takes {wanted}, has {len(layer.inputs)}")
            try:
                shapes[layer.name] = _output_shape(layer, [shapes[name] for name in layer.inputs])
            except NetworkError as error:
                raise NetworkError(f"layer {layer.name}: {error}") from None
            check_size(f"layer {layer.name}", shapes[layer.name])
        if self.logits not in shapes or self.logits == INPUT:
            raise NetworkError(f"logits {self.logits}: there is no such layer")
        classes = shapes[self.logits][0]
        if self.labels and len(self.labels) != classes:
            raise NetworkError(f"{len(self.labels)} labels for {classes} classes")
        return shapes

    def layer_macs(self) -> dict[str, int]:
        """Multiply-adds per image of every convolution and linear layer, by name; biases are not counted."""
        shapes = self._shapes
        return {
            layer.name: layer.weight.size * shapes[layer.name][1] * shapes[layer.name][2]
            for layer in self.layers
            if isinstance(layer, Conv | Linear)
        }

    def macs(self) -> int:
        """Multiply-adds per image."""
        return sum(self.layer_macs().values())

    def parameters(self) -> int:
        """Weights and biases."""
        return sum(w.weight.size + w.bias.size for w in self.layers if isinstance(w, Conv | Linear))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: weights as tensors, the graph as JSON in the metadata. Raises OSError."""
        from safetensors.numpy import save

        tensors: dict[str, np.ndarray] = {}
        graph: dict[str, Any] = {
            "name": self.name,
            "input_shape": self.input_shape,
            "logits": self.logits,
            "labels": self.labels,
            "preprocess": dataclasses.asdict(self.preprocess),
            "metadata": dict(self.metadata),
            "layers": [],
        }
        for layer in self.layers:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
            for name in ("weight", "bias"):
                if name in fields:
                    tensors[f"{layer.name}.{name}"] = np.ascontiguousarray(fields.pop(name))
            graph["layers"].append({"type": type(layer).__name__, **fields})
        write_atomically(path, [save(tensors, {GRAPH_KEY: json.dumps(graph)})])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read what ``save`` wrote. Raises OSError, and NetworkError for anything else than such a file."""
        from safetensors import SafetensorError, safe_open

        with open(path, "rb"):  # OSError with the path in it, which safetensors does not always give
            pass
        try:
            with safe_open(path, framework="numpy") as file:
                document = (file.metadata() or {}).get(GRAPH_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise NetworkError(f"{path}: not a safetensors file: {error}") from None
        if document is None:
            raise NetworkError(
                f"{path}: holds tensors but no network; inception import makes one of known checkpoints"
            )
        try:
            return _from_graph(json.loads(document), tensors)
        except NetworkError as error:
            raise NetworkError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise NetworkError(f"{path}: its description of the network is damaged: {error!r}") from None


GRAPH_KEY = "inception_engine.network"  # of the description in a file's metadata
_LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer for layer in (Conv, MaxPool, AveragePool, LRN, Concat, Linear, Softmax)
}


_LARGEST_INT = (1 << 31) - 1  # plans have room for no larger sizes
_LARGEST = float(np.finfo(np.float32).max)
_types = cache(get_type_hints)  # of a dataclass's fields
_ARRAYS = ("weight", "bias")  # fields that are tensors of the file


def _from_graph(graph: Any, tensors: dict[str, np.ndarray]) -> Network:
    """Raises NetworkError, also for a value of another type than its field's, and KeyError for one that is missing."""
    _check_type("the description", graph, dict)
    layers = []
    for number, entry in enumerate(typed("layers", graph["layers"], list), 1):
        _check_type(f"layer {number}", entry, dict)
        where = f"layer {entry.get('name', number)}"
        kind = _LAYERS.get(typed(f"{where}: type", entry.pop("type"), str))
        if kind is None:
            raise NetworkError(f"{where}: unknown kind")
        fields = typed_fields(kind, entry, f"{where}: ")
        if issubclass(kind, Conv | Linear):
            fields |= {name: tensors[f"{fields['name']}.{name}"] for name in _ARRAYS}
        layers.append(kind(**fields))
    own = {name: graph[name] for name in ("name", "input_shape", "logits", "labels", "metadata")}
    return Network(
        layers=tuple(layers),
        preprocess=Preprocess(**typed_fields(Preprocess, graph["preprocess"], "preprocess: ")),
        **typed_fields(Network, own, ""),
    )


def typed_fields(kind: type, document: Any, where: str) -> dict[str, Any]:
    """The fields of a dataclass as a file gives them, lists as tuples. Raises NetworkError for those of other types."""
    types = _types(kind)
    fields = {}
    for name, value in typed(where, document, dict).items():
        if name not in types or name in _ARRAYS:
            raise NetworkError(f"{where}there is no {name}")
        fields[name] = typed(f"{where}{name}", value, types[name])
    return fields


def typed(what: str, value: Any, kind: Any) -> Any:
    """A value of JSON as one of this type: a tuple, if it is to be one. Raises NetworkError."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple:
        _check_type(what, value, list)
        if parts[-1] is not Ellipsis and len(value) != len(parts):
            raise NetworkError(f"{what}: {len(value)} values, not {len(parts)}")
        return tuple(typed(what, part, parts[0]) for part in value)
    if origin is Literal:
        if value not in parts:
            raise NetworkError(f"{what} is not one of {', '.join(map(str, parts))}")
        return value
    _check_type(what, value, dict if origin is Mapping else kind)
    for part in value.values() if origin is Mapping else ():
        _check_type(what, part, parts[1])
    return value


def _check_type(what: str, value: Any, kind: type) -> None:
    allowed = (int, float) if kind is float else kind
    good = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
    if good and isinstance(value, int | float):
        good = abs(value) <= (_LARGEST if kind is float else _LARGEST_INT)  # and no NaN
    if not good:
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
        raise NetworkError(f"{what} is not {words.get(kind, 'an object')} that a network may have")


def check_size(what: str, shape: Shape) -> None:
    """Raises NetworkError for an activation that no network may have."""
    channels, height, width = shape
    if channels > MAX_CHANNELS:
        raise NetworkError(f"{what}: {channels} channels, more than {MAX_CHANNELS:,}")
    if channels * height * width > MAX_ELEMENTS:
        raise NetworkError(f"{what}: {channels} x {height} x {width} numbers, more than {MAX_ELEMENTS:,}")


def _output_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    channels, height, width = inputs[0]
    match layer:
        case Conv():
            _check_weight(layer, 4, channels)
            kernel = layer.weight.shape[2], layer.weight.shape[3]
            return layer.weight.shape[0], *_window(inputs[0], kernel, layer.stride, layer.pads)
        case MaxPool() | AveragePool():
            top, left, bottom, right = layer.pads
            if max(top, bottom) >= layer.kernel[0] or max(left, right) >= layer.kernel[1]:
                raise NetworkError(f"pads {layer.pads} leave windows {layer.kernel} without a pixel")
            return channels, *_window(inputs[0], layer.kernel, layer.stride, layer.pads)
        case LRN():
            if layer.size < 1:
                raise NetworkError(f"size {layer.size} is not positive")
            return inputs[0]
        case Concat():
            if any(shape[1:] != (height, width) for shape in inputs):
                raise NetworkError(f"sizes differ: {[shape[1:] for shape in inputs]}")
            return sum(shape[0] for shape in inputs), height, width
        case Linear():
            _check_weight(layer, 2, channels * height * width)
            return layer.weight.shape[0], 1, 1
        case Softmax():
            if (height, width) != (1, 1):
                raise NetworkError(f"softmax over channels needs a 1 x 1 input, not {height} x {width}")
            return inputs[0]
    raise NetworkError(f"unknown kind {type(layer).__name__}")


def _check_weight(layer: Conv | Linear, rank: int, channels: int) -> None:
    weight, bias = layer.weight, layer.bias
    if weight.dtype != np.float32 or bias.dtype != np.float32:
        raise NetworkError(f"weights are {weight.dtype} and {bias.dtype}, not float32")
    if weight.ndim != rank or bias.shape != weight.shape[:1] or weight.size == 0:
        raise NetworkError(f"weight {weight.shape} and bias {bias.shape} do not fit")
    if weight.shape[1] != channels:
        raise NetworkError(
            f"weight {weight.shape} takes {weight.shape[1]} channels, the input has {channels}"
        )


def _window(shape: Shape, kernel: Pair, stride: Pair, pads: Pads) -> Pair:
    """Output height and width of a window that slides over the padded input."""
    if min(kernel) < 1 or min(stride) < 1 or min(pads) < 0:
        raise NetworkError(f"kernel {kernel}, stride {stride} or pads {pads} out of range")
    height = (shape[1] + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    width = (shape[2] + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
    if height < 1 or width < 1:
        raise NetworkError(f"kernel {kernel} is larger than the padded input {shape[1:]}")
    return height, width
