"""The command `inception simulate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inception_engine.commands.errors import CommandError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PLAN|NETWORK", type=Path)
    parser.add_argument("--gpu", default="h200", help="whose constants to take (default: h200)")
    program = parser.add_mutually_exclusive_group()
    program.add_argument(
        "--program",
        type=int,
        metavar="N",
        help="of the plan, as inspect counts them (default: the first for a GPU)",
    )
    program.add_argument(
        "--batch", type=int, metavar="N", help="images of a run (default: the program's maximum)"
    )
    parser.add_argument("--dtype", help="of a network: fp16 (default), bf16 or fp32")
    parser.add_argument(
        "--trace", metavar="FILE", type=Path, help="write the run for Perfetto or chrome://tracing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises CommandError, and as ``simulate_plan`` and ``simulate_network``."""
    from inception_engine.simulate.prediction import simulate_network, simulate_plan

    path: Path = arguments.path
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: not a file")
    simulated = simulate_network if path.suffix == ".safetensors" else simulate_plan
    document, text = simulated(arguments)
    print(json.dumps(document, indent=2) if arguments.json else text)
    return 0
