from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from inception_engine.network import Conv, Linear
from inception_engine.seeded import googlenet
from inception_engine.spec import GOOGLENET, PRESETS, Spec
from tests.tolerances import FOLDING

torch = pytest.importorskip("torch", reason="backend model: torch is not installed")

from inception_engine.model import AuxiliaryHead, Convolution, GoogLeNet, ModelError  # noqa: E402 - needs torch

SMALL = Spec(width=0.25, classes=7, input_size=64)
VARIANTS = {
    name: dataclasses.replace(spec, width=0.25, classes=7, input_size=64) for name, spec in PRESETS.items()
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Layers this small lose more by threads that wait for each other than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_parameters_of_the_published_models() -> None:
    """With auxiliary heads: 13,378,280 in the BVLC model; 13,004,888 in torchvision's and 6,624,904 without them."""
    counts = {
        name: (
            sum(parameter.numel() for parameter in GoogLeNet(spec).parameters()),
            sum(parameter.numel() for parameter in GoogLeNet(spec).trunk.parameters()) + 1000 * 1025,
        )
        for name, spec in PRESETS.items()
        if name != "plain"
    }
    assert counts == {"lrn": (13_378_280, 6_998_552), "torchvision": (13_004_888, 6_624_904)}


@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_network_goes_in_and_comes_out(spec) -> None:
    network = googlenet(seed=4, spec=spec)
    model = GoogLeNet(spec)
    model.load_network(network)
    returned = model.to_network()
    assert returned.shapes() == network.shapes()
    for actual, expected in zip(returned.layers, network.layers, strict=True):
        assert type(actual) is type(expected)
        if isinstance(expected, Conv | Linear):
            for name in ("weight", "bias"):
                a, b = getattr(actual, name), getattr(expected, name)
                assert a.dtype == np.float32
                assert np.abs(a - b).max() <= FOLDING * np.abs(b).max()
        else:
            assert dataclasses.asdict(actual) == dataclasses.asdict(expected)


def test_a_network_is_a_copy() -> None:
    model = GoogLeNet(SMALL)
    layer, module = model.to_network().layers[0], model.at("conv1")
    assert isinstance(layer, Conv)
    assert isinstance(module, Convolution)
    before = layer.weight.copy()
    with torch.no_grad():
        module.convolution.weight.zero_()
    np.testing.assert_array_equal(layer.weight, before)


@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS.keys())
def test_training_has_three_outputs_and_gradients_everywhere(spec) -> None:
    torch.manual_seed(0)
    model = GoogLeNet(spec)
    outputs = model(torch.randn(4, 3, 64, 64))
    assert [tuple(output.shape) for output in outputs] == [(4, 7)] * 3
    loss = outputs.logits.square().sum() + 0.3 * (outputs.auxiliary1 + outputs.auxiliary2).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_evaluation_is_the_trunk_alone() -> None:
    torch.manual_seed(0)
    model = GoogLeNet(SMALL).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        logits = model(images)
        for parameter in model.auxiliary.parameters():
            parameter.fill_(torch.nan)
        again = model(images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(again, logits, rtol=0, atol=0)


def test_training_drops_and_learns() -> None:
    """A handful of steps on one batch: the loss falls although dropout is on."""
    torch.manual_seed(0)
    model = GoogLeNet(dataclasses.replace(SMALL, norm="batch"))
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 7
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        outputs = model(images)
        loss = sum(torch.nn.functional.cross_entropy(output, labels) for output in outputs)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_heads_pool_five_by_five_where_it_gives_four_by_four() -> None:
    for spec, size, kind in ((GOOGLENET, 14, torch.nn.AvgPool2d), (SMALL, 4, torch.nn.AdaptiveAvgPool2d)):
        head = GoogLeNet(spec).auxiliary["4a"]
        assert isinstance(head, AuxiliaryHead)
        assert isinstance(head.pool, kind)
        assert head.pool(torch.zeros(1, 1, size, size)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Spec(width=0.5, classes=7, input_size=64), "conv1"),
        (dataclasses.replace(SMALL, norm="none"), "norm1"),
        (dataclasses.replace(SMALL, third_branch=3), "3a/5x5"),
        (dataclasses.replace(SMALL, classes=8), "fc"),
        (dataclasses.replace(SMALL, input_size=97), "conv1"),
    ],
    ids=["width", "norm", "third branch", "classes", "input size"],
)
def test_networks_that_do_not_fit(other, message) -> None:
    with pytest.raises(ModelError, match=f"layer {message}"):
        GoogLeNet(SMALL).load_network(googlenet(spec=other))
    if message == "norm1":  # the other way round the network has a layer too many
        with pytest.raises(ModelError, match="norm1"):
            GoogLeNet(other).load_network(googlenet(spec=SMALL))


def test_submodules_by_layer_name() -> None:
    model = GoogLeNet(SMALL)
    module = model.at("4c/5x5")
    assert isinstance(module, Convolution)
    assert module.convolution.kernel_size == (5, 5)
    assert model.at("fc") is model.fc
    with pytest.raises(KeyError):
        model.at("6a")
