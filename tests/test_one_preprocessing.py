"""Every door shows the network the same pixels of the same file, and the plan's mean and scale are ``normalise``'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_engine import load
from inception_engine.compare import folder_images
from inception_engine.compiler import compile
from inception_engine.datasets import ImageFolder
from inception_engine.engine import Engine
from inception_engine.errors import LibraryError
from inception_engine.network import INPUT, AveragePool, Linear, Network, Preprocess, Shape
from inception_engine.preprocess import as_channels, centre, decode, normalise, pixels, to_array
from inception_engine.train.augment import Augmentation
from inception_engine.train.loader import Loader
from tests.tolerances import TOLERANCES, error

EXIF_ORIENTATION = 0x0112

NETWORKS = {
    "rgb": ((3, 20, 24), Preprocess(mean=(100.0, 110.0, 120.0), std=(50.0, 55.0, 60.0), resize=27)),
    "bgr": (
        (3, 24, 20),
        Preprocess(mean=(100.0, 110.0, 120.0), std=(50.0, 55.0, 60.0), order="BGR", resize=1),
    ),
    "grey": ((1, 20, 20), Preprocess(mean=(127.5,), std=(63.0,), resize=21)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, one class each so that no door can mix them up."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (45, 67, 3), dtype=np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (45, 67), dtype=np.uint8))
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 8
    palette = rgb.quantize(100)
    palette.info["transparency"] = 3
    wide = Image.fromarray(rng.integers(0, 65536, (25, 90), dtype=np.uint16))
    small = Image.fromarray(rng.integers(0, 256, (5, 3, 3), dtype=np.uint8))

    def save(name: str, image: Image.Image, **options: Any) -> None:
        (folder / name).mkdir()
        image.save(folder / name / ("a.jpg" if "jpeg" in name else "a.png"), **options)

    save("jpeg", rgb, quality=70)
    save("jpeg-cmyk", Image.merge("CMYK", [*rgb.split(), alpha]))
    save("jpeg-grey", alpha)
    save("jpeg-turned", rgb, exif=turned, subsampling=2)
    save("png", rgb)
    save("png-16", wide)
    save("png-bits", alpha.convert("1"))
    save("png-grey-alpha", Image.merge("LA", [alpha, alpha]))
    save("png-palette", palette)
    save("png-rgba", Image.merge("RGBA", [*rgb.rotate(180).split(), alpha]))
    save("png-small", small)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def network(shape: Shape, preprocess: Preprocess) -> Network:
    """Its logits are each channel's mean, of the whole image and of its corner, so that order and place show."""
    channels, height, width = shape
    weight = np.zeros((2 * channels, channels, height // 2, width // 2), np.float32)
    for channel in range(channels):
        weight[channel, channel] = 1 / weight[0, 0].size
        weight[channels + channel, channel, 0, 0] = 1
    return Network(
        name="means",
        input_shape=shape,
        layers=(
            AveragePool(name="pool", inputs=(INPUT,), kernel=(2, 2), stride=(2, 2)),
            Linear(
                name="fc",
                inputs=("pool",),
                weight=weight.reshape(len(weight), -1),
                bias=np.zeros(len(weight), np.float32),
            ),
        ),
        logits="fc",
        preprocess=preprocess,
    )


@pytest.fixture(params=NETWORKS)
def opened(request: pytest.FixtureRequest) -> Iterator[Engine]:
    try:
        with Engine(compile(network(*NETWORKS[request.param]), max_batch=16), threads=1) as engine:
            yield engine
    except LibraryError:
        pytest.skip("backend engine: the runtime is not built")


def obvious(
    path: Path,
    shape: Shape,
    preprocess: Preprocess,
    filtering: Image.Resampling = Image.Resampling.BILINEAR,
    rounded: Callable[[float], int] = round,
) -> np.ndarray:
    """The definition in a few lines, for files that need no turning and have 8 bits."""
    channels, height, width = shape
    with Image.open(path) as file:
        image = file.convert("L" if channels == 1 else "RGB")
    side = max(preprocess.resize, height, width)
    shorter = min(image.size)
    image = image.resize((side * image.width // shorter, side * image.height // shorter), filtering)
    left, top = rounded((image.width - width) / 2), rounded((image.height - height) / 2)
    array = np.asarray(image.crop((left, top, left + width, top + height))).reshape(height, width, channels)
    return array[..., ::-1] if preprocess.order == "BGR" else array


@pytest.mark.parametrize(("shape", "preprocess"), NETWORKS.values(), ids=NETWORKS)
def test_pixels_of_every_kind_of_file(folder: Path, shape: Shape, preprocess: Preprocess) -> None:
    """And that another filter or rounding would be seen."""
    plain = [path for path in files(folder) if path.parent.name not in ("jpeg-turned", "png-16")]

    def all_of(**choice: Any) -> np.ndarray:
        return np.stack([obvious(path, shape, preprocess, **choice) for path in plain])

    found = np.stack([pixels(path, preprocess, shape) for path in plain])
    np.testing.assert_array_equal(found, all_of())
    assert not np.array_equal(found, all_of(filtering=Image.Resampling.BICUBIC))
    assert not np.array_equal(found, all_of(rounded=int))


def by_engine(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What ``Engine.classify`` hands to the C library."""
    seen: list[np.ndarray] = []
    run = engine.run

    def recorded(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return run(images)

    monkeypatch.setattr(engine, "run", recorded)
    results = engine.classify([folder])
    assert [result.path for result in results] == list(map(str, files(folder)))
    return np.concatenate(seen)


def by_steps(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    shape, preprocess = engine.input_shape, engine.preprocess
    return np.stack(
        [to_array(centre(decode(path), preprocess, shape), preprocess.order) for path in files(folder)]
    )


def by_picture(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Of images that are decoded already, as colour pictures or in the network's mode."""
    channels = engine.input_shape[0]
    decoded = [decode(path) for path in files(folder)]
    found = [pixels(image, engine.preprocess, engine.input_shape) for image in decoded]
    again = [pixels(as_channels(one, channels), engine.preprocess, engine.input_shape) for one in decoded]
    np.testing.assert_array_equal(np.stack(found), np.stack(again))
    return np.stack(found)


def by_validation(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Validation in training, by processes of the loader."""
    pytest.importorskip("torch")
    augmentation = Augmentation(input_shape=engine.input_shape, preprocess=engine.preprocess)
    with Loader(ImageFolder(folder), augmentation, batch=4, workers=1) as loader:
        return np.concatenate([batch.images.numpy() for batch in loader.in_order()])


def by_evaluation(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """`inception evaluate` of one crop."""
    crops = pytest.importorskip("inception_engine.evaluate.crops")
    dataset = ImageFolder(folder)
    images = [dataset.image(index) for index in range(len(dataset))]
    return np.concatenate([crops.views(image, 1, engine.preprocess, engine.input_shape) for image in images])


@pytest.mark.parametrize("door", [by_engine, by_steps, by_picture, by_validation, by_evaluation])
def test_every_door_shows_the_same_pixels(
    folder: Path,
    opened: Engine,
    door: Callable[[Path, Engine, pytest.MonkeyPatch], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = np.stack([pixels(path, opened.preprocess, opened.input_shape) for path in files(folder)])
    found = door(folder, opened, monkeypatch)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert len({image.tobytes() for image in expected}) == len(expected)


def test_normalised_doors(folder: Path, opened: Engine) -> None:
    """`inception compare` and a training step: the same float32, bit for bit, from NumPy and from torch."""
    torch = pytest.importorskip("torch")
    shape, preprocess = opened.input_shape, opened.preprocess
    uint8 = np.stack([pixels(path, preprocess, shape) for path in files(folder)])
    expected = normalise(uint8, preprocess)
    compared = np.stack(list(folder_images(folder, shape, preprocess, None)))
    np.testing.assert_array_equal(compared, expected)
    step = normalise(torch.from_numpy(uint8), preprocess)
    assert step.dtype == torch.float32 and step.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(step.numpy(), expected)


@pytest.mark.parametrize("backend", ["engine", "torch", "onnxruntime", "reference"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_plans_mean_and_scale_are_the_definitions(folder: Path, name: str, backend: str) -> None:
    """uint8 through each backend against float32 normalised in float64 by hand, and controls that must fail."""
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    shape, preprocess = NETWORKS[name]
    uint8 = np.stack([pixels(path, preprocess, shape) for path in files(folder)])
    by_hand = ((uint8.astype(np.float64) - preprocess.mean) / preprocess.std).astype(np.float32)
    by_hand = np.ascontiguousarray(by_hand.transpose(0, 3, 1, 2))
    model = network(shape, preprocess)
    options: dict[str, Any] = {"max_batch": 16} if backend == "engine" else {}
    with load(model, backend, **options) as opened:
        expected = opened.run(by_hand)
        found = opened.run(uint8)
        wrong = {
            "inverted": 255 - uint8,
            "a level too much": np.minimum(uint8, 254) + 1,
            "mirrored": uint8[:, :, ::-1],
        }
        if shape[0] == 3:
            wrong["swapped"] = uint8[..., ::-1]
        wrong = {
            kind: error(opened.run(np.ascontiguousarray(images)), expected) for kind, images in wrong.items()
        }
    means = by_hand.mean(axis=(2, 3), dtype=np.float64)
    assert error(expected[:, : shape[0]].astype(np.float64), means) <= TOLERANCES["fp32"].logits
    assert error(found, expected) <= TOLERANCES["fp32"].layer
    assert {kind for kind, distance in wrong.items() if distance > 100 * TOLERANCES["fp32"].layer} == set(
        wrong
    )
