"""Small ONNX models for tests, from nodes and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Dims = Sequence[int | str | None] | None


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    """A node that is called as its output is."""
    return helper.make_node(op, list(inputs), [output], name=output, **attributes)


def image_info(dims: Dims, kind: int = TensorProto.FLOAT, name: str = "image") -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def model(
    nodes: Sequence[NodeProto],
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    dims: Dims = (1, 3, 8, 8),
    outputs: Sequence[str] | None = None,
    opset: int = 17,
    **fields: Any,
) -> bytes:
    """Input "image" of ``dims``; the output of the last node, unless others are named."""
    names = outputs if outputs is not None else [nodes[-1].output[0]]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [image_info(dims)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(values, name) for name, values in (tensors or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *fields.pop("opset_imports", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **fields).SerializeToString()


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 of deviation 0.3."""
    return (np.random.default_rng(seed).standard_normal(shape) * 0.3).astype(np.float32)


def conv(source: str = "image", output: str = "conv", weight: str = "w", **attributes: Any) -> NodeProto:
    return node("Conv", [source, weight], output, **attributes)
