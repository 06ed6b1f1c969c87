"""An ONNX model as runtimes take it: one batch of images in, with its input, outputs and precision.

Weights outside the file are refused: the path to them comes from the file, and has led out of its folder before
(CVE-2022-25882, CVE-2024-27318). The importer is another door, with more to check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from inception_engine.errors import BackendError
from inception_engine.network import Shape

LARGEST_BYTES = 1 << 31  # a protobuf message cannot be larger
_DTYPES = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


@dataclass(frozen=True)
class OnnxModel:
    """``batch``: the number of images that the model is made for, or the name of its free dimension. ``outputs``:
    (channels, height, width) by name. ``layers``: outputs of nodes in their order, if they were asked for."""

    proto: onnx.ModelProto
    name: str
    input_name: str
    input_shape: Shape
    batch: int | str
    outputs: dict[str, Shape]
    dtype: str
    layers: tuple[str, ...] = ()
    content: bytes = field(repr=False, default=b"")


def read(path: str | os.PathLike[str], keep_all: bool = False) -> OnnxModel:
    """``keep_all``: what every node computes is an output too. Raises OSError, and BackendError for what is no model
    of one float32 batch of images."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size >= LARGEST_BYTES:
            raise BackendError(f"{path}: 2 GiB or larger, more than an ONNX file can be")
        content = file.read()
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own types, of which there are several
        raise BackendError(f"{path}: not an ONNX model: {error}") from None
    try:
        return describe(proto, Path(path).stem, keep_all=keep_all)
    except BackendError as error:
        raise BackendError(f"{path}: {error}") from None


def describe(proto: onnx.ModelProto, name: str, keep_all: bool = False) -> OnnxModel:
    """Raises BackendError, as ``read``."""
    if not proto.graph.node:
        raise BackendError("not an ONNX model: it has no nodes")
    for tensor in _tensors(proto.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise BackendError(f"tensor {tensor.name!r} lies in another file, which is not read")
    initial = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initial]
    if len(inputs) != 1:
        raise BackendError(f"{len(inputs)} inputs, not one")
    (image,) = inputs
    dimensions = _dimensions(image)
    if image.type.tensor_type.elem_type != TensorProto.FLOAT or len(dimensions) != 4:
        raise BackendError(f"input {image.name!r} is not float32 (batch, channels, height, width)")
    batch, *shape = dimensions
    sizes = [size for size in shape if isinstance(size, int) and size > 0]
    if len(sizes) != 3 or batch == 0:
        raise BackendError(
            f"input {image.name!r} of size {dimensions}: channels, height and width must be numbers"
        )
    layers = _keep_all(proto) if keep_all else ()
    known = {value.name: _output_shape(value) for value in proto.graph.output}
    for output, found in known.items():
        if found is None and output not in layers:
            raise BackendError(
                f"output {output!r} is not float32 or float16 of known size with a batch in front"
            )
    outputs = {output: found for output, found in known.items() if found is not None}
    if not outputs:
        raise BackendError("no outputs")
    return OnnxModel(
        proto=proto,
        name=proto.graph.name or name,
        input_name=image.name,
        input_shape=(sizes[0], sizes[1], sizes[2]),
        batch=batch,
        outputs=outputs,
        dtype=next((_DTYPES[t.data_type] for t in proto.graph.initializer if t.data_type in _DTYPES), "fp32"),
        layers=tuple(layer for layer in layers if layer in outputs),
        content=proto.SerializeToString(),
    )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that could lie outside, those of nested graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for nested in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(nested)


def _keep_all(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Make outputs of all that nodes compute as images or vectors; their names in order."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except Exception as error:  # as above
        raise BackendError(f"its shapes cannot be inferred: {error}") from None
    values = {value.name: value for value in inferred.graph.value_info}
    present = {value.name for value in proto.graph.output}
    layers: list[str] = []
    for node in proto.graph.node:
        for output in node.output:
            value = values.get(output)
            if output in present:
                layers.append(output)
            elif value is not None and _output_shape(value) is not None:
                proto.graph.output.append(value)
                layers.append(output)
    return tuple(layers)


def _dimensions(value: onnx.ValueInfoProto) -> list[Any]:
    """Numbers, and names where a dimension is free ("" if it has none)."""
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim]


def _output_shape(value: onnx.ValueInfoProto) -> Shape | None:
    """Without the batch; (classes, 1, 1) of a vector. None for other ranks and dtypes, and for unknown sizes."""
    _, *sizes = _dimensions(value) or [0]
    floats = TensorProto.FLOAT, TensorProto.FLOAT16  # NumPy has no bfloat16
    if value.type.tensor_type.elem_type not in floats or len(sizes) not in (1, 3):
        return None
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    channels, height, width = (*sizes, 1, 1)[:3]
    return channels, height, width
