"""A module alone in the C library, by `walk` and by `module`: what the choice between them is made from.

Both bring the module's input in, as any run does its images, and leave the result in the arena.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from inception_engine.kernels import tuning
from torch import Tensor

from benchmarks.gpu.cases import ModuleCase
from benchmarks.gpu.device import Call, interleaved
from benchmarks.gpu.stage import Job, first_line
from inception_engine.bench.timing import ratio, statistics
from inception_engine.compiler import compile as compile_network
from inception_engine.compiler.targets import CUDA
from inception_engine.engine import Engine
from inception_engine.spec import PRESETS

WALK, MODULE = "walk", "module"


def compare_kernels(job: Job) -> None:
    """Rows with the ratio of `module` to `walk`; left out where the archive has no kernel."""
    for batch in job.scale.kernel_batches:
        for name in job.scale.kernel_modules:
            case = ModuleCase(name, PRESETS["plain"], batch, job.scale.speed_dtype)
            title = f"{name} batch {batch}, both kernels"
            try:
                _compare(job, case, title)
            except Exception as error:
                job.row(title, False, first_line(error), module=name, batch=batch)


def _compare(job: Job, case: ModuleCase, title: str) -> None:
    labels: dict[str, Any] = {
        "module": case.name,
        "batch": case.batch,
        "dtype": case.dtype,
        "pixels": case.pixels,
    }
    plan = compile_network(case.network, targets=(CUDA,), dtype=case.dtype, max_batch=case.batch)
    images = case.x(job.device.torch_device).float().contiguous()
    calls: dict[str, Call] = {}
    errors = {}
    with contextlib.ExitStack() as stack:
        engines = {}
        for name in (WALK, MODULE):
            specialise = name == MODULE
            engine = stack.enter_context(Engine(plan, device=job.device.name, specialise=specialise))
            if specialise and not engine.specialised:
                job.row(title, None, "the archive has no kernel for these sizes", **labels)
                return
            engines[name] = engine
            errors[name] = case.error(engine.run(images))
            engine.check()
            calls[name] = job.device.captured(lambda engine=engine: _ran(engine, images))  # type: ignore[misc]
        if not max(errors.values()) <= case.bound:
            job.row(title, False, "parity; not timed", **labels, errors=[errors[WALK], errors[MODULE]])
            return
        samples = interleaved(job.device, calls, job.scale.rounds, job.scale.seconds / 2)
        for engine in engines.values():
            engine.check()
    for each in samples.values():
        if each.error is not None:
            raise each.error
    times = {name: statistics(samples[name]).p50_ms * 1e3 for name in calls}
    compared = list(ratio(samples[MODULE], samples[WALK]))
    figures: dict[str, Any] = {"error": errors[MODULE], "walk_us": times[WALK], "module_us": times[MODULE]}
    job.row(title, **labels, **figures, module_to_walk=compared)


def _ran(engine: Engine, images: Tensor) -> Tensor:
    engine.run(images, outputs=[])
    return images


def proposal(
    rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any], records: str
) -> dict[str, Any] | None:
    """What kernels/tuned/module.json would hold after these rows of the stage ``modules``; None without any.

    From so many pixels on as `module` was the faster one, in every round, whatever the module; null if it never was.
    """
    measured = [row for row in rows if row["ok"] and "module_to_walk" in row]
    if not measured or "capability" not in environment:
        return None
    # The highest ratio of a round: below 1, it was faster in all of them.
    slowest = max((row["pixels"] for row in measured if row["module_to_walk"][2] >= 1), default=0)
    above = [row["pixels"] for row in measured if row["pixels"] > slowest]
    entry = {
        "from_pixels": min(above, default=None),
        "provenance": "measured",
        "source": f"{environment['gpu']}, {environment['date']}, {records}",
    }
    document = tuning.document()
    document["generations"][environment["capability"].replace(".", "")] = entry
    return document
