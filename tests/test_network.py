from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from inception_engine.network import (
    LRN,
    AveragePool,
    Concat,
    Conv,
    Layer,
    Linear,
    MaxPool,
    Network,
    NetworkError,
    Preprocess,
    Softmax,
)
from inception_engine.seeded import googlenet
from inception_engine.spec import GOOGLENET, PRESETS, Spec
from tests.random_networks import random_network


def conv(name: str = "conv", source: str = "input", shape=(4, 3, 3, 3), **fields) -> Conv:
    return Conv(name=name, inputs=(source,), weight=np.ones(shape, np.float32), bias=np.zeros(shape[0], np.float32),
                **fields)  # fmt: skip


def network(*layers: Layer, logits: str = "", **fields) -> Network:
    return Network(name="test", input_shape=fields.pop("input_shape", (3, 8, 9)), layers=layers,
                   logits=logits or layers[-1].name, **fields)  # fmt: skip


# The seeded GoogLeNet


@pytest.mark.parametrize("name", PRESETS)
def test_googlenet_is_its_spec(name) -> None:
    spec = PRESETS[name]
    net = googlenet(spec=spec)
    shapes = net.shapes()
    assert {layer.name: shapes[layer.name] for layer in spec.layers} == {
        layer.name: layer.output for layer in spec.layers
    }
    assert net.parameters() == spec.parameters
    assert net.macs() == spec.macs
    assert net.layer_macs() == {layer.name: layer.macs for layer in spec.layers if layer.macs}
    assert net.logits == "fc"
    assert {layer.module for layer in net.layers} == {layer.module for layer in spec.layers}


def test_googlenet_variant_keywords() -> None:
    net = googlenet(norm="none", third_branch=3, width=0.25, classes=7, input_size=64)
    assert net.shapes()["fc"] == (7, 1, 1)
    assert net.input_shape == (3, 64, 64)
    assert not any(isinstance(layer, LRN) for layer in net.layers)
    with pytest.raises(TypeError):
        googlenet(depth=3)
    with pytest.raises(NetworkError, match="layer fc: 99999999999999999 channels"):
        googlenet(classes=99999999999999999)


def test_googlenet_is_deterministic() -> None:
    def weights(seed: int) -> np.ndarray:
        layer = googlenet(seed, width=0.25).layers[0]
        assert isinstance(layer, Conv)
        return layer.weight

    np.testing.assert_array_equal(weights(5), weights(5))
    assert (weights(5) != weights(6)).any()


def test_googlenet_biases_matter() -> None:
    for layer in googlenet(width=0.25).layers:
        if isinstance(layer, Conv | Linear):
            assert np.count_nonzero(layer.bias) == layer.bias.size


def test_googlenet_says_that_its_weights_are_random() -> None:
    assert googlenet(seed=3, width=0.25).metadata["weights"] == "random"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_default_preprocessing(channels: int) -> None:
    default = Preprocess.default(channels)
    assert default == (Preprocess() if channels == 3 else Preprocess(mean=(127.5,), std=(127.5,)))
    default.constants(channels)
    network = googlenet(spec=Spec(input_channels=channels, width=0.1, input_size=32, classes=2))
    assert network.preprocess == default


def test_grey_images() -> None:
    mean, std = googlenet(spec=Spec(input_channels=1, width=0.25)).preprocess.constants(1)
    assert mean.shape == std.shape == (1,)


# Shapes and costs of a graph


def test_windows() -> None:
    net = network(
        conv(stride=(2, 1), pads=(0, 1, 2, 3)),
        MaxPool(name="pool", inputs=("conv",), kernel=(3, 2), stride=(2, 3), pads=(1, 0, 0, 1)),
        AveragePool(name="mean", inputs=("pool",), kernel=(2, 4), stride=(1, 1)),
        Linear(name="fc", inputs=("mean",), weight=np.ones((5, 4), np.float32), bias=np.ones(5, np.float32)),
        Softmax(name="softmax", inputs=("fc",)),
        logits="fc",
    )
    assert net.shapes() == {
        "input": (3, 8, 9),
        "conv": (4, 4, 11),  # (8 + 2 - 3) // 2 + 1, 9 + 4 - 3 + 1
        "pool": (4, 2, 4),  # (4 + 1 - 3) // 2 + 1, (11 + 1 - 2) // 3 + 1
        "mean": (4, 1, 1),
        "fc": (5, 1, 1),
        "softmax": (5, 1, 1),
    }
    assert net.layer_macs() == {"conv": 4 * 3 * 9 * 4 * 11, "fc": 20}
    assert net.parameters() == 4 * 27 + 4 + 20 + 5


def test_concatenation() -> None:
    net = network(conv("a"), conv("b", shape=(2, 3, 3, 3)), Concat(name="ab", inputs=("a", "b", "a")))
    assert net.shapes()["ab"] == (10, 6, 7)


def doubled(index: int, times: int = 2) -> Concat:
    """One of a chain of concatenations."""
    return Concat(name=str(index), inputs=(str(index - 1) if index else "input",) * times)


IMPOSSIBLE = {
    "name taken": lambda: network(conv(), conv()),
    "input is a name": lambda: network(conv("input")),
    "unknown input": lambda: network(conv(source="other")),
    "later input": lambda: network(conv("a", "b"), conv("b")),
    "no such logits": lambda: network(conv(), logits="fc"),
    "image as logits": lambda: network(conv(), logits="input"),
    "two inputs": lambda: network(dataclasses.replace(conv(), inputs=("input", "input"))),
    "no input": lambda: network(Concat(name="none", inputs=())),
    "channels": lambda: network(conv(shape=(4, 2, 3, 3))),
    "float64": lambda: network(dataclasses.replace(conv(), weight=np.ones((4, 3, 3, 3)))),
    "bias": lambda: network(dataclasses.replace(conv(), bias=np.ones(3, np.float32))),
    "rank": lambda: network(dataclasses.replace(conv(), weight=np.ones((4, 27), np.float32))),
    "no outputs": lambda: network(conv(shape=(0, 3, 3, 3))),
    "window too large": lambda: network(conv(shape=(4, 3, 9, 3))),
    "stride": lambda: network(conv(stride=(0, 1))),
    "negative pad": lambda: network(conv(pads=(0, -1, 0, 0))),
    "window in the padding": lambda: network(
        MaxPool(name="pool", inputs=("input",), kernel=(2, 2), stride=(1, 1), pads=(0, 0, 2, 0))
    ),
    "sizes differ": lambda: network(
        conv("a"), conv("b", pads=(1, 1, 1, 1)), Concat(name="ab", inputs=("a", "b"))
    ),
    "softmax of an image": lambda: network(Softmax(name="softmax", inputs=("input",))),
    "linear inputs": lambda: network(
        Linear(name="fc", inputs=("input",), weight=np.ones((2, 3), np.float32), bias=np.ones(2, np.float32))
    ),
    "LRN of nothing": lambda: network(LRN(name="lrn", inputs=("input",), size=0)),
    "labels": lambda: network(conv(), labels=("cat", "dog")),
    "input shape": lambda: network(conv(), input_shape=(3, 0, 9)),
    "mean of other channels": lambda: network(conv(), preprocess=Preprocess(mean=(1.0, 2.0), std=(1.0,))),
    "mean that is no number": lambda: network(conv(), preprocess=Preprocess(mean=("a", "b", "c"))),  # type: ignore
    "mean beyond float64": lambda: network(conv(), preprocess=Preprocess(mean=(10**400,))),
    "mean beyond float32": lambda: network(conv(), preprocess=Preprocess(mean=(1e300,))),
    "channels without end": lambda: network(*(doubled(i) for i in range(40))),
    "more numbers than memory": lambda: network(conv(pads=(2**20, 2**20, 0, 0))),
    "an input larger than memory": lambda: network(conv(), input_shape=(3, 2**16, 2**16)),
    "more layers than a plan holds": lambda: network(*(doubled(i, 1) for i in range(1025))),
    "deviation of zero": lambda: network(conv(), preprocess=Preprocess(std=(1.0, 0.0, 1.0))),
}


@pytest.mark.parametrize("make", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_graphs(make) -> None:
    with pytest.raises(NetworkError) as caught:
        make()
    assert "\n" not in str(caught.value)


# Files


def assert_equal(actual: Network, expected: Network) -> None:
    for field in dataclasses.fields(Network):
        if field.name != "layers":
            assert getattr(actual, field.name) == getattr(expected, field.name), field.name
    assert len(actual.layers) == len(expected.layers)
    for a, b in zip(actual.layers, expected.layers, strict=True):
        assert type(a) is type(b)
        for field in dataclasses.fields(b):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), strict=True)


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_survive_a_file(seed, tmp_path) -> None:
    expected = random_network(np.random.default_rng(seed))
    expected.save(tmp_path / "network.safetensors")
    assert_equal(Network.load(tmp_path / "network.safetensors"), expected)


def test_googlenet_survives_a_file(tmp_path) -> None:
    labels = ("Katze", "Hund \N{DOG FACE}")
    expected = dataclasses.replace(googlenet(spec=GOOGLENET, width=0.25, classes=2), labels=labels)
    expected.save(tmp_path / "network.safetensors")
    assert_equal(Network.load(tmp_path / "network.safetensors"), expected)


def test_a_failed_save_leaves_nothing(tmp_path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        network(conv()).save(tmp_path / "nowhere" / "network.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_networks(tmp_path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "network.safetensors"
    with pytest.raises(FileNotFoundError):
        Network.load(path)
    network(conv()).save(path)
    content = path.read_bytes()
    for damaged in (b"", b"not safetensors", content[:-4], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(NetworkError, match=r"network\.safetensors"):
            Network.load(path)
    save_file({"weight": np.ones(3, np.float32)}, path)
    with pytest.raises(NetworkError, match="no network"):
        Network.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda graph: graph.pop("layers"),
        lambda graph: graph["layers"][0].update(type="Dropout"),
        lambda graph: graph["layers"][0].update(colour="red"),
        lambda graph: graph["layers"][0].update(name="elsewhere"),
        lambda graph: graph["layers"][0].update(stride=[0, 0]),
        lambda graph: graph["layers"][0].update(stride="ab"),
        lambda graph: graph["layers"][0].update(inputs=["later"]),
        lambda graph: graph.update(input_shape=[3]),
        lambda graph: graph.update(input_shape=7),
        lambda graph: graph.update(preprocess={"mean": "grey"}),
        lambda graph: graph["layers"][0].update(stride=[1]),
        lambda graph: graph["layers"][0].update(stride=5),
        lambda graph: graph["layers"][0].update(stride=[1.5, 1]),
        lambda graph: graph["layers"][0].update(stride=[True, True]),
        lambda graph: graph["layers"][0].update(stride=[10**10, 1]),
        lambda graph: graph["layers"][0].update(pads=[1]),
        lambda graph: graph["layers"][0].update(pads=None),
        lambda graph: graph["layers"][0].update(relu="x"),
        lambda graph: graph["layers"][0].update(module=5),
        lambda graph: graph["layers"][0].update(inputs="input"),
        lambda graph: graph["layers"][0].update(name=5),
        lambda graph: graph["layers"][0].update(type=[]),
        lambda graph: graph["layers"][0].update(weight=[1]),
        lambda graph: graph["layers"].append(5),
        lambda graph: graph["layers"].append(
            {
                "type": "AveragePool",
                "name": "a",
                "inputs": ["conv"],
                "kernel": [1, 1],
                "stride": [1, 1],
                "count_include_pad": "x",
            }
        ),
        lambda graph: graph["layers"].append({"type": "LRN", "name": "a", "inputs": ["conv"], "size": 5.5}),
        lambda graph: graph["layers"].append({"type": "LRN", "name": "a", "inputs": ["conv"], "k": 1e300}),
        lambda graph: graph["layers"].append({"type": "LRN", "name": "a", "inputs": ["conv"], "k": 10**400}),
        lambda graph: graph["layers"].append(
            {"type": "LRN", "name": "a", "inputs": ["conv"], "k": float("nan")}
        ),
        lambda graph: graph.update(input_shape=[3, 8.0, 9]),
        lambda graph: graph.update(name=5),
        lambda graph: graph.update(labels="abcd"),
        lambda graph: graph.update(labels=[1, 2, 3, 4]),
        lambda graph: graph.update(metadata=None),
        lambda graph: graph.update(metadata={"epochs": 5}),
        lambda graph: graph.update(logits=[]),
        lambda graph: graph["preprocess"].update(mean=[10**400]),
        lambda graph: graph["preprocess"].update(mean=[1e300]),
        lambda graph: graph["preprocess"].update(mean=5),
        lambda graph: graph["preprocess"].update(resize=None),
        lambda graph: graph["preprocess"].update(resize="a"),
        lambda graph: graph["preprocess"].update(resize=0),
        lambda graph: graph["preprocess"].update(order="XYZ"),
        lambda graph: graph["preprocess"].update(order=5),
    ],
)
def test_damaged_descriptions(damage, tmp_path) -> None:
    from safetensors.numpy import load, save

    path = tmp_path / "network.safetensors"
    network(conv()).save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    key, graph = next((key, json.loads(value)) for key, value in header["__metadata__"].items())
    damage(graph)
    path.write_bytes(save(load(content), {key: json.dumps(graph)}))
    with pytest.raises(NetworkError, match=r"network\.safetensors"):
        Network.load(path)
