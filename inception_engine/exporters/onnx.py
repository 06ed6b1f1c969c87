"""Network -> ONNX. One node per layer, with ReLU and flattening as nodes of their own; any batch size."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inception_engine.exporters.errors import ExportError
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

OLDEST_OPSET = 13
NEWEST_OPSET = 28  # whose changes to the ops used here were read
DTYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}
NUMPY = {"fp32": np.float32, "fp16": np.float16}
LOGITS = "logits"
PROBABILITIES = "probabilities"
DESCRIPTION = "inception_engine"  # the metadata property with labels and preprocessing, as JSON


def newest_opset() -> int:
    """That the installed onnx can check, and this module knows."""
    return min(NEWEST_OPSET, onnx.defs.onnx_opset_version())


def to_onnx(
    network: Network,
    path: str | os.PathLike[str] | None = None,
    opset: int = 17,
    outputs: Sequence[str] = (),
    *,
    dtype: str = "fp32",
    io: str = "fp32",
    preprocess: bool = False,
    probabilities: bool = False,
) -> onnx.ModelProto:
    """The network as an ONNX model, checked; also written to ``path`` if there is one.

    Input "input", (batch, channels, height, width) of type ``io``; with ``preprocess`` uint8 (batch, height, width,
    channels) in the network's channel order, which the graph normalises by the network's mean and deviation. Output
    "logits", or with ``probabilities`` their softmax under that name, of type ``io``. Then the layers named in
    ``outputs``, of type ``dtype``: (batch, channels, height, width), or (batch, classes) for linear layers and softmax.
    Layers that no output needs are left out.

    ``dtype``: "fp32", or "fp16": weights and activations are float16 by type, for runtimes that take precision from
    the graph alone; what is normalised by local response is cast to float32 and back, as its squares would overflow.

    Labels, preprocessing and the exporter's version go into the model's metadata, as the importer reads them. Raises
    ExportError, and OSError for the file.
    """
    if not OLDEST_OPSET <= opset <= newest_opset():
        raise ExportError(f"opset {opset} is not supported: {OLDEST_OPSET} to {newest_opset()} are")
    for name, value in (("dtype", dtype), ("io", io)):
        if value not in DTYPES:
            raise ExportError(f"{name} {value!r} is not supported: {' and '.join(DTYPES)} are")
    if io == "fp16" and dtype != "fp16":
        raise ExportError("io fp16 is for dtype fp16 alone")
    if preprocess and io == "fp16":
        raise ExportError("with preprocessing in the graph its input is uint8, so io fp16 says nothing")
    layers = {layer.name: layer for layer in network.layers}
    for name in outputs:
        if name not in layers:
            raise ExportError(f"no layer is called {name}")
    result = PROBABILITIES if probabilities else LOGITS
    if result in layers and network.logits != result:
        raise ExportError(f"layer {result}: the name is that of the output")
    if network.logits == result and (probabilities or dtype != io):
        network = _renamed(network, result, f"{result}/{dtype}")  # a cast or softmax stands between the two
    needed = {network.logits, *outputs}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(layer.inputs)

    graph = _Graph(network, dtype)
    image = graph.image(io, preprocess)
    for layer in network.layers:
        if layer.name in needed:
            graph.add(layer)
    if network.logits != result:
        graph.result(network.logits, result, io, probabilities)
    shapes = network.shapes()
    infos = []
    for name in [result, *(name for name in outputs if name != result)]:
        layer_name = network.logits if name == result else name
        shape = shapes[layer_name][:1] if layer_name in graph.flat else shapes[layer_name]
        kind = DTYPES[io if name == result else dtype]
        infos.append(helper.make_tensor_value_info(name, kind, ["batch", *shape]))
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, network.name, [image], infos, graph.initializers),
        opset_imports=opsets,
        # Without it onnx sets its newest, unreadable to older runtimes.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="inception_engine",
        producer_version=version("inception-engine"),
    )
    helper.set_model_props(model, {**network.metadata, DESCRIPTION: _description(network, preprocess)})
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        write_atomically(path, [model.SerializeToString()])
    return model


def _renamed(network: Network, name: str, new: str) -> Network:
    """The network with its layer ``name``, the logits, called ``new``."""
    layers = tuple(
        dataclasses.replace(
            layer,
            name=new if layer.name == name else layer.name,
            inputs=tuple(new if source == name else source for source in layer.inputs),
        )
        for layer in network.layers
    )
    return dataclasses.replace(network, layers=layers, logits=new)


def _description(network: Network, inside: bool) -> str:
    """Labels, and how pixels become the model's input: as they are, if the normalisation is inside."""
    before = network.preprocess
    if inside:
        before = dataclasses.replace(before, mean=(0.0,), std=(1.0,))
    return json.dumps({"labels": network.labels, "preprocess": dataclasses.asdict(before)})


class _Graph:
    """Nodes and weights; a value has the name of the layer that makes it. ``flat``: values of rank 2."""

    def __init__(self, network: Network, dtype: str) -> None:
        self.network = network
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.flat: set[str] = set()
        self.input = INPUT  # the value that layers read as the image

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def cast(self, source: str, dtype: str, output: str) -> str:
        return self.node("Cast", [source], output, to=DTYPES[dtype])

    def tensor(self, name: str, values: np.ndarray, dtype: str = "") -> str:
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(values, NUMPY[dtype or self.dtype])
        if np.isinf(converted).any() and np.isfinite(values).all():
            raise ExportError(f"{name}: values beyond the range of float16")
        self.initializers.append(numpy_helper.from_array(converted, name))
        return name

    def image(self, io: str, preprocess: bool) -> onnx.ValueInfoProto:
        """The model's input, and what makes the network's input of it."""
        channels, height, width = self.network.input_shape
        if not preprocess:
            if io != self.dtype:
                self.input = self.cast(INPUT, self.dtype, f"{INPUT}/cast")
            return helper.make_tensor_value_info(INPUT, DTYPES[io], ["batch", channels, height, width])
        mean, std = self.network.preprocess.constants(channels)
        pixels = self.cast(INPUT, "fp32", f"{INPUT}/pixels")
        centred = self.node("Sub", [pixels, self.tensor(f"{INPUT}/mean", mean, "fp32")], f"{INPUT}/centred")
        scaled = self.node("Div", [centred, self.tensor(f"{INPUT}/std", std, "fp32")], f"{INPUT}/scaled")
        self.input = self.node("Transpose", [scaled], f"{INPUT}/normalised", perm=[0, 3, 1, 2])
        if self.dtype != "fp32":
            self.input = self.cast(self.input, self.dtype, f"{INPUT}/cast")
        return helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", height, width, channels])

    def result(self, logits: str, name: str, io: str, probabilities: bool) -> None:
        """The model's output ``name`` of the layer ``logits``."""
        if probabilities:
            source = logits if io == self.dtype else self.cast(logits, io, f"{name}/cast")
            self.node("Softmax", [source], name, axis=1)
        elif io != self.dtype:
            self.cast(logits, io, name)
        else:
            self.node("Identity", [logits], name)

    def add(self, layer: Layer) -> None:
        name = layer.name
        inputs = [self.input if source == INPUT else source for source in layer.inputs]
        if isinstance(layer, Linear | Softmax):
            source = self._flattened(layer, inputs[0])
            self.flat.add(name)
            if isinstance(layer, Softmax):
                self.node("Softmax", [source], name, axis=1)
                return
        elif any(source in self.flat for source in inputs):
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
                    self.node("Conv", [*inputs, *parameters], value, strides=layer.stride, pads=layer.pads,
                              kernel_shape=layer.weight.shape[2:])  # fmt: skip
                else:
                    self.node("Gemm", [source, *parameters], value, transB=1)
                if layer.relu:
                    self.node("Relu", [value], name)
            case MaxPool():
                self.node("MaxPool", inputs, name, kernel_shape=layer.kernel, strides=layer.stride,
                          pads=layer.pads)  # fmt: skip
            case AveragePool():
                self.node("AveragePool", inputs, name, kernel_shape=layer.kernel, strides=layer.stride,
                          pads=layer.pads, count_include_pad=int(layer.count_include_pad))  # fmt: skip
            case LRN():
                self._lrn(layer, inputs[0])
            case Concat():
                self.node("Concat", inputs, name, axis=1)

    def _lrn(self, layer: LRN, source: str) -> None:
        name = layer.name
        if layer.size % 2 == 0:
            raise ExportError(
                f"layer {name}: ONNX places the {layer.size} channels of an even LRN differently"
            )
        single = self.dtype == "fp32"
        source = source if single else self.cast(source, "fp32", f"{name}/wide")
        target = name if single else f"{name}/normalised"
        self.node("LRN", [source], target, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k)
        if not single:
            self.cast(target, self.dtype, name)

    def _flattened(self, layer: Layer, source: str) -> str:
        return source if source in self.flat else self.node("Flatten", [source], f"{layer.name}/flat", axis=1)
