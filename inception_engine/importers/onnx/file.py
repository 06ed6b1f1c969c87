"""The bytes of an ONNX file -> a parsed model, with everything that could be large bounded before it is parsed.

A protobuf message grows when it is parsed: a node that takes two bytes in the file takes a hundred in memory. So the
file's framing is walked first, by the descriptors that the onnx package carries, and fields are counted: nothing is
parsed that has more of them than any network of this kind. What lies outside the file is never opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from inception_engine.importers.errors import ImportFailed
from inception_engine.terminal import printable_line

MAX_BYTES = 1 << 30  # of the file; Inception-v3 has a tenth of it
MAX_NODES = 20_000
MAX_TENSORS = 40_000
MAX_FIELDS = 1_000_000  # of all messages; networks of 10,000 nodes have a quarter of it
MAX_VARINTS = 1 << 27  # bytes of packed integers, each of which may take eight times as much when parsed
MAX_DEPTH = 16  # of messages in messages: graphs in attributes of nodes in graphs
OLDEST_OPSET = 7
NEWEST_OPSET = 28  # ops changed up to here were read; a newer one may mean something else

_VARINT, _FIXED64, _LENGTH, _FIXED32 = (
    0,
    1,
    2,
    5,
)  # protobuf's wire types; the others are never in an ONNX file


def read(source: str | os.PathLike[str] | bytes) -> ModelProto:
    """The model in a file or in its content. Raises ImportFailed, and OSError for a file that cannot be opened."""
    data = source if isinstance(source, bytes) else _content(source)
    if len(data) > MAX_BYTES:
        raise ImportFailed(f"{len(data):,} bytes, more than {MAX_BYTES:,}")
    _Framing(data).walk(ModelProto.DESCRIPTOR, 0, len(data), 0)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ImportFailed("not an ONNX file, or damaged") from None
    _check(model)
    return model


def opset(model: ModelProto) -> int:
    """The version of ONNX's own operators. Raises ImportFailed outside the versions that are understood."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ImportFailed("the file does not say which version of ONNX's operators (opset) it uses")
    if not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET or len(set(versions)) > 1:
        raise ImportFailed(
            f"opset {versions[0]} is not supported: {OLDEST_OPSET} to {NEWEST_OPSET} are; "
            "export the network again, or use onnx.version_converter"
        )
    return int(versions[0])


def _content(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
            raise ImportFailed("not a file")
        if status.st_size > MAX_BYTES:
            raise ImportFailed(f"{status.st_size:,} bytes, more than {MAX_BYTES:,}")
        return file.read(status.st_size)


class _Framing:
    """A walk over tags and lengths, without a look at what they hold."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fields = self.varints = 0

    def walk(self, message: Any, begin: int, end: int, depth: int) -> None:
        """Fields of a ``message`` (a descriptor) at ``begin`` to ``end``. Raises ImportFailed."""
        if depth > MAX_DEPTH:
            raise ImportFailed(f"messages are nested deeper than {MAX_DEPTH}")
        known = message.fields_by_number
        at = begin
        while at < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise ImportFailed(f"more than {MAX_FIELDS:,} fields")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            field = known.get(number)
            if wire == _VARINT:
                _, at = self._varint(at, end)
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            elif wire == _LENGTH:
                size, at = self._varint(at, end)
                if at + size > end:
                    raise ImportFailed(
                        f"truncated: {at + size - end:,} bytes are missing" if field else _FOREIGN
                    )
                if field is not None and field.message_type is not None:
                    self.walk(field.message_type, at, at + size, depth + 1)
                elif field is not None and field.type == field.TYPE_STRING:
                    self._text(at, at + size)
                elif field is not None and field.type in _PACKED:
                    self.varints += size
                    if self.varints > MAX_VARINTS:
                        raise ImportFailed(f"more than {MAX_VARINTS:,} bytes of packed integers")
                at += size
            else:
                raise ImportFailed(_FOREIGN)
            if (
                field is None and depth == 0
            ):  # later versions of the format add fields further down, if at all
                raise ImportFailed(_FOREIGN)
        if at != end:
            raise ImportFailed(f"truncated: {at - end:,} bytes are missing")

    def _text(self, begin: int, end: int) -> None:
        """protobuf's parser passes on what is not UTF-8."""
        try:
            self.data[begin:end].decode()
        except UnicodeDecodeError:
            raise ImportFailed("a name in the file is not text") from None

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                return value, at
            shift += 7
        raise ImportFailed("truncated" if at >= end else _FOREIGN)


_FOREIGN = "not an ONNX file"
_field = next(iter(ModelProto.DESCRIPTOR.fields))
_PACKED = {_field.TYPE_INT64, _field.TYPE_INT32, _field.TYPE_UINT64, _field.TYPE_ENUM, _field.TYPE_BOOL}


def _check(model: ModelProto) -> None:
    """What no file may have, and counts. Raises ImportFailed."""
    if not model.HasField("graph") or not model.graph.node:
        raise ImportFailed("not an ONNX file" if not model.HasField("graph") else "the graph has no nodes")
    if model.functions:
        raise ImportFailed(
            f"holds functions of its own ({shown(model.functions[0].name)}); inline them with onnx.inliner"
        )
    if len(model.graph.node) > MAX_NODES:
        raise ImportFailed(f"{len(model.graph.node):,} nodes, more than {MAX_NODES:,}")
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ImportFailed(f"tensor {shown(name)}: sparse tensors are not supported")
    for count, (name, tensor) in enumerate(_tensors(model.graph), 1):
        if count > MAX_TENSORS:
            raise ImportFailed(f"more than {MAX_TENSORS:,} tensors")
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ImportFailed(
                f"tensor {shown(name)}: its data lies in another file (external data), which is never opened; "
                "save the model as one file"
            )
        if tensor.HasField("segment"):
            raise ImportFailed(f"tensor {shown(name)}: stored in segments, which is not supported")


def _tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR or attribute.HasField("t"):
                yield attribute.t.name or (node.output[0] if node.output else node.name), attribute.t


def shown(text: str) -> str:
    """A name from the file, fit for one line of a message: printable, and not too long."""
    return printable_line(text[:120]) + ("..." if len(text) > 120 else "") or "(without a name)"
