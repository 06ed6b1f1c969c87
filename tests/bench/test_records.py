from __future__ import annotations

import json
from pathlib import Path

import pytest

from inception_engine.bench import records
from inception_engine.bench.records import Document, Journal, RecordsError
from tests.bench.test_report import ENVIRONMENT, MISSING, OURS, ROWS

PROFILE = {"variant": "lrn", "layers": []}


def test_json_and_lines_round_trip(tmp_path: Path) -> None:
    document = Document(dict(ENVIRONMENT), {"rounds": 5})
    journal = Journal(document, tmp_path / "a.json", tmp_path / "a.jsonl")
    journal.rows(ROWS[:2])
    journal.rows(ROWS[2:])
    journal.profile(PROFILE)
    journal.end(0, 0.25)
    assert document.rows == ROWS and document.profiles == [PROFILE]
    for name in ("a.json", "a.jsonl"):
        assert records.read(tmp_path / name) == document
    assert list(records.lines(document))[1:4] == (tmp_path / "a.jsonl").read_text().splitlines()[1:4]


def test_each_row_is_in_both_files_at_once(tmp_path: Path) -> None:
    journal = Journal(Document(ENVIRONMENT, {}), tmp_path / "a.json", tmp_path / "a.jsonl")
    journal.rows([OURS])
    for name in ("a.json", "a.jsonl"):
        assert records.read(tmp_path / name).rows == [OURS]


def test_lines_of_a_second_run_come_behind_and_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Journal(Document(ENVIRONMENT, {}), None, path).rows([OURS])
    Journal(Document(ENVIRONMENT, {}), None, path).rows([MISSING])
    assert len(path.read_text().splitlines()) == 4
    assert records.read(path).rows == [MISSING]


def test_a_line_that_was_cut_off_is_left_out_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Journal(Document(ENVIRONMENT, {}), None, path).rows(ROWS)
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert records.read(path).rows == ROWS[:-1]
    lines = whole.splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-20], lines[2]]) + "\n")
    with pytest.raises(RecordsError, match="line 2: not JSON"):
        records.read(path)


def test_a_line_that_was_cut_off_is_not_continued_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Journal(Document(ENVIRONMENT, {}), None, path).rows(ROWS)
    path.write_text(path.read_text()[:-20])
    Journal(Document(ENVIRONMENT, {}), None, path).rows([OURS])
    assert records.read(path).rows == [OURS]
    assert len(path.read_text().splitlines()) == 1 + len(ROWS) - 1 + 2


def test_files_of_others_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert records.can_be_continued(path)
    for content in ("", '{"kind": "environment", "format": 2}\n'):
        path.write_text(content)
        assert records.can_be_continued(path)
    for content in (
        "a letter\n",
        "\n",
        "[]\n",
        '{"kind": "environment", "format": 1}\n',
        '{"kind": "row"}\n',
    ):
        path.write_text(content)
        assert not records.can_be_continued(path)


def test_a_row_is_its_case() -> None:
    assert records.Row.of(OURS.case) == records.Row(
        peer="engine", variant="lrn", device="cpu", dtype="fp32", batch=8, threads=2
    )
    assert json.loads(Document(ENVIRONMENT, {}, [OURS]).text())["rows"][0]["peer"] == "engine"
