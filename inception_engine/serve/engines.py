"""The engines behind a server: one for each thread that runs batches, all of one plan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inception_engine.backends.sources import OnnxFile, PlanFile, TensorRtFile, describe, read
from inception_engine.commands.plans import compiled, plan_for
from inception_engine.compiler.plan import Plan
from inception_engine.engine import Engine
from inception_engine.errors import BackendError, BatchError
from inception_engine.preprocess import check_channels


def load(
    name: str, *, engines: int, threads: int = 0, device: str = "auto", max_batch: int | None = None
) -> list[Engine]:
    """Engines of a plan, or of whatever ``load_network`` reads, each of which has run: what could fail has not.

    ``threads`` of each: 0 shares the processors evenly. ``max_batch``: images of a run; of a plan, at most its own.
    Raises EngineError, OSError, and what importing and compiling the network raises.
    """
    plan = _plan(name, device, max_batch)
    threads = threads or max(len(os.sched_getaffinity(0)) // engines, 1)
    made: list[Engine] = []
    try:
        for _ in range(engines):
            made.append(Engine(plan, device=device, threads=threads))
            _try(made[-1], max_batch)
    except BaseException:
        close(made)
        raise
    return made


def close(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.close()


def _plan(name: str, device: str, max_batch: int | None) -> Plan | Path:
    found = plan_for(name, device, max_batch)
    if isinstance(found, Plan):
        return found
    match source := read(found):
        case TensorRtFile():
            raise BackendError(f"{describe(source)}: give a plan, or the network that it was built from")
        case PlanFile(path):
            return path
        case OnnxFile():
            return compiled(source.network(), device, max_batch)
        case _:
            return compiled(source, device, max_batch)


def _try(engine: Engine, max_batch: int | None) -> None:
    """One image and a whole batch, black. Raises EngineError for a network that classifies no images, too."""
    if max_batch is not None and max_batch > engine.max_batch:
        raise BatchError(f"--max-batch {max_batch}, and the plan takes 1 to {engine.max_batch} images")
    channels, height, width = engine.input_shape
    check_channels(channels)
    for batch in {1, max_batch or engine.max_batch}:
        for logits in engine.run(np.zeros((batch, height, width, channels), np.uint8)):
            engine.rank(logits)
