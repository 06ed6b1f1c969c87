"""What `inception simulate` finds of a plan and of a network: a document for --json, and text for a terminal."""

from __future__ import annotations

import argparse
from typing import Any

from inception_engine.compiler.plan import Plan, Program, TargetKind
from inception_engine.compiler.targets import CUDA, target_for
from inception_engine.files import check_target
from inception_engine.network import Network
from inception_engine.simulate import trace
from inception_engine.simulate.events import simulate
from inception_engine.simulate.gpu import Gpu, SimulationError
from inception_engine.simulate.report import calibration, render, report
from inception_engine.simulate.tiles import best_tiles
from inception_engine.terminal import printable_lines


def simulate_plan(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """``report`` of one program of a plan file. Raises SimulationError, PlanError, OSError."""
    if arguments.dtype is not None:
        raise SimulationError("--dtype changes nothing in a plan")
    if arguments.trace is not None:
        check_target(arguments.trace, arguments.path)
    gpu = Gpu.load(arguments.gpu)
    programs = Plan.load(arguments.path).programs
    number = _choose(programs, arguments.program, arguments.batch)
    run = simulate(programs[number - 1], gpu, arguments.batch)
    document = {"program": number, **report(run)}
    if arguments.trace is not None:
        trace.save(run, arguments.trace)
    return document, f"program {number}: {render(printable_lines(document))}"


def _choose(programs: list[Program], number: int | None, batch: int | None) -> int:
    """Number, from 1, of the program that is asked for: by number, or the smallest for a GPU that takes the batch."""
    if number is not None:
        if not 1 <= number <= len(programs):
            raise SimulationError(f"--program {number}: the plan has {len(programs)}")
        return number
    gpus = [
        (int(program.header["max_batch"]), i)
        for i, program in enumerate(programs, 1)
        if program.header["target"] == TargetKind.CUDA
    ]
    if not gpus:
        raise SimulationError("the plan holds no program for a GPU (inception build --target cuda makes one)")
    if batch is None:
        return min(i for _, i in gpus)
    if not 1 <= batch <= max(gpus)[0]:
        raise SimulationError(f"--batch {batch}: the plan's programs for a GPU take 1 to {max(gpus)[0]}")
    return min(pair for pair in gpus if pair[0] >= batch)[1]


def simulate_network(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Tile shapes for a network file, the fastest first. Raises SimulationError, NetworkError, CompileError, OSError.

    The document: ``candidates``, each with ``tile`` (rows, columns; null: as compile chooses them, op by op),
    ``latency_seconds``, ``tasks`` and what share of their time workers are ``busy``; and ``gpu``, ``fitted``,
    ``assumed``, ``dtype`` and ``batch``.
    """
    if arguments.program is not None or arguments.trace is not None:
        raise SimulationError("--program and --trace are of plans, and this is a network")
    gpu = Gpu.load(arguments.gpu)
    dtype, batch = arguments.dtype or "fp16", 1 if arguments.batch is None else arguments.batch
    own = target_for(CUDA.name, batch, dtype)
    candidates: list[dict[str, Any]] = [
        {
            "tile": None if target == own else [target.tile_pixels, target.tile_columns],
            "latency_seconds": run.seconds,
            "tasks": len(run.end),
            "busy": float((run.end - run.start).sum()) / (gpu.workers * run.seconds),
        }
        for target, run in best_tiles(Network.load(arguments.path), gpu, dtype, batch)
    ]
    document = {
        "gpu": gpu.name,
        "fitted": not gpu.assumed,
        "assumed": gpu.assumed,
        "dtype": dtype,
        "batch": batch,
        "candidates": candidates,
    }
    lines = [f"{gpu.name}, {dtype}, batch {batch}", calibration(gpu.assumed), ""]
    lines.append(f"{'tile':>11} {'latency us':>12} {'tasks':>8} {'busy':>6}")
    for one in candidates:
        tile = "as compiled" if one["tile"] is None else "{:>4} x {:<4}".format(*one["tile"])
        lines.append(f"{tile} {one['latency_seconds'] * 1e6:12,.1f} {one['tasks']:8} {one['busy']:6.1%}")
    return document, "\n".join(lines)
