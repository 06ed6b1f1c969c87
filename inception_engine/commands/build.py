"""The command `inception build`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inception_engine.commands import values, variant
from inception_engine.commands.errors import CommandError
from inception_engine.importers import command as importing
from inception_engine.terminal import printable_line, printable_path

if TYPE_CHECKING:
    from inception_engine.compiler.plan import Plan


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", required=True, type=Path, help="the plan to write")
    parser.add_argument(
        "--network",
        metavar="FILE",
        help="a file of weights: whatever `inception import` takes (default: random weights)",
    )
    variant.add_options(parser)
    importing.add_options_of_a_file(parser)
    parser.add_argument("--seed", type=values.natural, metavar="N", help="of the random weights (default: 0)")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--batches", type=values.numbers, metavar="N,N", help="one program for each of these maximum batches"
    )
    sizes.add_argument(
        "--max-batch", type=int, default=1, metavar="N", help="one program for batches up to N (default: 1)"
    )
    parser.add_argument(
        "--target", type=_names, default=["cpu"], help="machines to compile for (default: cpu)"
    )
    parser.add_argument("--dtype", default="fp32", help="of the arithmetic (default: fp32)")


def _names(text: str) -> list[str]:
    return text.split(",")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0; 1 where a file's network fails its parity check, and nothing is written. Raises CommandError, OSError,
    and what making or importing the network and compiling it raise."""
    from inception_engine import compile, googlenet
    from inception_engine.files import check_target

    path: Path = arguments.output
    check_target(path, arguments.network)
    if arguments.network is None:
        importing.refuse_options(arguments)
        network = googlenet(arguments.seed or 0, variant.spec(arguments))
    else:
        loaded = importing.load(arguments.network, arguments, variant.spec_of_a_file(arguments))
        if loaded is None:
            return importing.failed(path)
        network = loaded
    plan = compile(
        network,
        targets=arguments.target,
        batches=arguments.batches,
        max_batch=arguments.max_batch,
        dtype=arguments.dtype,
    )
    try:
        plan.save(path)
    except OSError as error:  # it names the temporary file
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
    size = path.stat().st_size / 1e6
    print(f"{printable_path(path)}: {printable_line(network.name)}, {_programs(plan)}, {size:.1f} MB")
    if plan.metadata["random_weights"]:
        seed = printable_line(str(network.metadata.get("seed", "unknown")))
        print(
            f"Its weights are random (seed {seed}): it computes as fast as a trained network, and knows nothing."
        )
    return 0


def _programs(plan: Plan) -> str:
    batches = ", ".join(str(int(program.header["max_batch"])) for program in plan.programs)
    return f"{len(plan.programs)} program{'s' if len(plan.programs) > 1 else ''} (maximum batch {batches})"
