"""BN-Inception and Inception-v3 from ONNX: imported, compiled and run, on the CPU and as a GPU's program."""

from __future__ import annotations

import functools

import numpy as np
import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")
pytest.importorskip("torch", reason="backend model: torch is not installed")

import inception_engine as ie
from inception_engine.compiler.inspect import report
from inception_engine.importers.onnx import OnnxImport, import_onnx
from inception_engine.network import AveragePool, Conv, Layer, MaxPool
from tests.importers import family
from tests.importers.against import exported, file_images, mismatches, run_file
from tests.tolerances import TOLERANCES, error, violations

MODULES = {
    "bn_inception": [f"inception_{name}" for name in family.BN_INCEPTION],
    "inception_v3": [
        f"Mixed_{name}" for name in ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"]
    ],
}
SIZES = {"bn_inception": (64, 64), "inception_v3": (107, 107)}
# Where the grid gets smaller inside a module; Inception-v3's sizes have no padding there.
STRIDED = {"inception_3c", "inception_4e", "Mixed_6a", "Mixed_7a"}


@functools.cache
def case(name: str) -> tuple[bytes, OnnxImport]:
    content = exported(getattr(family, name)(width=0.125, classes=9), SIZES[name])
    return content, import_onnx(content)


# Parameters of the published networks with their classifiers, without auxiliary heads: torchvision's are documented
# with them (27,161,264 and 13,004,888), from which the heads' own are taken off.
PARAMETERS = {"inception_v3": 23_834_568, "googlenet": 6_624_904}


@pytest.mark.parametrize("network", PARAMETERS)
def test_the_builders_are_the_published_networks(network: str) -> None:
    import torch

    with torch.device("meta"):
        model = getattr(family, network)()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[network]


pytestmark = pytest.mark.filterwarnings("ignore")
both = pytest.mark.parametrize("name", MODULES)


@both
def test_every_layer(name: str) -> None:
    content, imported = case(name)
    assert mismatches(content, imported) == []


@both
def test_modules(name: str) -> None:
    """Every one of the paper's, with all its branches; the layers outside are the stem and the head."""
    network = case(name)[1].network
    members: dict[str, list[Layer]] = {}
    for layer in network.layers:
        members.setdefault(layer.module, []).append(layer)
    outside = members.pop("")
    assert list(members) == MODULES[name]
    assert not any(layer.inputs[0].startswith(tuple(members)) for layer in outside[:-2])
    shapes = network.shapes()
    for module, layers in members.items():
        entry = next(layer for layer in layers if isinstance(layer, Conv)).inputs[0]
        assert (shapes[layers[-1].name][1] < shapes[entry][1]) == (module in STRIDED)
        assert any(isinstance(layer, MaxPool | AveragePool) for layer in layers)
    windows = {layer.weight.shape[2:] for layer in network.layers if isinstance(layer, Conv)}
    if name == "inception_v3":
        assert windows == {(1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)}


@both
def test_the_engine_against_the_file(name: str, run_engine) -> None:
    content, imported = case(name)
    network = imported.network
    images = file_images(imported, 1, seed=3)
    expected = run_file(content, imported, images)
    every = run_engine(network, imported.network_input(images), list(expected), threads=2)
    assert (
        violations({k: v.reshape(expected[k].shape) for k, v in every.items()}, expected, network.logits)
        == []
    )
    logits = run_engine(network, imported.network_input(images), max_batch=3, threads=2, poison=True)
    assert error(logits[network.logits], expected[network.logits]) <= TOLERANCES["fp32"].logits


@both
@pytest.mark.parametrize(("batch", "dtype"), [(2, "fp32"), (5, "fp32"), (9, "fp16")])
def test_a_gpus_program(name: str, batch: int, dtype: str) -> None:
    """Small batches are one launch, larger ones one per module, and `inspect` says so."""
    content, imported = case(name)
    network = imported.network
    plan = ie.compile(network, targets="cuda", max_batch=batch, dtype=dtype)
    launches = report(plan)["programs"][0]["launches"]
    if batch > 2:
        assert [launch["name"] for launch in launches if launch["mode"] == "module"] == MODULES[name]
        assert len(launches) == len(MODULES[name]) + 2
    else:
        assert [launch["mode"] for launch in launches] == ["network"]
    images = file_images(imported, 1, seed=4)
    with ie.Engine(plan, emulate=True, poison=True) as engine:
        logits = engine.run(imported.network_input(images))
    expected = run_file(content, imported, images)[network.logits]
    assert error(logits, expected) <= TOLERANCES[dtype].logits


@both
def test_a_changed_weight_is_reported(name: str) -> None:
    """The control of the tests above: a twentieth of the largest weight of the first convolution."""
    content, imported = case(name)
    layer = imported.network.layers[0]
    assert isinstance(layer, Conv)
    weight = layer.weight
    largest = np.unravel_index(np.abs(weight).argmax(), weight.shape)
    writable = weight.copy()
    writable[largest] *= 1.05
    object.__setattr__(layer, "weight", writable)
    try:
        assert any(line.startswith(f"{layer.name}:") for line in mismatches(content, imported))
    finally:
        object.__setattr__(layer, "weight", weight)
