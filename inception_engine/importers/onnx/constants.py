"""What can be computed before the network runs: constants, and shapes as exporters without folding spell them out.

The batch is unknown: in shapes it is ``BATCH``, which can be passed on and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.onnx.graph import FLOATS, INTEGERS, Node, to_array


class _Batch:
    """The batch in a shape; not a number, so that arithmetic with it is an error and not a wrong shape."""

    def __repr__(self) -> str:
        return "batch"


BATCH = _Batch()
Constants = Sequence[np.ndarray | None]  # a node's inputs; None: an optional one that is left out


def evaluate(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray | None:
    """The output of a node whose inputs are all constants, or None for an op that is not for constants.

    ``limit``: elements of a result at most; more raise ImportFailed, before memory is taken for them.
    """
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    try:
        with np.errstate(all="ignore"):  # infinities and NaN are found where they are used
            result = rule(node, inputs, opset, limit)
    except ImportFailed:
        raise
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise node.failed(f"cannot be computed from its constants: {' '.join(str(error).split())}") from None
    node.finish()
    return _plain(result)


def _plain(array: np.ndarray) -> np.ndarray:
    """Shapes in which no batch is left become integers."""
    if array.dtype == object and not any(value is BATCH for value in array.flat):
        return array.astype(np.int64)
    return np.asarray(array)


def axes_of(node: Node, constant: np.ndarray | None, opset: int, since: int) -> tuple[int, ...] | None:
    """``axes``, an attribute before opset ``since`` and an input from then on."""
    if opset < since:
        return node.integers("axes")
    return None if constant is None else integers(node, constant)


def integers(node: Node, array: np.ndarray) -> tuple[int, ...]:
    if array.dtype != np.int64 or array.size > 64:
        raise node.failed("takes a few whole numbers here")
    return tuple(map(int, array.reshape(-1)))


def _check(node: Node, shape: Sequence[int], limit: int) -> tuple[int, ...]:
    if any(size < 0 for size in shape) or math.prod(shape) > limit:
        text = " x ".join(map(str, shape[:8]))
        raise node.failed(
            f"a constant of {text} values, more than the {limit:,} that a file of this size needs"
        )
    return tuple(shape)


def _given(inputs: Constants, index: int = 0) -> np.ndarray:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise ValueError(f"input {index + 1} is missing")
    return value


def _optional(inputs: Constants, index: int) -> np.ndarray | None:
    return inputs[index] if index < len(inputs) else None


def _constant(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    for name in node.attribute_names():
        match name:
            case "value":
                tensor = node.tensor(name)
                assert tensor is not None
                return to_array(tensor, node.output)
            case "value_float":
                return np.array(node.number(name, 0.0), np.float32)
            case "value_floats":
                return np.array(node.numbers(name), np.float32)
            case "value_int":
                return np.array(node.integer(name, 0), np.int64)
            case "value_ints":
                return np.array(node.integers(name), np.int64)
        raise node.failed(f"attribute {name} is not supported")
    raise node.failed("has no value")


def _constant_of_shape(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    shape = _check(node, integers(node, _given(inputs)), limit)
    tensor = node.tensor("value")
    value = np.zeros(1, np.float32) if tensor is None else to_array(tensor, node.output)
    return np.broadcast_to(value.reshape(()), shape)  # no memory yet


def _expand(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    shape = np.broadcast_shapes(_given(inputs).shape, integers(node, _given(inputs, 1)))
    return np.broadcast_to(_given(inputs), _check(node, shape, limit))


def _cast(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    to, x = node.integer("to", 0), _given(inputs)
    if to not in (*FLOATS, *INTEGERS):
        raise node.unsupported("to", to, "casts of constants are to floats, INT32 and INT64")
    if x.dtype == object:
        if to not in (TensorProto.INT64, TensorProto.INT32):
            raise node.unsupported("to", to, "the batch is a whole number")
        return x
    return x.astype(np.float32 if to in FLOATS else np.int64, copy=False)


def _reshape(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    x, shape = _given(inputs), list(integers(node, _given(inputs, 1)))
    if not node.integer("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def _unsqueeze(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    axes = axes_of(node, _optional(inputs, 1), opset, 13)
    if axes is None:
        raise node.failed("axes are missing")
    return np.expand_dims(_given(inputs), axes)


def _squeeze(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    return np.squeeze(_given(inputs), axes_of(node, _optional(inputs, 1), opset, 13))


def _transpose(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    return np.transpose(_given(inputs), node.integers("perm"))


def _flatten(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    x, axis = _given(inputs), node.integer("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _concat(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    arrays = [_given(inputs, i) for i in range(len(inputs))]
    _check(node, (sum(array.size for array in arrays),), limit)
    return np.concatenate(arrays, node.integer("axis", 0))


def _gather(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    x, indices, axis = _given(inputs), _given(inputs, 1), node.integer("axis", 0)
    if indices.dtype != np.int64:
        raise node.failed("indices are not whole numbers")
    _check(node, (x.size // max(x.shape[axis], 1) * indices.size,), limit)
    return np.asarray(np.take(x, indices, axis))


def slices_of(node: Node, inputs: Constants, opset: int, rank: int) -> tuple[slice, ...]:
    """A Slice of something of ``rank`` dimensions, as Python spells it; ``inputs[0]`` is not looked at."""
    if opset < 10:
        given: list[tuple[int, ...] | None] = [
            node.integers("starts"),
            node.integers("ends"),
            node.integers("axes"),
            None,
        ]
    else:
        given = [
            None if (array := _optional(inputs, i)) is None else integers(node, array) for i in range(1, 5)
        ]
    starts, ends = given[0], given[1]
    if starts is None or ends is None:
        raise node.failed("starts or ends are missing")
    axes = given[2] if given[2] is not None else tuple(range(len(starts)))
    steps = given[3] if given[3] is not None else (1,) * len(starts)
    slices = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0 or not -rank <= axis < rank:
            raise node.failed(f"axis {axis} or step {step} is out of range")
        # With a negative step an end before the first element is "none" in Python.
        slices[axis] = slice(start, None if step < 0 and end < -(2**31) else end, step)
    return tuple(slices)


def _slice(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    x = _given(inputs)
    return x[slices_of(node, inputs, opset, x.ndim)]


def _shape(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    shape = np.array(_given(inputs).shape, np.int64)
    return cut_shape(node, shape)


def cut_shape(node: Node, shape: np.ndarray) -> np.ndarray:
    """``start`` and ``end`` of Shape, from opset 15 on."""
    start, end = node.integer("start", 0), node.integer("end", len(shape))
    return shape[start:end]


def _elementwise(operation: Callable[[np.ndarray, np.ndarray], np.ndarray]):  # type: ignore[no-untyped-def]
    def rule(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
        a, b = _given(inputs), _given(inputs, 1)
        if a.dtype != b.dtype or a.dtype == object:
            raise TypeError("arithmetic on the batch" if object in (a.dtype, b.dtype) else "types differ")
        _check(node, np.broadcast_shapes(a.shape, b.shape), limit)
        return np.asarray(operation(a, b))

    return rule


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype == np.float32:
        return a / b
    if (b == 0).any():
        raise ValueError("division by zero")
    return np.asarray(np.trunc(a / b).astype(np.int64))


def _unary(operation: Callable[[np.ndarray], np.ndarray]):  # type: ignore[no-untyped-def]
    def rule(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
        if _given(inputs).dtype == object:
            raise TypeError("arithmetic on the batch")
        return np.asarray(operation(_given(inputs)))

    return rule


def _identity(node: Node, inputs: Constants, opset: int, limit: int) -> np.ndarray:
    return _given(inputs)


_RULES: dict[str, Callable[[Node, Constants, int, int], np.ndarray]] = {
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Mul": _elementwise(np.multiply),
    "Neg": _unary(np.negative),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
