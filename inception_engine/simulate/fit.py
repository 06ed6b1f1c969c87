"""Constants from measurements: least squares of simulated against measured times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inception_engine.compiler.plan import Plan, Program
from inception_engine.simulate.events import simulate
from inception_engine.simulate.gpu import CONSTANTS, Gpu, Provenance, SimulationError

# The others come from a datasheet or a measurement of their own. A ticket among them: every task has one and starts and
# ends, every chain of waits has a dependency for each start and end, so that moving time from ``tile_seconds`` to both
# ``ticket_seconds`` and ``dependency_seconds`` changes no time of any plan.
FITTED = ("launch_seconds", "poll_seconds", "dependency_seconds", "tile_seconds", "block_share")
_STEP = 1e-3  # of a constant, relative, for the derivatives
_APART = 1e-4  # smallest over largest singular value of the derivatives where constants can be told apart
_ROUNDS = 40
_ENOUGH = 1e-9  # relative gain of a round below which the search ends


@dataclass(frozen=True)
class Fit:
    """``gpu``: with the fitted constants. ``errors``: simulated over measured minus one, of each time, after the fit;
    ``before``: the same with the constants that the search began with."""

    gpu: Gpu
    errors: list[float]
    before: list[float]


def fit(measurements: Sequence[Mapping[str, Any]], gpu: Gpu, constants: Sequence[str] = FITTED) -> Fit:
    """Fit ``constants`` of ``gpu`` to measured times, each with the same relative weight.

    A measurement is {"plan": path, "program": number from 1, "batch": images, "seconds": of a whole run}, and
    optionally "launch_seconds": a list, of each launch from its first ticket to the end of its last task. "batch" may
    be left out (the program's maximum), and "seconds" where launches are given. Constants stay positive, and a
    share at most 1. Raises SimulationError for unknown constants and for times that do not tell them apart; OSError
    and PlanError for a plan.
    """
    unknown = [
        name for name in constants if name not in CONSTANTS or name in ("multiprocessors", "resident_blocks")
    ]
    if unknown or not constants:
        raise SimulationError(f"no constants to fit: {', '.join(unknown) or 'none given'}")
    cases = [_case(measurement) for measurement in measurements]
    measured = np.array([time for case in cases for time in case.measured])
    if len(measured) < len(constants):
        raise SimulationError(f"{len(measured)} measured times do not tell {len(constants)} constants")

    def errors(logs: np.ndarray) -> np.ndarray:
        tried = _replaced(gpu, constants, logs)
        return np.array([time for case in cases for time in case.simulated(tried)]) / measured - 1

    # Constants are positive and of different sizes, so their logarithms are searched (Levenberg-Marquardt).
    begin = np.log([max(float(getattr(gpu, name)), 1e-12) for name in constants])
    logs, before = begin, errors(begin)
    now, damping = before, 1e-3
    for _ in range(_ROUNDS):
        steps = np.eye(len(logs)) * math.log1p(_STEP)
        slopes = np.stack([errors(logs + step) - now for step in steps], 1) / _STEP
        _check_told_apart(slopes, constants)
        normal, gradient = slopes.T @ slopes, slopes.T @ now
        size = np.sum(now**2)
        while damping < 1e9:
            damped = normal + damping * np.diag(np.maximum(np.diag(normal), 1e-12))
            tried = logs - np.clip(np.linalg.solve(damped, gradient), -1.0, 1.0)
            then = errors(tried)
            if np.sum(then**2) < size:
                break
            damping *= 4
        else:
            break
        logs, now, damping = tried, then, damping / 10
        if size - np.sum(now**2) <= _ENOUGH * size:
            break
    off = float(np.median(np.abs(now)))
    source = f"least squares over {len(measured)} measured times, half of them within {off:.1%}"
    fitted = _replaced(gpu, constants, logs)
    provenance = {**gpu.provenance, **{name: Provenance("fitted", source) for name in constants}}
    return Fit(dataclasses.replace(fitted, provenance=provenance), now.tolist(), before.tolist())


def _check_told_apart(slopes: np.ndarray, constants: Sequence[str]) -> None:
    """``slopes``: relative change of each time by that of each constant, shape (times, constants)."""
    scale = np.linalg.norm(slopes, axis=0)
    without = [name for name, size in zip(constants, scale, strict=True) if size < _APART * scale.max()]
    if not scale.max():
        without = list(constants)
    if without:
        raise SimulationError(f"the measured times do not depend on {', '.join(without)}")
    _, values, directions = np.linalg.svd(slopes / scale)
    if values[-1] < _APART * values[0]:
        mixed = [n for n, part in zip(constants, directions[-1], strict=True) if abs(part) > 0.1]
        raise SimulationError(f"the measured times do not tell apart {', '.join(mixed)}")


@dataclass(frozen=True)
class _Case:
    """A program's run with measured times: the whole run's, if given, then those of its launches, if given."""

    program: Program
    batch: int
    measured: list[float]
    whole: bool

    def simulated(self, gpu: Gpu) -> list[float]:
        run = simulate(self.program, gpu, self.batch)
        launches = (run.launch_end - run.launch_begin).tolist() if len(self.measured) > self.whole else []
        return [run.seconds] * self.whole + launches


def _case(measurement: Mapping[str, Any]) -> _Case:
    path = Path(measurement["plan"])
    programs = Plan.load(path).programs
    number = measurement.get("program", 1)
    if not 1 <= number <= len(programs):
        raise SimulationError(f"{path}: no program {number}; there are {len(programs)}")
    program = programs[number - 1]
    launches = list(measurement.get("launch_seconds", []))
    if launches and len(launches) != len(program.launches):
        raise SimulationError(
            f"{path}: {len(launches)} launches measured, program {number} has {len(program.launches)}"
        )
    measured = ([measurement["seconds"]] if "seconds" in measurement else []) + launches
    if not measured or min(measured) <= 0:
        raise SimulationError(f"{path}: no measured times, or some are not positive")
    batch = measurement.get("batch", int(program.header["max_batch"]))
    return _Case(program, batch, measured, "seconds" in measurement)


def _replaced(gpu: Gpu, constants: Sequence[str], logs: np.ndarray) -> Gpu:
    values = dict(zip(constants, np.exp(logs).tolist(), strict=True))
    if "block_share" in values:
        values["block_share"] = min(values["block_share"], 1.0)
    return dataclasses.replace(gpu, **values)
