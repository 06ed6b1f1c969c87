"""Nodes -> layers, one op at a time, in the order of the graph.

What Network has no layer for becomes part of one (batch normalisation, per-channel arithmetic, ReLU, padding, dropout)
or a view of one (Flatten, Reshape, Squeeze). Where no neighbour can take it in exactly, it becomes a 1x1 convolution
of its own with a diagonal weight: right for every finite value, and a layer that runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.onnx import folds, layers, views
from inception_engine.importers.onnx.constants import evaluate
from inception_engine.importers.onnx.drafts import NO_PADS, Activation, Draft, Rule, Value
from inception_engine.importers.onnx.file import shown
from inception_engine.importers.onnx.front import Front
from inception_engine.importers.onnx.graph import Graph, Node
from inception_engine.importers.onnx.windows import MAX_SIZE
from inception_engine.network import Conv, Layer, Linear, Shape

# Elements of all constants and weights: those of the file in its densest type, float16, and room for small ones.
_ROOM = 1 << 24


class Translation:
    """``drafts``: the layers in order. ``front``: what the first layer reads of the image; None if nothing reads it."""

    def __init__(
        self,
        graph: Graph,
        opset: int,
        image: str,
        image_shape: Shape,
        channels_last: bool,
        batch: int | None,
        file_bytes: int,
    ) -> None:
        self.graph = graph
        self.opset = opset
        self.batch = batch
        self.image = Draft(kind=Layer, name=image, op="", value=image, inputs=(), shape=image_shape)
        self.front: Front | None = None
        self.drafts: list[Draft] = []
        self._left = _ROOM + file_bytes
        channels = image_shape[0]
        start = Front(tuple(range(channels)), (1.0,) * channels, (0.0,) * channels, channels_last)
        self.values: dict[str, Value] = {image: start}
        for node in graph.nodes:
            self._node(node)

    def output(self, name: str) -> Activation:
        """The layer behind an output of the graph. Raises ImportFailed for one that no layer computes."""
        value = self.values[name]
        if not isinstance(value, Activation) or value.draft is self.image:
            raise ImportFailed(f"output {shown(name)}: no layer computes it from the image")
        if value.pads != NO_PADS:
            raise ImportFailed(f"output {shown(name)}: is padded, and no layer follows")
        return value

    def _node(self, node: Node) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise node.failed(f"operators of the domain {shown(node.domain)} are not supported")
        self._check_counts(node)
        values = [self.value(name) for name in node.inputs]
        if node.op != "Split":
            for name in filter(None, node.outputs[1:]):
                if name in self.graph.uses:
                    raise node.failed(f"output {shown(name)} is not supported")
        if not any(isinstance(value, Activation | Front) for value in values):
            constants = [value for value in values if not isinstance(value, Activation | Front)]
            results = evaluate(node, constants, self.opset, self._left)
            if results is None:
                raise node.failed("the op is not supported")
            self.spend(node, 0 if set(results.strides) <= {0} else results.size)
            self.values[node.output] = results
            return
        rule = _RULES.get(node.op)
        if rule is None:
            raise node.failed("the op is not supported")
        result = rule(self, node)
        node.finish()
        if result is not None:
            self.values[node.output] = result

    def _check_counts(self, node: Node) -> None:
        """Inputs and outputs as many as the op has in this opset. Raises ImportFailed."""
        try:
            schema = onnx.defs.get_schema(node.op, self.opset, "")
        except onnx.defs.SchemaError:
            raise node.failed(f"the op is not supported; opset {self.opset} has none of this name") from None
        given = len(node.inputs)
        if not schema.min_input <= given <= schema.max_input or len(node.outputs) > schema.max_output:
            raise node.failed(f"{given} inputs and {len(node.outputs)} outputs are not what the op has")

    def spend(self, node: Node, elements: int) -> None:
        if elements > self._left:
            raise node.failed("the network has many times more weights than the file")
        self._left -= elements

    # What a node reads

    def value(self, name: str) -> Value | None:
        if not name:
            return None
        return self.graph.tensor(name) if self.graph.is_tensor(name) else self.values[name]

    def constant(self, node: Node, index: int) -> np.ndarray:
        """Raises ImportFailed for an input that is missing or that depends on the image."""
        array = self.optional(node, index)
        if array is None:
            raise node.failed(f"input {index + 1} is missing")
        return array

    def optional(self, node: Node, index: int) -> np.ndarray | None:
        value = self.value(node.input(index))
        if isinstance(value, Activation | Front):
            raise node.failed(
                f"input {shown(node.input(index))} depends on the image; it has to be a constant"
            )
        return value

    def floats(self, node: Node, index: int) -> np.ndarray:
        """A float32 constant, all finite."""
        array = self.constant(node, index)
        if array.dtype != np.float32:
            raise node.failed(f"input {shown(node.input(index))} does not hold floats")
        if not np.isfinite(array).all():
            raise node.failed(f"tensor {shown(node.input(index))} holds NaN or infinity")
        return array

    def activation(
        self, node: Node, index: int = 0, *, padded: bool = False, flat: bool | None = None
    ) -> Activation:
        """An input that a layer computes. ``padded``: padding may be left to the node; ``flat``: of rank 2, or of 4."""
        value = self.value(node.input(index))
        if isinstance(value, Front):
            value = self._settle(node, value)
        if not isinstance(value, Activation):
            raise node.failed(f"input {shown(node.input(index))} does not depend on the image")
        if flat is not None and value.flat != flat:
            rank = "(batch, features)" if flat else "(batch, channels, height, width)"
            raise node.failed(f"input {shown(node.input(index))} is not of shape {rank}")
        owned = value.owned and self.graph.uses[node.input(index)] == 1
        value = dataclasses.replace(value, owned=owned)
        return value if padded or value.pads == NO_PADS else self.pad(node, value)

    def _settle(self, node: Node, front: Front) -> Activation:
        """The first layer that reads the image decides what the network's input is; all others have to agree."""
        if front.single or front.channels_last:
            raise node.failed("reads the image in a shape that is not (batch, channels, height, width)")
        if self.front is None:
            front.check(self.image.shape[0])
            self.front = front
        elif self.front != front:
            raise node.failed("reads the image with another normalisation than the layers before it")
        return Activation(self.image, owned=False)

    # What a node makes

    def add(
        self, node: Node, kind: type[Layer], inputs: Sequence[Draft], shape: Shape, **fields: object
    ) -> Draft:
        if max(shape[1:]) > MAX_SIZE or shape[0] > MAX_SIZE * 16:
            raise node.failed(f"an image of {shape[0]} x {shape[1]} x {shape[2]} is too large")
        draft = Draft(kind=kind, name=node.title, op=node.op, value=node.output, inputs=tuple(inputs), shape=shape,
                      fields=fields)  # fmt: skip
        self.drafts.append(draft)
        return draft

    def identity(self, node: Node, x: Activation, *, features: bool = False) -> Draft:
        """A layer that passes ``x`` on, to be given what no other layer can take: per channel, or per feature."""
        if features or (x.flat and x.size == (1, 1)):
            self.spend(node, x.features**2)
            return self.add(node, Linear, [x.draft], (x.features, 1, 1))
        self.spend(node, x.channels**2)
        return self.add(node, Conv, [x.draft], (x.channels, *x.size), pads=x.pads)

    def pad(self, node: Node, x: Activation) -> Activation:
        """Padding as a layer, where what follows cannot do it."""
        if x.fill != 0:
            raise node.failed(f"reads a value that is padded with {x.fill}; zeros are supported there")
        draft = self.identity(node, x)
        draft.name, draft.value = f"{node.title}/pad", ""  # the file may have no such value
        draft.nonnegative = x.draft.nonnegative
        return Activation(draft, x.flat)

    def affine(self, node: Node, x: Activation, scale: np.ndarray, shift: np.ndarray) -> Activation:
        """``scale * x + shift``; float64 of one element, of one per channel, or of one per feature if ``x`` is flat."""
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            raise node.failed("its constants make a factor or term that is not finite")
        features = max(scale.size, shift.size) > x.channels
        owned = x.owned and x.draft.weighted and not x.draft.relu and not features
        draft = x.draft if owned else self.identity(node, x, features=features)
        draft.affine(np.broadcast_to(scale, draft.shape[0]), np.broadcast_to(shift, draft.shape[0]))
        draft.value, draft.nonnegative = node.output, False
        return Activation(draft, x.flat)

    def relu(self, node: Node, x: Activation) -> Activation:
        if x.draft.nonnegative:
            return x
        draft = x.draft if x.owned and x.draft.weighted else self.identity(node, x)
        draft.relu = draft.nonnegative = True
        draft.value = node.output
        return Activation(draft, x.flat)

    def weights(self, node: Node, draft: Draft, weight: np.ndarray, bias: np.ndarray | None) -> None:
        if weight.size == 0:
            raise node.failed(f"weight {shown(node.input(1))} is empty")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise node.failed(f"bias of shape {bias.shape} for a weight of shape {weight.shape}")
        self.spend(node, weight.size)
        draft.weight, draft.bias = weight, bias


_RULES: dict[str, Rule] = {**layers.RULES, **folds.RULES, **views.RULES}
