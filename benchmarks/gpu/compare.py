"""Runners on one case: parity first, then interleaved times of those that passed, and ratios to the best peer."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from benchmarks.gpu.cases import NetworkCase
from benchmarks.gpu.device import Call, Device, interleaved
from benchmarks.gpu.runners import LeftOut, Prepared, Runner
from benchmarks.gpu.stage import Job, first_line
from inception_engine.bench.timing import Samples, ratio, statistics


def compare(job: Job, case: NetworkCase, runners: Sequence[Runner], ours: Collection[str] = ()) -> None:
    """A row for each runner. The best peer is the fastest that is not in ``ours``."""
    labels = case.labels
    images = case.images(job.device.torch_device)
    errors: dict[str, float] = {}
    calls: dict[str, Call] = {}
    prepared: dict[str, Prepared] = {}
    with contextlib.ExitStack() as stack:
        for runner in runners:
            if (obstacle := runner.obstacle()) is not None:
                job.row(runner.name, None, obstacle, **labels)
                continue
            try:
                print(f"preparing {runner.name}, {case.variant}, batch {case.batch}", flush=True)
                prepared[runner.name] = stack.enter_context(runner.prepare(case, job.device, job.rehearsal))
                call = bound(prepared[runner.name], images)
                call()
                call = job.device.captured(call) if runner.graph else call
                errors[runner.name] = checked(prepared[runner.name], call, case, job.device)
            except (
                Exception
            ) as error:  # a runner's failure is a row, and of ours alone a failure of the stage
                fails = runner.name in ours and not isinstance(error, LeftOut)
                job.row(runner.name, False if fails else None, first_line(error), **labels)
                continue
            if errors[runner.name] <= case.bound:
                calls[runner.name] = call
            else:
                note = f"parity: above {case.bound:g}; not timed"
                job.row(runner.name, False, note, **labels, error=errors[runner.name])
        samples = interleaved(job.device, calls, job.scale.rounds, job.scale.seconds)
        for name in calls:
            try:
                prepared[name].check()
            except Exception as error:
                samples[name].error = error
    _report(job, case, errors, samples, ours)


def bound(prepared: Prepared, images: torch.Tensor) -> Call:
    return lambda: prepared.call(images)


def checked(prepared: Prepared, call: Call, case: NetworkCase, device: Device) -> float:
    """The error of a call whose result was full of NaN before. Raises what ``check`` raises."""
    result = call()
    with torch.inference_mode():
        result.fill_(torch.nan)  # a graph has to write it again
    logits = call()
    device.synchronize()  # a replay of a graph is nothing that the engine could wait for
    prepared.check()
    return case.error(logits)


def _report(
    job: Job,
    case: NetworkCase,
    errors: Mapping[str, float],
    samples: Mapping[str, Samples],
    ours: Collection[str],
) -> None:
    good = {name: each for name, each in samples.items() if each.error is None}
    figures = {name: statistics(each) for name, each in good.items()}
    best = min(
        (name for name in good if name not in ours), key=lambda name: figures[name].p50_ms, default=None
    )
    for name, each in samples.items():
        if each.error is not None:
            job.row(name, False, first_line(each.error), **case.labels, error=errors[name])
            continue
        found = figures[name]
        compared: dict[str, Any] = {}
        if best is not None:
            compared = {"best_peer": best, "ratio": list(ratio(each, good[best]))}
        job.row(
            name,
            **case.labels,
            error=errors[name],
            p50_us=found.p50_ms * 1e3,
            spread=[1.0, *found.spread],
            images_per_s=case.batch / found.p50_ms * 1e3,
            samples=found.samples,
            **compared,
        )


def cases(job: Job) -> list[NetworkCase]:
    """What the stages ``peers`` and ``ours`` time."""
    scale = job.scale
    return [
        NetworkCase(variant, spec, batch, scale.speed_dtype)
        for variant, spec in scale.variants
        for batch in scale.speed_batches
    ]
