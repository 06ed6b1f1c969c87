"""Layers and modules of the cases' networks as networks of their own, for the suites that time them alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

import inception_engine as ie
from inception_engine import reference
from inception_engine.bench.cases import SEED
from inception_engine.network import INPUT, Layer, Network, Preprocess
from inception_engine.parity import BOUNDS, error

ENGINES = ("engine", "onnxruntime")


def part(network: Network, names: list[str]) -> Network:
    """The layers of these names, which read one layer besides each other; the last is the output."""
    layers = [layer for layer in network.layers if layer.name in names]
    (source,) = {name for layer in layers for name in layer.inputs} - set(names)
    shapes = network.shapes()
    return Network(
        name=f"{names[0]} to {names[-1]}",
        input_shape=network.input_shape if source == INPUT else shapes[source],
        layers=tuple(_reading(layer, source) for layer in layers),
        logits=names[-1],
        preprocess=Preprocess(mean=(0.0,), std=(1.0,)),  # of any number of channels
    )


def _reading(layer: Layer, source: str) -> Layer:
    return replace(layer, inputs=tuple(INPUT if name == source else name for name in layer.inputs))


def module(network: Network, name: str) -> Network:
    """One Inception module."""
    return part(network, [layer.name for layer in network.layers if layer.module == name])


@contextmanager
def checked(network: Network, engine: str, batch: int) -> Iterator[Callable[[], object]]:
    """A call on seeded images, which are not negative, as activations are; its result was held against the
    reference."""
    images = np.abs(
        np.random.default_rng(SEED).standard_normal((batch, *network.input_shape), dtype=np.float32)
    )
    threads = len(os.sched_getaffinity(0))
    options = {"max_batch": batch, "device": "cpu"} if engine == "engine" else {"batch": batch}
    with ie.load(network, engine, threads=threads, **options) as opened:
        expected = reference.run(network, images)[network.logits]
        actual = opened.run(images)
        assert error(actual, expected.reshape(actual.shape)) <= BOUNDS["fp32"]
        yield lambda: opened.run(images)
