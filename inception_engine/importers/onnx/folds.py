"""Rules for the ops that become part of a layer beside them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from inception_engine.folding import folded
from inception_engine.importers.onnx.constants import integers
from inception_engine.importers.onnx.drafts import LARGEST, NO_PADS, Activation, Rule, Value
from inception_engine.importers.onnx.file import shown
from inception_engine.importers.onnx.front import Front
from inception_engine.importers.onnx.graph import FLOATS, Node
from inception_engine.importers.onnx.windows import MAX_SIZE, sum_pads

if TYPE_CHECKING:
    from inception_engine.importers.onnx.translate import Translation


def _relu(t: Translation, node: Node) -> Activation:
    return t.relu(node, t.activation(node))


def _clip(t: Translation, node: Node) -> Activation:
    if t.opset < 11:
        low, high = node.number("min", -LARGEST), node.number("max", LARGEST)
    else:
        bounds = [t.optional(node, 1), t.optional(node, 2)]
        low = -math.inf if bounds[0] is None else float(bounds[0].reshape(-1)[0])
        high = math.inf if bounds[1] is None else float(bounds[1].reshape(-1)[0])
    if low != 0 or high < LARGEST:
        raise node.failed(f"clips to {low} .. {high}; 0 and no upper bound are supported")
    return t.relu(node, t.activation(node))


def _arithmetic(t: Translation, node: Node) -> Value:
    """Add, Sub, Mul, Div of the image or a layer and a constant per channel."""
    values = [t.value(name) for name in node.inputs]
    at = 0 if isinstance(values[0], Activation | Front) else 1
    if len(values) != 2 or isinstance(values[1 - at], Activation | Front):
        raise node.failed("combines two values that depend on the image; only Concat may")
    value = values[at]
    x = value if isinstance(value, Front) else t.activation(node, at)
    constant = _per_channel(node, t.floats(node, 1 - at), x).astype(np.float64)
    one, zero = np.ones(1), np.zeros(1)
    with np.errstate(divide="ignore"):
        match node.op, at:
            case "Add", _:
                scale, shift = one, constant
            case "Sub", 0:
                scale, shift = one, -constant
            case "Sub", _:
                scale, shift = -one, constant
            case "Mul", _:
                scale, shift = constant, zero
            case "Div", 0:
                scale, shift = 1 / constant, zero
            case _:
                raise node.failed("divides a constant by a value that depends on the image")
    return _affine(t, node, x, scale, shift)


def _affine(t: Translation, node: Node, x: Activation | Front, scale: np.ndarray, shift: np.ndarray) -> Value:
    if isinstance(x, Front):
        return x.affine(np.broadcast_to(scale, x.channels), np.broadcast_to(shift, x.channels))
    return t.affine(node, x, scale, shift)


def _per_channel(node: Node, constant: np.ndarray, x: Activation | Front) -> np.ndarray:
    """A constant as one value, or one per channel (per feature if flat). Raises ImportFailed for another broadcast."""
    if isinstance(x, Front):
        rank, axis, channels = (3 if x.single else 4), (3 if x.channels_last else 1), x.channels
    else:
        rank, axis, channels = (2, 1, x.features) if x.flat else (4, 1, x.channels)
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if constant.ndim <= rank and constant.size == 1:
        return constant.reshape(1)
    if constant.ndim <= rank and rank != 3 and shape == (1,) * axis + (channels,) + (1,) * (rank - axis - 1):
        return constant.reshape(-1)
    raise node.failed(
        f"a constant of shape {constant.shape} is not one value for each of {channels} channels"
    )


def _batch_norm(t: Translation, node: Node) -> Value:
    value = t.value(node.input(0))
    x = value if isinstance(value, Front) else t.activation(node)
    if isinstance(x, Front):
        if x.single or x.channels_last:
            raise node.failed("normalises an image that is not (batch, channels, height, width)")
        channels = x.channels
    else:
        channels = x.features if x.flat else x.channels
    node.number("momentum", 0.9)
    epsilon = node.number("epsilon", 1e-5)
    for name, wanted in (("training_mode", 0), ("spatial", 1)):
        if (found := node.integer(name, wanted)) != wanted:
            raise node.unsupported(name, found)
    parameters = [t.floats(node, i).astype(np.float64) for i in range(1, 5)]
    for i, parameter in enumerate(parameters, 1):
        if parameter.shape != (channels,):
            raise node.failed(
                f"tensor {shown(node.input(i))} of shape {parameter.shape} for {channels} channels"
            )
    gain, bias, mean, variance = parameters
    if (variance + epsilon <= 0).any():
        raise node.failed(f"tensor {shown(node.input(4))} holds a variance that is not positive")
    # Of a convolution that passes each channel on.
    one = np.ones(channels)
    scale, shift = folded(one, None, mean=mean, variance=variance, epsilon=epsilon, scale=gain, shift=bias)
    return _affine(t, node, x, scale, shift)


def _negate(t: Translation, node: Node) -> Value:
    value = t.value(node.input(0))
    x = value if isinstance(value, Front) else t.activation(node)
    return _affine(t, node, x, -np.ones(1), np.zeros(1))


def _pad(t: Translation, node: Node) -> Activation:
    x = t.activation(node, padded=True, flat=False)
    mode = node.text("mode", "constant")
    if mode != "constant":
        raise node.unsupported("mode", mode)
    if t.opset < 11:
        given, fill = node.integers("pads"), node.number("value", 0.0)
    else:
        given = integers(node, t.constant(node, 1))
        constant = t.optional(node, 2)
        fill = 0.0 if constant is None or constant.size == 0 else float(constant.reshape(-1)[0])
    axes = integers(node, t.constant(node, 3)) if node.input(3) else (0, 1, 2, 3)
    if given is None or len(given) != 2 * len(axes) or not all(-4 <= axis < 4 for axis in axes):
        raise node.unsupported("pads", list(given or ()))
    around = {axis % 4: (given[i], given[i + len(axes)]) for i, axis in enumerate(axes)}
    (top, bottom), (left, right) = around.pop(2, (0, 0)), around.pop(3, (0, 0))
    if any(map(any, around.values())) or min(given) < 0 or max(given) > MAX_SIZE:
        raise node.unsupported("pads", list(given), "padding of height and width that is not negative is")
    if math.isnan(fill):
        raise node.failed("pads with NaN")
    pads = (top, left, bottom, right)
    if pads == NO_PADS:
        return x
    if x.pads != NO_PADS and x.fill != fill:
        x = t.pad(node, x)
    return dataclasses.replace(x, pads=sum_pads(x.pads, pads), fill=fill)


def _pass(t: Translation, node: Node) -> Value:
    """Identity, and what is one when a network is run and not trained."""
    if node.op == "Dropout":
        node.number("ratio", 0.5)
        node.integer("seed", 0)
        training = t.optional(node, 2)
        if training is not None and training.any():
            raise node.failed("training_mode is set")
    elif node.op == "Cast":
        to = node.integer("to", 0)
        node.integer("saturate", 1)
        node.text("round_mode", "up")
        if to not in FLOATS:
            name = TensorProto.DataType.Name(to) if to in TensorProto.DataType.values() else to
            raise node.unsupported("to", name, "the network computes in floats")
    value = t.value(node.input(0))
    return value if isinstance(value, Front) else t.activation(node, padded=True)


RULES: dict[str, Rule] = {
    "Add": _arithmetic,
    "BatchNormalization": _batch_norm,
    "Cast": _pass,
    "Clip": _clip,
    "Div": _arithmetic,
    "Dropout": _pass,
    "Identity": _pass,
    "Mul": _arithmetic,
    "Neg": _negate,
    "Pad": _pad,
    "Relu": _relu,
    "Sub": _arithmetic,
}
