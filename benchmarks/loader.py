"""How much faster the loader prepares images than the trainer learns from them, as ratios.

    python -m benchmarks.loader --rounds 5

In each round the loader is measured alone, and then an epoch is trained with the same configuration; the ratio is of
that round's two figures, so that what else the machine does falls on both. Above 1 the network never waits for long.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from inception_engine import datasets, models
from inception_engine.train import start
from inception_engine.train.config import Config, read
from inception_engine.train.distributed import World
from inception_engine.train.loader import Loader, measure
from inception_engine.train.logs import ROWS
from inception_engine.train.logs import read as read_rows
from inception_engine.train.loop import train

WORKERS = (0, 2)
PHOTO = 500, 375  # pixels, as ImageNet's mostly are


@dataclass(kw_only=True)
class Case:
    """``ratios``: images a second of the loader alone over the trainer's, a round each; ``waiting``: shares of the
    trainer's time."""

    name: str
    config: Config
    ratios: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    def row(self) -> str:
        spread = f"{statistics.median(self.ratios):.1f} [{min(self.ratios):.1f}..{max(self.ratios):.1f}]"
        workers = self.config.workers or "none: the trainer's own"
        return f"| {self.name} | {workers} | {spread} | {100 * statistics.median(self.waiting):.0f} % |"


def photos(folder: Path, count: int) -> Path:
    """Two classes of JPEG files that compress as photographs do: coarse random colours, enlarged, and some noise."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(PHOTO, Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = folder / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)
    return folder


def cases(folder: Path, photographs: int) -> list[Case]:
    recipe = read(models.RECIPE)
    keys: dict[str, Any] = {
        "epochs": 1,
        "average": "none",
        "average_from": None,
        "log_every": 1,
        "tensorboard": False,
    }
    found = []
    for workers in WORKERS:
        one = Config(**{**recipe, **keys, "workers": workers})
        found.append(Case(name="digits, the package's recipe", config=one))
    data = str(photos(folder / "photos", photographs))
    for workers in WORKERS:
        one = Config(**{**keys, "data": data, "batch": 16, "threads": 1, "workers": workers})
        found.append(Case(name=f"JPEG of {PHOTO[0]} x {PHOTO[1]}, the paper's network", config=one))
    return found


def loader_alone(config: Config, images: int) -> float:
    """Images a second."""
    dataset = datasets.parts(config.data)["train"]
    beginning = start.begin(config, dataset.classes)
    augmentation = config.augmentation(beginning.model.spec.layers[0].input, beginning.preprocess)
    with Loader(
        dataset, augmentation, batch=config.batch, seed=config.seed, workers=config.workers
    ) as loader:
        return measure(loader, images).per_second


def trainer(config: Config) -> tuple[float, float]:
    """Images a second of an epoch behind its first step, and the share of that time in which the network waited."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        train(dataclasses.replace(config, output=folder), World(device=torch.device("cpu")))
        rows = [row for row in read_rows(Path(folder) / ROWS) if row.part == "train"][1:]
    seconds = [1 / (row.images_per_second or 1) for row in rows]  # each row is of one batch
    waited = sum(one * (row.waiting or 0) for one, row in zip(seconds, rows, strict=True))
    return len(rows) / sum(seconds), waited / sum(seconds)


def table(measured: Sequence[Case]) -> str:
    return "\n".join(
        [
            "| images | processes of the loader | loader alone over trainer | waiting |",
            "|:--|:--|--:|--:|",
            *(case.row() for case in measured),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.loader", description="The loader beside the trainer.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--photos", type=int, default=80, metavar="N", help="at least 40 (default: 80)")
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.photos < 40:
        print("benchmarks.loader: error: give --rounds 1 or more, --photos 40 or more", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        measured = cases(Path(folder), options.photos)
        for number in range(options.rounds):
            for case in measured:
                alone = loader_alone(case.config, 8 * case.config.batch)
                speed, waiting = trainer(case.config)
                case.ratios.append(alone / speed)
                case.waiting.append(waiting)
                print(f"round {number + 1}: {case.row()}", file=sys.stderr, flush=True)
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
