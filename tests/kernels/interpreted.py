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
def _pool(processes: int, plain: bool) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(plain,))


def _begin(plain: bool = False) -> None:
    os.environ.update(TRITON_INTERPRET="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    import warnings

    warnings.simplefilter("ignore", RuntimeWarning)  # rows behind the batch: their results are not stored
    if not plain:
        from tests.kernels import quickened, recorded

        quickened.quicken()
        recorded.replay()


def submit(function: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    """Call a function of a module, given by import, in one of the processes."""
    return _pool(PROCESSES, plain=False).submit(function, *arguments, **options)


def submit_plain(function: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    """The same with the interpreter as Triton brings it, which takes several times as long."""
    return _pool(1, plain=True).submit(function, *arguments, **options)


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
