"""bfloat16 by AVX512-BF16 and by AMX: where the processor has it, and everywhere with an imitation (tests/amx)."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding, reference
from inception_engine.compiler.targets import target_for
from inception_engine.network import (
    INPUT,
    Concat,
    Conv,
    Layer,
    Linear,
    MaxPool,
    Network,
    Pads,
    Pair,
    Preprocess,
)
from tests.amx.build import build_library
from tests.random_networks import random_images, random_network
from tests.tolerances import TOLERANCES, error

ROOT = Path(__file__).parents[2]
HAS_AMX = binding.machine_isas()[-1] == "amx"

Outputs = dict[str, np.ndarray]


@pytest.mark.skipif(HAS_AMX, reason="backend amx: the processor's own is under test")
def test_an_imitation(tmp_path: Path) -> None:
    """This file, and the tests of bfloat16 elsewhere, with a library that takes this machine for one with AMX."""
    files = [__file__, "tests/test_parity.py", "tests/runtime/test_random_runs.py"]
    files.append("tests/compiler/test_fuse.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    command += ["-k", "bfloat16 and not imitation"]
    environment = os.environ | {binding.LIBRARY_VARIABLE: str(build_library(tmp_path))}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


# Points of large patches are rounded: of integers, far below what one product more or less would make.
SLACK = {"amx": 0.0, "avx512_bf16": 1e-4}


@pytest.fixture(params=SLACK)
def isa(request: pytest.FixtureRequest) -> str:
    if request.param not in binding.machine_isas():
        pytest.skip(f"backend {request.param}: this processor does not have it")
    return str(request.param)


def outputs(network: Network, images: np.ndarray, isa: str, **options: object) -> Outputs:
    plan = ie.compile(network, max_batch=len(images) + 1, dtype="bf16", keep_all=True)
    with ie.Engine(plan, isa=isa, **options) as engine:  # type: ignore[arg-type]
        return engine.run(images, outputs=list(engine.outputs))


@pytest.fixture
def watched(isa: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Engines get their memory from here, and nothing may be written behind it."""
    given: list[tuple[np.ndarray, np.ndarray]] = []

    def allocate(_: int, size: int, alignment: int) -> int:
        memory = np.full(size + alignment + (1 << 20), 0xA5, np.uint8)
        memory = memory[-memory.ctypes.data % alignment :]
        given.append((memory, memory[size:]))
        return memory.ctypes.data

    functions = {
        "allocate": binding.AllocateFunction(allocate),
        "release": binding.ReleaseFunction(lambda *_: None),
    }
    monkeypatch.setattr(binding, "EngineOptions", functools.partial(binding.EngineOptions, **functions))
    yield
    assert len(given) >= 3  # a plan, what was made of its weights, a context
    assert all((behind == 0xA5).all() for _, behind in given)


def small_integers(rng: np.random.Generator, *shape: int, share: float = 1.0) -> np.ndarray:
    """-2 to 2, a ``share`` of them not zero."""
    values = rng.integers(1, 3, shape) * rng.choice([-1, 1], shape) * (rng.random(shape) < share)
    return values.astype(np.float32)


def convolution(
    rng: np.random.Generator, name: str, source: str, shape: tuple[int, int, int, int], **options: object
) -> Conv:
    """Of integers that are small enough for every sum to be one that bfloat16 has, below 256."""
    share = min(1.0, 24 / np.prod(shape[1:]))
    weight, bias = small_integers(rng, *shape, share=share), small_integers(rng, shape[0])
    return Conv(name=name, inputs=(source,), weight=weight, bias=bias, **options)  # type: ignore[arg-type]


# Channels, columns, window, stride, pads, size of the image and batch.
CASES: dict[str, tuple[int, int, Pair, Pair, Pads, Pair, int]] = {
    "1x1": (64, 32, (1, 1), (1, 1), (0, 0, 0, 0), (14, 14), 3),
    "1x1, half a step": (16, 48, (1, 1), (1, 1), (0, 0, 0, 0), (9, 7), 2),
    "1x1, steps and a half": (80, 40, (1, 1), (1, 1), (0, 0, 0, 0), (14, 14), 1),
    "1x1, odd channels": (37, 17, (1, 1), (1, 1), (0, 0, 0, 0), (5, 7), 3),
    "1x1 of stride 2": (64, 16, (1, 1), (2, 2), (0, 0, 0, 0), (15, 13), 2),
    "3x3, lines longer than a block": (32, 64, (3, 3), (1, 1), (1, 1, 1, 1), (6, 70), 1),
    "3x3, lines shorter than a register": (96, 80, (3, 3), (1, 1), (1, 1, 1, 1), (7, 7), 8),
    "3x3, half a step": (48, 33, (3, 3), (1, 1), (1, 1, 1, 1), (14, 14), 2),
    "3x3 of stride 2, uneven pads": (64, 64, (3, 3), (2, 2), (0, 1, 1, 0), (17, 19), 3),
    "5x5": (16, 32, (5, 5), (1, 1), (2, 2, 2, 2), (28, 28), 1),
    "5x5 of whole steps": (32, 96, (5, 5), (1, 1), (2, 2, 2, 2), (14, 14), 2),
    "9x9, more taps than bits": (32, 16, (9, 9), (1, 1), (4, 4, 4, 4), (11, 40), 1),
    "3x3, lines longer than what is copied at a time": (64, 16, (3, 3), (1, 1), (1, 1, 1, 1), (3, 1500), 1),
    "3x3, more lines than are copied at a time": (240, 16, (3, 3), (1, 1), (1, 1, 1, 1), (112, 2), 1),
    "3x3, outputs too few to copy lines": (40, 16, (3, 3), (1, 1), (0, 0, 0, 0), (5, 5), 5),
    "2x4, uneven pads": (20, 24, (2, 4), (1, 1), (1, 3, 0, 0), (9, 13), 2),
    "1x7": (24, 24, (1, 7), (1, 1), (0, 3, 0, 3), (17, 17), 1),
    "1x3 of three channels": (3, 16, (1, 3), (1, 1), (0, 1, 0, 1), (4, 30), 2),
    "7x1": (40, 24, (7, 1), (1, 1), (3, 0, 3, 0), (17, 17), 2),
    "4x2 of odd channels": (7, 24, (4, 2), (1, 1), (0, 0, 0, 0), (17, 5), 3),
    "a step a tap": (30, 48, (3, 3), (1, 1), (1, 1, 1, 1), (5, 70), 2),
    "a step a tap, shorter lines": (28, 16, (7, 1), (2, 2), (3, 0, 3, 0), (31, 27), 2),
    "one channel": (1, 3, (2, 2), (1, 1), (0, 0, 0, 0), (8, 8), 5),
    "as large as the image": (48, 40, (7, 7), (1, 1), (0, 0, 0, 0), (7, 7), 5),
}


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", CASES)
def test_sums_of_integers_are_exact(name: str, isa: str) -> None:
    channels, columns, kernel, stride, pads, size, batch = CASES[name]
    rng = np.random.default_rng(len(name))
    layers = (
        convolution(rng, "expand", INPUT, (channels, 3, 1, 1)),
        convolution(
            rng, "conv", "expand", (columns, channels, *kernel), stride=stride, pads=pads, relu=False
        ),
    )
    network = Network(name="integers", input_shape=(3, *size), layers=layers, logits="conv")
    images = small_integers(rng, batch, *network.input_shape)
    expected = reference.run(network, images)["conv"]
    assert 8 < np.abs(expected).max() <= 256
    actual = outputs(network, images, isa, threads=2, poison=True)["logits"]
    np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=0, atol=SLACK[isa])


def test_a_module_behind_a_folded_convolution_is_exact(isa: str) -> None:
    """Slices of a concatenation, reduces side by side, a pool between, and a linear layer."""
    rng = np.random.default_rng(0)
    layers: list[Layer] = [
        convolution(rng, "stem", INPUT, (64, 3, 7, 7), stride=(2, 2), pads=(3, 3, 3, 3), relu=True),
        MaxPool(name="pool", inputs=("stem",), kernel=(3, 3), stride=(2, 2), pads=(0, 0, 1, 1)),
        MaxPool(name="same", inputs=("pool",), kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1)),
    ]
    for name, source, columns, size in (("a", "pool", 24, 1), ("b", "pool", 48, 3), ("c", "same", 16, 5)):
        reduced = f"reduce {name}"
        layers.append(convolution(rng, reduced, source, (16 + size, 64, 1, 1), relu=True))
        window = (columns, 16 + size, size, size)
        layers.append(convolution(rng, name, reduced, window, pads=(size // 2,) * 4, relu=True))
        for layer in layers[-2:]:  # a chain of positive sums would not stay below 256
            layer.weight[np.abs(layer.weight) < 2] = 0  # type: ignore[attr-defined]
            layer.weight[:] = np.sign(layer.weight) * (rng.random(layer.weight.shape) < 0.2)  # type: ignore[attr-defined]
    layers.append(Concat(name="module", inputs=("a", "b", "c")))
    weight = (rng.random((10, 88 * 49)) < 0.001).astype(np.float32)
    layers.append(Linear(name="fc", inputs=("module",), weight=weight, bias=np.zeros(10, np.float32)))
    network = Network(name="module", input_shape=(3, 27, 27), layers=tuple(layers), logits="fc")
    images = small_integers(rng, 3, *network.input_shape)
    expected = reference.run(network, images, keep="all")
    actual = outputs(network, images, isa, threads=3, poison=True)
    for name in ("stem", "pool", "a", "b", "c", "module", "fc"):
        values = expected[name]
        assert 0 < np.abs(values).max() <= 256, name
        found = actual["logits" if name == "fc" else name].reshape(values.shape)
        np.testing.assert_allclose(found, values, rtol=0, atol=SLACK[isa])


@pytest.mark.parametrize("size", [(9, 64), (20, 19)])
def test_a_folded_stem_is_exact(size: Pair, isa: str) -> None:
    """Its runs are read where they lie in lines of 32 outputs, and gathered where a line ends inside a register."""
    rng = np.random.default_rng(0)
    stem = convolution(rng, "stem", INPUT, (64, 3, 7, 7), stride=(2, 2), pads=(3, 3, 3, 3))
    network = Network(name="stem", input_shape=(3, *size), layers=(stem,), logits="stem")
    images = small_integers(rng, 2, *network.input_shape)
    expected = reference.run(network, images)["stem"]
    actual = outputs(network, images, isa, threads=2, poison=True)["logits"]
    np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=0, atol=SLACK[isa])


@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int, isa: str) -> None:
    """As near to the reference as bfloat16 in float32 arithmetic; the same bits for any threads, in any batch."""
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images = random_images(rng, network, 3)
    expected = reference.run(network, images, keep="all")
    actual = outputs(network, images, isa, threads=1 + seed % 4, poison=True)
    other = outputs(network, images, "avx2", threads=2)
    alone = outputs(network, images[1:2], isa, threads=2)
    bound = TOLERANCES["bf16"].layer
    for name, values in actual.items():
        np.testing.assert_array_equal(values[1:2], alone[name])
        if name in expected:
            wanted = expected[name].reshape(values.shape)
            assert error(values, wanted) <= max(bound, 2 * error(other[name], wanted)), name


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 21, 48, 64, 200])
def test_maximum_pools_know_every_number(channels: int, stride: int, isa: str) -> None:
    """A NaN of either sign makes a NaN; infinities, negative numbers and zeros of both signs are in their order."""
    rng = np.random.default_rng(channels)
    sides = 3, 5
    layers: list[Layer] = [
        MaxPool(
            name=f"pool {side}",
            inputs=(INPUT,),
            kernel=(side, side),
            stride=(stride, stride),
            pads=(side // 2,) * 4,
        )
        for side in sides
    ]
    layers.append(Concat(name="both", inputs=tuple(layer.name for layer in layers)))
    preprocess = Preprocess(mean=(0.0,), std=(1.0,))
    network = Network(
        name="pools",
        input_shape=(channels, 9, 11),
        layers=tuple(layers),
        logits="both",
        preprocess=preprocess,
    )
    few = np.array([np.inf, -np.inf, 0.0, -0.0, 1.0, 2.0**-126, 2.0**-130, -3.0, 255 * 2.0**120], np.float32)
    images = rng.choice(few, (3, *network.input_shape))
    images[1] = -np.abs(images[1])
    images[1] = np.where(rng.random(images[1].shape) < 0.05, np.copysign(np.nan, images[0]), images[1])
    images[2] = np.where(rng.random(images[2].shape) < 0.9, -np.inf, -np.abs(images[2]))
    expected = []
    for side in sides:
        edge = side // 2
        padded = np.pad(images, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=-np.inf)
        shifted = [padded[:, :, y : y + 9, x : x + 11] for y in range(side) for x in range(side)]
        expected.append(np.max(shifted, axis=0)[:, :, ::stride, ::stride])
    actual = outputs(network, images, isa, threads=2, poison=True)["logits"]
    wanted = np.concatenate(expected, axis=1)
    assert np.isnan(wanted).any() and np.isneginf(wanted).any() and (wanted == 0).any()
    np.testing.assert_array_equal(actual.reshape(wanted.shape), wanted)


def test_an_infinite_image_leaves_others_alone(isa: str) -> None:
    rng = np.random.default_rng(0)
    layers = (
        convolution(rng, "whole", INPUT, (37, 64, 3, 3), pads=(1, 1, 1, 1), relu=False),
        convolution(rng, "ragged", "whole", (21, 37, 1, 1), relu=False),
        convolution(rng, "window", "ragged", (22, 21, 3, 3), pads=(1, 1, 1, 1), relu=False),
        convolution(rng, "narrow", "window", (16, 22, 1, 1), relu=False),
    )
    preprocess = Preprocess(mean=(0.0,), std=(1.0,))
    network = Network(
        name="infinite", input_shape=(64, 6, 6), layers=layers, logits="narrow", preprocess=preprocess
    )
    images = small_integers(rng, 2, *network.input_shape)
    expected = outputs(network, images, isa, threads=1)["logits"]
    assert np.isfinite(expected).all()
    images[1] = np.inf  # the last: the layers after it find it where rows were gathered
    actual = outputs(network, images, isa, threads=1)["logits"]
    assert not np.isfinite(actual[1]).any()
    np.testing.assert_array_equal(actual[0], expected[0])


WINDOWS = [
    (channels, kernel)
    for kernel in ((1, 1), (1, 3), (3, 1), (2, 3), (3, 3), (5, 5))
    for channels in (1, 3, 5, 8, 16, 33)
]


@pytest.mark.parametrize(("channels", "kernel"), WINDOWS)
def test_what_no_window_sees_changes_nothing(channels: int, kernel: Pair, isa: str) -> None:
    """A pixel that is no number shows in the outputs whose windows hold it, and in no others; also in later runs."""
    rng = np.random.default_rng(0)
    pads = kernel[0] // 2, kernel[1] // 2, (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    # A window that is first would be folded.
    same = convolution(rng, "same", INPUT, (channels, channels, 1, 1), relu=False)
    layer = convolution(rng, "conv", "same", (16, channels, *kernel), pads=pads, relu=False)
    same.weight[..., 0, 0] = np.eye(channels)
    layer.weight[layer.weight == 0] = 1
    preprocess = Preprocess(mean=(0.0,), std=(1.0,))
    shape = channels, 9, 30
    network = Network(
        name="windows", input_shape=shape, layers=(same, layer), logits="conv", preprocess=preprocess
    )
    clean = small_integers(rng, 3, *shape)
    spoiled = clean.copy()
    spoiled[0] = np.nan
    spoiled[1, channels // 2, 4, 15] = np.inf
    direct = dataclasses.replace(target_for("cpu", 3, "bf16"), winograd=())  # a patch sees more than a window
    plan = ie.compile(network, targets=(direct,), max_batch=3, dtype="bf16")
    with ie.Engine(plan, isa=isa, threads=2) as engine:
        expected = engine.run(clean)
        actual = engine.run(spoiled)
        np.testing.assert_array_equal(engine.run(clean), expected)
    sees = np.zeros((9, 30), bool)
    rows, columns = 4 + pads[0] - np.arange(kernel[0]), 15 + pads[1] - np.arange(kernel[1])
    sees[np.ix_(rows, columns)] = True
    assert np.isfinite(expected).all() and np.isnan(actual[0]).all()
    np.testing.assert_array_equal(np.isfinite(actual[1]), np.broadcast_to(~sees, actual[1].shape))
    np.testing.assert_array_equal(actual[1][:, ~sees], expected[1][:, ~sees])
    np.testing.assert_array_equal(actual[2], expected[2])
