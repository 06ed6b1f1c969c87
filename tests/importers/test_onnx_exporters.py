"""What exporters write comes back: PyTorch's two, and ours."""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")
pytest.importorskip("torch", reason="backend model: torch is not installed")

import torch

from inception_engine import reference
from inception_engine.exporters.onnx import to_onnx
from inception_engine.importers.onnx import ImportFailed, from_onnx, import_onnx
from inception_engine.network import Conv, Network, Preprocess
from inception_engine.seeded import googlenet
from inception_engine.spec import PRESETS
from tests.importers import family
from tests.importers.against import exported, file_images, mismatches
from tests.random_networks import random_network
from tests.tolerances import TOLERANCES, error
from tests.torch_modules import WIDTHS, BasicConv2d, TorchvisionInception, small_googlenet, trained

NEWEST = 23  # the newest opset that PyTorch's tracing exporter writes


@functools.cache
def torchvision(transform: bool) -> Any:
    return family.googlenet(width=0.125, classes=9, transform=transform)


def modules(network: Network) -> list[str]:
    return list(dict.fromkeys(layer.module for layer in network.layers if layer.module))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("opset", "fold", "transform"), [
    (11, True, False), (13, False, True), (17, True, True), (NEWEST, False, False),
])  # fmt: skip
def test_torchvisions_googlenet(opset: int, fold: bool, transform: bool) -> None:
    model = torchvision(transform)
    open_batch: dict[str, Any] = (
        {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}} if opset in (13, 17) else {}
    )
    content = exported(model, (32, 32), opset=opset, do_constant_folding=fold, **open_batch)
    imported = import_onnx(content)
    assert mismatches(content, imported) == []
    network = imported.network
    assert imported.batch == (None if open_batch else 1)
    assert modules(network) == [
        f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    ]
    assert network.layers[0].name == "conv1/conv" and network.logits == "fc"
    assert sum(layer.module == "inception3a" for layer in network.layers) == 8
    if transform:  # to -1..1, whichever way the file's input is normalised
        np.testing.assert_allclose(network.preprocess.mean, [127.5] * 3, rtol=1e-5)
        np.testing.assert_allclose(network.preprocess.std, [127.5] * 3, rtol=1e-5)
    else:
        assert network.preprocess == Preprocess()
    # PyTorch is the second judge, on images as the file takes them.
    images = file_images(imported, 1)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(torch.from_numpy(images).double()).numpy()
    actual = reference.run(network, imported.network_input(images))[network.logits]
    assert error(actual, expected) <= TOLERANCES["fp32"].logits


@pytest.mark.filterwarnings("ignore")
def test_our_model() -> None:
    """With its batch norms left in the file."""
    content = exported(small_googlenet(), (32, 32), training=torch.onnx.TrainingMode.PRESERVE)
    assert b"BatchNormalization" in content
    assert mismatches(content) == []
    assert len(modules(from_onnx(content))) == 9


@pytest.mark.filterwarnings("ignore")
def test_pytorchs_newer_exporter() -> None:
    """Its nodes are called node_Conv_12; layers have the names of PyTorch's submodules all the same."""
    pytest.importorskip("onnxscript", reason="backend onnxscript: onnxscript is not installed")

    class Transformed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = BasicConv2d(3, 8, 3, padding=1)
            self.inception3a = TorchvisionInception(8, WIDTHS)
            self.fc = torch.nn.Linear(80, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.inception3a(self.conv1(family.transform_input(x))).mean((2, 3)))

    model = trained(Transformed())
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        model, (torch.zeros(2, 3, 32, 32),), dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    assert program is not None
    file = io.BytesIO()
    program.save(file)  # type: ignore[arg-type]
    imported = import_onnx(file.getvalue())
    assert mismatches(file.getvalue(), imported) == []
    assert modules(imported.network) == ["inception3a"]
    names = [layer.name for layer in imported.network.layers]
    assert names[:2] == ["conv1.conv", "inception3a.branch1.conv"] and names[-1] == "fc"
    np.testing.assert_allclose(imported.network.preprocess.std, [127.5] * 3, rtol=1e-5)


# Ours


def differences(actual: Network, expected: Network) -> list[str]:
    """Names of what is not equal to the last bit."""
    found = [
        field.name
        for field in dataclasses.fields(expected)
        if field.name != "layers" and getattr(actual, field.name) != getattr(expected, field.name)
    ]
    if [layer.name for layer in actual.layers] != [layer.name for layer in expected.layers]:
        return [*found, "layers"]
    for mine, theirs in zip(actual.layers, expected.layers, strict=True):
        if type(mine) is not type(theirs):
            found.append(f"{mine.name}: type")
            continue
        for field in dataclasses.fields(mine):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            if not (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b):
                found.append(f"{mine.name}: {field.name}")
    return found


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", PRESETS)
def test_our_exporter(name: str, opset: int) -> None:
    network = googlenet(spec=PRESETS[name], width=0.25, input_size=96)
    network = dataclasses.replace(
        network,
        labels=tuple(f"class {i}" for i in range(1000)),
        preprocess=Preprocess(mean=(1.5, 2, 3), order="BGR"),
    )
    back = from_onnx(to_onnx(network, opset=opset, outputs=["softmax"]).SerializeToString())
    assert differences(back, network) == []
    # The control: one bit of one weight is seen.
    first = network.layers[0]
    assert isinstance(first, Conv)
    changed = dataclasses.replace(first, bias=np.nextafter(first.bias, np.float32(9)))
    assert differences(dataclasses.replace(network, layers=(changed, *network.layers[1:])), network) == [
        "conv1: bias"
    ]


@pytest.mark.parametrize("seed", range(40))
def test_our_exporter_on_random_networks(seed: int) -> None:
    """All layers kept as outputs; but for the names of modules, which are only marks there, equal to the last bit."""
    network = random_network(np.random.default_rng(seed))
    names = [layer.name for layer in network.layers]
    content = to_onnx(network, outputs=names).SerializeToString()
    bare = tuple(dataclasses.replace(layer, module="") for layer in network.layers)
    back = from_onnx(content, output=network.logits)
    needed = {network.logits}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    kept = dataclasses.replace(network, layers=tuple(layer for layer in bare if layer.name in needed))
    back = dataclasses.replace(
        back, layers=tuple(sorted((dataclasses.replace(layer, module="") for layer in back.layers),
                                  key=lambda layer: names.index(layer.name)))
    )  # fmt: skip
    assert differences(back, kept) == []


DAMAGES = ["{", "[]", '{"labels": 3, "preprocess": {}}', '{"labels": [], "preprocess": {"mean": "x"}}',
           '{"labels": [], "preprocess": {"mean": [1], "std": [1], "order": "GRB"}}']  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_description(damage: str) -> None:
    model = to_onnx(googlenet(width=0.1, input_size=64))
    for pair in model.metadata_props:
        if pair.key == "inception_engine":
            pair.value = damage
    with pytest.raises(ImportFailed, match="description in its metadata is damaged"):
        from_onnx(model.SerializeToString())
