"""The graph of a model: nodes in an order in which they can run, their attributes, and tensors as arrays.

Only nodes that the wanted outputs need are looked at. Every attribute of a node has to be asked for: one that
nobody asked for is refused, so that nothing is passed over that changes the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.onnx.file import shown

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_SMALL = 1024  # elements of an initializer that is kept as an array; larger ones are made anew when asked for


class Node:
    """A node of the graph with the attributes that have not been asked for yet."""

    def __init__(self, proto: NodeProto) -> None:
        self.op = proto.op_type
        self.name = proto.name or next(filter(None, proto.output), "")
        self.inputs = list(proto.input)
        self.outputs = list(proto.output)
        self.domain = proto.domain
        self.title = _scope(proto) or self.name
        self._attributes: dict[str, AttributeProto] = {}
        for attribute in proto.attribute:
            if attribute.name in self._attributes:
                raise self.failed(f"attribute {shown(attribute.name)} is given twice")
            self._attributes[attribute.name] = attribute

    def failed(self, reason: str) -> ImportFailed:
        return ImportFailed(f"node {shown(self.name)} ({shown(self.op)}): {reason}")

    def unsupported(self, attribute: str, value: object, hint: str = "") -> ImportFailed:
        tail = f"; {hint}" if hint else ""
        return self.failed(f"attribute {attribute} = {value} is not supported{tail}")

    @property
    def output(self) -> str:
        return self.outputs[0]

    def input(self, index: int) -> str:
        """Name of an input, or "" where an optional one is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def _take(self, name: str, kind: int) -> Any:
        attribute = self._attributes.pop(name, None)
        if attribute is None:
            return None
        if attribute.type != kind or attribute.ref_attr_name:
            raise self.failed(f"attribute {name} is not of the type that the op has")
        return attribute

    def integer(self, name: str, default: int) -> int:
        attribute = self._take(name, AttributeProto.INT)
        return default if attribute is None else int(attribute.i)

    def integers(self, name: str) -> tuple[int, ...] | None:
        attribute = self._take(name, AttributeProto.INTS)
        return None if attribute is None else tuple(map(int, attribute.ints))

    def numbers(self, name: str) -> tuple[float, ...]:
        attribute = self._take(name, AttributeProto.FLOATS)
        return () if attribute is None else tuple(map(float, attribute.floats))

    def number(self, name: str, default: float) -> float:
        """The shortest decimal that is this float32: what was 1e-4 before it was stored is 1e-4 again."""
        attribute = self._take(name, AttributeProto.FLOAT)
        value = default if attribute is None else float(str(np.float32(attribute.f)))
        if not math.isfinite(value):
            raise self.failed(f"attribute {name} = {value}")
        return value

    def text(self, name: str, default: str) -> str:
        attribute = self._take(name, AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def tensor(self, name: str) -> TensorProto | None:
        attribute = self._take(name, AttributeProto.TENSOR)
        return None if attribute is None else attribute.t

    def peek_integers(self, name: str) -> tuple[int, ...]:
        """An attribute without asking for it; () if there is none."""
        attribute = self._attributes.get(name)
        return () if attribute is None else tuple(map(int, attribute.ints))

    def attribute_names(self) -> list[str]:
        return list(self._attributes)

    def finish(self) -> None:
        """Every attribute has been asked for. Raises ImportFailed."""
        for name, attribute in self._attributes.items():
            value = helper.get_attribute_value(attribute) if attribute.type in _PRINTABLE else "..."
            value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            raise self.unsupported(shown(name), shown(str(value)))


def _scope(proto: NodeProto) -> str:
    """What a layer is called in PyTorch, where its newer exporter calls nodes node_Conv_12: by the weight, else by the
    submodule that it came from, which stands in a property of the node. "" anywhere else."""
    scopes = next((p.value for p in proto.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    if not scopes:
        return ""
    if len(proto.input) > 1 and proto.input[1].endswith(".weight"):
        return proto.input[1].removesuffix(".weight")
    parts = re.findall(r"'([^']*)'", scopes[:_LONGEST_SCOPE])
    return parts[-2] if len(parts) > 1 and parts[-2] else proto.name.removeprefix("node_")


_LONGEST_SCOPE = 4096
_PRINTABLE = (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING, AttributeProto.INTS)


class Graph:
    """``nodes``: those that the ``outputs`` need, in an order in which they can run; ``uses``: how often they read a
    value, the graph's outputs included. Raises ImportFailed for names given twice, cycles and missing values.
    """

    def __init__(self, proto: GraphProto, outputs: Sequence[str]) -> None:
        self._initializers: dict[str, TensorProto] = {}
        self._arrays: dict[str, np.ndarray] = {}
        for tensor in proto.initializer:
            if tensor.name in self._initializers:
                raise ImportFailed(f"tensor {shown(tensor.name)}: the name is given twice")
            self._initializers[tensor.name] = tensor
        self.inputs = [value for value in proto.input if value.name not in self._initializers]
        makers = self._makers(proto)
        self.nodes = self._sorted(makers, outputs)
        self.uses: dict[str, int] = dict.fromkeys(outputs, 1)
        for node in self.nodes:
            for name in node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1

    def _makers(self, proto: GraphProto) -> dict[str, Node]:
        makers: dict[str, Node] = {}
        taken = {*self._initializers, *(value.name for value in self.inputs)}
        for entry in proto.node:
            node = Node(entry)
            if not any(node.outputs):
                raise node.failed("has no output")
            for name in filter(None, node.outputs):
                if name in makers or name in taken:
                    raise node.failed(f"value {shown(name)}: the name is given twice")
                makers[name] = node
        return makers

    def _sorted(self, makers: dict[str, Node], outputs: Iterable[str]) -> list[Node]:
        known = {*self._initializers, *(value.name for value in self.inputs), ""}
        done: dict[int, Node] = {}
        open_nodes: set[int] = set()
        order = {id(node): i for i, node in enumerate(dict.fromkeys(makers.values()))}
        for output in outputs:
            if output not in makers:
                raise ImportFailed(f"output {shown(output)}: no node makes it")
            stack = [(makers[output], False)]
            while stack:
                node, inputs_done = stack.pop()
                if id(node) in done:
                    continue
                if inputs_done:
                    done[id(node)] = node
                    open_nodes.discard(id(node))
                    continue
                if id(node) in open_nodes:
                    raise node.failed("depends on its own output: the graph has a cycle")
                open_nodes.add(id(node))
                stack.append((node, True))
                for name in node.inputs:
                    if name in known:
                        continue
                    if name not in makers:
                        raise node.failed(f"input {shown(name)}: there is no such value or tensor")
                    if id(makers[name]) not in done:
                        stack.append((makers[name], False))
        # The file's own order, wherever it is one: it is what its reader expects to see.
        needed = sorted(done.values(), key=lambda node: order[id(node)])
        seen = set(known)
        for node in needed:
            if not seen.issuperset(node.inputs):
                return list(done.values())
            seen.update(node.outputs)
        return needed

    def channels_last(self, image: str) -> bool:
        """Whether the image is turned from (batch, height, width, channels) before any layer, as TensorFlow's are."""
        reached = {image}
        for node in self.nodes:
            if not reached.isdisjoint(node.inputs):
                if node.op == "Transpose" and node.peek_integers("perm") == (0, 3, 1, 2):
                    return True
                if node.op in ("Add", "Sub", "Mul", "Div", "Identity", "Cast"):
                    reached.update(node.outputs)
        return False

    def first_convolution_channels(self) -> int:
        """How many channels the weight of the first convolution takes; 0 if that cannot be seen at once."""
        for node in self.nodes:
            if node.op == "Conv":
                weight = self._initializers.get(node.input(1))
                return int(weight.dims[1]) if weight is not None and len(weight.dims) == 4 else 0
        return 0

    def is_tensor(self, name: str) -> bool:
        return name in self._initializers

    def tensor(self, name: str) -> np.ndarray:
        """An initializer as an array, floats as float32. Raises ImportFailed."""
        if name not in self._arrays:
            array = to_array(self._initializers[name], name)
            if array.size > _SMALL:
                return array
            self._arrays[name] = array
        return self._arrays[name]


def to_array(tensor: TensorProto, name: str) -> np.ndarray:
    """Floats as float32, integers as int64. Raises ImportFailed for other types and for sizes that do not fit."""
    what = f"tensor {shown(name)}"
    if tensor.data_type not in (*FLOATS, *INTEGERS):
        known = tensor.data_type in TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(tensor.data_type) if known else f"type {tensor.data_type}"
        raise ImportFailed(f"{what}: {kind} is not supported; weights are FLOAT, FLOAT16, BFLOAT16 or DOUBLE")
    if any(size < 0 for size in tensor.dims):
        raise ImportFailed(f"{what}: its shape is {list(tensor.dims)}")
    count = math.prod(tensor.dims)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if tensor.HasField("raw_data"):
        found, wanted, unit = len(tensor.raw_data), count * dtype.itemsize, "bytes"
    else:
        found = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
        wanted, unit = count, "values"
    if found != wanted:
        raise ImportFailed(f"{what}: holds {found:,} {unit}, its shape {list(tensor.dims)} takes {wanted:,}")
    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):  # a double that becomes infinite is found where it is used
        return array.astype(np.float32 if tensor.data_type in FLOATS else np.int64, copy=False)
