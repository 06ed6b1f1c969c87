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

    from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

    warnings.simplefilter("ignore", RuntimeWarning)  # rows behind the batch: their results are not stored
    # A check of every integer sum takes 40 % of the time.
    interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)


def submit(function: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    """Call a function of a module, given by import, in one of the processes."""
    return _pool().submit(function, *arguments, **options)


def execute(
    plan: bytes, images: np.ndarray, names: Sequence[str], device: str = "cpu", **options: Any
) -> dict[str, np.ndarray]:
    """Outputs of a plan's CUDA program by TritonExecutor with ``options``, the arena filled with NaN before."""
    import torch

    from inception_engine.compiler.plan import Plan
    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(Plan.from_bytes(plan, proven=True), device, poison=True, **options)
    outputs = executor.run(torch.from_numpy(images).to(device), outputs=names)
    return {name: output.cpu().numpy() for name, output in outputs.items()}
