"""A contact sheet: what the network sees in training, as a picture to look at before hours are spent."""

from __future__ import annotations

import dataclasses
import io
import os

from PIL import Image, ImageDraw, ImageFont

from inception_engine.datasets import Dataset
from inception_engine.errors import ArgumentError, ImageError
from inception_engine.files import write_atomically
from inception_engine.train.augment import Augmentation, augment, generator
from inception_engine.train.samples import order

ROWS, EPOCHS = 8, 8
_LEAST = (
    96  # pixels of a cell's longer side: smaller inputs are enlarged by a whole number, so that pixels show
)
_GAP = 4
_LINE = 14  # pixels of height of a line of text
_BACKGROUND, _TEXT = (255, 255, 255), (0, 0, 0)


def write(
    path: str | os.PathLike[str],
    dataset: Dataset,
    augmentation: Augmentation,
    seed: int = 0,
    rows: int = ROWS,
    epochs: int = EPOCHS,
    skipped: list[str] | None = None,
) -> None:
    """Draw a sheet (see ``draw``) and write it as PNG, whatever the file's name ends with. Raises OSError, too."""
    content = io.BytesIO()
    draw(dataset, augmentation, seed, rows, epochs, skipped).save(content, "PNG")
    write_atomically(path, [content.getvalue()])


def draw(
    dataset: Dataset,
    augmentation: Augmentation,
    seed: int = 0,
    rows: int = ROWS,
    epochs: int = EPOCHS,
    skipped: list[str] | None = None,
) -> Image.Image:
    """One row for each of the first images of epoch 0: as validation sees it, then as each epoch shows it.

    The pixels are the loader's, in RGB or grey. A row's head names the class and the file. ``skipped``: what is wrong
    with images that are passed over, to be added to; None: one that cannot be read ends it. Raises ImageError, also
    where none can be read, and ArgumentError for a sheet without a cell.
    """
    if rows < 1 or epochs < 0:
        raise ArgumentError(f"a sheet of {rows} images in {epochs} epochs")
    preprocess = dataclasses.replace(augmentation.preprocess, order="RGB")
    augmentation = dataclasses.replace(augmentation, preprocess=preprocess)
    chosen = _readable(dataset, order(seed, 0, len(dataset)).tolist(), rows, augmentation.side, skipped)
    _, height, width = augmentation.input_shape
    scale = max(1, -(-_LEAST // max(height, width)))
    cell = (width * scale, height * scale)
    step = cell[0] + _GAP, cell[1] + _LINE + _GAP
    sheet = Image.new(
        "RGB", (step[0] * (1 + epochs) + _GAP, step[1] * len(chosen) + _LINE + _GAP), _BACKGROUND
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, text in enumerate(["validation", *(f"epoch {epoch}" for epoch in range(epochs))]):
        pen.text((_GAP + column * step[0], 0), text, _TEXT, font)
    for row, (index, image) in enumerate(chosen):
        top = _LINE + row * step[1]
        text = " ".join(f"{dataset.classes[dataset.label(index)]}: {dataset.name(index)}".split())
        pen.text((_GAP, top), text.encode("ascii", "replace").decode(), _TEXT, font)  # what every font has
        views = [augmentation.off(), *[augmentation] * epochs]
        for column, view in enumerate(views):
            random = generator(seed, max(column - 1, 0), index)
            pixels = augment(image, view, random, dataset.name(index))
            picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
            picture = picture.convert("RGB").resize(cell, Image.Resampling.NEAREST)
            sheet.paste(picture, (_GAP + column * step[0], top + _LINE))
    return sheet


def _readable(
    dataset: Dataset, indices: list[int], count: int, side: int, skipped: list[str] | None
) -> list[tuple[int, Image.Image]]:
    """The first ``count`` images that can be read, or all such, with their indices. ``side``: of ``Dataset.image``,
    the rest: of ``draw``."""
    found: list[tuple[int, Image.Image]] = []
    last: ImageError | None = None
    for index in indices:
        if len(found) == count:
            break
        try:
            found.append((index, dataset.image(index, side)))
        except ImageError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            last = error
    if last is not None and not found:
        raise last
    return found
