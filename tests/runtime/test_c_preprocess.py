"""ie_preprocess makes, bit for bit, what preprocess.py makes of a picture; and what C is told of preprocessing."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_engine import Engine, Network, Preprocess, binding, compile
from inception_engine.compiler.plan import Plan
from inception_engine.network import Linear, Shape
from inception_engine.preprocess import pixels

EXIF_ORIENTATION = 0x0112


def plan_for(shape: Shape, preprocess: Preprocess, labels: tuple[str, ...] = ()) -> Plan:
    """A network of one layer that takes images of ``shape``."""
    weight = np.ones((2, int(np.prod(shape))), np.float32)
    layer = Linear(name="fc", inputs=("input",), weight=weight, bias=np.zeros(2, np.float32))
    network = Network(
        name="tiny", input_shape=shape, layers=(layer,), logits="fc", labels=labels, preprocess=preprocess
    )
    return compile(network)


def from_c(engine: Engine, picture: np.ndarray, orientation: int = 0, stride: int = 0) -> np.ndarray:
    """What ie_preprocess makes of uint8 (height, width, channels) or (height, stride) bytes of such."""
    height, width, channels = picture.shape
    data = picture
    if stride:
        data = np.full((height, stride), 0xAB, np.uint8)
        data[:, : width * channels] = picture.reshape(height, -1)
    given = binding.Picture(
        width=width,
        height=height,
        channels=channels,
        orientation=orientation,
        data=np.ascontiguousarray(data).ctypes.data if not stride else data.ctypes.data,
        stride=stride,
    )
    c, h, w = engine.input_shape
    made = np.full((h * w * c + 16), 0xCD, np.uint8)
    message = binding.message_buffer()
    status = binding.library().ie_preprocess(engine._engine, given, made.ctypes.data, message)
    assert status == 0, message.value
    assert (made[-16:] == 0xCD).all()  # nothing is written behind the image
    return made[:-16].reshape(h, w, c)


def noise(seed: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


# Input, resize: larger and smaller than the input, odd differences of either half, no square.
TARGETS = [((3, 24, 24), 32), ((3, 23, 31), 8), ((1, 17, 16), 20), ((3, 64, 64), 77)]


@pytest.mark.parametrize(("shape", "resize"), TARGETS)
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_same_pixels_as_python(shape: Shape, resize: int, order: str) -> None:
    random = np.random.default_rng(resize)
    sizes = [(int(random.integers(1, 200)), int(random.integers(1, 200))) for _ in range(12)]
    sizes += [(32, 32), (32, 45), (33, 32), (77, 78), (31, 31), (8, 9), (1, 1), (1, 50), (400, 3), (600, 901)]
    preprocess = Preprocess(resize=resize, order=order, mean=(1.0,), std=(2.0,))
    with Engine(plan_for(shape, preprocess)) as engine:
        for seed, (height, width) in enumerate(sizes):
            for channels in (1, 3):
                picture = noise(seed, height, width, channels)
                expected = pixels(picture, preprocess, shape)
                np.testing.assert_array_equal(from_c(engine, picture), expected, f"{height} x {width}")


def test_flat_pictures_stay_flat() -> None:
    """Weights of 22 places add up to one to within half a grey level, at either end of the range."""
    preprocess = Preprocess(resize=24)
    with Engine(plan_for((3, 24, 24), preprocess)) as engine:
        for value in (0, 1, 127, 254, 255):
            assert (from_c(engine, np.full((111, 97, 3), value, np.uint8)) == value).all()


@pytest.mark.parametrize("orientation", range(9))
def test_pictures_are_turned_as_exif_says(orientation: int) -> None:
    shape, preprocess = (3, 20, 20), Preprocess(resize=22)
    picture = noise(orientation, 40, 57, 3)
    image = Image.fromarray(picture)
    if orientation:
        image.getexif()[EXIF_ORIENTATION] = orientation
    with Engine(plan_for(shape, preprocess)) as engine:
        expected = pixels(image, preprocess, shape)
        np.testing.assert_array_equal(from_c(engine, picture, orientation), expected)
        other = from_c(engine, picture, orientation % 8 + 1)
        assert orientation == 0 or (other != expected).any()


def test_alpha_is_dropped_and_rows_may_lie_apart() -> None:
    shape, preprocess = (3, 20, 20), Preprocess(resize=22)
    with Engine(plan_for(shape, preprocess)) as engine:
        coloured, grey = noise(0, 30, 41, 4), noise(1, 30, 41, 2)
        for picture in (coloured, grey):
            expected = from_c(engine, np.ascontiguousarray(picture[..., : picture.shape[2] - 1]))
            np.testing.assert_array_equal(from_c(engine, picture), expected)
            np.testing.assert_array_equal(from_c(engine, picture, stride=41 * 4 + 7), expected)


def refusal(engine: Engine, **fields: int) -> str:
    data = noise(0, 4, 4, 4)
    given = {"width": 4, "height": 4, "channels": 3, "data": data.ctypes.data} | fields
    made = np.zeros(engine.input_shape, np.uint8)
    message = binding.message_buffer()
    status = binding.library().ie_preprocess(
        engine._engine, binding.Picture(**given), made.ctypes.data, message
    )
    assert status == 1
    return binding.text(message.value)


def test_what_is_no_picture_is_refused() -> None:
    with Engine(plan_for((3, 8, 8), Preprocess(resize=8))) as engine:
        assert "without pixels" in refusal(engine, width=0)
        assert "without pixels" in refusal(engine, height=0)
        assert "without pixels" in refusal(engine, data=0)
        assert "1 to 4 channels" in refusal(engine, channels=5)
        assert "1 to 4 channels" in refusal(engine, channels=0)
        assert "orientation" in refusal(engine, orientation=9)
        assert "stride" in refusal(engine, stride=11)
        for stride in (2**61, 2**63, 2**64 - 1):
            assert "stride of a picture is out of range" in refusal(engine, stride=stride)
        assert "100,000,000" in refusal(engine, width=10_000, height=10_001)
        assert "100,000,000" in refusal(engine, width=0xFFFFFFFF, height=0xFFFFFFFF)
        assert "resized" in refusal(engine, width=50_000_000, height=1)
    with Engine(plan_for((2, 8, 8), Preprocess(mean=(0.0,), std=(1.0,)))) as engine:
        assert "the network's input has 2" in refusal(engine)


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(mean=(0.1,), std=(1e-3,), resize=1, order="BGR"),
        Preprocess(mean=(1e300 * 1e-300, -2.5, 3e-7), std=(1.0, 255.0, -4.0), resize=999_999_999),
    ],
)
def test_c_is_told_what_was_compiled(preprocess: Preprocess, tmp_path: Path) -> None:
    labels = ("Dürüm \U0001f959", 'a "quoted" \\ name\t')
    plan = plan_for((3, 8, 8), preprocess, labels)
    plan.save(tmp_path / "tiny.plan")
    with Engine(tmp_path / "tiny.plan") as engine:
        assert engine.preprocess == preprocess
        assert engine.labels == labels
        assert engine.name == "tiny" and engine.random_weights is False
        assert binding.library().ie_engine_label(engine._engine, 2) == b""
        info = binding.EngineInfo()
        assert binding.library().ie_engine_describe(engine._engine, info) == 0
        assert (info.classes, info.labels) == (2, 2)


def test_numbers_do_not_depend_on_the_locale(tmp_path: Path) -> None:
    """A program with a decimal comma reads the same plan."""
    make = ["localedef", "--no-archive", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]
    if shutil.which(make[0]) is None or subprocess.run(make, capture_output=True, check=False).returncode:
        pytest.skip("backend locale: the sources of locales are not installed")
    plan_for((3, 8, 8), Preprocess(mean=(1.5,), std=(2.25,))).save(tmp_path / "tiny.plan")
    script = (
        "import locale, sys, inception_engine as ie\n"
        "locale.setlocale(locale.LC_ALL, 'de_DE.UTF-8')\n"
        "assert locale.str(0.5) == '0,5'\n"
        "assert ie.Engine(sys.argv[1]).preprocess.std == (2.25,)\n"
    )
    environment = {**os.environ, "LOCPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script, tmp_path / "tiny.plan"], env=environment, check=True)


def test_the_picture_grows_with_newer_headers() -> None:
    """An older program's shorter structure is taken; a newer one's unknown field is refused unless it is zero."""
    with Engine(plan_for((3, 8, 8), Preprocess(resize=8))) as engine:
        data = noise(3, 9, 9, 3)
        made = [np.zeros((8, 8, 3), np.uint8) for _ in range(3)]
        given = binding.Picture(width=9, height=9, channels=3, data=data.ctypes.data, stride=5)
        given.struct_size = binding.Picture.stride.offset  # before the field `stride` was there
        run = binding.library().ie_preprocess
        assert run(engine._engine, given, made[0].ctypes.data, None) == 0
        np.testing.assert_array_equal(made[0], from_c(engine, data))

        class Newer(ctypes.Structure):
            _fields_ = (("known", binding.Picture), ("new", ctypes.c_uint64))

        newer = Newer(binding.Picture(width=9, height=9, channels=3, data=data.ctypes.data), 0)
        newer.known.struct_size = ctypes.sizeof(Newer)
        assert run(engine._engine, newer.known, made[1].ctypes.data, None) == 0
        np.testing.assert_array_equal(made[1], made[0])
        newer.new = 1 << 40
        message = binding.message_buffer()
        assert run(engine._engine, newer.known, made[2].ctypes.data, message) == 1
        assert b"does not know" in message.value
