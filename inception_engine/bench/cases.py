"""What is run: a Workload is the seeded GoogLeNet on seeded images with the logits that every peer must reproduce; a
Case is a workload on a peer, with its threads and its device: one row."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from inception_engine.network import Network
from inception_engine.parity import BOUNDS
from inception_engine.spec import PRESETS, Spec

# ``lrn`` is the paper's network, ``plain`` the one without local response normalisation, as later GoogLeNets are.
VARIANTS = {name: PRESETS[name] for name in ("lrn", "plain")}

DTYPES = ("fp32", "fp16", "bf16")
DEVICES = ("cpu", "cuda")
INPUTS = ("float32", "uint8")

# Of the logits against the float64 reference.
PARITY_BOUNDS = {dtype: BOUNDS[dtype] for dtype in DTYPES}

SEED = 0

# Image i of a batch is distinct image i modulo this: every position is checked at the price of five reference
# runs, and, five being odd, two images swapped at a distance of a power of two differ.
DISTINCT_IMAGES = 5


@dataclass(frozen=True)
class Workload:
    """One network, one batch, one data type. ``input``: what a call takes, "float32" normalised, or "uint8" pixels."""

    variant: str
    batch: int
    dtype: str = "fp32"
    input: str = "float32"

    @property
    def spec(self) -> Spec:
        return VARIANTS[self.variant]

    @property
    def network(self) -> Network:
        return _network(self.variant)

    def images(self) -> np.ndarray:
        """(batch, C, H, W) float32, as a normalised photograph's: mean 0, deviation 1; or (batch, H, W, C) uint8."""
        return _images(self.network.input_shape, self.input)[np.arange(self.batch) % DISTINCT_IMAGES]

    def expected(self) -> np.ndarray:
        """The reference's logits for the images, (batch, classes) float64."""
        distinct = _reference(self.variant, min(self.batch, DISTINCT_IMAGES), self.input)
        return distinct[np.arange(self.batch) % DISTINCT_IMAGES]


@dataclass(frozen=True)
class Case:
    """A workload on a peer. ``threads``: of each call. ``streams``: callers at once, each with an instance of its own.
    ``launch``: how a GPU is given its work, of peers that have more than one way; else empty."""

    peer: str
    workload: Workload
    threads: int
    streams: int = 1
    device: str = "cpu"
    launch: str = ""

    @property
    def label(self) -> str:
        return f"{self.peer}/{self.launch}" if self.launch else self.peer


@functools.cache
def _network(variant: str) -> Network:
    from inception_engine.seeded import googlenet

    return googlenet(seed=SEED, spec=VARIANTS[variant])


@functools.cache
def _images(shape: tuple[int, int, int], kind: str) -> np.ndarray:
    random = np.random.default_rng(SEED)
    if kind == "uint8":
        return random.integers(0, 256, (DISTINCT_IMAGES, *shape[1:], shape[0]), dtype=np.uint8)
    return random.standard_normal((DISTINCT_IMAGES, *shape), dtype=np.float32)


@functools.cache
def _reference(variant: str, count: int, kind: str) -> np.ndarray:
    from inception_engine import reference
    from inception_engine.preprocess import normalise

    network = _network(variant)
    images = _images(network.input_shape, kind)[:count]
    if kind == "uint8":
        images = normalise(images, network.preprocess)
    return reference.run(network, images)[network.logits]
