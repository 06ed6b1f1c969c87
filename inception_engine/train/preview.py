"""What a training would see and how fast, without training: `inception train --contact-sheet` and `--loader-only`."""

from __future__ import annotations

from pathlib import Path

from inception_engine import datasets
from inception_engine.files import check_target
from inception_engine.terminal import printable_line
from inception_engine.train import sheet, start
from inception_engine.train.config import Config
from inception_engine.train.loader import Loader, Throughput, measure
from inception_engine.train.logs import ROWS

LEAST_IMAGES, BATCHES = 1024, 8  # over which the loader is measured: so many images, and so many batches


def contact_sheet(config: Config, path: Path) -> None:
    """Draw the first images of the training's first epoch (see ``sheet.draw``) and say so.

    Raises DatasetError, ImageError, OSError, and what ``start.begin`` raises.
    """
    check_target(path)
    skipped: list[str] | None = [] if config.skip_unreadable else None
    with _loader(config) as loader:
        sheet.write(path, loader.dataset, loader.augmentation, config.seed, skipped=skipped)
    for line in skipped or ():
        print(f"left out: {printable_line(line)}")
    shown = min(sheet.ROWS, len(loader.dataset) - len(skipped or ()))
    print(
        f"{path}: {shown} images, as validation sees them and as {sheet.EPOCHS} epochs show them to the network"
    )


def loader_alone(config: Config) -> Throughput:
    """Measure the loader with nobody to train behind it, and say so. Raises as ``contact_sheet``, and LoaderError."""
    with _loader(config) as loader:
        found = measure(loader, max(LEAST_IMAGES, BATCHES * config.batch))
    _, height, width = loader.augmentation.input_shape
    processes = (
        f"{config.workers} process{'es' if config.workers > 1 else ''}" if config.workers else "no process"
    )
    print(
        f"loader alone: {found.per_second:,.0f} images/s of {width} x {height} pixels with {processes} of its own, "
        f"over {found.images:,} images in batches of {config.batch}"
    )
    print(
        f"of a training, {Path(config.output) / ROWS} has images_per_second, and as waiting the share of the time in "
        "which the network waited for images"
    )
    return found


def _loader(config: Config) -> Loader:
    dataset = datasets.parts(config.data)["train"]
    beginning = start.begin(config, dataset.classes)
    augmentation = config.augmentation(beginning.model.spec.layers[0].input, beginning.preprocess)
    return Loader(
        dataset,
        augmentation,
        batch=config.batch,
        seed=config.seed,
        workers=config.workers,
        skip_unreadable=config.skip_unreadable,
    )
