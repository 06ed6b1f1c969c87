"""`inception train --contact-sheet` and `--loader-only`: a look at a training's images that trains nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_engine.cli import main
from inception_engine.train import preview

pytest.importorskip("torch")

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


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_alone(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(preview, "LEAST_IMAGES", 40)
    status, out, err = run("--loader-only", "--workers", str(workers))
    assert (status, err) == (0, "")
    processes = "2 processes" if workers else "no process"
    assert re.fullmatch(
        rf"loader alone: [\d,]+ images/s of 32 x 32 pixels with {processes} of its own, "
        r"over 40 images in batches of 4\n",
        out,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


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
