"""`inception compare` and what it is made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_engine import Network, cli, compile, googlenet, load
from inception_engine.backends.base import Backend, Face
from inception_engine.commands.compare import render
from inception_engine.compare import Difference, compare, folder_images, random_images
from inception_engine.errors import BackendError
from inception_engine.network import Conv, Preprocess

pytest.importorskip("torch", reason="backend torch: torch is not installed")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def network() -> Network:
    return googlenet(seed=1, width=0.2, input_size=48, classes=7)


def perturbed(network: Network, name: str, by: float = 1.0) -> Network:
    """One filter of one layer is another: a single weight may be that of a channel which ReLU has emptied."""

    def change(layer):
        if layer.name != name:
            return layer
        weight = layer.weight.copy()
        weight[0] += by
        return dataclasses.replace(layer, weight=weight)

    return dataclasses.replace(network, layers=tuple(map(change, network.layers)))


@pytest.fixture(scope="module")
def folder(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    network.save(folder / "net.safetensors")
    perturbed(network, "4c/3x3").save(folder / "changed.safetensors")
    compile(network, max_batch=2).save(folder / "net.plan")
    googlenet(seed=1, width=0.2, input_size=48, classes=8).save(folder / "classes.safetensors")
    googlenet(seed=1, width=0.2, input_size=64, classes=7).save(folder / "size.safetensors")
    googlenet(seed=1, width=0.3, input_size=48, classes=7).save(folder / "width.safetensors")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    (folder / "empty").mkdir()
    for index in range(3):
        pixels = rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    return folder


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["compare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


class Fixed(Backend):
    """Gives what it is told to: outputs by name, each an array of all images."""

    name = "fixed"

    def __init__(
        self,
        outputs: Mapping[str, np.ndarray],
        batches: tuple[int, int | None] = (1, None),
        dtype: str = "fp32",
    ) -> None:
        super().__init__()
        shapes = {name: (*array.shape[1:], 1, 1)[:3] for name, array in outputs.items()}
        self.values = outputs
        self.face = Face(
            description="fixed",
            input_shape=(1, 1, 1),
            outputs=shapes,
            layers=tuple(outputs)[1:],
            batches=batches,
            dtype=dtype,
        )

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """An image is its own number."""
        return {name: self.values[name][images[:, 0, 0, 0].astype(int)] for name in names}


def numbered(count: int) -> list[np.ndarray]:
    return [np.full((1, 1, 1), index, np.float32) for index in range(count)]


def outputs(count: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    layer = rng.standard_normal((count, 2, 3, 4), dtype=np.float32)
    return {"logits": rng.standard_normal((count, 6), dtype=np.float32), "layer": layer}


def changed(
    of: Mapping[str, np.ndarray], name: str, place: tuple[int, ...], value: float
) -> dict[str, np.ndarray]:
    copies = {key: array.copy() for key, array in of.items()}
    copies[name][place] = value
    return copies


@pytest.mark.parametrize("backend", ["engine", "onnxruntime", "torch"])
def test_the_same_network_agrees_layer_by_layer(network: Network, backend: str) -> None:
    with load(network, backend, keep_all=True) as a, load(network, "reference", keep_all=True) as b:
        found = compare(a, b, random_images(network.input_shape, 3, seed=0))
    assert found.agree and found.first is None and found.top1 == 1.0
    assert found.images == 3 and found.tolerance == 1e-4
    assert [layer.name for layer in found.layers] == [layer.name for layer in network.layers]
    assert all(0 <= layer.error < 1e-4 and layer.cosine > 1 - 1e-6 for layer in (*found.layers, found.logits))


@pytest.mark.parametrize("name", ["conv1", "3a/5x5_reduce", "4c/3x3", "5b/pool_proj", "fc"])
def test_a_changed_weight_is_found_in_its_layer(network: Network, name: str) -> None:
    with (
        load(perturbed(network, name), "engine", keep_all=True) as a,
        load(network, "onnxruntime", keep_all=True) as b,
    ):
        found = compare(a, b, random_images(network.input_shape, 2, seed=0))
    assert found.first == name and not found.agree
    before = [layer.name for layer in found.layers].index(name)
    assert all(layer.error < 1e-4 for layer in found.layers[:before])
    wrong = next(layer for layer in found.layers if layer.name == name)
    assert wrong.where[1] == 0  # the channel whose weight it is


def test_statistics() -> None:
    a, b = outputs(), outputs()
    a["layer"][3, 1, 2, 0] += 2.5
    found = compare(Fixed(a), Fixed(b), numbered(5))
    (layer,) = found.layers
    d = np.abs(a["layer"].astype(np.float64) - b["layer"])
    assert layer.where == (3, 1, 2, 0)
    assert layer.largest == pytest.approx(2.5)
    assert (layer.a, layer.b) == (a["layer"][3, 1, 2, 0], b["layer"][3, 1, 2, 0])
    assert layer.scale == np.abs(b["layer"]).max()
    assert layer.error == pytest.approx(layer.largest / layer.scale)
    assert layer.mean == pytest.approx(d.mean())
    assert layer.rmse == pytest.approx(np.sqrt((d * d).mean()))
    flat_a, flat_b = a["layer"].astype(np.float64).ravel(), b["layer"].astype(np.float64).ravel()
    cosine = flat_a @ flat_b / np.linalg.norm(flat_a) / np.linalg.norm(flat_b)
    assert layer.cosine == pytest.approx(cosine)
    assert found.logits.error == 0 and found.logits.cosine == pytest.approx(1)
    assert found.first == "layer"


@pytest.mark.parametrize("batches", [(1, None), (1, 2), (2, 2), (8, 8)])
def test_batches_change_nothing(batches: tuple[int, int | None]) -> None:
    """Images that fill up a batch do not count; where the largest difference is says the image of all."""
    a, b = changed(outputs(), "layer", (4, 0, 1, 1), 50.0), outputs()
    whole = compare(Fixed(a), Fixed(b), numbered(5))
    found = compare(Fixed(a, batches), Fixed(b), numbered(5))
    assert found.images == 5 and found.layers[0].where == (4, 0, 1, 1)
    assert found.layers[0].mean == pytest.approx(whole.layers[0].mean)
    assert found.layers[0].largest == whole.layers[0].largest


def test_top1() -> None:
    a, b = outputs(), outputs()
    for image in (1, 4):
        a["logits"][image, (b["logits"][image].argmax() + 1) % 6] = 100
    found = compare(Fixed(a), Fixed(b), numbered(5))
    assert found.top1 == pytest.approx(3 / 5) and found.first == "logits"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_diverges(value: float) -> None:
    for a, b in ((changed(outputs(), "layer", (2, 1, 0, 3), value), outputs()),
                 (outputs(), changed(outputs(), "layer", (2, 1, 0, 3), value)),
                 (changed(outputs(), "layer", (2, 1, 0, 3), value),) * 2):  # fmt: skip
        found = compare(Fixed(a), Fixed(b), numbered(5), tolerance=1e30)
        assert found.first == "layer" and found.layers[0].where == (2, 1, 0, 3)
        document = json.dumps(found.document(), allow_nan=False)
        assert json.loads(document)["layers"][0]["error"] is None
    spoilt = changed(outputs(), "logits", (0, 0), value)
    assert compare(Fixed(spoilt), Fixed(spoilt), numbered(5)).top1 == pytest.approx(4 / 5)


def test_nothing_but_zeros() -> None:
    zeros = {name: np.zeros_like(array) for name, array in outputs().items()}
    assert compare(Fixed(zeros), Fixed(zeros), numbered(5)).agree
    assert compare(Fixed(outputs()), Fixed(zeros), numbered(5)).first == "layer"
    empty = Difference("none", (1, 1, 1))
    assert empty.error == 0


def test_the_tolerance_is_the_coarser_dtypes() -> None:
    a, b = outputs(), outputs()
    a["logits"][0, 0] += 1e-2 * np.abs(b["logits"]).max()
    assert compare(Fixed(a), Fixed(b), numbered(5)).first == "logits"
    assert compare(Fixed(a, dtype="fp16"), Fixed(b), numbered(5)).agree
    assert compare(Fixed(a), Fixed(b, dtype="bf16"), numbered(5)).agree
    assert compare(Fixed(a, dtype="fp16"), Fixed(b), numbered(5), tolerance=1e-3).first == "logits"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(BackendError, match="batches"):
        compare(Fixed(outputs(), (4, 4)), Fixed(outputs(), (1, 2)), numbered(5))
    with pytest.raises(BackendError, match="no images"):
        compare(Fixed(outputs()), Fixed(outputs()), [])


def test_random_images_are_reproducible() -> None:
    one, same, other = (list(random_images((3, 5, 4), 3, seed)) for seed in (7, 7, 8))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.array_equal(one, list(random_images((3, 5, 4), 9, 7))[:3])
    assert one[0].dtype == np.float32 and not np.array_equal(one[0], one[1])


def test_images_of_a_folder_go_through_preprocessing(folder: Path, network: Network) -> None:
    from inception_engine.preprocess import normalise, pixels

    images = list(folder_images(folder / "photos", (3, 48, 48), network.preprocess, None))
    wanted = pixels(folder / "photos" / "1.png", network.preprocess, (3, 48, 48))
    assert len(images) == 3
    assert np.array_equal(images[1], normalise(wanted[None], network.preprocess)[0])
    assert len(list(folder_images(folder / "photos", (3, 48, 48), Preprocess(), 2))) == 2


def test_command_agrees(folder: Path, capsys: Captured) -> None:
    net, plan = folder / "net.safetensors", folder / "net.plan"
    status, out, err = run(capsys, f"engine:{net}", f"onnxruntime:{net}", "--count", 2)
    assert (status, err) == (0, "")
    assert "A and B agree" in out and "images 2" in out
    assert (
        sum(line.split()[0] in ("conv1", "5b/output", "logits", "fc") for line in out.splitlines() if line)
        >= 3
    )
    status, out, _ = run(capsys, plan, f"torch:{net}", "--images", folder / "photos")
    assert status == 0 and "images 3" in out and "no layers" in out


def test_command_names_the_first_layer_that_differs(folder: Path, capsys: Captured) -> None:
    net, other = folder / "net.safetensors", folder / "changed.safetensors"
    status, out, _ = run(capsys, other, net)
    assert status == 1
    (marked,) = [line for line in out.splitlines() if line.endswith("<- first beyond the tolerance")]
    assert marked.startswith("4c/3x3 ")
    assert out.endswith("A and B differ from 4c/3x3 on\n")
    status, out, _ = run(capsys, other, net, "--json")
    document = json.loads(out)
    assert (status, document["agree"], document["first_diverging_layer"]) == (1, False, "4c/3x3")
    assert document["layers"][0]["name"] == "conv1" and document["layers"][0]["error"] < 1e-6
    assert run(capsys, other, net, "--tolerance", "1e6")[0] == 0


def test_no_name_forges_a_line() -> None:
    """A layer's, a model's."""

    def named(name: str, description: str) -> Fixed:
        backend = Fixed({name if key == "layer" else key: array for key, array in outputs().items()})
        backend.face = dataclasses.replace(backend.face, description=description)
        return backend

    def text(name: str, description: str) -> list[str]:
        one, other = named(name, description), named(name, description)
        one.values = changed(one.values, name, (0, 0, 0, 0), 1e3)
        return render(compare(one, other, numbered(5))).split("\n")

    plain = text("lay er", "fixed  A and B agree")
    assert text("lay\ner", "fixed\r\nA and B agree") == [
        line.replace("lay er", "lay?er").replace("fixed  ", "fixed??") for line in plain
    ]


def test_command_is_reproducible(folder: Path, capsys: Captured) -> None:
    arguments = folder / "net.safetensors", "reference", "--json", "--count", 2
    once, again, other = (run(capsys, *arguments, "--seed", seed)[1] for seed in (3, 3, 4))
    assert once == again != other


def test_an_onnx_file_has_the_layers_of_its_network(folder: Path, network: Network, capsys: Captured) -> None:
    pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
    from inception_engine.exporters.onnx import to_onnx

    model = to_onnx(perturbed(network, "3b/1x1"), folder / "changed.onnx")
    status, out, _ = run(capsys, folder / "changed.onnx", folder / "net.safetensors", "--json", "--count", 1)
    assert (status, json.loads(out)["first_diverging_layer"]) == (1, "3b/1x1")
    status, out, err = run(capsys, folder / "changed.onnx", "onnxruntime", "--images", folder / "photos")
    assert (status, err) == (0, "")
    del model.metadata_props[:]
    (folder / "silent.onnx").write_bytes(model.SerializeToString())
    status, out, err = run(capsys, folder / "silent.onnx", "onnxruntime", "--images", folder / "photos")
    assert status == 0 and "neither file says how images are normalised" in err


def test_options_reach_the_backends(folder: Path, capsys: Captured) -> None:
    net = folder / "net.safetensors"
    status, out, _ = run(capsys, f"onnxruntime:{net}", "reference", "--dtype", "fp16", "--json", "--count", 1)
    document = json.loads(out)
    assert (status, document["tolerance"]) == (0, 2e-2)
    assert document["logits"]["error"] > 1e-4  # it was float16
    status, out, _ = run(capsys, f"torch:{net}", "onnxruntime", "--device", "cpu", "--count", 1)
    assert status == 0


@pytest.mark.parametrize(
    ("a", "b", "options", "word"),
    [
        ("net.safetensors", "classes.safetensors", (), "logits of (7, 1, 1)"),
        ("net.safetensors", "size.safetensors", (), "images of (3, 48, 48)"),
        ("net.safetensors", "width.safetensors", (), "layer conv2"),
        ("net.safetensors", "missing.safetensors", (), "missing.safetensors: No such file"),
        ("net.safetensors", "caffe:net", (), "No such file"),
        ("net.safetensors", "engine:", (), "no file behind the colon"),
        ("net.plan", "onnxruntime", (), "backend onnxruntime takes"),
        ("net.safetensors", "torch", ("--images", "empty"), "no JPEG or PNG"),
        ("net.safetensors", "torch", ("--images", "nowhere"), "--images random"),
        ("net.safetensors", "torch", ("--images", "net.plan"), "neither JPEG nor PNG"),
        ("net.safetensors", "torch", ("--tolerance", "-1"), "--tolerance"),
        ("net.safetensors", "torch", ("--tolerance", "nan"), "--tolerance"),
        ("net.safetensors", "torch", ("--count", "0"), "--count"),
        ("net.safetensors", "torch", ("--seed", "-1"), "--seed"),
        ("net.safetensors", "torch", ("--dtype", "int8"), "int8"),
        ("net.safetensors", "torch", ("--device", "tpu"), "tpu"),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    a: str,
    b: str,
    options: tuple[str, ...],
    word: str,
) -> None:
    monkeypatch.chdir(folder)
    status, out, err = run(capsys, a, b, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert word in err


def test_other_preprocessing_is_refused_for_photos(folder: Path, network: Network, capsys: Captured) -> None:
    other = dataclasses.replace(network, preprocess=Preprocess(order="BGR"))
    other.save(folder / "bgr.safetensors")
    files = folder / "bgr.safetensors", folder / "net.safetensors"
    assert run(capsys, *files, "--count", 1)[0] == 0
    status, _, err = run(capsys, *files, "--images", folder / "photos")
    assert status == 2 and "different inputs of an image" in err


def test_layers_are_in_the_order_of_computation(network: Network) -> None:
    with load(network, "engine", keep_all=True) as a:
        convolutions = [layer.name for layer in network.layers if isinstance(layer, Conv)]
        assert [name for name in a.face.layers if name in convolutions] == convolutions
