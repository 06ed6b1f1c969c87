"""Augmentation: the distributions of what is drawn, with fixed seeds, and what each decision does to pixels."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_engine.errors import ArgumentError, InputShapeError
from inception_engine.network import Preprocess
from inception_engine.preprocess import pixels
from inception_engine.train.augment import (
    INTERPOLATIONS,
    Augmentation,
    Drawn,
    Stream,
    apply,
    augment,
    draw,
    generator,
)

COUNT = 4000  # of samples, of each distribution
SQUARE = (400, 400)
ENHANCEMENTS = ("brightness", "contrast", "saturation")


def drawn(augmentation: Augmentation, size: tuple[int, int] = SQUARE, count: int = COUNT) -> list[Drawn]:
    return [draw(augmentation, size, generator(7, index % 3, index)) for index in range(count)]


def patches(augmentation: Augmentation, size: tuple[int, int] = SQUARE, count: int = COUNT) -> np.ndarray:
    """Shares of the area, ratios of width to height, left edges and top edges as shares of the room: (count, 4)."""
    width, height = size
    rows = []
    for one in drawn(augmentation, size, count):
        assert one.box is not None
        left, top, right, bottom = one.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        share, ratio = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
        rows.append(
            (share, ratio, left / max(width - right + left, 1e-9), top / max(height - bottom + top, 1e-9))
        )
    return np.array(rows)


def is_uniform(values: Sequence[float] | np.ndarray, low: float, high: float) -> bool:
    """Kolmogorov and Smirnov's test, at the level of one in a thousand."""
    place = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(place) + 1) / len(place)
    distance = max(float(np.abs(place - steps[1:]).max()), float(np.abs(place - steps[:-1]).max()))
    return distance < 1.95 / math.sqrt(len(place))


def are_equally_likely(values: Sequence[object], kinds: int) -> bool:
    """Each within four standard deviations of its share."""
    counts = Counter(values)
    expected = len(values) / kinds
    deviation = math.sqrt(expected * (1 - 1 / kinds))
    return len(counts) == kinds and all(abs(count - expected) < 4 * deviation for count in counts.values())


def test_the_tests_of_distributions_can_fail() -> None:
    even = np.random.default_rng(0).random(COUNT)
    assert is_uniform(even, 0, 1)
    assert not is_uniform(even**1.1, 0, 1)
    assert not is_uniform(even, 0, 1.1)
    assert are_equally_likely((even * 4).astype(int).tolist(), 4)
    assert not are_equally_likely((even**1.2 * 4).astype(int).tolist(), 4)
    assert not are_equally_likely((even * 3).astype(int).tolist(), 4)


@pytest.mark.parametrize("size", [(400, 400), (400, 300), (300, 400), (8, 8), (500, 375)])
def test_sizes_are_spread_evenly_over_8_to_100_per_cent(size: tuple[int, int]) -> None:
    shares = patches(Augmentation(), size)[:, 0]
    assert shares.min() < 0.09 and shares.max() > 0.99
    assert is_uniform(shares, 0.08, 1)


def test_aspects_are_spread_evenly_where_every_one_fits() -> None:
    found = patches(Augmentation(area=(0.08, 0.7)))
    assert is_uniform(found[:, 1], 3 / 4, 4 / 3)
    assert is_uniform(found[:, 2], 0, 1) and is_uniform(found[:, 3], 0, 1)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (375, 500), (1000, 10), (10, 1000), (799, 600), (5000, 3)])
def test_patches_are_within_bounds(size: tuple[int, int]) -> None:
    found = patches(Augmentation(), size, 500)
    shares, ratios = found[:, 0], found[:, 1]
    assert (ratios > 3 / 4 - 1e-6).all() and (ratios < 4 / 3 + 1e-6).all()
    shape = size[0] / size[1]
    largest = max(
        min(shape / ratio, ratio / shape, 1) for ratio in (3 / 4, min(max(shape, 3 / 4), 4 / 3), 4 / 3)
    )
    assert shares.min() > min(0.08, largest) - 1e-6 and shares.max() < largest + 1e-6
    if largest > 0.09:  # an elongated image: evenly up to the largest patch that fits
        assert shares.max() > largest - 0.02


def test_aspect_is_a_multiple_of_the_inputs() -> None:
    wide = patches(Augmentation(input_shape=(3, 100, 200), area=(0.08, 0.3)))
    assert is_uniform(wide[:, 1], 2 * 3 / 4, 2 * 4 / 3)


def test_interpolations_mirrors_factors_and_their_order() -> None:
    found = drawn(Augmentation())
    assert set(INTERPOLATIONS) == {"bilinear", "area", "nearest", "cubic"}
    assert are_equally_likely([one.interpolation for one in found], 4)
    assert are_equally_likely([one.mirrored for one in found], 2)
    orders = [tuple(name for name, _ in one.enhancements) for one in found]
    assert are_equally_likely(orders, math.factorial(3))
    for name in ENHANCEMENTS:
        assert is_uniform([dict(one.enhancements)[name] for one in found], 0.5, 1.5)


def test_decisions_are_independent() -> None:
    found = drawn(Augmentation(area=(0.08, 0.7)))
    shown = [list(INTERPOLATIONS).index(one.interpolation) for one in found]
    factors = [[dict(one.enhancements)[name] for name in ENHANCEMENTS] for one in found]
    rest = np.column_stack(
        [shown, [one.mirrored for one in found], factors, [one.lighting[0] for one in found]]
    )
    table = np.concatenate([patches(Augmentation(area=(0.08, 0.7))), rest], axis=1)
    correlation = np.corrcoef(table.T) - np.eye(table.shape[1])
    assert np.abs(correlation).max() < 4.5 / math.sqrt(COUNT)


def test_lighting_follows_the_principal_components() -> None:
    noise = np.array([one.lighting for one in drawn(Augmentation())])
    values, vectors = np.linalg.eigh(np.cov(noise.T))
    assert np.sqrt(values[::-1]) == pytest.approx(255 * 0.1 * np.array([0.2175, 0.0188, 0.0045]), rel=0.05)
    assert abs(vectors[:, -1] @ [0.5675, 0.5808, 0.5836]) == pytest.approx(1, abs=1e-3)
    assert np.abs(noise.mean(axis=0)).max() < 4 * noise.std() / math.sqrt(COUNT)


def test_random_numbers_depend_on_seed_epoch_and_index_and_purpose() -> None:
    assert generator(1, 2, 3).random() == generator(1, 2, 3).random()
    keys = list(itertools.product((0, 1, 2**63), (0, 1, 90), (0, 1, 10**7), Stream))
    assert len({generator(*key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "off",
    [
        {"crop": False},
        {"mirror": False},
        {"brightness": 0.0},
        {"contrast": 0.0},
        {"saturation": 0.0},
        {"lighting": 0.0},
        {"interpolations": ("cubic",)},
    ],
    ids=lambda off: next(iter(off)),
)
def test_a_switch_changes_nothing_but_its_own(off: dict[str, Any]) -> None:
    (name,) = off
    on = Augmentation()
    for with_it, without in zip(
        drawn(on, count=50), drawn(dataclasses.replace(on, **off), count=50), strict=True
    ):
        assert without.box == (None if name == "crop" else with_it.box)
        assert without.interpolation == ("cubic" if name == "interpolations" else with_it.interpolation)
        assert without.mirrored == (with_it.mirrored and name != "mirror")
        assert without.enhancements == tuple(one for one in with_it.enhancements if one[0] != name)
        assert without.lighting == (() if name == "lighting" else with_it.lighting)


def test_a_grey_network_has_neither_saturation_nor_lighting() -> None:
    for one in drawn(Augmentation(input_shape=(1, 28, 28)), count=20):
        assert {name for name, _ in one.enhancements} == {"brightness", "contrast"}
        assert one.lighting == ()


NOTHING = Drawn(box=None, interpolation="nearest", mirrored=False, enhancements=(), lighting=())
PICTURE = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def done(
    augmentation: Augmentation | None = None, picture: np.ndarray = PICTURE, **what: object
) -> np.ndarray:
    """A distortion of a part of 8 x 8 pixels from (16, 8) on, done to the picture."""
    augmentation = augmentation or Augmentation(input_shape=(3, 8, 8))
    changes: dict[str, Any] = {"box": (16, 8, 24, 16), **what}
    one = dataclasses.replace(NOTHING, **changes)
    result = apply(Image.fromarray(picture), augmentation, one)
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    return result


PART = PICTURE[8:16, 16:24]


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_a_patch_of_the_inputs_size_keeps_its_pixels(name: str) -> None:
    np.testing.assert_array_equal(done(interpolation=name), PART)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("area", lambda part: part.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3)), id="area"),
        pytest.param("nearest", lambda part: part[1::2, 1::2], id="nearest"),
    ],
)
def test_area_and_nearest_of_half_the_size(name: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    small = done(Augmentation(input_shape=(3, 4, 4)), interpolation=name)
    np.testing.assert_allclose(small, expected(PART.astype(float)), atol=1)  # rows, then columns are rounded


def test_bilinear_and_cubic_are_their_kernels() -> None:
    """Enlarged by two, pixel centres lie at quarters: weights 3/4 and 1/4, or those of the cubic with a = -1/2."""
    row = np.zeros((1, 9, 1), np.uint8)
    row[0, 4] = 128
    picture = np.repeat(np.repeat(row, 9, axis=0), 3, axis=2)

    def enlarged(name: str) -> list[float]:
        wide = done(Augmentation(input_shape=(3, 18, 18)), picture + 64, box=(0, 0, 9, 9), interpolation=name)
        return ((wide[9, :, 0].astype(float) - 64) / 128).tolist()

    def cubic(x: float) -> float:
        a, x = -0.5, abs(x)
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    offsets = [(position + 0.5) / 2 - 4.5 for position in range(18)]
    assert enlarged("bilinear") == pytest.approx([max(0, 1 - abs(x)) for x in offsets], abs=0.5 / 128 + 1e-6)
    assert enlarged("cubic") == pytest.approx([cubic(x) for x in offsets], abs=0.5 / 128 + 1e-6)


def test_fractions_of_pixels_count() -> None:
    """A ramp, sampled in the middle of each quarter of the patch."""
    ramp = np.repeat(np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, axis=0), 3, axis=2)
    result = done(Augmentation(input_shape=(3, 4, 4)), ramp, box=(2.5, 2, 6.5, 6), interpolation="bilinear")
    assert result[0, :, 0].tolist() == [25, 35, 45, 55]


def test_mirror() -> None:
    np.testing.assert_array_equal(done(mirrored=True), PART[:, ::-1])


def test_enhancements_are_what_their_names_say() -> None:
    part = PART.astype(float)
    grey = part @ (0.299, 0.587, 0.114)
    expected = {
        "brightness": 0.6 * part,
        "contrast": grey.mean() + 0.6 * (part - grey.mean()),
        "saturation": grey[..., None] + 0.6 * (part - grey[..., None]),
    }
    for name, wanted in expected.items():
        result = done(enhancements=((name, 0.6),))
        np.testing.assert_allclose(result, wanted, atol=1.5)
        assert np.abs(result - part).max() > 10
    assert done(enhancements=(("brightness", 1.5),)).max() == 255  # and no overflow
    one, other = ("brightness", 1.5), ("contrast", 0.5)
    assert not np.array_equal(done(enhancements=(one, other)), done(enhancements=(other, one)))


def test_lighting_adds_to_each_channel() -> None:
    expected = np.clip(np.rint(PART + np.array([10.4, -20.6, 0.2])), 0, 255)
    np.testing.assert_array_equal(done(lighting=(10.4, -20.6, 0.2)), expected)


def test_channel_order_comes_last() -> None:
    bgr = Augmentation(input_shape=(3, 8, 8), preprocess=Preprocess(order="BGR"))
    what: dict[str, Any] = {"enhancements": (("saturation", 0.5),), "lighting": (10.0, 0.0, 0.0)}
    np.testing.assert_array_equal(done(bgr, **what), done(**what)[..., ::-1])


def test_grey_pictures_for_colour_networks_and_the_other_way_round() -> None:
    grey = done(Augmentation(input_shape=(1, 8, 8)))
    assert grey.shape == (8, 8, 1)
    np.testing.assert_allclose(grey[..., 0], PART @ (0.299, 0.587, 0.114), atol=1)
    colour = done(picture=PICTURE[..., 0])
    np.testing.assert_array_equal(colour, np.repeat(PART[..., :1], 3, axis=2))


@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 20, 20)])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_with_all_switches_off_it_is_the_preprocessing(shape: tuple[int, int, int], order: str) -> None:
    preprocess = Preprocess(mean=(1.0,), std=(2.0,), order=order, resize=22)
    augmentation = Augmentation(input_shape=shape, preprocess=preprocess)
    result = augment(Image.fromarray(PICTURE), augmentation.off(), generator(0, 0, 0))
    np.testing.assert_array_equal(result, pixels(PICTURE, preprocess, shape))
    assert not np.array_equal(augment(Image.fromarray(PICTURE), augmentation, generator(0, 0, 0)), result)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"area": (0.0, 1.0)}, "area"),
        ({"area": (0.5, 0.4)}, "area"),
        ({"area": (0.5, 1.1)}, "area"),
        ({"area": (math.nan, 1.0)}, "area"),
        ({"aspect": (0.0, 1.0)}, "aspect"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"aspect": (2.0, math.inf)}, "aspect"),
        ({"interpolations": ()}, "bilinear, area, nearest, cubic"),
        ({"interpolations": ("area", "sinc")}, "sinc"),
        ({"contrast": 1.5}, "contrast"),
        ({"brightness": -0.1}, "brightness"),
        ({"saturation": math.nan}, "saturation"),
        ({"lighting": -1.0}, "lighting"),
        ({"lighting": math.inf}, "lighting"),
    ],
)
def test_values_out_of_range(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        Augmentation(**wrong)


def test_a_network_that_takes_no_images() -> None:
    with pytest.raises(InputShapeError):
        Augmentation(input_shape=(4, 8, 8))
