"""The command `inception train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inception_engine.terminal import printable_path
from inception_engine.train import keys
from inception_engine.train.config import Config, read

STOPPED = 128  # plus the signal's number, as shells have it


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="YAML with any of the keys below; options stand before it"
    )
    parser.add_argument("--print-config", action="store_true", help="print all keys as YAML and end")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in the output, if there is one"
    )
    parser.add_argument(
        "--contact-sheet", metavar="FILE", type=Path, help="draw what the network would see, as PNG, and end"
    )
    parser.add_argument(
        "--loader-only", action="store_true", help="measure how fast images are prepared, and end"
    )
    keys.add_options(parser.add_argument_group("keys"), Config)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status. Raises what ``loop.train`` raises, but for Stopped."""
    given: dict[str, Any] = {} if arguments.config is None else read(arguments.config)
    config = Config(**{**given, **keys.given_options(arguments, Config)})
    if arguments.print_config:
        print(config.yaml(), end="")
        return 0
    from inception_engine import packages

    packages.load("torch")
    if arguments.contact_sheet is not None or arguments.loader_only:
        from inception_engine.train import preview

        if arguments.contact_sheet is not None:
            preview.contact_sheet(config, arguments.contact_sheet)
        if arguments.loader_only:
            preview.loader_alone(config)
        return 0
    from inception_engine.train.distributed import joined
    from inception_engine.train.loop import train
    from inception_engine.train.stopping import Stopped

    with joined(config.device) as world:
        try:
            result = train(config, world, resume=arguments.resume)
        except Stopped as stopped:
            if world.first:
                print(f"{stopped}; --resume goes on", flush=True)
            return STOPPED + stopped.signal
    if world.first:
        network, scores = result.network, result.scores
        print(
            f"{printable_path(result.path)}: {network.parameters():,} parameters, "
            f"top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} % of {scores.images} images held out"
        )
    return 0
