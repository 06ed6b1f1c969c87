"""torchvision's checkpoints: the engine from raw pixels against an independent model, and every bad checkpoint."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine import ImportFailed, Network, Preprocess, load_network
from inception_engine.spec import PRESETS
from tests.tolerances import TOLERANCES, error

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")

from safetensors.torch import save_file  # noqa: E402 - needs torch
from torch import nn  # noqa: E402

from tests.importers.torchvision_model import (  # noqa: E402
    TorchvisionGoogLeNet,
    to_tensor_and_normalise,
    trained_googlenet,
)

BOUND = TOLERANCES["fp32"].logits
SIZE = 64
NARROW = 8


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def small() -> TorchvisionGoogLeNet:
    """With both heads, an eighth as wide."""
    return trained_googlenet(width=NARROW, auxiliary=True, transform_input=True)


def save(state, path: Path, **options) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path, **options)
    return path


def pixels(count: int = 3, size: int = SIZE, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def expected(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """The model in float64 behind torchvision's own preprocessing."""
    double = model.double()
    result: np.ndarray = double(to_tensor_and_normalise(torch.from_numpy(images))).numpy()
    model.float()
    return result


@pytest.mark.parity
@pytest.mark.parametrize("transform_input", [True, False], ids=["transform", "no-transform"])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".pth", {"classes": 7}),
        (".pth", {"classes": 3, "auxiliary": True, "width": 4}),
        (".safetensors", {"classes": 11, "auxiliary": True}),
        (".safetensors", {"classes": 2, "third": 5}),
    ],
    ids=["pth", "pth-heads-width4", "safetensors-heads", "safetensors-5x5"],
)
def test_parity_from_raw_pixels(suffix, options, transform_input, tmp_path, run_engine) -> None:
    model = trained_googlenet(**{"width": NARROW, **options}, transform_input=transform_input)
    path = save(model.state_dict(), tmp_path / f"a{suffix}")
    network = load_network(path, transform_input=transform_input, input_size=SIZE)
    images = pixels()
    found = run_engine(network, images)[network.logits]
    reference = expected(model, images)
    assert found.shape == (len(images), options["classes"])
    assert error(found, reference) <= BOUND
    other = load_network(path, transform_input=not transform_input, input_size=SIZE)
    assert error(run_engine(other, images)[network.logits], reference) > BOUND


@pytest.mark.parity
def test_parity_at_full_width(tmp_path, run_engine) -> None:
    model = trained_googlenet(1000, transform_input=True)
    network = load_network(save(model.state_dict(), tmp_path / "googlenet.pth"))
    assert network.input_shape == (3, 224, 224) and network.parameters() == PRESETS["torchvision"].parameters
    images = pixels(1, 224)
    assert error(run_engine(network, images)[network.logits], expected(model, images)) <= BOUND


def test_what_the_network_says(small, tmp_path) -> None:
    path = save(small.state_dict(), tmp_path / "a.pth")
    network = load_network(path)
    assert network.preprocess == Preprocess(mean=(127.5,) * 3, std=(127.5,) * 3)
    assert network.metadata["transform_input"] == "true" and network.metadata["file"] == "a.pth"
    assert load_network(path, transform_input=False).preprocess == Preprocess()
    # Normalised otherwise in training, then transform_input: 2 * (0.229 / 0.5) and so on.
    half = load_network(path, mean=[0], std=[255 * 0.229]).preprocess
    assert half.mean == pytest.approx((0.03 * 127.5, *half.mean[1:])) and half.std[0] == pytest.approx(127.5)
    network.save(tmp_path / "a.safetensors")
    loaded = load_network(tmp_path / "a.safetensors")
    assert loaded.preprocess == network.preprocess and loaded.metadata == network.metadata


def test_grey_images(tmp_path, run_engine) -> None:
    model = trained_googlenet(width=NARROW, channels=1)
    path = save(model.state_dict(), tmp_path / "a.pth")
    network = load_network(path, input_size=SIZE)
    images = pixels(channels=1)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).double() - 127.5) / 127.5
    reference = model.double()(x).numpy()
    assert error(run_engine(network, images)[network.logits], reference) <= BOUND
    with pytest.raises(ImportFailed, match="conv1 has 1"):
        load_network(path, transform_input=True)


WRAPPED = {
    "alone": lambda state: dict(state),
    "DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "torch.compile": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"state_dict": {f"module._orig_mod.{name}": t for name, t in state.items()}},
    "a training checkpoint": lambda state: {
        "epoch": 3,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "model": state,
    },
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "Lightning": lambda state: {"state_dict": {f"model.{name}": t for name, t in state.items()}},
    "without counters": lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
    "double": lambda state: {n: t.double() if t.is_floating_point() else t for n, t in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_wrappers(wrap, small, tmp_path) -> None:
    plain = load_network(save(small.state_dict(), tmp_path / "plain.pth"), input_size=SIZE)
    network = load_network(save(wrap(small.state_dict()), tmp_path / "wrapped.pth"), input_size=SIZE)
    assert same_weights(network, plain)


@pytest.mark.parametrize("options", [{"_use_new_zipfile_serialization": False}, {}], ids=["legacy", "zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_formats_are_told_by_content(options, suffix, small, tmp_path) -> None:
    plain = load_network(save(small.state_dict(), tmp_path / "plain.safetensors"))
    torch.save(small.state_dict(), tmp_path / f"a{suffix}", **options)
    assert same_weights(load_network(tmp_path / f"a{suffix}"), plain)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_folding(dtype, suffix, small, tmp_path) -> None:
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in small.state_dict().items()}
    wide = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    network = load_network(save(state, tmp_path / f"half{suffix}"))
    assert same_weights(network, load_network(save(wide, tmp_path / "wide.pth")))


def same_weights(actual: Network, other: Network) -> bool:
    for a, b in zip(actual.layers, other.layers, strict=True):
        for name in ("weight", "bias"):
            if hasattr(a, name) and not np.array_equal(getattr(a, name), getattr(b, name)):
                return False
    return actual.shapes() == other.shapes()


HEADS = {
    "relu": (lambda n: [nn.Linear(n, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 5)], None),
    "nothing between": (lambda n: [nn.Linear(n, 20), nn.Linear(20, 5)], None),
    "dropout alone": (lambda n: [nn.Linear(n, 20), nn.Dropout(0.5), nn.Linear(20, 5)], "none"),
    "dropout first": (lambda n: [nn.Dropout(0.5), nn.Linear(n, 5)], None),
    "three": (lambda n: [nn.Linear(n, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 5)], "relu"),
    "no biases": (lambda n: [nn.Linear(n, 20, bias=False), nn.ReLU(), nn.Linear(20, 5, bias=False)], None),
}


@pytest.mark.parity
@pytest.mark.parametrize(("head", "activation"), HEADS.values(), ids=HEADS.keys())
def test_replaced_classifier(head, activation, small, tmp_path, run_engine) -> None:
    torch.manual_seed(3)
    model = trained_googlenet(width=NARROW, transform_input=True)
    assert isinstance(model.fc, nn.Linear)
    model.fc = nn.Sequential(*head(model.fc.in_features)).eval()
    path = save(model.state_dict(), tmp_path / "a.pth")
    network = load_network(path, input_size=SIZE, head_activation=activation)
    images = pixels()
    assert network.shapes()[network.logits] == (5, 1, 1)
    assert error(run_engine(network, images)[network.logits], expected(model, images)) <= BOUND


@pytest.mark.parity
def test_bare_trunk(tmp_path, run_engine) -> None:
    model = trained_googlenet(width=NARROW, transform_input=True)
    model.fc = nn.Identity()
    network = load_network(save(model.state_dict(), tmp_path / "a.safetensors"), input_size=SIZE)
    images = pixels()
    reference = expected(model, images)
    assert network.shapes()[network.logits] == (1024 // NARROW, 1, 1) == (*reference.shape[1:], 1, 1)
    found = run_engine(network, images)[network.logits]
    assert error(found.reshape(len(images), -1), reference) <= BOUND


FIRST = "conv1.conv.weight"


def change(name: str, value):
    """A state dict with one tensor replaced, by a function of it."""

    def changed(state):
        state[name] = value(state[name])
        return state

    return changed


def without(name: str):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def poke(value: float):
    def poked(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[1] = value
        return tensor

    return poked


def renamed(state):
    return {name.replace("inception4c", "inception9c"): tensor for name, tensor in state.items()}


def resnet(_):
    return {"conv1.weight": torch.ones(64, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(64, 64, 3, 3)}


def odd_head(layer: nn.Module):
    return lambda state: {
        **{name: tensor for name, tensor in state.items() if not name.startswith("fc")},
        **{
            f"fc.{name}": tensor
            for name, tensor in nn.Sequential(nn.Linear(128, 9), layer).state_dict().items()
        },
    }


BAD = {
    "missing": (without("inception4b.branch2.1.bn.running_var"), "there is no inception4b.branch2.1.bn.running_var"),
    "missing first": (without(FIRST), f"there is no {FIRST}"),
    "renamed": (renamed, r"there is no inception4c.branch1.conv.weight"),
    "extra": (lambda s: {**s, "attention.weight": torch.ones(3)}, "attention.weight is not of this architecture"),
    "extra in a block": (lambda s: {**s, "conv2.conv.bias2": torch.ones(3)}, "conv2.conv.bias2"),
    "kernel": (change("conv3.conv.weight", lambda t: t[..., :2]), r"conv3.conv.weight has shape \(24, 8, 3, 2\)"),
    "channels": (change("inception3b.branch1.conv.weight", lambda t: t[:, 1:]), r"inception3b.branch1.conv.weight has"),
    "rank": (change(FIRST, lambda t: t.flatten()), f"{FIRST} has shape"),
    "scalar": (change(FIRST, lambda t: torch.tensor(1.0)), f"{FIRST} has shape"),
    "empty": (change(FIRST, lambda t: t[:0]), f"{FIRST} has shape"),
    "norm": (change("conv2.bn.weight", lambda t: t[:-1]), r"conv2.bn.weight has shape \(7,\), not \(8\)"),
    "classifier": (change("fc.weight", lambda t: t[:, 1:]), r"fc.weight has shape \(7, 127\), not \(any, 128\)"),
    "NaN": (change("inception5b.branch4.1.conv.weight", poke(np.nan)), "inception5b.branch4.1.conv.weight holds NaN"),
    "infinity": (change("conv1.bn.running_mean", poke(np.inf)), "conv1.bn.running_mean holds NaN or infinity"),
    "variance": (change("conv3.bn.running_var", poke(-0.1)), "conv3.bn.running_var is negative"),
    "overflow": (change("conv1.bn.weight", lambda t: t.double() * 1e300), "conv1.conv: weights beyond the range"),
    "integers": (change(FIRST, lambda t: t.to(torch.int32)), f"{FIRST} is int32"),
    "complex": (change(FIRST, lambda t: t.to(torch.complex64)), "ComplexFloatStorage, which is"),
    "resnet": (resnet, f"a ResNet: no GoogLeNet: there is no {FIRST}, but conv1.weight"),
    "something": (lambda _: {"a.b": torch.ones(2), "c": torch.ones(1)}, "no GoogLeNet: .* but a.b, c"),
    "no tensors": (lambda _: {"epoch": 1, "lr": 0.1}, "a dictionary with epoch, lr, no state dict"),
    "empty dictionary": (lambda _: {}, "an empty dictionary"),
    "list": (lambda s: list(s.values())[:2], "holds a list"),
    "tensor": (lambda s: s[FIRST], "holds a Tensor"),
    "expanded": (change(FIRST, lambda t: torch.zeros(1).expand(10**12, 3, 7, 7)), "claim .* bytes, more than"),
    "batch norm in the head": (odd_head(nn.BatchNorm1d(9)), "fc.1.running_mean: fc is neither"),
    "custom head": (lambda s: {n.replace("fc.", "fc.hidden."): t for n, t in s.items()}, "fc.hidden.weight: fc is"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_bad_checkpoints_are_one_line(spoil, message, small, tmp_path) -> None:
    state = collections.OrderedDict(small.state_dict())
    path = save(spoil(state), tmp_path / "bad.pth")
    with pytest.raises(ImportFailed, match=message) as caught:
        load_network(path, input_size=SIZE)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 400


def test_a_pickled_module_is_refused_and_not_run(small, tmp_path) -> None:
    torch.save(small, tmp_path / "module.pth")
    with pytest.raises(ImportFailed, match=r"TorchvisionGoogLeNet, which is code.*model.state_dict\(\)"):
        load_network(tmp_path / "module.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".legacy"])
def test_truncated_files(suffix, small, tmp_path) -> None:
    path = tmp_path / f"a{suffix}"
    save(
        small.state_dict(), path, **({"_use_new_zipfile_serialization": False} if suffix == ".legacy" else {})
    )
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 4000, 300, 20, 9, 5, 0):
        path.write_bytes(content[:length])
        with pytest.raises(ImportFailed, match=re.escape(str(path))) as caught:
            load_network(path)
        assert "\n" not in str(caught.value)


def test_options_that_change_nothing(small, tmp_path) -> None:
    path = save(small.state_dict(), tmp_path / "a.pth")
    load_network(path).save(tmp_path / "network.safetensors")
    for options in ({"transform_input": True}, {"input_size": 96}, {"head_activation": "none"}):
        with pytest.raises(ImportFailed, match="changes nothing"):
            load_network(tmp_path / "network.safetensors", **options)
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"head_activation": "relu"}, "one linear layer"),
        ({"head_activation": "tanh"}, "not relu or none"),
        ({"order": "GRB"}, "not RGB or BGR"),
        ({"std": (0.229, 0.224, 0.225)}, "std 0.229, 0.224, 0.225: .* by 255"),
        ({"mean": (0.485, 0.456, 0.406)}, "mean 0.485, .* by 255"),
        ({"resize": 0}, "resize is 0"),
    )
    for given, message in mistakes:
        with pytest.raises(ImportFailed, match=message):
            load_network(path, **given)
