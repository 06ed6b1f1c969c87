"""Rules for the ops that see a value in another shape: of layers, and of the image, whose channels may be picked."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from inception_engine.importers.onnx.constants import BATCH, axes_of, cut_shape, integers, slices_of
from inception_engine.importers.onnx.drafts import Activation, Rule, Value
from inception_engine.importers.onnx.front import Front
from inception_engine.importers.onnx.graph import Node

if TYPE_CHECKING:
    from inception_engine.importers.onnx.translate import Translation


def _shape(t: Translation, node: Node) -> np.ndarray:
    value = t.value(node.input(0))
    _, height, width = t.image.shape
    shape: list[object]
    if isinstance(value, Front):
        if value.single:
            shape = [BATCH, height, width]
        else:
            shape = [BATCH, height, width, value.channels] if value.channels_last else [
                BATCH, value.channels, height, width]  # fmt: skip
    else:
        x = t.activation(node, padded=True)
        shape = [BATCH, x.features] if x.flat else [BATCH, x.channels, *x.size]
    cut = cut_shape(node, np.array(shape, object))
    return cut if any(size is BATCH for size in cut) else cut.astype(np.int64)


def _flatten(t: Translation, node: Node) -> Activation:
    x = t.activation(node)
    axis = node.integer("axis", 1)
    if axis not in ((1, -1) if x.flat else (1, -3)):
        raise node.unsupported("axis", axis, "1 is")
    return dataclasses.replace(x, flat=True)


def _reshape(t: Translation, node: Node) -> Activation:
    x = t.activation(node)
    target = t.constant(node, 1)
    now = [BATCH, x.features] if x.flat else [BATCH, x.channels, *x.size]
    if target.ndim != 1 or not 0 < target.size <= 8:
        raise node.failed("its shape is not a few numbers")
    sizes = list(target)
    if node.integer("allowzero", 0) == 0:
        sizes = [now[i] if size == 0 and i < len(now) else size for i, size in enumerate(sizes)]
    failed = node.failed(f"reshapes (batch, {', '.join(map(str, now[1:]))}) to {target.tolist()}")
    if BATCH in sizes[1:]:
        raise failed
    first, shape = sizes[0], [int(size) for size in sizes[1:]]
    # One image at a time, where the batch is open and the first size is a number.
    if first is not BATCH and int(first) not in (-1, t.batch or 1):
        raise failed
    if min(shape, default=0) < -1 or 0 in shape or [first, *shape].count(-1) > 1:
        raise failed
    known = math.prod(size for size in shape if size != -1)
    shape = [x.features // known if size == -1 else size for size in shape]
    if math.prod(shape) != x.features or not shape:
        raise failed
    if len(shape) == 1:
        return dataclasses.replace(x, flat=True)
    if shape == [x.channels, *x.size]:
        return dataclasses.replace(x, flat=False)
    raise failed


def _squeeze(t: Translation, node: Node) -> Value:
    axes = axes_of(node, t.optional(node, 1), t.opset, 13)
    value = t.value(node.input(0))
    if isinstance(value, Front):
        if axes not in ((1,), (-3,)) or value.channels != 1 or value.single or value.channels_last:
            raise node.unsupported("axes", axes)
        return dataclasses.replace(value, single=True)
    x = t.activation(node, flat=False)
    if axes is None or {axis % 4 for axis in axes} != {2, 3} or x.size != (1, 1):
        raise node.unsupported(
            "axes", axes, f"of {x.channels} x {x.size[0]} x {x.size[1]}; height and width of 1 are"
        )
    return dataclasses.replace(x, flat=True)


def _unsqueeze(t: Translation, node: Node) -> Value:
    axes = axes_of(node, t.optional(node, 1), t.opset, 13)
    value = t.value(node.input(0))
    if isinstance(value, Front):
        if axes not in ((1,), (-3,)) or not value.single:
            raise node.unsupported("axes", axes)
        return dataclasses.replace(value, single=False)
    x = t.activation(node, flat=True)
    if axes is None or {axis % 4 for axis in axes} != {2, 3} or x.size != (1, 1):
        raise node.unsupported("axes", axes)
    return dataclasses.replace(x, flat=False)


# Channels of the image


def _front(t: Translation, node: Node) -> Front:
    value = t.value(node.input(0))
    if not isinstance(value, Front):
        raise node.failed("the op is supported for channels of the image alone")
    if value.single:
        raise node.failed("works on an image without channels")
    return value


def _transpose(t: Translation, node: Node) -> Front:
    front, perm = _front(t, node), node.integers("perm")
    if perm != (0, 3, 1, 2) or not front.channels_last:
        raise node.unsupported("perm", list(perm or ()))
    return dataclasses.replace(front, channels_last=False)


def _gather(t: Translation, node: Node) -> Front:
    front, indices, axis = _front(t, node), t.constant(node, 1), node.integer("axis", 0)
    if axis % 4 != (3 if front.channels_last else 1) or indices.dtype != np.int64 or indices.ndim > 1:
        raise node.unsupported("axis", axis, "channels can be taken")
    if indices.size > 16 or not all(-front.channels <= i < front.channels for i in indices.reshape(-1)):
        raise node.failed(
            f"takes channels {indices.tolist()[:8] if indices.ndim else indices} of {front.channels}"
        )
    single = indices.ndim == 0
    if single and front.channels_last:
        raise node.failed("takes a channel without its dimension")
    return dataclasses.replace(front.chosen(indices), single=single)


def _slice(t: Translation, node: Node) -> Front:
    front = _front(t, node)
    inputs = [None, *(t.optional(node, i) for i in range(1, len(node.inputs)))]
    slices = list(slices_of(node, inputs, t.opset, 4))
    channels = slices.pop(3 if front.channels_last else 1)
    sizes = [1, *t.image.shape[1:]]  # the batch may be anything: only all of it is all of it
    batch = slices[0]
    if (batch.start or 0, batch.step or 1) != (0, 1) or (batch.stop is not None and batch.stop < 2**31 - 1):
        raise node.failed("cuts the batch")
    if any(range(size)[cut] != range(size) for size, cut in zip(sizes[1:], slices[1:], strict=True)):
        raise node.failed("cuts pixels off the image")
    chosen = front.chosen(channels)
    if not chosen.channels:
        raise node.failed("leaves no channel")
    return chosen


def _split(t: Translation, node: Node) -> None:
    front, axis = _front(t, node), node.integer("axis", 0)
    sizes = node.integers("split") if t.opset < 13 else None
    if t.opset >= 13 and (given := t.optional(node, 1)) is not None:
        sizes = integers(node, given)
    node.integer("num_outputs", len(node.outputs))
    parts = len(node.outputs)
    if sizes is None:
        sizes = (-(-front.channels // parts),) * (parts - 1)
        sizes += (front.channels - sum(sizes),)
    if axis % 4 != (3 if front.channels_last else 1):
        raise node.unsupported("axis", axis, "channels can be taken")
    if len(sizes) != parts or min(sizes) < 1 or sum(sizes) != front.channels:
        raise node.failed(f"splits {front.channels} channels into {list(sizes)}")
    begin = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        t.values[name] = front.chosen(slice(begin, begin + size))
        begin += size


RULES: dict[str, Rule] = {
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
