"""Network -> ONNX. One node per layer, with ReLU and flattening as nodes of their own; any batch size."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inception_engine.files import write_atomically
from inception_engine.network import (
    INPUT,
    LRN,
    AveragePool,
    Concat,
    Conv,
    Layer,
    Linear,
    MaxPool,
    Network,
    Softmax,
)

# opset -> version of the file format, which onnx would otherwise set to its newest, unreadable to older runtimes.
_FORMATS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}
LOGITS = "logits"
DESCRIPTION = "inception_engine"  # the metadata property with labels and preprocessing, as JSON


class ExportError(ValueError):
    """The network, or what was asked for, cannot be exported; the message says what."""


def to_onnx(
    network: Network,
    path: str | os.PathLike[str] | None = None,
    opset: int = 17,
    outputs: Sequence[str] = (),
) -> onnx.ModelProto:
    """The network as an ONNX model, checked; also written to ``path`` if there is one.

    Input "input", float32 (batch, channels, height, width). Output "logits", then the layers named in ``outputs``:
    (batch, channels, height, width), or (batch, classes) for linear layers and softmax. Layers that no output needs are
    left out. Labels and preprocessing go into the model's metadata, from where the importer takes them. Raises
    ExportError, and OSError for the file.
    """
    if opset not in _FORMATS:
        raise ExportError(f"opset {opset} is not supported: {min(_FORMATS)} to {max(_FORMATS)} are")
    layers = {layer.name: layer for layer in network.layers}
    for name in outputs:
        if name not in layers:
            raise ExportError(f"no layer is called {name}")
    if LOGITS in layers and network.logits != LOGITS:
        raise ExportError(f"layer {LOGITS}: the name is that of the output")
    needed = {network.logits, *outputs}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(layer.inputs)

    graph = _Graph(network)
    for layer in network.layers:
        if layer.name in needed:
            graph.add(layer)
    names = [LOGITS, *(name for name in outputs if name != LOGITS)]
    if network.logits != LOGITS:
        graph.node("Identity", [network.logits], LOGITS)
    shapes = network.shapes()
    infos = []
    for name in names:
        layer_name = network.logits if name == LOGITS else name
        shape = shapes[layer_name][:1] if layer_name in graph.flat else shapes[layer_name]
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
    image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *network.input_shape])
    model = helper.make_model(
        helper.make_graph(graph.nodes, network.name, [image], infos, graph.initializers),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=_FORMATS[opset],
        producer_name="inception_engine",
    )
    description = {"labels": network.labels, "preprocess": dataclasses.asdict(network.preprocess)}
    helper.set_model_props(model, {**network.metadata, DESCRIPTION: json.dumps(description)})
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        write_atomically(path, [model.SerializeToString()])
    return model


class _Graph:
    """Nodes and weights; a value has the name of the layer that makes it. ``flat``: values of rank 2."""

    def __init__(self, network: Network) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.flat: set[str] = set()
        self.shapes = network.shapes()

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def tensor(self, name: str, values: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, layer: Layer) -> None:
        name = layer.name
        if isinstance(layer, Linear | Softmax):
            source = self._flattened(layer)
            self.flat.add(name)
            if isinstance(layer, Softmax):
                self.node("Softmax", [source], name, axis=1)
                return
        elif any(source in self.flat for source in layer.inputs):
            raise ExportError(f"layer {name}: an image operation on the output of a linear layer")
        match layer:
            case Conv() | Linear():
                # A bare name is the value behind the ReLU.
                value = f"{name}/before_relu" if layer.relu else name
                parameters = [
                    self.tensor(f"{name}.weight", layer.weight),
                    self.tensor(f"{name}.bias", layer.bias),
                ]
                if isinstance(layer, Conv):
                    self.node("Conv", [*layer.inputs, *parameters], value, strides=layer.stride, pads=layer.pads,
                              kernel_shape=layer.weight.shape[2:])  # fmt: skip
                else:
                    self.node("Gemm", [source, *parameters], value, transB=1)
                if layer.relu:
                    self.node("Relu", [value], name)
            case MaxPool():
                self.node("MaxPool", layer.inputs, name, kernel_shape=layer.kernel, strides=layer.stride,
                          pads=layer.pads)  # fmt: skip
            case AveragePool():
                self.node("AveragePool", layer.inputs, name, kernel_shape=layer.kernel, strides=layer.stride,
                          pads=layer.pads, count_include_pad=int(layer.count_include_pad))  # fmt: skip
            case LRN():
                if layer.size % 2 == 0:
                    raise ExportError(
                        f"layer {name}: ONNX places the {layer.size} channels of an even LRN differently"
                    )
                self.node(
                    "LRN",
                    layer.inputs,
                    name,
                    size=layer.size,
                    alpha=layer.alpha,
                    beta=layer.beta,
                    bias=layer.k,
                )
            case Concat():
                self.node("Concat", layer.inputs, name, axis=1)

    def _flattened(self, layer: Layer) -> str:
        source = layer.inputs[0]
        return source if source in self.flat else self.node("Flatten", [source], f"{layer.name}/flat", axis=1)
