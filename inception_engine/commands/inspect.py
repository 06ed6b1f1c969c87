"""The command `inception inspect`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_engine.commands import values
from inception_engine.commands.errors import CommandError
from inception_engine.terminal import printable_lines

if TYPE_CHECKING:
    from inception_engine.compiler.plan import Plan

SECONDS = 2.0  # of measured runs, for each program
MOST_THREADS = 1024  # of a context


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", metavar="FILE", type=Path)
    parser.add_argument("--layers", action="store_true", help="each layer instead of each module")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="run its programs for the CPU here, on random images: the time of each layer, and its share of this "
        "machine's measured peak",
    )
    parser.add_argument(
        "--threads", type=values.natural, default=0, metavar="N", help="to measure with (default: all cores)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises CommandError, PlanError, OSError and, to measure, what Engine raises."""
    from inception_engine.compiler.inspect import render, report
    from inception_engine.compiler.plan import Plan
    from inception_engine.errors import PlanError

    path: Path = arguments.plan
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: not a file")
    if arguments.threads and not arguments.measure:
        raise CommandError("--threads is for --measure")
    if arguments.threads > MOST_THREADS:
        raise CommandError(f"--threads is {arguments.threads}, more than {MOST_THREADS}")
    plan = Plan.load(path)
    try:
        document = report(plan)
    except PlanError as error:  # of what the loader does not read
        raise type(error)(f"{path}: {error}") from None
    threads = arguments.threads or len(os.sched_getaffinity(0))
    runs = _measured(plan, threads) if arguments.measure else {}
    if arguments.json:
        for number, found in runs.items():
            document["programs"][number]["measured"] = {"threads": threads, **found}
        print(json.dumps(document, indent=2))
        return 0
    print(render(printable_lines(document), arguments.layers))
    for number, found in runs.items():
        from inception_engine.bench.profiling import in_words, render_run

        batch = document["programs"][number]["max_batch"]
        print(f"\n{render_run(f'program {number + 1}, batch {batch}, {in_words(threads)}', found)}", end="")
    return 0


def _measured(plan: Plan, threads: int) -> dict[int, dict[str, Any]]:
    """By the numbers of the programs for the CPU."""
    import tempfile

    import numpy as np

    from inception_engine.bench.profiling import measured
    from inception_engine.compiler.plan import TargetKind

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, program in enumerate(plan.programs):
            header = program.header
            if header["target"] != TargetKind.CPU:
                continue
            shape = [int(header[f"input_{side}"]) for side in ("channels", "height", "width")]
            images = np.random.default_rng(0).standard_normal((int(header["max_batch"]), *shape), np.float32)
            found[number], _ = measured(plan, program, images, threads, Path(folder), SECONDS)
    if not found:
        raise CommandError("--measure: the plan holds no program for the CPU")
    return found
