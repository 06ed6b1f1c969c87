"""Rules for the ops that are layers of their own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from inception_engine.importers.onnx.constants import axes_of
from inception_engine.importers.onnx.drafts import LARGEST, NO_PADS, Activation, Rule, Value
from inception_engine.importers.onnx.file import shown
from inception_engine.importers.onnx.front import Front
from inception_engine.importers.onnx.graph import Node
from inception_engine.importers.onnx.windows import output_size, sum_pads, window_of
from inception_engine.network import (
    LRN,
    MAX_CHANNELS,
    AveragePool,
    Concat,
    Conv,
    Layer,
    Linear,
    MaxPool,
    Pads,
    Pair,
    Softmax,
)

if TYPE_CHECKING:
    from inception_engine.importers.onnx.translate import Translation


def _conv(t: Translation, node: Node) -> Activation:
    x = t.activation(node, padded=True, flat=False)
    weight = t.floats(node, 1)
    bias = t.floats(node, 2) if node.input(2) else None
    group = node.integer("group", 1)
    if group != 1:
        raise node.unsupported("group", group, "grouped convolution")
    if weight.ndim != 4 or weight.shape[1] != x.channels:
        raise node.failed(f"weight {shown(node.input(1))} of shape {weight.shape} for {x.channels} channels")
    if x.pads != NO_PADS and x.fill != 0:
        x = t.pad(node, x)  # says why not
    kernel = weight.shape[2], weight.shape[3]
    window = window_of(node, x.size, kernel)
    pads = sum_pads(x.pads, window.pads)
    size = output_size(node, x.draft.shape[1:], kernel, window.stride, pads)
    draft = t.add(node, Conv, [x.draft], (weight.shape[0], *size), stride=window.stride, pads=pads)
    t.weights(node, draft, weight, bias)
    return Activation(draft)


def _gemm(t: Translation, node: Node) -> Activation:
    if isinstance(t.value(node.input(0)), np.ndarray):
        raise node.failed("the first factor is a constant; the second has to be")
    if node.integer("transA", 0):
        raise node.unsupported("transA", 1)
    weight = t.floats(node, 1)
    if weight.ndim != 2:
        raise node.failed(
            f"weight {shown(node.input(1))} of shape {weight.shape}; two dimensions are supported"
        )
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    return _linear(t, node, weight if node.integer("transB", 0) else weight.T, alpha, beta)


def _matmul(t: Translation, node: Node) -> Activation:
    if isinstance(t.value(node.input(0)), np.ndarray):
        raise node.failed("the first factor is a constant; the second has to be")
    weight = t.floats(node, 1)
    if weight.ndim != 2:
        raise node.failed(
            f"weight {shown(node.input(1))} of shape {weight.shape}; two dimensions are supported"
        )
    return _linear(t, node, weight.T, 1.0, 1.0)


def _linear(t: Translation, node: Node, weight: np.ndarray, alpha: float, beta: float) -> Activation:
    x = t.activation(node, flat=True)
    outputs, features = weight.shape
    if features != x.features:
        raise node.failed(
            f"weight {shown(node.input(1))} takes {features} features, its input has {x.features}"
        )
    draft = t.add(node, Linear, [x.draft], (outputs, 1, 1))
    t.weights(node, draft, np.ascontiguousarray(weight), None)
    if alpha != 1:
        draft.affine(np.full(outputs, alpha), np.zeros(outputs))
    if node.op == "Gemm" and node.input(2):
        bias = t.floats(node, 2)
        if bias.ndim > 2 or bias.size not in (1, outputs) or (bias.ndim == 2 and bias.shape[0] != 1):
            raise node.failed(f"tensor {shown(node.input(2))} of shape {bias.shape} for {outputs} outputs")
        if alpha == beta == 1:
            draft.bias = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), outputs))
        else:
            draft.affine(
                np.ones(outputs), beta * np.broadcast_to(bias.reshape(-1), outputs).astype(np.float64)
            )
    return Activation(draft, flat=True)


def _max_pool(t: Translation, node: Node) -> Activation:
    x = t.activation(node, padded=True, flat=False)
    node.integer("storage_order", 0)  # of the second output, which is refused
    # Zeros around values that are not negative never exceed the maximum, where a window has a pixel.
    harmless = x.fill <= -LARGEST or (x.fill == 0 and x.draft.nonnegative)
    window = window_of(node, x.size)
    if x.pads != NO_PADS and not (harmless and _leaves_pixels(window.kernel, sum_pads(x.pads, window.pads))):
        x = t.pad(node, x)
    return _pool(t, node, x, MaxPool, window.kernel, window.stride, sum_pads(x.pads, window.pads))


def _average_pool(t: Translation, node: Node) -> Activation:
    x = t.activation(node, padded=True, flat=False)
    include = node.integer("count_include_pad", 0) != 0
    window = window_of(node, x.size)
    if x.pads != NO_PADS:
        # Zeros of a Pad are pixels: they count. The pool's own padding has to count as well then, or be none.
        alike = window.pads == NO_PADS or (include and not window.overhang)
        if x.fill == 0 and alike and _leaves_pixels(window.kernel, sum_pads(x.pads, window.pads)):
            pads = sum_pads(x.pads, window.pads)
            return _pool(t, node, x, AveragePool, window.kernel, window.stride, pads, count_include_pad=True)
        x = t.pad(node, x)
    if include and window.overhang:
        if window.declared != NO_PADS:
            raise node.unsupported("count_include_pad", 1, "with ceil_mode and pads")
        include = False
    return _pool(
        t, node, x, AveragePool, window.kernel, window.stride, window.pads, count_include_pad=include
    )


def _leaves_pixels(kernel: Pair, pads: Pads) -> bool:
    return max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1]


def _pool(
    t: Translation, node: Node, x: Activation, kind: type[Layer], kernel: Pair, stride: Pair,
    pads: Pads, **fields: object,
) -> Activation:  # fmt: skip
    if not _leaves_pixels(kernel, pads):
        raise node.failed(f"pads {list(pads)} leave windows {list(kernel)} without a pixel")
    size = output_size(node, x.draft.shape[1:], kernel, stride, pads)
    draft = t.add(
        node, kind, [x.draft], (x.channels, *size), kernel=kernel, stride=stride, pads=pads, **fields
    )
    draft.nonnegative = x.draft.nonnegative
    return Activation(draft)


def _global_pool(t: Translation, node: Node) -> Activation:
    x = t.activation(node, flat=False)
    kind = AveragePool if node.op == "GlobalAveragePool" else MaxPool
    return _pool(t, node, x, kind, x.size, (1, 1), NO_PADS)


def _reduce(t: Translation, node: Node) -> Activation:
    axes = axes_of(node, t.optional(node, 1), t.opset, 18)
    keep = node.integer("keepdims", 1)
    node.integer("noop_with_empty_axes", 0)
    x = t.activation(node, flat=False)
    chosen = {axis % 4 for axis in axes or () if -4 <= axis < 4}
    if not axes or len(chosen) != len(axes) or not chosen <= {2, 3} or not (keep or chosen == {2, 3}):
        raise node.unsupported("axes", list(axes or ()), "height and width are")
    kernel = x.size[0] if 2 in chosen else 1, x.size[1] if 3 in chosen else 1
    kind = AveragePool if node.op == "ReduceMean" else MaxPool
    return dataclasses.replace(_pool(t, node, x, kind, kernel, (1, 1), NO_PADS), flat=not keep)


def _lrn(t: Translation, node: Node) -> Activation:
    x = t.activation(node, flat=False)
    size = node.integer("size", 0)
    if size < 1 or size % 2 == 0:
        raise node.unsupported("size", size, "an odd number of channels is")
    fields = {
        "alpha": node.number("alpha", 1e-4),
        "beta": node.number("beta", 0.75),
        "k": node.number("bias", 1.0),
    }
    draft = t.add(node, LRN, [x.draft], x.draft.shape, size=size, **fields)
    draft.nonnegative = x.draft.nonnegative and fields["k"] > 0 and fields["alpha"] >= 0
    return Activation(draft)


def _concat(t: Translation, node: Node) -> Value:
    axis = node.integer("axis", -5)
    values = [t.value(name) for name in node.inputs]
    fronts = [value for value in values if isinstance(value, Front)]
    if len(fronts) == len(values):
        last = fronts[0].channels_last
        if axis % 4 != (3 if last else 1) or any(f.single or f.channels_last != last for f in fronts):
            raise node.unsupported("axis", axis, "channels are concatenated")
        if sum(f.channels for f in fronts) > MAX_CHANNELS:  # which nodes of a few bytes double
            raise node.failed(f"concatenates the image to more than {MAX_CHANNELS:,} channels")
        return Front(
            tuple(c for f in fronts for c in f.source),
            tuple(c for f in fronts for c in f.scale),
            tuple(c for f in fronts for c in f.shift),
            last,
        )
    inputs = [t.activation(node, i) for i in range(len(node.inputs))]
    if axis not in ((1, -1) if inputs[0].flat else (1, -3)):
        raise node.unsupported("axis", axis, "channels are concatenated")
    if (
        len({(x.flat, x.size) for x in inputs}) > 1
    ):  # images of one size: flattened or not, channels follow each other
        sizes = ", ".join(f"{x.channels} x {x.size[0]} x {x.size[1]}" for x in inputs)
        raise node.failed(f"concatenates images of different sizes or ranks: {sizes}")
    drafts = [x.draft for x in inputs]
    draft = t.add(node, Concat, drafts, (sum(x.channels for x in inputs), *inputs[0].size))
    draft.nonnegative = all(x.nonnegative for x in drafts)
    return Activation(draft, inputs[0].flat)


def _softmax(t: Translation, node: Node) -> Activation:
    x = t.activation(node)
    axis = node.integer("axis", 1 if t.opset < 13 else -1)
    if x.size != (1, 1) or axis not in ((1, -1) if x.flat else (1, -3)):
        raise node.unsupported("axis", axis, "softmax over the channels of 1 x 1 pixels is")
    draft = t.add(node, Softmax, [x.draft], x.draft.shape)
    draft.nonnegative = True
    return Activation(draft, x.flat)


RULES: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "Concat": _concat,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LRN": _lrn,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "Softmax": _softmax,
}
