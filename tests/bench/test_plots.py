from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from inception_engine.bench import plots
from inception_engine.bench.records import Document
from tests.bench.test_report import BEST, ENVIRONMENT, MISSING, OURS

pytest.importorskip("matplotlib")

PROFILE = {
    "variant": "lrn",
    "batch": 1,
    "dtype": "fp32",
    "device": "cpu",
    "threads": 2,
    "peak": {"macs_per_s": 1e11, "bytes_per_s": 2e10},
    "layers": [
        {"name": "conv1", "share": 0.7, "executed": 1e8, "bytes": 5e6, "ms": 2.0},
        {"name": "pool1", "share": 0.3, "executed": 0, "bytes": 1e6, "ms": 0.5},
    ],
}


def test_pictures_of_rows_and_profiles(tmp_path: Path) -> None:
    rows = [OURS, BEST, replace(OURS, batch=1, p50_ms=3.0, unstable=True), MISSING]
    written = plots.write(Document(ENVIRONMENT, {}, rows, [PROFILE]), tmp_path / "plots")
    assert {path.name for path in written} == {
        "lrn-fp32-cpu-2-1-float32-latency.png",
        "lrn-fp32-cpu-2-1-float32-throughput.png",
        "lrn-fp32-cpu-2-1-layers.png",
        "lrn-fp32-cpu-2-1-roofline.png",
    }
    for path in written:
        pixels = Image.open(path).convert("L")
        assert pixels.width > 300 and min(pixels.tobytes()) < 100  # something dark on it


def test_the_roofline_is_of_executed_multiply_adds() -> None:
    layer = {"name": "conv2", "share": 1.0, "nominal": 4e8, "executed": 1e8, "bytes": 5e6, "ms": 2.0}
    figure = plots._roofline({**PROFILE, "layers": [layer]}, "title")
    (points,) = figure.axes[0].collections
    assert points.get_offsets().tolist() == [[20.0, 50.0]]  # nominal ones would be twice the peak
    plots._close()


def test_what_a_record_says_is_no_path(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    rows, profile = [replace(OURS, variant="../../x")], {**PROFILE, "variant": "/../../y"}
    written = plots.write(Document(ENVIRONMENT, {}, rows, [profile]), folder)
    assert len(written) == 4 and {path.parent for path in written} == {folder}
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)


def test_nothing_measured_is_no_picture(tmp_path: Path) -> None:
    assert plots.write(Document(ENVIRONMENT, {}, [MISSING]), tmp_path) == []


LATENCY, THROUGHPUT = (f"lrn-fp32-cpu-2-1-float32-{what}.png" for what in ("latency", "throughput"))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_files_are_replaced(kind: str, tmp_path: Path) -> None:
    """And where one picture has no place, the others stay as they are."""
    (tmp_path / LATENCY).write_bytes(b"before")
    if kind == "pipe":
        os.mkfifo(tmp_path / THROUGHPUT)
        held = os.open(
            tmp_path / THROUGHPUT, os.O_RDWR | os.O_NONBLOCK
        )  # else who writes there waits for ever
    elif kind == "folder":
        (tmp_path / THROUGHPUT).mkdir()
    else:
        (tmp_path / THROUGHPUT).symlink_to("/dev/null")
    with pytest.raises(FileExistsError, match="exists and is not a file") as caught:
        plots.write(Document(ENVIRONMENT, {}, [OURS]), tmp_path)
    if kind == "pipe":
        os.close(held)
    assert caught.value.filename == str(tmp_path / THROUGHPUT)
    assert {path.name for path in tmp_path.iterdir()} == {LATENCY, THROUGHPUT}
    assert (tmp_path / LATENCY).read_bytes() == b"before" and not (tmp_path / THROUGHPUT).is_file()


def test_a_link_stays_and_points_to_the_new_picture(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"before")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / LATENCY).symlink_to(elsewhere)
    plots.write(Document(ENVIRONMENT, {}, [OURS]), tmp_path / "plots")
    assert (tmp_path / "plots" / LATENCY).is_symlink()
    assert Image.open(elsewhere).format == "PNG"


def test_what_was_there_is_kept_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / LATENCY).write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        plots.write(Document(ENVIRONMENT, {}, [OURS]), tmp_path)
    assert caught.value.filename == str(tmp_path / LATENCY)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {LATENCY: b"before"}
