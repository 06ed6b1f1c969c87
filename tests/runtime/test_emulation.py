"""GPU programs walked by the CPU on many threads: the same table, tiles, slices and weights that the Triton kernels
run, so that a wrong schedule shows on any machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import reference
from inception_engine.compiler import CompileError
from inception_engine.compiler.targets import CUDA_ONE_LAUNCH, Target
from inception_engine.network import INPUT, Conv, Layer, Network
from tests.random_networks import random_images, random_network
from tests.tolerances import TOLERANCES, error, violations

BITS = {"fp16": 11, "bf16": 8}
SMALL = ie.googlenet(width=0.25, input_size=64, classes=16)
# One launch, and K of whatever op has few tiles cut into parts.
CUT = dataclasses.replace(CUDA_ONE_LAUNCH, part_tasks=64, least_depth=64, most_parts=3)
TARGETS: tuple[str | Target, ...] = ("cuda", CUT)


def outputs(
    network: Network, images: np.ndarray, dtype: str, target: str | Target = "cuda", **options: object
) -> dict[str, np.ndarray]:
    plan = ie.compile(network, targets=(target,), dtype=dtype, max_batch=len(images) + 1, keep_all=True)
    with ie.Engine(plan, emulate=True, poison=True, **options) as engine:  # type: ignore[arg-type]
        return engine.run(images, outputs=list(engine.outputs))


def compilable(seed: int) -> Network:
    """The first of a series of random networks that the target takes (it refuses LRN across padded slices)."""
    for attempt in range(20):
        network = random_network(np.random.default_rng((seed, attempt)))
        with contextlib.suppress(CompileError):
            ie.compile(network, targets=("cuda",), keep_all=True)
            return network
    raise AssertionError("twenty networks in a row were refused")


def rounded(network: Network, dtype: str) -> Network:
    """The network whose weights are what ``dtype`` makes of them, so that only activations are rounded differently."""
    torch = pytest.importorskip("torch")
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    layers = [
        dataclasses.replace(layer, weight=torch.from_numpy(layer.weight).to(kind).float().numpy())  # type: ignore[call-arg]
        if hasattr(layer, "weight")
        else layer
        for layer in network.layers
    ]
    return dataclasses.replace(network, layers=tuple(layers))


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(40))
def test_random_networks_in_float32(seed: int) -> None:
    network = compilable(seed)
    images = random_images(np.random.default_rng(seed), network, 2)
    actual = outputs(network, images, "fp32", TARGETS[seed % 2], threads=1 + seed % 5)
    expected = reference.run(network, images, keep="all")
    shared = {name: expected[name] for name in expected if name in actual}
    assert len(shared) > 0.5 * len(expected)
    shaped = {name: actual[name].reshape(shared[name].shape) for name in shared}
    assert not violations(shaped, shared, network.logits)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_rounded_at_every_layer(dtype: str) -> None:
    """Each layer, given its own inputs, is off by one rounding; errors of the layers before it come on top."""
    images = np.random.default_rng(0).standard_normal((2, *SMALL.input_shape), dtype=np.float32)
    actual = outputs(SMALL, images, dtype, threads=3)
    expected = reference.run(rounded(SMALL, dtype), images, keep="all")
    for name in ("conv1", "3a/3x3", "4c/5x5", "5b/pool_proj", SMALL.logits):
        found = error(actual["logits" if name == SMALL.logits else name], expected[name])
        assert 2.0 ** -(BITS[dtype] + 6) < found < 2.0 ** -(BITS[dtype] - 5), name
        if name != SMALL.logits:
            bits = actual[name].view(np.uint32)
            assert (
                not (bits & (2 ** (24 - BITS[dtype]) - 1)).any() or dtype == "fp16"
            )  # what bf16 drops is zero
            assert (actual[name].astype(np.float16) == actual[name]).all() or dtype == "bf16"


@pytest.mark.parametrize("target", TARGETS, ids=["cuda", "parts"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_threads_and_instruction_sets_change_nothing(dtype: str, target: str | Target) -> None:
    images = np.random.default_rng(0).standard_normal((3, *SMALL.input_shape), dtype=np.float32)
    first = outputs(SMALL, images, dtype, target, threads=1)
    for threads in (2, 5):
        again = outputs(SMALL, images, dtype, target, threads=threads)
        assert all((first[name] == again[name]).all() for name in first)


@pytest.mark.parity
@pytest.mark.parametrize("build", [ie.googlenet, lambda: ie.googlenet(norm="none")], ids=["lrn", "plain"])
def test_the_whole_network(build: Callable[[], Network]) -> None:
    """At full size, memory reused between launches, in a program for more images than there are."""
    network = build()
    images = np.random.default_rng(0).standard_normal((1, *network.input_shape), dtype=np.float32)
    plan = ie.compile(network, targets=("cuda",), dtype="fp32", max_batch=2)
    with ie.Engine(plan, emulate=True, poison=True) as engine:
        logits = engine.run(images)
    expected = reference.run(network, images)[network.logits]
    assert error(logits, expected) <= TOLERANCES["fp32"].logits


@pytest.mark.parametrize("widths", [(24, 8), (24, 40, 16), (16, 24), (8,)])
def test_infinity_in_padded_slices_stays_infinity(widths: tuple[int, ...]) -> None:
    """Reduces whose channels are no whole panels: what lies between them must not become infinity times zero."""
    layers: list[Layer] = []
    for i, width in enumerate(widths):
        reduce = np.full((width, 3, 1, 1), 0.5, np.float32)
        layers.append(
            Conv(name=f"reduce{i}", inputs=(INPUT,), weight=reduce, bias=np.zeros(width, np.float32))
        )
    for i, width in enumerate(widths):
        weight = np.full((16, width, 3, 3), 0.25, np.float32)
        layers.append(Conv(name=f"out{i}", inputs=(f"reduce{i}",), weight=weight, bias=np.zeros(16, np.float32),
                           pads=(1, 1, 1, 1)))  # fmt: skip
    network = Network(name="inf", input_shape=(3, 6, 6), layers=tuple(layers), logits="out0")
    images = np.ones((1, 3, 6, 6), np.float32)
    images[0, :, 2, 2] = np.inf
    actual = outputs(network, images, "fp32")
    expected = reference.run(network, images, keep="all")
    for i in range(len(widths)):
        assert np.isinf(expected[f"out{i}"]).sum() == 9 * 16
        assert (actual[f"out{i}"] == expected[f"out{i}"]).all()
