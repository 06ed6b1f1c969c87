"""The command `inception summary`."""

from __future__ import annotations

import argparse

from inception_engine.commands import variant


def add_options(parser: argparse.ArgumentParser) -> None:
    variant.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises as ``variant.spec``."""
    from inception_engine.summary import render

    print(render(variant.spec(arguments)))
    return 0
