"""What Triton's interpreter does more often, or at more length, than its results need; each with the same results.

It can be left out: tests/kernels/test_interpreter.py holds that the same bits come out of the interpreter as it is.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import (
    InterpretedFunction,
    InterpreterBuilder,
    InterpreterOptions,
    TensorHandle,
    interpreter_builder,
    interpreter_semantic,
)

Data = np.ndarray[Any, Any]

_find_dtype = interpreter._get_np_dtype
_transfer = interpreter._interpreter
_dtypes: dict[str, np.dtype[Any]] = {}
_patched: set[int] = set()


def quicken() -> None:
    """From now on, in this process."""
    gc.set_threshold(100_000)  # each operation makes objects, few of which form cycles
    interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)  # a check of every integer sum
    interpreter._get_np_dtype = _dtype
    interpreter_semantic.to_tensor = _to_tensor
    InterpretedFunction.__call__ = _call
    TensorHandle.__init__ = _make_handle
    InterpreterBuilder.binary_op = _binary_op
    InterpreterBuilder.create_splat = _splat
    InterpreterBuilder.create_broadcast = _broadcast
    InterpreterBuilder.create_expand_dims = _expand_dims
    InterpreterBuilder.create_load = _load
    InterpreterBuilder.create_store = _store
    InterpreterBuilder.create_masked_load = _masked_load
    InterpreterBuilder.create_addptr = _add_to_pointer
    tl.core.tuple.__init__ = _make_tuple
    tl.core.tuple.type = property(_type_of_tuple, lambda self, value: setattr(self, "_type", value))


def _dtype(kind: Any) -> np.dtype[Any]:
    """From a table that is not made anew for each operation."""
    name = kind.scalar.name
    if name not in _dtypes:
        _dtypes[name] = _find_dtype(kind)
    return _dtypes[name]


def _to_tensor(x: Any, check_type: bool = True) -> Any:
    """Every assignment in a kernel asks for it."""
    if x.__class__ is tl.tensor:
        return x
    return type(interpreter_semantic).to_tensor(interpreter_semantic, x, check_type)


def _call(self: Any, *arguments: Any, **options: Any) -> Any:
    """The language's names are patched in a module's first call, and not in each."""
    names = id(self.fn.__globals__)
    if names not in _patched:
        _patched.add(names)
        interpreter._patch_lang(self.fn)
    return self.rewrite()(*arguments, **options)


def _make_handle(self: Any, data: Data, dtype: tl.dtype, attr: dict[str, Any] | None = None) -> None:
    """Without a look at the size of the data, which the interpreter's own functions make."""
    self.data = data
    self.dtype = dtype
    self.attr = {} if attr is None else attr


def _binary_op(self: Any, left: TensorHandle, right: TensorHandle, op: np.ufunc) -> TensorHandle:
    output = op(left.data, right.data)
    kind = left.dtype.scalar
    if not kind.is_ptr() and output.itemsize > max(kind.primitive_bitwidth, 8) // 8:
        output = output.astype(_dtype(kind))
    return TensorHandle(output, kind)


def _filled(shape: Sequence[int], data: Data, dtype: np.dtype[Any]) -> Data:
    """As np.full and np.broadcast_to do, in half the time."""
    result = np.empty(shape, dtype)
    result[...] = data
    return result


def _splat(self: Any, kind: tl.block_type, value: TensorHandle) -> TensorHandle:
    return TensorHandle(_filled(kind.shape, value.data.reshape(()), _dtype(value.dtype)), value.dtype.scalar)


def _broadcast(self: Any, value: TensorHandle, shape: Sequence[int]) -> TensorHandle:
    return TensorHandle(_filled(shape, value.data, value.data.dtype), value.dtype.scalar)


def _expand_dims(self: Any, value: TensorHandle, axis: int) -> TensorHandle:
    shape = value.data.shape
    return TensorHandle(value.data.reshape(*shape[:axis], 1, *shape[axis:]), value.dtype.scalar)


@functools.cache
def _all(shape: tuple[int, ...]) -> TensorHandle:
    return TensorHandle(np.ones(shape, bool), tl.int1)


@functools.cache
def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Data:
    return np.zeros(shape, dtype)


def _load(self: Any, pointers: TensorHandle, *options: Any) -> TensorHandle:
    """With a mask, as a store, that is not made anew: it is only read."""
    return _masked_load(self, pointers, _all(pointers.data.shape), None, *options)


def _store(self: Any, pointers: TensorHandle, value: TensorHandle, *options: Any) -> None:
    _transfer.store(pointers.data, value.data, _all(pointers.data.shape).data)


def _masked_load(
    self: Any,
    pointers: TensorHandle,
    mask: TensorHandle,
    other: TensorHandle | None,
    *options: Any,
    **named_options: Any,
) -> TensorHandle:
    kind = pointers.get_element_ty()
    dtype = _dtype(kind)
    values = _zeros(pointers.data.shape, dtype) if other is None else other.data
    return TensorHandle(_transfer.load(pointers.data, mask.data, values, dtype), kind)


def _add_to_pointer(self: Any, pointer: TensorHandle, offset: TensorHandle) -> TensorHandle:
    bytes_ = offset.data.astype(np.uint64)
    bytes_ *= max(1, pointer.get_element_ty().primitive_bitwidth // 8)
    return TensorHandle(pointer.data + bytes_, pointer.dtype)


def _make_tuple(self: Any, values: Any, type: Any = None) -> None:  # noqa: A002
    """Without the types of tuples, which nobody asks for."""
    self.values = list(values)
    self._type = type if type is None or isinstance(type, tl.core.tuple_type) else tl.core.tuple_type(type)


def _type_of_tuple(self: Any) -> Any:
    if self._type is None:
        self._type = tl.core._type_for_tuple_values(self.values)
    return self._type
