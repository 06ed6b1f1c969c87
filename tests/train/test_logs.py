"""Rows that a killed training wrote too many or half are gone; the bar says what there is to say."""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from inception_engine.train import logs
from inception_engine.train.logs import COLUMNS, Logs, Pace, Progress, Row


def rows() -> list[Row]:
    train = [
        Row(
            part="train", step=step, epoch=step / 4, loss=1 / step, top1=10.0 * step,
            learning_rate=0.1 / 3, images_per_second=1e3 / 7, waiting=0.25,
        )
        for step in range(1, 9)
    ]  # fmt: skip
    judged = [
        Row(part=part, step=step, epoch=step / 4, loss=0.5, top1=90.0, top5=100.0)
        for step in (4, 8)
        for part in ("validation", "average")
    ]
    return sorted([*train, *judged], key=lambda row: (row.step, row.part == "average", row.part))


def test_rows_come_back_to_the_last_bit(tmp_path: Path) -> None:
    written = Logs(tmp_path, 0, tensorboard=False)
    for row in rows():
        written.add(row)
    assert logs.read(tmp_path / logs.ROWS) == rows()
    assert written.has("average", 8) and not written.has("average", 7)


def test_rows_behind_the_checkpoint_are_removed(tmp_path: Path) -> None:
    first = Logs(tmp_path, 0, tensorboard=False)
    for row in rows():
        first.add(row)
    resumed = Logs(tmp_path, 5, tensorboard=False)
    assert logs.read(tmp_path / logs.ROWS) == [row for row in rows() if row.step <= 5] == resumed.rows


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / logs.ROWS
    for row in rows():
        written = Logs(tmp_path, row.step, tensorboard=False)
        written.add(row)
    whole = path.read_text()
    assert whole.startswith(",".join(COLUMNS) + "\n") and logs.read(path) == rows()
    last = whole.removesuffix("\n").rpartition("\n")[2]
    for length in range(1, len(last) + 2):
        path.write_text(whole[: len(whole) - length])
        assert logs.read(path) == rows()[:-1]


def test_a_full_disk_names_the_log(tmp_path: Path) -> None:
    written = Logs(tmp_path, 0, tensorboard=False)
    written.path = Path("/dev/full")
    with pytest.raises(OSError, match="/dev/full"):
        written.add(rows()[0])


def test_curves(tmp_path: Path) -> None:
    """Other rows give another picture."""
    logs.draw(rows(), tmp_path / "a.png")
    logs.draw([dataclasses.replace(row, top1=row.top1 / 2) for row in rows()], tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and image.width > image.height > 200
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 104.0, 104.0, 106.0, 106.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    pace = Pace()
    pace.add(30, 0.5)
    pace.add(10, 0.5)
    assert pace.taken() == (10.0, 0.25)
    pace.add(6, 2.0)
    assert pace.taken() == (3.0, 1.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    progress = Progress(8, 2, shown=True)
    for row in rows()[:3]:
        progress.step()
        progress.row(row)
        progress.bar.refresh()
    progress.say("a line")
    progress.close()
    assert capsys.readouterr().out.endswith("a line\n")
    shown = error.getvalue()
    if terminal:
        for text in ("2/8", "5/8", "<", "epoch 0.8", "loss 0.333", "143 images/s", "waiting 25%"):
            assert text in shown
    else:
        assert shown == ""
