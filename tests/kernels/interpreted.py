"""Triton's interpreter in processes of its own, for TRITON_INTERPRET has to be set before Triton is imported."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # NumPy reads the variables of _begin when it is imported
    import numpy as np

T = TypeVar("T")
PROCESSES = 2


@cache
def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(PROCESSES, context, initializer=_begin)


def _begin() -> None:
    os.environ.update(TRITON_INTERPRET="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    import warnings

    from triton.runtime.interpreter import (
        InterpretedFunction,
        InterpreterOptions,
        _patch_lang,
        interpreter_builder,
    )

    warnings.simplefilter("ignore", RuntimeWarning)  # rows behind the batch: their results are not stored
    # A check of every integer sum takes 40 % of the time.
    interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)
    # So does looking through the language's names in every call of a function, where a kernel's call has done it.
    patched: set[int] = set()

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if id(self.fn.__globals__) not in patched:
            patched.add(id(self.fn.__globals__))
            _patch_lang(self.fn)
        return self.rewrite()(*arguments, **options)

    InterpretedFunction.__call__ = call
    _quicken()


def _quicken() -> None:
    """Another third of the time: a table that is made anew for each operation, types of tuples that nobody asks for."""
    import triton.language as tl
    from triton.runtime import interpreter

    original = interpreter._get_np_dtype
    known: dict[str, np.dtype[Any]] = {}

    def np_dtype(kind: Any) -> np.dtype[Any]:
        name = kind.scalar.name
        if name not in known:
            known[name] = original(kind)
        return known[name]

    def begin(self: Any, values: Any, type: Any = None) -> None:  # noqa: A002
        self.values = list(values)
        self._type = (
            type if type is None or isinstance(type, tl.core.tuple_type) else tl.core.tuple_type(type)
        )

    def type_of(self: Any) -> Any:
        if self._type is None:
            self._type = tl.core._type_for_tuple_values(self.values)
        return self._type

    interpreter._get_np_dtype = np_dtype
    tl.core.tuple.__init__ = begin
    tl.core.tuple.type = property(type_of, lambda self, value: setattr(self, "_type", value))


def submit(function: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    """Call a function of a module, given by import, in one of the processes."""
    return _pool().submit(function, *arguments, **options)


def execute(
    plan: bytes,
    images: np.ndarray,
    names: Sequence[str],
    device: str = "cpu",
    *,
    grids: Sequence[bool] = (False,),
    alone: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Outputs of a plan's CUDA program by TritonExecutor, the arena filled with NaN before.

    ``grids``: for each of them, whether every task has a block of its own; the results must be the same bits.
    ``alone``: outputs that are also asked for by themselves, so that the kernel stores them, in the first grid; again
    the same bits. Each run must leave the state as it was: zero.
    """
    import numpy as np
    import torch

    from inception_engine.compiler.plan import Plan
    from inception_engine.jit import TritonExecutor

    found: dict[str, np.ndarray] = {}
    pixels = torch.from_numpy(images).to(device)
    for one_task_per_block in grids:
        executor = TritonExecutor(
            Plan.from_bytes(plan, proven=True), device, poison=True, one_task_per_block=one_task_per_block
        )
        asked = [names] if found else [names, *([name] for name in alone)]
        for wanted in asked:
            outputs = executor.run(pixels, outputs=wanted)
            assert not executor._state.any(), "a run left counters or tickets behind"
            for name, output in outputs.items():
                values = output.cpu().numpy()
                before = found.setdefault(name, values)
                assert np.array_equal(values.view(np.uint32), before.view(np.uint32)), f"{name} differs"
    return {name: found[name] for name in names}
