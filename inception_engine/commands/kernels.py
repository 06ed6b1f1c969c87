"""The command `inception kernels`."""

from __future__ import annotations

import argparse
import os

from inception_engine.commands.errors import CommandError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        action="store_true",
        required=True,
        help="registers, spills and instructions of every kernel that is shipped (minutes the first time)",
    )


def run(_: argparse.Namespace) -> int:
    """Returns 0. Raises CommandError where Triton is missing or would not compile."""
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        raise CommandError("TRITON_INTERPRET is set: kernels are interpreted, not compiled")
    try:
        from inception_engine.kernels import machine_code
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise CommandError("Triton is not installed: pip install 'inception-engine[gpu]'") from None
    for line in machine_code.render(machine_code.table()):
        print(line, flush=True)
    return 0
