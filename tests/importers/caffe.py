"""A network of ours as Caffe's converters write it: nameless nodes, values called after Caffe's blobs, old opsets.

Every convolution is a Conv without bias, a BatchNormalization as Caffe has it (no gain, no bias) and a Scale (Mul and
Add of a constant per channel) or a Conv with bias; weights are Constants; pools have pads at the end instead of
ceil_mode; the classifier is Dropout, Reshape to the one image of the file, Gemm and Softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from inception_engine.network import LRN, AveragePool, Concat, Conv, Linear, MaxPool, Network, Softmax


def caffe_model(network: Network, opset: int, *, scale: bool) -> bytes:
    """``scale``: convolutions are normalised and scaled, which together is what the network's own do."""
    writer = _Writer(opset)
    for layer in network.layers:
        writer.layer(layer, network, scale=scale)
    image = helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [1, *network.input_shape])
    last = writer.blobs[network.layers[-1].name]
    output = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
    graph = helper.make_graph(writer.nodes, "googlenet", [image], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    model.producer_name = "onnx-caffe2"
    return model.SerializeToString()


class _Writer:
    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.blobs = {"input": "data_0"}
        self.count: dict[str, int] = {}

    def node(self, op: str, inputs: list[str], blob: str, **attributes: Any) -> str:
        """Caffe's blobs are overwritten in place; ONNX's values get a number each."""
        self.count[blob] = number = self.count.get(blob, 0) + 1
        output = f"{blob}_{number}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, blob: str, values: np.ndarray) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(values))
        return self.node("Constant", [], f"{blob}_c", value=tensor)

    def layer(self, layer: Any, network: Network, *, scale: bool) -> None:
        inputs = [self.blobs[name] for name in layer.inputs]
        blob = f"inception_{layer.name}" if layer.module else layer.name
        match layer:
            case Conv():
                top = self.scaled(layer, inputs, blob) if scale else self.biased(layer, inputs, blob)
                top = self.node("Relu", [top], blob) if layer.relu else top
            case MaxPool() | AveragePool():
                kind = type(layer).__name__
                extra = (
                    {"count_include_pad": 1}
                    if isinstance(layer, AveragePool) and layer.count_include_pad
                    else {}
                )
                top = self.node(kind, inputs, blob, kernel_shape=layer.kernel, strides=layer.stride, pads=layer.pads,
                                **extra)  # fmt: skip
            case LRN():
                top = self.node(
                    "LRN", inputs, blob, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k
                )
            case Concat():
                top = self.node("Concat", inputs, f"{blob}/output", axis=1)
            case Linear():
                dropped = self.node("Dropout", inputs, f"{blob}_dropped", ratio=0.4)
                shape = np.array([1, layer.weight.shape[1]], np.int64)
                flat = self.node("Reshape", [dropped, self.constant(blob, shape)], f"{blob}_flat")
                parameters = [self.constant(blob, layer.weight), self.constant(blob, layer.bias)]
                top = self.node("Gemm", [flat, *parameters], blob, transB=1)
            case Softmax():
                top = self.node("Softmax", inputs, "prob", axis=1)
        self.blobs[layer.name] = top

    def window(self, layer: Conv) -> dict[str, Any]:
        return {"strides": layer.stride, "pads": layer.pads, "kernel_shape": layer.weight.shape[2:]}

    def biased(self, layer: Conv, inputs: list[str], blob: str) -> str:
        parameters = [self.constant(f"{blob}_w", layer.weight), self.constant(f"{blob}_b", layer.bias)]
        return self.node("Conv", [*inputs, *parameters], blob, **self.window(layer))

    def scaled(self, layer: Conv, inputs: list[str], blob: str) -> str:
        channels = len(layer.bias)
        gain, term, mean = (self.rng.uniform(0.5, 1.5, channels) for _ in range(3))
        variance, epsilon = self.rng.uniform(0.5, 2.0, channels), 1e-5
        # gain * (w * x - mean) / sqrt(variance + epsilon) + term is what the network computes, for this w and term.
        deviation = np.sqrt(variance + epsilon)
        weight = layer.weight * (deviation / gain)[:, None, None, None]
        term = layer.bias + gain * mean / deviation

        def constant(values: np.ndarray, *shape: int) -> str:
            return self.constant(blob, values.astype(np.float32).reshape(channels, *shape))

        top = self.node(
            "Conv", [*inputs, self.constant(blob, weight.astype(np.float32))], blob, **self.window(layer)
        )
        statistics = [constant(v) for v in (np.ones(channels), np.zeros(channels), mean, variance)]
        top = self.node("BatchNormalization", [top, *statistics], blob, epsilon=epsilon)
        top = self.node("Mul", [top, constant(gain, 1, 1)], blob)
        return self.node("Add", [top, constant(term, 1, 1)], blob)
