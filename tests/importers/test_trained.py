"""State dicts of the package's own trainable model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inception_engine import ImportFailed, Spec, load_network
from inception_engine.importers import trained
from inception_engine.importers.checkpoint import Checkpoint
from inception_engine.importers.formats import import_file
from inception_engine.importers.imported import Options
from inception_engine.importers.tensors import Tensors
from inception_engine.spec import PRESETS
from tests.tolerances import TOLERANCES, error

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")

from safetensors.torch import save_file  # noqa: E402 - needs torch

from inception_engine.model import GoogLeNet  # noqa: E402
from tests.torch_modules import trained as with_statistics  # noqa: E402

SIZE = 64


def model_of(spec: Spec) -> GoogLeNet:
    torch.manual_seed(0)
    model = with_statistics(GoogLeNet(spec))
    assert isinstance(model, GoogLeNet)
    return model


def save(model: GoogLeNet, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


VARIANTS = {
    name: dataclasses.replace(spec, width=width, classes=5, input_size=SIZE)
    for (name, spec), width in zip(PRESETS.items(), (0.25, 0.5, 0.25), strict=True)
}


@pytest.mark.parity
@pytest.mark.parametrize(
    ("spec", "suffix"),
    list(zip(VARIANTS.values(), (".pth", ".safetensors", ".pth"), strict=True)),
    ids=VARIANTS.keys(),
)
def test_parity(spec: Spec, suffix: str, tmp_path: Path, run_engine) -> None:
    model = model_of(spec)
    path = save(model, tmp_path / f"a{suffix}")
    assumed = dataclasses.replace(spec, width=1.0)  # the tensors say the width, and the classes
    network = load_network(path, spec=assumed, check=True)
    images = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), dtype=np.float32)
    with torch.no_grad():
        expected = model.double()(torch.from_numpy(images).double()).numpy()
    assert error(run_engine(network, images)[network.logits], expected) <= TOLERANCES["fp32"].logits


def test_what_is_assumed_is_told(tmp_path: Path) -> None:
    plain = dataclasses.replace(VARIANTS["plain"], width=0.25)
    path = save(model_of(plain), tmp_path / "a.pth")
    imported = import_file(path, Options(input_size=SIZE))
    assert any("the paper's LRN and pools assumed" in note for note in imported.notes)
    assert {"norm1", "norm2"} <= imported.network.shapes().keys()
    said = import_file(path, Options(input_size=SIZE, spec=Spec(norm="none")))
    assert "norm1" not in said.network.shapes() and not any("assumed" in note for note in said.notes)


@pytest.mark.parametrize("width", [1.0, 0.25, 0.3, 0.5, 1.37, 2, 0.01])
def test_width_is_found(width: float) -> None:
    """Not always the same number, but one with the same channels everywhere."""
    spec = Spec(width=width, classes=3)
    tensors = {
        f"{trained.block(layer, False).convolution}.weight": np.empty(
            (layer.output[0], layer.input[0], layer.kernel, layer.kernel), np.float32
        )
        for layer in spec.layers
        if layer.kind == "convolution"
    }
    checkpoint = Checkpoint(path="a", tensors=tensors)
    found = trained._width(Tensors(checkpoint))
    assert [layer.output for layer in Spec(width=found, classes=3).layers] == [
        layer.output for layer in spec.layers
    ]
    assert found == width or width not in (1.0, 0.25, 0.5)


def test_mistakes(tmp_path: Path) -> None:
    model = model_of(dataclasses.replace(VARIANTS["torchvision"], width=0.25))
    path = save(model, tmp_path / "a.pth")
    for options, message in (
        ({"spec": Spec(norm="lrn")}, "it has batch norm, and the variant is norm lrn"),
        ({"transform_input": True}, "transform_input is given, and changes nothing"),
    ):
        with pytest.raises(ImportFailed, match=message):
            load_network(path, **options)
    state = model.state_dict()
    narrow = "trunk.3a.layers.1x1.convolution.weight"
    for name, value, message in (
        (narrow, state[narrow][:8], f"{narrow} has 8 channels, which no width"),
        ("trunk.5b.layers.1x1.norm.bias", torch.full((96,), torch.nan), "5b.layers.1x1.norm.bias holds NaN"),
    ):
        torch.save({**state, name: value}, path)
        with pytest.raises(ImportFailed, match=message):
            load_network(path)
