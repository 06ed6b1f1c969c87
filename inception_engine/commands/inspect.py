"""The command `inception inspect`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inception_engine.commands.errors import CommandError
from inception_engine.terminal import printable_lines


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", metavar="FILE", type=Path)
    parser.add_argument("--layers", action="store_true", help="each layer instead of each module")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises CommandError, PlanError and OSError."""
    from inception_engine.compiler.inspect import render, report
    from inception_engine.compiler.plan import Plan
    from inception_engine.errors import PlanError

    path: Path = arguments.plan
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: not a file")
    plan = Plan.load(path)
    try:
        document = report(plan)
    except PlanError as error:  # of what the loader does not read
        raise type(error)(f"{path}: {error}") from None
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        print(render(printable_lines(document), arguments.layers))
    return 0
