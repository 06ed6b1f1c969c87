"""What is run: the seeded GoogLeNet in two variants, seeded images, and the logits that every peer must reproduce."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from inception_engine.network import Network
from inception_engine.parity import BOUNDS
from inception_engine.spec import PRESETS, Spec

# ``lrn`` is the paper's network, ``plain`` the one without local response normalisation, as later GoogLeNets are.
VARIANTS = {name: PRESETS[name] for name in ("lrn", "plain")}

# Of the logits against the float64 reference.
PARITY_BOUNDS = {"fp32": BOUNDS["fp32"]}

SEED = 0

# Image i of a batch is distinct image i modulo this: every position is checked at the price of five reference
# runs, and, five being odd, two images swapped at a distance of a power of two differ.
DISTINCT_IMAGES = 5


@dataclass(frozen=True)
class Case:
    """One network, one batch, one data type."""

    variant: str
    batch: int
    dtype: str

    @property
    def spec(self) -> Spec:
        return VARIANTS[self.variant]

    @property
    def network(self) -> Network:
        return _network(self.variant)

    def images(self) -> np.ndarray:
        """(batch, C, H, W) float32, as a normalised photograph's: mean 0, deviation 1."""
        return _images(self.network.input_shape)[np.arange(self.batch) % DISTINCT_IMAGES]

    def expected(self) -> np.ndarray:
        """The reference's logits for the images, (batch, classes) float64."""
        distinct = _reference(self.variant, min(self.batch, DISTINCT_IMAGES))
        return distinct[np.arange(self.batch) % DISTINCT_IMAGES]


@functools.cache
def _network(variant: str) -> Network:
    from inception_engine.seeded import googlenet

    return googlenet(seed=SEED, spec=VARIANTS[variant])


@functools.cache
def _images(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal((DISTINCT_IMAGES, *shape), dtype=np.float32)


@functools.cache
def _reference(variant: str, count: int) -> np.ndarray:
    from inception_engine import reference

    network = _network(variant)
    return reference.run(network, _images(network.input_shape)[:count])[network.logits]
