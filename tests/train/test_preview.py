"""`inception train --contact-sheet` and `--loader-only`: a look at a training's images that trains nothing.

And `tools/train-digits`, which must put nothing but a training's result into the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import loader as loader_benchmark
from inception_engine.cli import main
from inception_engine.network import Network
from inception_engine.train import logs, preview
from inception_engine.train.config import Config
from tests.train.conftest import TINY

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
SMALL = ("--input-size", "32", "--width", "0.25", "--variant", "plain", "--batch", "4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def run(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):  # (arguments) -> exit status, standard output, standard error
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["train", "--data", str(folder), *SMALL, *arguments])
        return status, *capsys.readouterr()

    return call


def test_a_contact_sheet(run, tmp_path: Path) -> None:
    status, out, err = run("--contact-sheet", "sheet.png")
    assert (status, err) == (0, "")
    assert out == "sheet.png: 8 images, as validation sees them and as 8 epochs show them to the network\n"
    with Image.open(tmp_path / "sheet.png") as image:
        first = np.asarray(image)
    assert first.shape == (8 * (96 + 18) + 18, 9 * 100 + 4, 3)
    for name, options in (("again.png", ()), ("seed.png", ("--seed", "1")), ("plain.png", ("--no-crop",))):
        assert run("--contact-sheet", name, *options)[0] == 0
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(np.asarray(image), first) == (name == "again.png")
    assert {path.name for path in tmp_path.iterdir()} == {
        "pictures", "sheet.png", "again.png", "seed.png", "plain.png"
    }  # fmt: skip


def test_a_contact_sheet_passes_over_what_cannot_be_read(run, folder: Path, tmp_path: Path) -> None:
    for damaged in sorted(folder.glob("a/*.png"))[:2]:
        damaged.write_bytes(damaged.read_bytes()[:900])
    status, out, err = run("--contact-sheet", "sheet.png")
    assert (status, out, err.count("\n")) == (2, "", 1) and "damaged" in err
    status, out, err = run("--contact-sheet", "sheet.png", "--skip-unreadable")
    assert (status, err) == (0, "")
    *left_out, last = out.splitlines()
    assert left_out and all(re.match(r"left out: .*/a/\d+\.png: damaged", line) for line in left_out)
    assert last.startswith("sheet.png: 8 images, ")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height == 8 * (96 + 18) + 18


def test_no_image_that_is_left_out_forges_a_line(run, folder: Path) -> None:
    for damaged in folder.glob("a/*.png"):
        damaged.rename(damaged.with_name(f"{damaged.stem}\nsheet.png")).write_bytes(b"no image")
    status, out, err = run("--contact-sheet", "sheet.png", "--skip-unreadable")
    assert (status, err) == (0, "")
    *left_out, last = out.splitlines()
    assert left_out and all(re.match(r"left out: .*/a/\d+\?sheet\.png: ", line) for line in left_out)
    assert last.startswith("sheet.png: ")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_alone(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(preview, "LEAST_IMAGES", 40)
    status, out, err = run("--loader-only", "--workers", str(workers))
    assert (status, err) == (0, "")
    processes = "2 processes" if workers else "no process"
    assert re.fullmatch(
        rf"loader alone: [\d,]+ images/s of 32 x 32 pixels with {processes} of its own, "
        r"over 40 images in batches of 4\n"
        r"of a training, runs/googlenet/metrics\.csv has images_per_second, and as waiting the share of the time in "
        r"which the network waited for images\n",
        out,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_the_loader_beside_the_trainer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command behind benchmarks/loader.md, on a training of a second."""

    def small(folder: Path, photographs: int) -> list[loader_benchmark.Case]:
        data = str(loader_benchmark.photos(folder, photographs))
        keys = {**TINY, "data": data, "average": "none", "epochs": 1, "log_every": 1}
        return [loader_benchmark.Case(name="small", config=Config(**keys))]  # type: ignore[arg-type]

    monkeypatch.setattr(loader_benchmark, "cases", small)
    assert loader_benchmark.main(["--rounds", "1", "--photos", "40"]) == 0
    out = capsys.readouterr().out
    row = re.search(
        r"^\| small \| none.* \| ([\d.]+) \[([\d.]+)\.\.([\d.]+)\] \| (\d+) % \|$", out, re.MULTILINE
    )
    assert row is not None
    median, low, high, waiting = map(float, row.groups())
    assert 0 < low <= median <= high and 0 <= waiting <= 100
    assert loader_benchmark.main(["--rounds", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_mistakes_are_a_line(run, folder: Path, tmp_path: Path) -> None:
    def complaint(*arguments: str) -> str:
        status, out, err = run(*arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1
        return err.removeprefix("inception: error: ").rstrip("\n")

    (folder / "c").mkdir()
    assert complaint("--loader-only") == f"{folder}: classes without a JPEG or PNG image: c"
    (folder / "c").rmdir()
    assert complaint("--contact-sheet", "no/sheet.png") == "no: there is no such folder to write in"
    assert complaint("--contact-sheet", ".") == ".: exists and is not a file"
    assert "area is (0.9, 0.1)" in complaint("--loader-only", "--area", "0.9,0.1")
    damaged = folder / "a/0.png"
    damaged.write_bytes(damaged.read_bytes()[:900])
    assert f"{damaged}: damaged: " in complaint("--loader-only")
    assert f"{damaged}: damaged: " in complaint("--loader-only", "--workers", "2")
    assert run("--loader-only", "--skip-unreadable")[0] == 0
    assert not list(tmp_path.glob("*.png"))


@pytest.fixture
def train_digits(
    tmp_path: Path,
):  # (arguments) -> the script's process; it writes the model to tmp_path / "model"
    pytest.importorskip("sklearn", reason="the digits: scikit-learn is not installed")
    copy = tmp_path / "tools/train-digits"
    copy.parent.mkdir()
    shutil.copy(ROOT / "tools/train-digits", copy)
    (tmp_path / "tools/setup").write_text("#!/bin/sh\n")
    (tmp_path / "tools/setup").chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    elsewhere = (
        "from pathlib import Path\nfrom inception_engine import models\nmodels.DIGITS = Path('model')\n"
    )
    (tmp_path / "sitecustomize.py").write_text(elsewhere)
    (tmp_path / "runs/digits").mkdir(parents=True)
    (tmp_path / "runs/digits/network.safetensors").write_bytes(b"of an earlier run")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        return subprocess.run(
            [copy, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    return call


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--output=x"], "--output"),
        (["--out", "x", "--resume"], "--output"),
        (["--print-config"], "--print-config"),
        (["--contact-sheet", "sheet.png"], "--contact-sheet"),
        (["--epochs", "1", "--loader-only"], "--loader-only"),
        (["--config", "x.yaml"], "--config"),
    ],
)
def test_the_script_of_the_digits_trains_or_refuses(
    train_digits, tmp_path: Path, arguments: list[str], option: str
) -> None:
    done = train_digits(*arguments)
    assert not (tmp_path / "model").exists()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"tools/train-digits: error: {option}: ")


def test_the_script_of_the_digits_puts_what_it_trained_in_place(train_digits, tmp_path: Path) -> None:
    for without_training, status in ((["--help"], 0), (["--epochs", "0"], 2)):
        assert train_digits(*without_training).returncode == status
        assert not (tmp_path / "model").exists()
    earlier = tmp_path / "runs/digits/network.safetensors"
    done = train_digits("--epochs", "1")
    assert done.returncode == 2 and f"{earlier.relative_to(tmp_path)} would be overwritten" in done.stderr
    assert earlier.read_bytes() == b"of an earlier run" and not (tmp_path / "model").exists()
    earlier.unlink()
    done = train_digits("--epochs", "1", "--contrast", "0.4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("model: written\n")
    assert Network.load(tmp_path / "model").metadata["epochs"] == "1"
    rows = [row for row in logs.read(tmp_path / "runs/digits/metrics.csv") if row.part == "train"]
    assert rows and all(row.images_per_second and row.waiting and row.waiting < 1 for row in rows)
