"""Every backend against the float64 reference, layer by layer and at the logits: `pytest -m parity`.

What checks is itself checked: the negative controls at the end change one thing and must be reported.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from inception_engine import reference
from inception_engine.compiler.targets import CPU
from inception_engine.network import LRN, Concat, Conv, Layer, Linear, MaxPool, Network
from inception_engine.seeded import googlenet
from inception_engine.spec import PRESETS, Spec
from tests.random_networks import random_images, random_network
from tests.tolerances import error, violations

pytestmark = pytest.mark.parity

# The three published layouts at full size, one image; and odd sizes with a batch that is not a power of two.
CASES: dict[str, tuple[Spec, int]] = {
    **{name: (spec, 1) for name, spec in PRESETS.items()},
    "lrn-small": (Spec(input_size=75, width=0.5, classes=11), 3),
    "plain-unpadded": (Spec(norm="none", input_size=97, pool_padding="none", classes=7), 3),
    "torchvision-narrow": (
        dataclasses.replace(PRESETS["torchvision"], input_size=64, width=0.3, classes=1),
        3,
    ),
    "grey": (Spec(input_size=33, input_channels=1, width=0.25, third_branch=3, classes=5), 3),
}

# Of 16,000 such networks 24 broke the bound of a layer: where ReLU leaves of a single channel only the small difference
# of large sums, or a strong LRN squeezes the largest values. None of these seeds does.
RANDOM_NETWORKS = 60

DIRECT = dataclasses.replace(CPU, winograd=())

Backend = Callable[[Network, np.ndarray], Mapping[str, np.ndarray]]


@functools.cache
def case(name: str) -> tuple[Spec, Network, np.ndarray, dict[str, np.ndarray]]:
    """The spec, its seeded network, images of mean 0 and deviation 1, and the reference's output of every layer."""
    spec, batch = CASES[name]
    network = googlenet(seed=1, spec=spec)
    images = np.random.default_rng(2).standard_normal((batch, *network.input_shape), dtype=np.float32)
    return spec, network, images, reference.run(network, images, keep="all")


@pytest.fixture(params=["reference-fp32", "torch", "onnxruntime", "engine"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "reference-fp32":
        return lambda network, images: reference.run(network, images, dtype="float32", keep="all")
    run = request.getfixturevalue(f"run_{request.param}")
    return lambda network, images: run(network, images, [layer.name for layer in network.layers])


@pytest.mark.parametrize("name", CASES)
def test_every_layer(name: str, backend: Backend) -> None:
    _, network, images, expected = case(name)
    assert violations(backend(network, images), expected, network.logits) == []


@pytest.mark.parametrize("name", CASES)
def test_engine_with_memory_reused(name: str, run_engine) -> None:
    """The plan that is used in earnest: its arena is poisoned, its maximum batch larger than the batch."""
    _, network, images, expected = case(name)
    actual = run_engine(network, images, max_batch=len(images) + 1, threads=2, poison=True)
    assert violations(actual, {"fc": expected["fc"]}, "fc") == []


@pytest.mark.parametrize("name", ["lrn-small", "plain-unpadded", "torchvision-narrow"])
def test_engine_in_bfloat16(name: str, run_engine, isas) -> None:
    """On the CPU. The whole of the bound is needed: float32 results would pass, too, so they must not be those."""
    _, network, images, expected = case(name)
    exact = run_engine(network, images)
    for isa in isas:
        every = run_engine(network, images, list(expected), dtype="bf16", isa=isa, threads=2)
        assert violations(every, expected, network.logits, "bf16") == [], isa
        conv1 = every["conv1"].view(np.uint32)
        assert not (conv1 & 0xFFFF).any(), "activations are bfloat16"
        reused = run_engine(network, images, max_batch=4, dtype="bf16", isa=isa, threads=3, poison=True)
        np.testing.assert_array_equal(reused[network.logits], every[network.logits])
        assert error(reused[network.logits], exact[network.logits]) > 1e-4


def test_model_with_trained_batch_norm(run_onnxruntime) -> None:
    """Statistics far from 0 and 1, as training leaves them, fold into a network that computes the same."""
    torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")
    from inception_engine.model import GoogLeNet

    spec, _, images, _ = case("torchvision-narrow")
    torch.manual_seed(3)
    model = GoogLeNet(dataclasses.replace(spec, classes=9)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    network = model.to_network()
    expected = reference.run(network, images)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images)).numpy()
    assert violations({"fc": logits}, expected, "fc") == []
    # The other way round the model is the judge: folding is not checked by what it made.
    with torch.inference_mode():
        exact = model.double()(torch.from_numpy(images).double()).numpy()
    assert violations(run_onnxruntime(network, images, ["fc"]), {"fc": exact}, "fc") == []


@functools.cache
def random_case(seed: int) -> tuple[Network, np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images = random_images(rng, network, 1 + seed % 5)
    return network, images, reference.run(network, images, keep="all")


@pytest.mark.parametrize("seed", range(RANDOM_NETWORKS))
def test_random_network_onnxruntime(seed: int, run_onnxruntime) -> None:
    network, images, expected = random_case(seed)
    assert violations(run_onnxruntime(network, images, list(expected)), expected, network.logits) == []


@pytest.mark.parametrize("seed", range(RANDOM_NETWORKS))
def test_random_network_engine(seed: int, run_engine, isas) -> None:
    """Every instruction set, 1 to 4 threads, memory kept and reused; the same bits for any number of threads."""
    network, images, expected = random_case(seed)
    logits = {network.logits: expected[network.logits]}
    threads = 1 + seed % 4
    for isa in isas:
        options = {"isa": isa, "poison": True}
        every = run_engine(network, images, list(expected), threads=threads, **options)
        assert violations(every, expected, network.logits) == [], isa
        reused = run_engine(network, images, threads=threads, max_batch=5, **options)
        assert violations(reused, logits, network.logits) == [], isa
        alone = run_engine(network, images, threads=1 + threads % 4, max_batch=5, **options)
        np.testing.assert_array_equal(alone[network.logits], reused[network.logits])


@pytest.mark.parametrize("seed", range(0, RANDOM_NETWORKS, 3))
def test_nan_spreads_as_in_the_reference(seed: int, run_engine, isas) -> None:
    """One pixel of the last image: the same outputs are NaN, and the images before it are not touched.

    By Winograd's algorithm a patch of outputs is NaN where one of them is.
    """
    network, images, _ = random_case(seed)
    images = images.copy()
    images[-1, 0, images.shape[2] // 2, 0] = np.nan
    expected = reference.run(network, images, keep="all")
    for isa in isas:
        exact = run_engine(network, images, list(expected), isa=isa, threads=1, target=DIRECT)
        actual = run_engine(network, images, list(expected), isa=isa, threads=1)
        for name in expected:
            where = np.isnan(expected[name])
            np.testing.assert_array_equal(np.isnan(exact[name]), where, err_msg=f"{isa} {name}")
            assert np.isnan(actual[name][where]).all(), (isa, name)
            assert not np.isnan(actual[name][:-1]).any(), (isa, name)


# Negative controls


def perturb_one_weight(layer: Layer) -> Layer:
    """The largest weight of the first convolution, by one part in twenty. (Further on it may read a dead channel.)"""
    if not isinstance(layer, Conv) or layer.name != "conv1":
        return layer
    weight = layer.weight.copy()
    weight[np.unravel_index(np.abs(weight).argmax(), weight.shape)] *= 1.05
    return dataclasses.replace(layer, weight=weight)


def swap_two_channels(layer: Layer) -> Layer:
    """Two output channels of one convolution."""
    if not isinstance(layer, Conv) or layer.name != "3a/5x5":
        return layer
    order = np.r_[1, 0, 2 : len(layer.bias)]
    return dataclasses.replace(layer, weight=layer.weight[order], bias=layer.bias[order])


def drop_lrn(layer: Layer) -> Layer:
    """A pool of one pixel passes everything on."""
    if not isinstance(layer, LRN):
        return layer
    return MaxPool(name=layer.name, inputs=layer.inputs, kernel=(1, 1), stride=(1, 1))


def forget_biases(layer: Layer) -> Layer:
    return dataclasses.replace(layer, bias=layer.bias * 0) if isinstance(layer, Conv | Linear) else layer


def swap_branches(layer: Layer) -> Layer:
    """3x3 and 5x5 of 5b side by side in the wrong order."""
    if not isinstance(layer, Concat) or layer.name != "5b":
        return layer
    one, three, five, pool = layer.inputs
    return dataclasses.replace(layer, inputs=(one, five, three, pool))


@pytest.mark.parametrize(
    "change",
    [perturb_one_weight, swap_two_channels, drop_lrn, forget_biases, swap_branches],
    ids=lambda f: f.__name__,
)
def test_a_changed_network_is_reported(change: Callable[[Layer], Layer]) -> None:
    """By the layers and by the logits alone. Unchanged, the same network passes (test_every_layer)."""
    _, network, images, expected = case("lrn")
    changed = dataclasses.replace(network, layers=tuple(map(change, network.layers)))
    actual = reference.run(changed, images, dtype="float32", keep="all")
    assert violations(actual, expected, "fc") != []
    assert violations(actual, {"fc": expected["fc"]}, "fc") != []


def test_missing_nan_and_misshapen_outputs_are_reported() -> None:
    expected = {"a": np.ones((2, 3)), "b": np.ones((2, 3))}
    assert violations({"a": np.ones((2, 3))}, expected, "a") == ["b: missing"]
    spoilt = np.ones((2, 3))
    spoilt[1, 2] = np.nan
    assert violations({"a": np.ones((2, 3)), "b": spoilt}, expected, "a") == ["b: error inf above 1e-05"]
    assert violations({"a": np.ones((3, 2)), "b": np.ones((2, 3))}, expected, "a") != []
