"""The crops of section 7: coordinates written out by hand from the paper's text, on images of several shapes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inception_engine.errors import ArgumentError, ImageTooLarge, InputShapeError
from inception_engine.evaluate.crops import corners_and_centre, sides, squares, views
from inception_engine.network import Preprocess
from inception_engine.preprocess import pixels, resize_shorter

PAPER = (3, 224, 224)
Scales = dict[int, tuple[tuple[int, int], tuple[int, int, int]]]

# (width, height) of the image; then by scale: its size when resized, and where the three squares begin along the longer
# side. 500 x 375 at 256: 500 * 256 / 375 = 341.3, of which 341 pixels; the squares begin at 0, at
# (341 - 256) / 2 = 42.5, so 42, and at 341 - 256 = 85.
LANDSCAPE: Scales = {
    256: ((341, 256), (0, 42, 85)),
    288: ((384, 288), (0, 48, 96)),
    320: ((426, 320), (0, 53, 106)),
    352: ((469, 352), (0, 58, 117)),
}
PORTRAIT: Scales = {
    256: ((256, 341), (0, 42, 85)),
    288: ((288, 384), (0, 48, 96)),
    320: ((320, 426), (0, 53, 106)),
    352: ((352, 469), (0, 58, 117)),
}
SQUARE: Scales = {side: ((side, side), (0, 0, 0)) for side in (256, 288, 320, 352)}
# 100 x 80, smaller than every scale: it grows by 3.2, 3.6, 4 and 4.4.
SMALLER: Scales = {
    256: ((320, 256), (0, 32, 64)),
    288: ((360, 288), (0, 36, 72)),
    320: ((400, 320), (0, 40, 80)),
    352: ((440, 352), (0, 44, 88)),
}
# One pixel wide and five high: five squares below each other.
NARROW: Scales = {
    256: ((256, 1280), (0, 512, 1024)),
    288: ((288, 1440), (0, 576, 1152)),
    320: ((320, 1600), (0, 640, 1280)),
    352: ((352, 1760), (0, 704, 1408)),
}
SHAPES = {
    (500, 375): LANDSCAPE,
    (375, 500): PORTRAIT,
    (600, 600): SQUARE,
    (224, 224): SQUARE,
    (100, 80): SMALLER,
    (1, 5): NARROW,
    (1, 1): SQUARE,
}
# Of a square, the upper left corners of the four corner crops and of the centre crop.
CORNERS = {
    256: ((0, 0), (32, 0), (0, 32), (32, 32), (16, 16)),
    288: ((0, 0), (64, 0), (0, 64), (64, 64), (32, 32)),
    320: ((0, 0), (96, 0), (0, 96), (96, 96), (48, 48)),
    352: ((0, 0), (128, 0), (0, 128), (128, 128), (64, 64)),
}


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(array if channels == 3 else array[..., 0])


def by_hand(image: Image.Image, scales: Scales) -> np.ndarray:
    """The 72 crops before mirroring, cut out by Pillow at the coordinates above."""
    found = []
    for side, (size, starts) in scales.items():
        resized = image.resize(size, Image.Resampling.BILINEAR)
        for start in starts:
            left, top = (start, 0) if image.width > image.height else (0, start)
            for x, y in CORNERS[side]:
                box = (left + x, top + y, left + x + 224, top + y + 224)
                found.append(np.asarray(resized.crop(box)))
            whole = resized.crop((left, top, left + side, top + side))
            found.append(np.asarray(whole.resize((224, 224), Image.Resampling.BILINEAR)))
    return np.stack(found)


@pytest.mark.parametrize("size", SHAPES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_coordinates_are_the_papers(size: tuple[int, int]) -> None:
    assert sides(224, 224) == (256, 288, 320, 352)
    for side, (resized, starts) in SHAPES[size].items():
        assert resize_shorter(noise(*size), side).size == resized
        found = squares(resized)
        tall = resized[1] > resized[0]
        assert found == tuple((0, at, side, at + side) if tall else (at, 0, at + side, side) for at in starts)
        for (left, top, _, _), square in zip(found, found, strict=True):
            assert list(corners_and_centre(square, 224, 224)) == [
                (left + x, top + y, left + x + 224, top + y + 224) for x, y in CORNERS[side]
            ]


@pytest.mark.parametrize("size", SHAPES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_144_crops_are_those_pixels(size: tuple[int, int]) -> None:
    image = noise(*size)
    expected = by_hand(image, SHAPES[size])
    found = views(image, 144, Preprocess(), PAPER)
    assert found.shape == (144, 224, 224, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found[:72], expected)
    np.testing.assert_array_equal(found[72:], expected[:, :, ::-1])


def test_a_landscapes_crops_are_all_different() -> None:
    """So that equality above is of 144 crops and not of a few, and a swap of two would show."""
    assert len({crop.tobytes() for crop in views(noise(500, 375), 144, Preprocess(), PAPER)}) == 144


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (100, 80), (1, 5)])
def test_10_crops_are_of_the_centre_square_at_256(size: tuple[int, int]) -> None:
    image = noise(*size)
    found = views(image, 10, Preprocess(), PAPER)
    assert found.shape == (10, 224, 224, 3)
    everything = views(image, 144, Preprocess(), PAPER)
    # At the first scale: six crops of the first square, then five of the second and the square itself.
    np.testing.assert_array_equal(found[:5], everything[6:11])
    np.testing.assert_array_equal(found[5:], everything[72 + 6 : 72 + 11])


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (341, 256), (100, 80), (1, 5)])
def test_1_crop_is_what_the_engine_sees(size: tuple[int, int]) -> None:
    image = noise(*size)
    (found,) = views(image, 1, Preprocess(), PAPER)
    np.testing.assert_array_equal(found, pixels(image, Preprocess(), PAPER))
    np.testing.assert_array_equal(found, views(image, 10, Preprocess(), PAPER)[4])


def test_other_input_sizes_take_the_same_sevenths() -> None:
    assert sides(112, 112) == (128, 144, 160, 176)
    assert sides(32, 32) == (37, 41, 46, 50)  # 36.6, 41.1, 45.7, 50.3
    assert sides(14, 28) == sides(28, 14) == (32, 36, 40, 44)
    found = views(noise(100, 80), 144, Preprocess(resize=32), (3, 32, 32))
    resized = noise(100, 80).resize((37 * 100 // 80, 37), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[0], np.asarray(resized)[:32, :32])
    np.testing.assert_array_equal(found[3], np.asarray(resized)[5:, 5:37])


def test_inputs_that_are_not_square_keep_proportions() -> None:
    image = noise(64, 64)
    found = views(image, 144, Preprocess(), (3, 14, 28))
    assert found.shape == (144, 14, 28, 3)
    at_32 = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found[2], at_32[18:, :28])
    np.testing.assert_array_equal(found[4], at_32[9:23, 2:30])
    whole = Image.fromarray(at_32).resize((28, 28), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[5], np.asarray(whole)[7:21])


@pytest.mark.parametrize("count", [1, 10, 144])
def test_channels_and_their_order(count: int) -> None:
    image = noise(50, 40)
    colours = views(image, count, Preprocess(resize=32), (3, 28, 28))
    np.testing.assert_array_equal(
        views(image, count, Preprocess(resize=32, order="BGR"), (3, 28, 28)), colours[..., ::-1]
    )
    grey = views(noise(50, 40, 1), count, Preprocess(mean=(0,), std=(1,), resize=32), (1, 28, 28))
    assert grey.shape == (count, 28, 28, 1)
    np.testing.assert_array_equal(
        views(noise(50, 40, 1), count, Preprocess(resize=32), (3, 28, 28))[..., :1], grey
    )


def test_what_cannot_be_cropped_is_said() -> None:
    with pytest.raises(ArgumentError, match="5 crops; there is 1, 10, 144"):
        views(noise(4, 4), 5, Preprocess(), PAPER)
    with pytest.raises(InputShapeError, match="2"):
        views(noise(4, 4), 10, Preprocess(), (2, 8, 8))
    with pytest.raises(ImageTooLarge, match=r"line\.png: after resizing"):
        views(Image.new("L", (1, 4000)), 10, Preprocess(), PAPER, "line.png")
