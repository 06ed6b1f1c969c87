"""The check after an import: what it prints, and that it finds what an import can do wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inception_engine import googlenet, load_network
from inception_engine.importers import parity, torchvision
from inception_engine.importers.formats import import_file
from inception_engine.importers.imported import Imported, Options
from inception_engine.importers.parity import ParityFailed, check, random_images, relative_error
from inception_engine.network import Conv, Layer, Network
from inception_engine.spec import PRESETS
from tests.importers.torchvision_model import trained_googlenet

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("parity") / "a.pth"
    torch.save(trained_googlenet(width=8, transform_input=True).state_dict(), file)
    return file


OPTIONS = Options(input_size=64)


@pytest.fixture(scope="module")
def imported(path: Path) -> Imported:
    return import_file(path, OPTIONS)


@pytest.mark.parity
def test_a_good_import_passes(imported: Imported) -> None:
    report = check(imported)
    assert report.passed and report.spread > 0.1
    reference, engine = report.rows
    assert 0 < reference.error <= 5e-6 and 0 < engine.error <= 5e-5
    assert reference.agree == engine.agree == parity.IMAGES
    lines = list(report.lines())
    assert "unfolded" in lines[0] and len(lines) == 3
    assert "tolerance 1e-05" in lines[1] and "tolerance 1e-04" in lines[2] and "4 of 4" in lines[2]


def changed(network: Network, name: str, change) -> Network:
    def layer_of(layer: Layer) -> Layer:
        if layer.name != name:
            return layer
        assert isinstance(layer, Conv)
        return dataclasses.replace(layer, weight=change(layer.weight.copy()))

    return dataclasses.replace(network, layers=tuple(map(layer_of, network.layers)))


def perturb(weight: np.ndarray) -> np.ndarray:
    weight.flat[np.abs(weight).argmax()] *= 1.05
    return weight


def swap_channels(weight: np.ndarray) -> np.ndarray:
    weight[:, [0, 1]] = weight[:, [1, 0]]
    return weight


WRONG = {
    "one weight": lambda net: changed(net, "4c/5x5", perturb),
    "swapped channels": lambda net: changed(net, "4d/3x3", swap_channels),
    "BGR": lambda net: changed(net, "conv1", lambda weight: weight[:, ::-1].copy()),
    "mean": lambda net: dataclasses.replace(
        net, preprocess=dataclasses.replace(net.preprocess, mean=(127.0,) * 3)
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG.keys())
def test_negative_controls(spoil, imported: Imported) -> None:
    wrong = dataclasses.replace(imported, network=spoil(imported.network))
    report = check(wrong)
    assert not any(row.passed for row in report.rows)
    assert "FAILED" in "\n".join(report.lines())
    with pytest.raises(ParityFailed, match="FAILED"):
        parity.assert_parity(wrong)


@pytest.mark.parity
def test_a_wrong_epsilon_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(PRESETS["torchvision"], batch_norm_epsilon=1e-5)
    monkeypatch.setattr(torchvision, "PRESETS", {"torchvision": spec})
    with pytest.raises(ParityFailed):
        load_network(path, input_size=64, check=True)
    monkeypatch.undo()
    assert load_network(path, input_size=64, check=True).input_shape == (3, 64, 64)


@pytest.mark.parity
def test_a_wrong_pool_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(PRESETS["torchvision"], pool_kernels=(3, 3, 3, 3))
    monkeypatch.setattr(torchvision, "PRESETS", {"torchvision": spec})
    assert not check(import_file(path, OPTIONS)).passed


@pytest.mark.parity
def test_a_wrong_engine_is_found(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine runs a plan of another network than the reference does."""
    from inception_engine import compiler

    real = compiler.compile
    spoil = WRONG["one weight"]
    monkeypatch.setattr(compiler, "compile", lambda network, **options: real(spoil(network), **options))
    reference, engine = check(imported).rows
    assert reference.passed and not engine.passed


def test_a_saved_network_is_held_against_the_reference() -> None:
    network = googlenet(width=0.1, input_size=32, classes=5)
    report = check(Imported(network=network, description=""))
    assert report.passed and report.against == "the float64 reference"


def test_a_network_that_ignores_its_images_is_told(imported: Imported) -> None:
    assert imported.source is not None
    blind = changed(imported.network, "conv2", lambda weight: weight * 0)
    report = check(Imported(network=blind, description=""))
    assert report.passed and report.spread == 0
    assert "says little" in list(report.lines())[-1]


def test_relative_error() -> None:
    ones = np.ones((2, 3))
    assert relative_error(ones, ones) == 0 and relative_error(ones * 1.5, ones) == 0.5
    assert relative_error(ones * 0, ones * 0) == 0 and relative_error(ones, ones * 0) == np.inf
    assert relative_error(ones[:1], ones) == np.inf
    assert relative_error(ones * np.nan, ones) == np.inf and relative_error(ones, ones * np.inf) == np.inf


def test_random_images_differ_and_repeat() -> None:
    images = random_images((3, 40, 50), 4, 0)
    assert images.shape == (4, 40, 50, 3) and images.dtype == np.uint8
    assert (images == random_images((3, 40, 50), 4, 0)).all()
    assert len({image.tobytes() for image in images}) == 4
    assert random_images((1, 7, 9), 3, 0).shape == (3, 7, 9, 1)
