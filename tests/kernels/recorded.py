"""Triton's interpreter without its front end: what a function of the language does with types is found out once.

`tl.load`, `a + b` and all others look at types and constants, put casts and broadcasts between, and call the builder,
whose interpreting one computes with NumPy. They are a compiler's front end, so which calls these are cannot depend on
values. The first call with arguments of given types and constants is recorded; later ones are the builder's calls
alone, which are the same with the same arguments, so that the results are the same bits. Most of the time is saved.

What cannot be recorded (a front end that asks for a value, arguments of other kinds) is called as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

Function = Callable[..., Any]
Tensor: Any = tl.tensor

# Of constants these give constants, which are computed once.
_PURE = frozenset(
    f"create_{name}" for name in ("splat", "broadcast", "expand_dims", "int_cast", "fp_ext", "fp_trunc", "si_to_fp")
)  # fmt: skip
_BY_VALUE = (int, bool, str, type(None), type(tl.PropagateNan.ALL))

_kinds: dict[object, int] = {}
_functions: dict[Function, Function] = {}
_recording: list[_Recorder] = []  # the one at work


class _Unknown(Exception):
    """An argument that no key is made of."""


def replay() -> None:
    """From now on the interpreter records and repeats. Before the first kernel, once in a process."""
    patch_tensor = interpreter._patch_lang_tensor

    def patch_attribute(
        place: Any, name: str, member: Function, builder: InterpreterBuilder, scope: Any
    ) -> None:
        if member not in _functions:
            _functions[member] = _replayed(member, builder)
        scope.set_attr(place, name, _functions[member])

    def patch_tensor_and_watch(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        for name in ("__bool__", "__index__"):
            scope.set_attr(tensor, name, _watched(getattr(tensor, name)))

    Tensor.kind = cached_property(lambda self: _kind(self.type))
    Tensor.kind.__set_name__(Tensor, "kind")
    interpreter._patch_attr = patch_attribute
    interpreter._patch_lang_tensor = patch_tensor_and_watch


def _watched(value_of: Function) -> Function:
    """A value, other than of a constant, that the front end asks for makes its calls depend on it. Blocks have none."""

    def watched(self: Any) -> Any:
        if _recording and self.handle.data.size == 1:
            _recording[-1].asked_for(self.handle)
        return value_of(self)

    return watched


def _replayed(member: Function, builder: InterpreterBuilder) -> Function:
    semantic = TritonSemantic(builder)
    programs: dict[tuple[Any, ...], Function | None] = {}

    def call(*arguments: Any, _semantic: Any = None, **options: Any) -> Any:
        if _recording:  # inside another function
            return member(*arguments, **options, _semantic=_recording[-1].semantic)
        key: list[Any] = []
        handles: list[Any] = []
        try:
            for argument in arguments:
                if argument.__class__ is Tensor:
                    key.append(argument.kind)
                    handles.append(argument.handle)
                else:
                    _add(argument, key, handles)
            for name, argument in options.items():
                key.append(name)
                _add(argument, key, handles)
            program = programs[tuple(key)]
        except _Unknown:
            program = None
        except KeyError:
            recorder = _Recorder(builder)
            _recording.append(recorder)
            try:
                result = member(
                    *map(recorder.taken, arguments),
                    **{name: recorder.taken(argument) for name, argument in options.items()},
                    _semantic=recorder.semantic,
                )
            finally:
                _recording.pop()
            programs[tuple(key)] = recorder.program(result)
            return result
        if program is None:
            return member(*arguments, **options, _semantic=semantic)
        return program(*handles)

    return call


def _add(argument: Any, key: list[Any], handles: list[Any]) -> None:
    """To a call's key and its handles."""
    kind = argument.__class__
    if kind is Tensor:
        key.append(argument.kind)
        handles.append(argument.handle)
    elif kind in _BY_VALUE:
        key += (kind, argument)
    elif kind is float:
        key += (kind, argument.hex())  # zeros have signs
    elif kind is tl.constexpr:
        key.append(kind)
        _add(argument.value, key, handles)
    elif kind is tuple or kind is list:
        key += (kind, len(argument))
        for each in argument:
            _add(each, key, handles)
    elif kind is slice:
        if argument != slice(None):
            raise _Unknown
        key.append(kind)
    elif isinstance(argument, tl.dtype):
        key += (tl.dtype, _kind(argument))
    elif kind is tl.tensor_descriptor:
        handles.append(argument.handle)
        key += (kind, _kind(argument.block_type))
    else:
        raise _Unknown


def _kind(type: tl.dtype) -> int:  # noqa: A002
    """A number for all types that are equal."""
    key: object
    if isinstance(type, tl.block_type):
        key = _kind(type.element_ty), *type.shape
    elif isinstance(type, tl.pointer_type):
        key = "pointer", _kind(type.element_ty), type.address_space, type.const
    elif type.__class__ is tl.dtype:
        key = type.name
    else:
        raise _Unknown
    return _kinds.setdefault(key, len(_kinds))


class _Recorder:
    """Stands for the builder in one call of a function, and writes down what is called as lines of Python."""

    def __init__(self, builder: InterpreterBuilder) -> None:
        self.semantic = TritonSemantic(self)
        self._builder = builder
        self._known: dict[int, str] = {}
        self._constants: set[int] = set()
        self._kept: list[Any] = []  # for ids hold while there is what they are of
        self._inputs: list[str] = []
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"new": object.__new__, "tensor": tl.tensor}
        self._fixed = True

    def taken(self, argument: Any) -> Any:
        """An argument with handles of its own: two that are one in this call need not be in the next."""
        if isinstance(argument, tuple | list):
            return type(argument)(map(self.taken, argument))
        if not isinstance(argument, tl.tensor | tl.tensor_descriptor):
            return argument
        mine = copy.copy(argument)
        mine.handle = copy.copy(argument.handle)
        self._inputs.append(self._named(mine.handle, "a"))
        return mine

    def asked_for(self, handle: Any) -> None:
        self._fixed &= id(handle) in self._constants

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._builder, name)
        return (lambda *arguments: self._call(name, member, arguments)) if callable(member) else member

    def _call(self, name: str, member: Function, arguments: tuple[Any, ...]) -> Any:
        result = member(*arguments)
        handles = [each for each in arguments if isinstance(each, TensorHandle)]
        constant = name in _PURE and all(id(handle) in self._constants for handle in handles)
        if constant or name.startswith("get_") or name == "create_make_range":
            if isinstance(result, TensorHandle):
                self._constants.add(id(result))
                self._names[self._named(result, "c")] = result
            return result
        self._names[name] = member
        written = f"{name}({', '.join(map(self._written, arguments))})"
        if isinstance(result, TensorHandle):
            written = f"{self._named(result, 'v')} = {written}"
        elif result is not None:
            self._fixed = False
        self._lines.append(written)
        return result

    def _named(self, value: Any, letter: str) -> str:
        self._kept.append(value)
        name = f"{letter}{len(self._kept)}"
        self._known[id(value)] = name
        return name

    def _written(self, argument: Any) -> str:
        if id(argument) in self._known:
            return self._known[id(argument)]
        if isinstance(argument, list) and any(isinstance(each, TensorHandle) for each in argument):
            return f"[{', '.join(map(self._written, argument))}]"
        if isinstance(argument, TensorHandle):  # from somewhere else
            self._fixed = False
        name = self._named(argument, "c")
        self._names[name] = argument
        return name

    def program(self, result: Any) -> Function | None:
        """handles -> result; or nothing, where calls are not always these."""
        lines = list(self._lines)
        if result.__class__ is tl.tensor and id(result.handle) in self._known:
            handle = self._known[id(result.handle)]
            if id(result.handle) in self._constants:  # a handle of its own for each
                self._names["Handle"] = TensorHandle
                handle = f"Handle({handle}.data, {handle}.dtype)"
            lines += [
                "result = new(tensor)",
                f"result.handle = {handle}",
                f"result.kind = {_kind(result.type)}",
            ]
            for name in ("type", "dtype", "shape", "numel"):
                self._names[f"its_{name}"] = getattr(result, name)
                lines.append(f"result.{name} = its_{name}")
            lines.append("return result")
        elif result.__class__ is tl.tensor and result.handle is None:  # a store's: nothing
            self._names["nothing"] = result
            lines.append("return nothing")
        elif result is not None:
            return None
        if not self._fixed:
            return None
        source = f"def program({', '.join(self._inputs)}):\n" + "".join(
            f"  {line}\n" for line in lines or ["pass"]
        )
        exec(source, self._names)
        return self._names["program"]
