"""What auxiliary heads and Polyak averaging are worth on the digits: every training with several seeds, as a table.

    python -m benchmarks.digits --seeds 5 --output runs/digits-table

A training of each kind and seed by the package's own recipe, but for ``--epochs`` and ``auxiliary``. The last step's
weights and their average are of one training. What was interrupted goes on when asked again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from inception_engine import models
from inception_engine.train.config import Config, read
from inception_engine.train.distributed import World
from inception_engine.train.loop import train

Errors = dict[tuple[bool, bool], list[int]]  # (auxiliary heads, averaged) -> wrong answers by seed


def errors(seeds: Sequence[int], epochs: int | None, output: Path) -> tuple[Errors, int]:
    """Wrong answers on the held-out images, and how many these are."""
    recipe = read(models.RECIPE)
    found: Errors = {(heads, averaged): [] for heads in (True, False) for averaged in (True, False)}
    images = 0
    for seed in seeds:
        for heads in (True, False):
            folder = output / f"seed{seed}-{'heads' if heads else 'plain'}"
            keys = {**recipe, "seed": seed, "auxiliary": heads, "output": str(folder), "average": "polyak"}
            if epochs is not None:
                keys |= {"epochs": epochs, "average_from": 2 * epochs // 3}
            with contextlib.redirect_stdout(io.StringIO()):
                result = train(Config(**keys), World(device=torch.device("cpu")), resume=True)
            images = result.scores.images
            for averaged, scores in ((True, result.scores), (False, result.last)):
                found[heads, averaged].append(round(images * (1 - scores.top1 / 100)))
            wrong = found[heads, True][-1], found[heads, False][-1]
            print(
                f"seed {seed}, heads {heads}: {wrong[0]} wrong with averaging, {wrong[1]} without",
                file=sys.stderr,
            )
    return found, images


def table(found: Mapping[tuple[bool, bool], Sequence[int]], seeds: Sequence[int], images: int) -> str:
    """Top-1 in percent by seed, mean and standard deviation, as Markdown."""
    names = " | ".join(f"seed {seed}" for seed in seeds)
    lines = [
        f"| auxiliary heads | Polyak averaging | {names} | mean | deviation |",
        f"|:--|:--|{'--:|' * (len(seeds) + 2)}",
    ]
    for (heads, averaged), wrong in found.items():
        top1 = [100 * (1 - count / images) for count in wrong]
        spread = statistics.stdev(top1) if len(top1) > 1 else 0.0
        values = " | ".join(f"{value:.2f}" for value in [*top1, statistics.mean(top1), spread])
        lines.append(f"| {'yes' if heads else 'no'} | {'yes' if averaged else 'no'} | {values} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Auxiliary heads and averaging on the digits, over seeds.")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="0 to N - 1 (default: 5)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each training (default: the recipe's)")
    parser.add_argument("--output", type=Path, default=Path("runs/digits-table"), metavar="FOLDER")
    options = parser.parse_args()
    for name in ("seeds", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            print(f"benchmarks.digits: error: --{name} {value}: give 1 or more", file=sys.stderr)
            return 2
    seeds = range(options.seeds)
    found, images = errors(seeds, options.epochs, options.output)
    print(table(found, seeds, images))
    return 0


if __name__ == "__main__":
    sys.exit(main())
