"""LRN by every instruction set: its power over the range of float32, and rows of any number and length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding, reference
from inception_engine.network import INPUT, LRN, Network, Preprocess
from tests.tolerances import TOLERANCES, error

ISAS = binding.machine_isas()
# Of one output, relative: in float32 two roots, a division and two products, of half a unit in the last place each and
# more by what one hands on to the next: 6 * 2^-24. Another power shows in the first digits.
POWER = 4e-7


def network(shape: tuple[int, ...], **constants: Any) -> Network:
    return Network(
        name="lrn",
        input_shape=(shape[1], shape[2], shape[3]),
        layers=(LRN(name="lrn", inputs=(INPUT,), **constants),),
        logits="lrn",
        preprocess=Preprocess(mean=(0.0,), std=(1.0,)),
    )


def normalised(images: np.ndarray, isa: str, **constants: Any) -> np.ndarray:
    plan = ie.compile(network(images.shape, **constants), max_batch=len(images))
    with ie.Engine(plan, isa=isa, poison=True) as engine:
        return np.asarray(engine.run(images)).reshape(images.shape)


def row(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """An image of one pixel."""
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


@pytest.mark.parametrize("isa", ISAS)
def test_the_power_of_every_magnitude(isa: str) -> None:
    """A window of one channel: x * (x^2)^(-3/4), scales from the least normal number to the largest."""
    values = np.geomspace(1.1e-19, 1.8e19, 20_011).astype(np.float32)
    found = normalised(row(values), isa, size=1, alpha=1.0, beta=0.75, k=0.0).reshape(-1)
    scale = (values * values).astype(np.float64)
    assert np.abs(found / (values * scale**-0.75) - 1).max() <= POWER


@pytest.mark.parametrize("isa", ISAS)
def test_scales_that_are_no_normal_numbers(isa: str) -> None:
    """Among others, which they leave alone: zero, negative numbers, those that are too small or too large."""
    values = np.full(37, 3.0, np.float32)
    odd = {1: 0.0, 4: 1e-30, 9: 7e-20, 16: 1e20, 20: -1e20, 30: np.inf, 33: np.nan, 36: 0.0}
    values[list(odd)] = list(odd.values())
    found = normalised(row(values), isa, size=1, alpha=1.0, k=0.0).reshape(-1)
    others = [i for i in range(len(values)) if i not in odd]
    assert np.abs(found[others] / 3.0**-0.5 - 1).max() <= POWER
    assert not np.isfinite(found[[1, 4, 30, 33, 36]]).any()  # a power of zero, or of what is not finite
    assert abs(found[9] / 7e-20**-0.5 - 1) <= 1e-5  # of a denormal number, which has fewer bits
    assert np.abs(found[[16, 20]]).max() <= 1e-8  # of an infinity, or of the largest number
    negative = normalised(row(values), isa, size=1, alpha=-1.0, k=1.0).reshape(-1)
    assert np.isnan(negative[others]).all()
    assert negative[1] == 0.0 and abs(negative[4] / 1e-30 - 1) <= POWER


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 64, 100, 1030])
def test_rows_are_of_any_number_and_length(channels: int, isa: str) -> None:
    """Some are squared at a time, of which there may be more than a tile has; long ones one by one."""
    rng = np.random.default_rng(channels)
    for height, width, size in ((1, 1, 1), (3, 5, 5), (9, 29, 4), (2, 3, 70)):
        images = rng.normal(size=(2, channels, height, width)).astype(np.float32)
        constants = {"size": size, "alpha": 1.0, "beta": float(rng.choice((0.75, 0.6))), "k": 2.0}
        found = normalised(images, isa, **constants)
        expected = reference.run(network(images.shape, **constants), images)["lrn"]
        assert error(found, expected) <= TOLERANCES["fp32"].layer
