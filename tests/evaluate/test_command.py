"""`inception evaluate`: what it prints and writes, on every backend, and a line for every mistake."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inception_engine as ie
from inception_engine import Network, Preprocess, cli, datasets, models
from inception_engine.evaluate.metrics import softmax
from inception_engine.preprocess import pixels

pytest.importorskip("sklearn", reason="backend digits: scikit-learn is not installed")

Captured = pytest.CaptureFixture[str]
NAMES = tuple("0123456789")
HELD_OUT = 359


def digits_network(seed: int, width: float) -> Network:
    network = ie.googlenet(seed=seed, width=width, input_size=32, input_channels=1, classes=10)
    preprocess = Preprocess(mean=(127.5,), std=(60.0,), resize=32)
    return dataclasses.replace(network, preprocess=preprocess, labels=NAMES)


@pytest.fixture(scope="module")
def network() -> Network:
    return digits_network(0, 0.15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    network.save(folder / "net.safetensors")
    digits_network(1, 0.2).save(folder / "wider.safetensors")
    ie.compile(network, max_batch=16).save(folder / "net.plan")
    rng = np.random.default_rng(0)
    for label in ("3", "7"):
        (folder / "val" / label).mkdir(parents=True)
        (folder / "train" / label).mkdir(parents=True)
        for index in range(2):
            picture = Image.fromarray(rng.integers(0, 256, (20, 14 + index), dtype=np.uint8))
            picture.save(folder / "val" / label / f"{index}.png")
            picture.save(folder / "train" / label / f"{index}.png")
    return folder


def run(capsys: Captured, *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def top1(network: Network) -> float:
    """Of the held-out digits, one image at a time: the reference of what the command says."""
    data = datasets.opened("digits", "held-out")
    with ie.load(network, max_batch=1) as backend:
        hits = sum(
            int(
                softmax(
                    backend.run(pixels(data.image(index), network.preprocess, network.input_shape)[None])[0]
                ).argmax()
                == data.label(index)
            )
            for index in range(len(data))
        )
    return 100 * hits / len(data)


def test_without_arguments_it_is_the_built_in_model_on_held_out_digits(
    network: Network, folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "DIGITS", folder / "net.safetensors")
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"data   digits: {HELD_OUT} images of 10 classes"
    assert lines[1].startswith("model  inception engine, cpu ")
    assert "note   the weights are random: the figures mean nothing" in lines
    expected = top1(network)
    assert 0 < expected < 100
    assert lines[-1].startswith(f"top-1 {expected:.2f} %, top-5 ")
    assert lines[-1].endswith("(1 model, 1 crop)")


def test_ensembles_crops_json_and_picture(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    document, picture = tmp_path / "figures.json", tmp_path / "confusion.png"
    status, out, _ = run(
        capsys,
        folder / "net.safetensors",
        f"torch:{folder / 'wider.safetensors'}",
        "--data", folder,
        "--crops", "144,1",
        "--threads", 1,
        "--json", document,
        "--confusion", picture,
    )  # fmt: skip
    assert status == 0
    found = json.loads(document.read_text())
    assert [(row["models"], row["crops"], row["cost"]) for row in found["table"]] == [
        (1, 1, 1), (1, 144, 144), (2, 1, 2), (2, 144, 288),
    ]  # fmt: skip
    assert found["images"] == 4  # of `val`
    last = found["table"][-1]
    assert (found["top1"], found["top5"], found["cost"]) == (last["top1"], last["top5"], 288)
    assert f"top-1 {found['top1']:.2f} %, top-5 {found['top5']:.2f} % (2 models, 144 crops)" in out
    assert found["classes"] == ["3", "7"] and found["classes_by_name"] and found["random_weights"]
    assert found["held_out"] is True
    assert len(found["models"]) == 2 and "torch" in found["models"][1]
    assert Image.open(picture).format == "PNG"


@pytest.mark.parametrize("backend", ["engine", "torch", "onnxruntime", "reference"])
def test_every_backend_gives_the_engines_figures(
    folder: Path, tmp_path: Path, capsys: Captured, backend: str
) -> None:
    for package in {"torch": ["torch"], "reference": ["torch"], "onnxruntime": ["onnx", "onnxruntime"]}.get(
        backend, []
    ):
        pytest.importorskip(package, reason=f"backend {backend}: {package} is not installed")
    status, out, _ = run(
        capsys, folder / "net.safetensors", "--backend", backend, "--data", folder / "val", "--crops", 10,
        "--against", "engine", "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert status == 0
    agreement = json.loads((tmp_path / "figures.json").read_text())["agreement"]
    assert (agreement["images"], agreement["same"], agreement["differing"]) == (4, 4, [])
    assert out.splitlines()[-1].endswith("name the same first class for 4 of 4 images")


def test_a_plan_and_half_precision_by_emulation(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    status, out, _ = run(capsys, folder / "net.plan", "--data", folder)
    assert status == 0 and "model  inception engine" in out
    status, out, _ = run(
        capsys, folder / "net.safetensors", "--data", folder, "--emulate", "--dtype", "fp16",
        "--against", "torch", "--json", tmp_path / "figures.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "figures.json").read_text())
    assert status == 0 and "walking a GPU's program, fp16" in found["agreement"]["a"]
    assert found["agreement"]["b"].startswith("torch") and "fp32" in found["agreement"]["b"]
    assert found["agreement"]["same"] >= 3


def test_unreadable_images_are_named_and_left_out_when_asked(
    folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    for label in ("3", "7"):
        (tmp_path / label).mkdir()
        for image in (folder / "val" / label).iterdir():
            (tmp_path / label / image.name).write_bytes(image.read_bytes())
    bad = tmp_path / "7" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    status, out, err = run(capsys, folder / "net.safetensors", "--data", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"inception: error: {bad}: damaged") and err.count("\n") == 1
    status, out, err = run(
        capsys,
        folder / "net.safetensors",
        "--data",
        tmp_path,
        "--skip-unreadable",
        "--crops",
        "1,10",
        "--against",
        "engine",
    )
    assert status == 0
    assert err.startswith(f"inception: skipped: {bad}: damaged") and err.count("inception: skipped: ") == 1
    assert "note   left out 1 of the images, which could not be read" in out


def test_no_name_forges_a_line(
    folder: Path, network: Network, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's, an image's, a folder's."""
    forged = "\ntop-1 100.00 %\x1b[1A"
    dataclasses.replace(network, name=f"net{forged}").save(tmp_path / "net.safetensors")
    data = tmp_path / "da\nta"
    shutil.copytree(folder / "val", data)
    (data / "7" / "2\ninception: skipped.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    plain = run(capsys, folder / "net.safetensors", "--data", folder / "val", "--against", "engine")
    found = run(capsys, "net.safetensors", "--data", data.name, "--against", "engine", "--skip-unreadable")
    assert plain[0] == found[0] == 0
    assert found[1].count("\n") == plain[1].count("\n") + 1  # which says how many images were left out
    assert all(line.isprintable() for text in found[1:] for line in text.split("\n"))
    assert "da?ta: 5 images" in found[1] and "net?top-1 100.00 %?[1A" in found[1]
    skipped = [line for line in found[2].splitlines() if line.startswith("inception: skipped")]
    assert len(skipped) == 1 and "2?inception: skipped.png" in skipped[0]


def test_what_a_training_holds_out_of_a_folder(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    for label in ("3", "7"):
        (tmp_path / label).mkdir()
        for index in range(6):
            Image.new("L", (9, 9), 40 * index).save(tmp_path / label / f"{index}.png")
    held_out = datasets.parts(str(tmp_path))["held-out"]
    for index in set(range(12)) - set(held_out.indices.tolist()):  # type: ignore[attr-defined]
        Path(datasets.ImageFolder(tmp_path).name(index)).write_bytes(
            b""
        )  # what is trained with must not be read
    figures = tmp_path / "figures.json"
    command = (folder / "net.safetensors", "--data", tmp_path, "--json", figures)
    status, out, err = run(capsys, *command, "--held-out")
    assert (status, err) == (0, "") and json.loads(figures.read_text())["held_out"] is True
    assert out.startswith(f"data   {tmp_path}: 2 images of 2 classes\n")
    status, out, err = run(capsys, *command, "--skip-unreadable")
    assert status == 0 and out.startswith(f"data   {tmp_path}: 12 images of 2 classes\n")
    assert json.loads(figures.read_text())["held_out"] is False
    note = f"all images of {tmp_path} were taken, those of a training included; see --held-out"
    assert err.count("inception: skipped: ") == 10 and err.endswith(f"inception: note: {note}\n")
    for laid_out in ((), ("--held-out",)):
        status, out, err = run(capsys, folder / "net.safetensors", "--data", folder, *laid_out)
        assert (status, err) == (0, "") and "4 images of 2 classes" in out


def test_validation_images_alone_are_held_out(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(folder / "val", tmp_path / "val")
    for laid_out in ((), ("--held-out",)):
        status, out, err = run(capsys, folder / "net.safetensors", "--data", tmp_path, *laid_out)
        assert (status, err) == (0, "") and "4 images of 2 classes" in out
    shutil.move(tmp_path / "val", tmp_path / "train")
    status, _, err = run(capsys, folder / "net.safetensors", "--data", tmp_path, "--held-out")
    assert status == 2 and err == f"inception: error: {tmp_path}/val: there is no such folder\n"


def test_classes_that_are_not_the_networks(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    for label in (f"n{index:08}" for index in range(10)):
        (tmp_path / label).mkdir()
        Image.new("L", (9, 9)).save(tmp_path / label / "a.png")
    status, out, _ = run(capsys, folder / "net.safetensors", "--data", tmp_path)
    assert status == 0
    assert "note   the labels are not the names of the data's classes, which are taken in order" in out
    (tmp_path / "n00000009" / "a.png").unlink()
    (tmp_path / "n00000009").rmdir()
    status, _, err = run(capsys, folder / "net.safetensors", "--data", tmp_path)
    assert status == 2
    assert err == (
        "inception: error: the data has 9 classes and the network 10, whose labels are other names\n"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("net.safetensors", "--crops", "5"), "'5' crops; there is 1, 10, 144"),
        (("net.safetensors", "--crops", ""), "'' crops"),
        (("net.safetensors", "--data", "nowhere"), "nowhere: there is no such folder"),
        (("missing.safetensors",), "missing.safetensors: No such file"),
        (("engine",), "give engine:FILE"),
        (("net.safetensors", "--backend", "caffe"), "unknown backend 'caffe'"),
        (("net.safetensors", "--against", "caffe"), "unknown backend 'caffe'"),
        (("net.safetensors", "--max-batch", "0"), "--max-batch 0"),
        (("torch:net.safetensors", "--threads", "-1"), "--threads -1"),
        (("net.safetensors", "--dtype", "fp16"), "fp16"),
        (("torch:net.safetensors", "--emulate"), "no option 'emulate'"),
        (("net.plan", "--dtype", "fp16"), "dtype is of a network"),
        (("net.safetensors", "--json", "nowhere/figures.json"), "no such folder"),
        (("net.safetensors", "--confusion", "."), "exists and is not a file"),
        (("net.safetensors", "--json", "loop"), "loop: Too many levels of symbolic links"),
        (("torch:net.safetensors", "--json", "net.safetensors"), "is the file that is read"),
        (("net.safetensors", "--json", "a", "--confusion", "./a"), "--json and --confusion name one file"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], word: str
) -> None:
    monkeypatch.chdir(folder)
    if "loop" in arguments:
        Path("loop").symlink_to("loop")
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("inception: error: ") and word in err and err.count("\n") == 1


def test_a_missing_package_is_a_line(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    status, _, err = run(capsys, folder / "net.safetensors", "--confusion", folder / "matrix.png")
    assert status == 2 and "matplotlib" in err and err.count("\n") == 1


def test_a_backend_of_matplotlib_that_does_not_exist_is_a_line(folder: Path) -> None:
    words = [
        sys.executable,
        "-c",
        "import sys; from inception_engine.cli import main; sys.exit(main())",
        "evaluate",
    ]
    words += [str(folder / "net.safetensors"), "--confusion", str(folder / "matrix.png")]
    done = subprocess.run(words, env={**os.environ, "MPLBACKEND": "bogus"}, capture_output=True, text=True)
    assert done.returncode == 2 and "bogus" in done.stderr and done.stderr.count("\n") == 1
