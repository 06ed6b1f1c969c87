"""Fine-tuning: what is taken from a network or checkpoint, and that the first step begins at what it computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inception_engine import googlenet
from inception_engine.model import GoogLeNet
from inception_engine.network import Conv, Linear, Network, Preprocess
from inception_engine.spec import Spec
from inception_engine.train import checkpoint, start
from inception_engine.train.averaging import norms
from inception_engine.train.config import Config
from inception_engine.train.distributed import World
from inception_engine.train.errors import CheckpointError, ConfigError
from tests.importers.torchvision_model import trained_googlenet
from tests.texts import NO_SPECS
from tests.tolerances import TOLERANCES, error

SMALL = Spec(width=0.125, classes=3, input_size=32)
CLASSES = ("cat", "dog", "fox")


def saved(path: Path, spec: Spec, **changes: object) -> Network:
    network = dataclasses.replace(googlenet(seed=3, spec=spec), **changes)  # type: ignore[arg-type]
    network.save(path)
    return network


def tensor(model: GoogLeNet, name: str) -> torch.Tensor:
    return model.state_dict()[name]


def weight(network: Network, name: str) -> np.ndarray:
    (layer,) = (layer for layer in network.layers if layer.name == name)
    assert isinstance(layer, Conv | Linear)
    return layer.weight


def logits(model: GoogLeNet, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(images).numpy()


def test_new_weights_are_the_seeds() -> None:
    def weights(seed: int) -> torch.Tensor:
        config = Config(seed=seed, width=0.125, input_size=32)
        return start.begin(config, CLASSES).model.fc.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
def test_the_same_classes_keep_their_classifier(norm: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    network = saved(path, dataclasses.replace(SMALL, norm=norm), labels=CLASSES)
    beginning = start.begin(Config(start=str(path)), CLASSES)
    assert beginning.model.spec == dataclasses.replace(SMALL, norm=norm)
    assert beginning.folded == (norm == "batch")
    assert beginning.preprocess == network.preprocess
    assert not any("classifier" in note for note in beginning.notes)
    given = GoogLeNet(beginning.model.spec)
    given.load_network(network)
    images = torch.randn(4, 3, 32, 32)
    np.testing.assert_array_equal(logits(beginning.model, images), logits(given, images))


@pytest.mark.parametrize(
    "classes", [("cat", "dog"), ("cat", "dog", "owl"), ("dog", "cat", "fox")], ids=["fewer", "other", "order"]
)
def test_other_classes_get_a_new_classifier(classes: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    network = saved(path, SMALL, labels=CLASSES)
    beginning = start.begin(Config(start=str(path)), classes)
    model = beginning.model
    assert model.fc.out_features == len(classes)
    assert any(f"new classifier for {len(classes)} classes" in note for note in beginning.notes)
    first = tensor(model, "trunk.conv1.convolution.weight")
    np.testing.assert_array_equal(first.numpy(), weight(network, "conv1"))
    if len(classes) == 3:
        assert not np.array_equal(tensor(model, "fc.weight").numpy(), weight(network, "fc"))


def test_another_input_size_and_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    saved(path, SMALL, preprocess=Preprocess(mean=(1.0, 2.0, 3.0), std=(4.0,), order="BGR"))
    beginning = start.begin(Config(start=str(path), input_size=64, std=(5.0,), resize=70), CLASSES)
    assert beginning.model.spec.input_size == 64
    assert beginning.preprocess == Preprocess(mean=(1.0, 2.0, 3.0), std=(5.0,), order="BGR", resize=70)


@pytest.mark.parametrize(("size", "resize", "expected"), [(None, None, 34), (64, None, 68), (None, 40, 40)])
def test_the_shorter_side_is_that_of_the_file(
    size: int | None, resize: int | None, expected: int, tmp_path: Path
) -> None:
    """In proportion, where the input is another, and unless a key says otherwise."""
    path = tmp_path / "net.safetensors"
    saved(path, SMALL, preprocess=Preprocess(resize=34))
    config = Config(start=str(path), input_size=size, resize=resize)
    assert start.begin(config, CLASSES).preprocess.resize == expected
    assert start.begin(Config(width=0.125, input_size=32), CLASSES).preprocess.resize == 37


def test_folded_batch_norm_is_unfolded_to_the_same_function(tmp_path: Path) -> None:
    """In evaluation mode on any image, in training mode on those that it was unfolded with. Without, it is another."""
    path = tmp_path / "net.safetensors"
    saved(path, dataclasses.replace(SMALL, norm="batch"))
    model = start.begin(Config(start=str(path), dropout=0.0), CLASSES).model
    model.dropout.p = 0.0
    images, others = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)
    expected, expected_others = logits(model, images), logits(model, others)
    with torch.no_grad():
        folded = model.train()(images).logits.numpy()
    assert error(folded, expected) > 0.1
    start.unfold_batch_norm(model, images, World(device=torch.device("cpu")))
    bound = TOLERANCES["fp32"].logits
    assert error(logits(model, images), expected) < bound
    assert error(logits(model, others), expected_others) < bound
    for norm in norms(model.trunk):
        norm.momentum = 0.0
    with torch.no_grad():
        assert error(model.train()(images).logits.numpy(), expected) < bound


def test_a_torchvision_checkpoint(tmp_path: Path) -> None:
    torch.save(trained_googlenet(3, width=1, auxiliary=True).state_dict(), tmp_path / "tuned.pth")
    beginning = start.begin(Config(start=str(tmp_path / "tuned.pth"), input_size=64), ("a", "b"))
    spec = beginning.model.spec
    assert (spec.norm, spec.third_branch, spec.pool_kernels, spec.classes) == ("batch", 3, (3, 3, 3, 2), 2)
    assert beginning.folded


def test_layers_up_to_one_are_frozen() -> None:
    model = GoogLeNet(dataclasses.replace(SMALL, norm="batch"))
    frozen = start.freeze(model, "3a")
    names = list(model.trunk)
    assert frozen == [model.trunk[name] for name in names[: names.index("3a") + 1]]
    for name, parameter in model.named_parameters():
        layer = name.split(".")[1]
        assert parameter.requires_grad == (not (name.startswith("trunk.") and layer in [*names[:6], "3a"])), (
            name
        )
    assert start.freeze(model, None) == []
    whole = r"freeze is '{}', not one of conv1, pool1.*; 3a is frozen as a whole, with all its branches"
    for name in ("3a/1x1", "3a.branch1", "trunk.3a.branch1"):
        with pytest.raises(ConfigError, match=whole.format(name)):
            start.freeze(model, name)
    with pytest.raises(ConfigError, match=r"freeze is '9a', not one of conv1, pool1.*, 5b[^;]*$"):
        start.freeze(model, "9a")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0.5}, "width is 0.5, and 0.125 in"),
        ({"norm": "batch"}, "norm is batch, and lrn in"),
        ({"input_channels": 1}, "input_channels is 1, and 3 in"),
        ({"mean": (1.0, 2.0)}, "2 means"),
    ],
)
def test_keys_that_contradict_the_file(given: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    saved(path, SMALL)
    with pytest.raises((ConfigError, ValueError), match=message):
        start.begin(Config(start=str(path), **given), CLASSES)  # type: ignore[arg-type]


def test_three_channels_that_were_asked_for_contradict_a_grey_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    grey = dataclasses.replace(SMALL, input_channels=1)
    saved(path, grey, preprocess=Preprocess(mean=(127.5,), std=(127.5,)))
    with pytest.raises(ConfigError, match="input_channels is 3, and 1 in"):
        start.begin(Config(start=str(path), input_channels=3), CLASSES)
    for given in (None, 1):
        assert (
            start.begin(Config(start=str(path), input_channels=given), CLASSES).model.spec.input_channels == 1
        )


@pytest.mark.parametrize("text", NO_SPECS, ids=range(len(NO_SPECS)))
def test_metadata_that_are_no_spec_are_passed_over(text: str, tmp_path: Path) -> None:
    """What the configuration says holds then."""
    path = tmp_path / "net.safetensors"
    dataclasses.replace(googlenet(spec=SMALL), metadata={"spec": text}).save(path)
    assert start.begin(Config(start=str(path), width=0.125), CLASSES).model.spec.width == 0.125


def test_a_network_of_another_kind(tmp_path: Path) -> None:
    network = googlenet(spec=SMALL)
    dataclasses.replace(network, metadata={}).save(tmp_path / "net.safetensors")
    with pytest.raises(ConfigError, match="not the network of these keys: layer conv1"):
        start.begin(Config(start=str(tmp_path / "net.safetensors")), CLASSES)
    beginning = start.begin(Config(start=str(tmp_path / "net.safetensors"), width=0.125), CLASSES)
    assert beginning.model.spec.width == 0.125


def _set(key: str, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[key].update(values)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda document, key=key: document.pop(key) for key in ("spec", "preprocess", "classes")),
        *(
            lambda document, key=key: document.update({key: None})
            for key in ("spec", "preprocess", "classes")
        ),
        *(lambda document, key=key: document.update({key: 5}) for key in ("spec", "preprocess", "classes")),
        lambda document: document.update(spec={}),
        lambda document: document.update(classes=["cat"]),
        lambda document: document.update(classes=[1, 2, 3]),
        _set("spec", width="x"),
        _set("spec", width=16.0),
        _set("spec", pool_kernels=5),
        _set("spec", pool_kernels=[1]),
        _set("spec", input_channels=10**9),
        _set("spec", input_channels=16.0),
        _set("spec", classes=10**9),
        _set("spec", norm=[1]),
        _set("spec", batch_norm_epsilon="x"),
        _set("spec", name=5),
        _set("spec", colour=5),
        _set("preprocess", mean="x"),
        _set("preprocess", mean=[1e300, 1e300, 1e300]),
        _set("preprocess", order=5),
        _set("preprocess", resize=-1),
    ],
)
def test_a_checkpoint_that_says_what_cannot_be(
    damage: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    document = {
        "spec": start.as_json(SMALL),
        "preprocess": start.as_json(Preprocess(resize=37)),
        "classes": list(CLASSES),
        "step": 1,
    }
    tensors = {f"model.{name}": t for name, t in GoogLeNet(SMALL, auxiliary=False).state_dict().items()}
    good = checkpoint.write(tmp_path, checkpoint.Checkpoint(tensors=tensors, document=document), 2)
    assert start.begin(Config(start=str(good)), CLASSES).model.spec == SMALL
    damage(document)
    bad = checkpoint.write(tmp_path, checkpoint.Checkpoint(tensors=tensors, document=document), 2)
    with pytest.raises(CheckpointError, match=r"checkpoint-000000001\.safetensors: ") as caught:
        start.begin(Config(start=str(bad)), CLASSES)
    assert "\n" not in str(caught.value)
