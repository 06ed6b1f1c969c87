"""Decoding and geometry against pixels that are known, and every kind of file that cannot be used."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_engine.errors import (
    ImageDamaged,
    ImageForeign,
    ImageTooLarge,
    ImageUnreadable,
    InputShapeError,
    InputTypeError,
)
from inception_engine.network import Preprocess
from inception_engine.preprocess import MAX_PIXELS, decode, find_images, normalise, pixels

EXIF_ORIENTATION = 0x0112


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    image = noise(6, 6)
    Image.fromarray(image).save(tmp_path / "a.png")
    result = pixels(tmp_path / "a.png", Preprocess(resize=6), (3, 6, 6))
    np.testing.assert_array_equal(result, image)
    assert result.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 13), (14, 8)])
def test_the_centre_is_cut_out(height: int, width: int) -> None:
    image = noise(height, width)
    result = pixels(image, Preprocess(resize=8), (3, 4, 6))
    top, left = round((height - 4) / 2), round((width - 6) / 2)
    np.testing.assert_array_equal(result, image[top : top + 4, left : left + 6])


@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 300), (37, 64), (1, 1), (1, 50)])
def test_any_size_becomes_the_inputs(height: int, width: int) -> None:
    assert pixels(noise(height, width), Preprocess(resize=32), (3, 20, 24)).shape == (20, 24, 3)


def test_the_shorter_side_is_resized() -> None:
    # A ramp from left to right: where the shorter side is the height, the cut leaves out both ends.
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3)).copy()
    row = pixels(ramp, Preprocess(resize=50), (3, 50, 50))[25, :, 0].astype(int)
    assert row.tolist() == pytest.approx(np.arange(50.5, 150, 2), abs=1)


def test_a_resize_smaller_than_the_input_is_raised_to_it() -> None:
    assert pixels(noise(60, 80), Preprocess(resize=8), (3, 24, 32)).shape == (24, 32, 3)


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    result = pixels(stripes, Preprocess(resize=32), (3, 32, 32))[4:-4, 4:-4]
    assert np.abs(result.astype(int) - 127).max() <= 2


def test_channel_order() -> None:
    image = noise(9, 9)
    rgb = pixels(image, Preprocess(resize=9), (3, 9, 9))
    bgr = pixels(image, Preprocess(resize=9, order="BGR"), (3, 9, 9))
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])
    assert not np.array_equal(bgr, rgb)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_honoured(tmp_path: Path, suffix: str) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255  # white above
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # the stored rows run from top to bottom of a camera held on its side
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif)
    result = pixels(path, Preprocess(resize=8), (3, 8, 8))
    assert result[:4].min() > 200 and result[4:].max() < 50


GREY = (np.arange(64, dtype=np.uint8).reshape(8, 8)) * 4


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.fromarray(GREY), GREY, id="grey"),
        pytest.param(Image.fromarray(GREY).convert("RGBA"), GREY, id="alpha"),
        pytest.param(Image.fromarray(GREY).convert("LA"), GREY, id="grey-alpha"),
        pytest.param(Image.fromarray(GREY).quantize(64), GREY, id="palette"),
        pytest.param(Image.fromarray(GREY.astype(np.uint16) << 8), GREY, id="16-bit"),
        pytest.param(Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0), id="1-bit"),
    ],
)
def test_modes_become_rgb(tmp_path: Path, image: Image.Image, expected: np.ndarray) -> None:
    image.save(tmp_path / "a.png")
    result = pixels(tmp_path / "a.png", Preprocess(resize=8), (3, 8, 8))
    np.testing.assert_array_equal(result, np.repeat(expected[..., None], 3, axis=2))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    result = pixels(tmp_path / "a.jpg", Preprocess(resize=8), (3, 8, 8)).astype(int)
    assert result[..., 0].min() > 200 and result[..., 1:].max() < 50


def test_one_channel_is_grey() -> None:
    image = np.repeat(GREY[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels(image, Preprocess(resize=8), (1, 8, 8)), GREY[..., None])
    np.testing.assert_array_equal(pixels(GREY[..., None], Preprocess(resize=8), (1, 8, 8)), GREY[..., None])


def test_normalise_is_the_definition() -> None:
    images, preprocess = noise(2 * 4, 5).reshape(2, 4, 5, 3), Preprocess()
    result = normalise(images, preprocess)
    expected = (images.astype(np.float64) - preprocess.mean) / preprocess.std
    np.testing.assert_allclose(result, expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6)
    assert result.dtype == np.float32 and result.flags.c_contiguous


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    Image.fromarray(noise(64, 64)).save(tmp_path / "good.jpg")
    Image.fromarray(noise(64, 64)).save(tmp_path / "picture.gif")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000))
    (tmp_path / "large.png").write_bytes(png(10_001, 10_000))
    (tmp_path / "hollow.png").write_bytes(png(8, 8))
    os.mkfifo(tmp_path / "pipe.jpg")
    expected = {
        "missing.jpg": ImageUnreadable,
        "pipe.jpg": ImageUnreadable,
        ".": ImageUnreadable,
        "text.jpg": ImageForeign,
        "empty.png": ImageForeign,
        "picture.gif": ImageForeign,
        "bomb.png": ImageTooLarge,
        "large.png": ImageTooLarge,
        "half.jpg": ImageDamaged,
        "hollow.png": ImageDamaged,
    }
    for name, kind in expected.items():
        with pytest.raises(kind) as caught:
            pixels(tmp_path / name, Preprocess(), (3, 224, 224))
        assert type(caught.value) is kind, name
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)


def test_an_image_too_thin_to_resize_is_refused() -> None:
    image = Image.new("L", (100_000, 1))
    assert image.width < MAX_PIXELS
    with pytest.raises(ImageTooLarge, match="after resizing"):
        pixels(image, Preprocess(), (3, 224, 224))


def test_it_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "thin.png").write_bytes(png(1, 100_000))  # a header, and no pixels
    with pytest.raises(ImageTooLarge, match="after resizing"):
        pixels(tmp_path / "thin.png", Preprocess(), (3, 224, 224))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_needs_no_conversion_is_not_copied(mode: str) -> None:
    image = Image.new(mode, (4, 3))
    assert decode(image) is image


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        pytest.param(3, InputTypeError, id="number"),
        pytest.param(np.zeros((8, 8, 3), np.float32), InputTypeError, id="float"),
        pytest.param(np.zeros((8, 8), np.uint8), InputShapeError, id="rank"),
        pytest.param(np.zeros((8, 8, 4), np.uint8), InputShapeError, id="channels"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), InputShapeError, id="empty"),
        pytest.param(Image.new("RGB", (0, 8)), InputShapeError, id="no-columns"),
        pytest.param(Image.new("L", (8, 0)), InputShapeError, id="no-rows"),
    ],
)
def test_what_is_no_image(source: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        pixels(source, Preprocess(), (3, 8, 8))


def test_networks_that_take_no_images() -> None:
    with pytest.raises(InputShapeError, match="2"):
        pixels(noise(8, 8), Preprocess(), (2, 8, 8))


def test_find_images_expands_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "note.txt", "sub/c.jpeg", "sub/d.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    single = tmp_path / "sub/d.gif"  # named by hand: taken as it is
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path, single])]
    assert found == ["a.jpg", "b.PNG", "sub/c.jpeg", "sub/d.gif"]


def test_a_path_that_cannot_be_looked_at_is_that_images_error() -> None:
    name = "x" * 300 + ".png"
    assert list(find_images([name])) == [Path(name)]
    with pytest.raises(ImageUnreadable, match="too long"):
        pixels(name, Preprocess(), (3, 8, 8))


def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path: str) -> Any:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match="closed"):
        list(find_images([tmp_path]))
