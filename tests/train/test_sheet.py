"""The contact sheet shows the loader's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_engine.datasets import ImageFolder
from inception_engine.errors import ArgumentError, ImageDamaged, ImageTooLarge
from inception_engine.network import Preprocess
from inception_engine.preprocess import pixels
from inception_engine.train import sheet
from inception_engine.train.augment import Augmentation, augment, generator
from inception_engine.train.samples import order

SEED = 4


@pytest.fixture
def dataset(tmp_path: Path) -> ImageFolder:
    rng = np.random.default_rng(0)
    for index in range(6):
        path = tmp_path / "data" / "ab"[index % 2] / f"{index}\N{SNOWMAN}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return ImageFolder(tmp_path / "data")


@pytest.mark.parametrize("order_of_channels", ["RGB", "BGR"])
@pytest.mark.parametrize("shape", [(3, 100, 120), (3, 20, 24), (1, 100, 120)])
def test_its_cells_are_what_the_network_sees(
    dataset: ImageFolder, tmp_path: Path, shape: tuple[int, int, int], order_of_channels: str
) -> None:
    preprocess = Preprocess(mean=(1.0,), std=(1.0,), resize=128, order=order_of_channels)
    augmentation = Augmentation(input_shape=shape, preprocess=preprocess)
    sheet.write(tmp_path / "sheet.png", dataset, augmentation, SEED, rows=3, epochs=2)
    with Image.open(tmp_path / "sheet.png") as image:
        picture = np.asarray(image)
        assert image.format == "PNG"
    _, height, width = shape
    scale = 1 if width == 120 else 4  # up to 96 pixels
    high, wide = height * scale, width * scale
    assert picture.shape == (3 * (high + 18) + 18, 3 * (wide + 4) + 4, 3)
    for row, index in enumerate(order(SEED, 0, len(dataset))[:3].tolist()):
        views = [pixels(dataset.name(index), preprocess, shape)]
        views += [augment(dataset.image(index), augmentation, generator(SEED, e, index)) for e in (0, 1)]
        for column, view in enumerate(views):
            top, left = 28 + row * (high + 18), 4 + column * (wide + 4)
            cell = picture[top : top + high : scale, left : left + wide : scale]
            np.testing.assert_array_equal(
                cell, np.broadcast_to(view[..., ::-1] if order_of_channels == "BGR" else view, cell.shape)
            )
            assert (
                picture[top - 14 : top, left : left + wide] < 128
            ).any() or column  # a row's head is written


def test_an_image_too_thin_for_validation_is_passed_over_when_asked(dataset: ImageFolder) -> None:
    augmentation = Augmentation(input_shape=(3, 8, 8))
    thin = dataset.name(int(order(0, 0, len(dataset))[0]))
    Image.new("L", (20_000, 1)).save(thin)
    with pytest.raises(ImageTooLarge, match="after resizing"):
        sheet.draw(dataset, augmentation)
    skipped: list[str] = []
    assert sheet.draw(dataset, augmentation, rows=100, epochs=0, skipped=skipped).height == 5 * (96 + 18) + 18
    assert skipped == [f"{thin}: after resizing 5120000 x 256 pixels, more than 100,000,000"]


def test_what_cannot_be_drawn(dataset: ImageFolder, tmp_path: Path) -> None:
    augmentation = Augmentation(input_shape=(3, 8, 8))
    with pytest.raises(ArgumentError):
        sheet.draw(dataset, augmentation, rows=0)
    assert sheet.draw(dataset, augmentation, rows=100, epochs=0).height == 6 * (96 + 18) + 18
    with pytest.raises(OSError, match="missing"):
        sheet.write(tmp_path / "missing/sheet.png", dataset, augmentation)
    first = dataset.name(int(order(0, 0, len(dataset))[0]))
    whole = Path(first).read_bytes()
    Path(first).write_bytes(whole[:300])
    with pytest.raises(ImageDamaged, match="damaged"):
        sheet.draw(dataset, augmentation)
    skipped: list[str] = []
    assert sheet.draw(dataset, augmentation, rows=100, epochs=0, skipped=skipped).height == 5 * (96 + 18) + 18
    assert len(skipped) == 1 and skipped[0].startswith(f"{first}: damaged")
    Path(first).write_bytes(whole)
    for path in (tmp_path / "data").glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageDamaged, match="damaged"):
        sheet.write(tmp_path / "sheet.png", dataset, augmentation)
    with pytest.raises(ImageDamaged, match="damaged"):
        sheet.write(tmp_path / "sheet.png", dataset, augmentation, skipped=[])
    assert not (tmp_path / "sheet.png").exists()
