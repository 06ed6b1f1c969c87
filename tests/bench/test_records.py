from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def test_a_run_without_results_leaves_those_of_another(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    Journal(Document(dict(ENVIRONMENT), {}), path, None).rows([OURS])
    Journal(Document(dict(ENVIRONMENT), {}), path, None).end(130, None)
    assert records.read(path).rows == [OURS]
    Journal(Document(dict(ENVIRONMENT), {}), tmp_path / "b.json", None).end(130, None)
    assert records.read(tmp_path / "b.json").rows == []


def test_how_a_run_ended_is_in_both_files(tmp_path: Path) -> None:
    journal = Journal(Document(dict(ENVIRONMENT), {}), tmp_path / "a.json", tmp_path / "a.jsonl")
    journal.rows([OURS])
    paths = [tmp_path / "a.json", tmp_path / "a.jsonl"]
    assert [records.read(path).status for path in paths] == [None, None]
    journal.end(143, None)
    assert [records.read(path).status for path in paths] == [143, 143]


def test_a_line_that_does_not_fit_is_an_error_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes a part of a line, and then nothing."""
    write = os.write

    def partly(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return write(descriptor, data[:100])
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.jsonl"
    journal = Journal(Document(dict(ENVIRONMENT), {}), None, path)
    monkeypatch.setattr(os, "write", partly)
    with pytest.raises(OSError, match="No space left") as error:
        journal.rows([OURS])
    assert error.value.filename == str(path)


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


WHOLE = json.loads(Document(ENVIRONMENT, {}, [OURS], [PROFILE]).text())
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "environment": ({"environment": None}, "holds no records"),
    "empty environment": ({"environment": {}}, "holds no records"),
    "method": ({"method": []}, "holds no records"),
    "rows": ({"rows": 3}, "holds no records"),
    "row": ({"rows": ["peer"]}, "holds no records"),
    "profiles": ({"profiles": [1]}, "holds no records"),
    "versions": ({"environment": {**ENVIRONMENT, "versions": None}}, "the environment's versions is no dict"),
    "version": (
        {"environment": {**ENVIRONMENT, "versions": {"numpy": 2}}},
        "the environment's versions is no dict",
    ),
    "git": ({"environment": {**ENVIRONMENT, "git": "abc"}}, "holds no records"),
    "commit": (
        {"environment": {**ENVIRONMENT, "git": {"commit": 1, "dirty": True}}},
        "git's commit is no str",
    ),
    "gpu": ({"environment": {**ENVIRONMENT, "gpu": 1}}, "the environment's gpu is no str"),
}
FIELDS: dict[str, tuple[Any, str]] = {
    "p50_ms": ("abc", "float"),
    "p99_ms": (True, "float"),
    "parity": (math.nan, "float"),
    "ratio": (10**400, "float"),
    "batch": ([1], "int"),
    "threads": (2.0, "int"),
    "streams": (True, "int"),
    "status": (3, "str"),
    "peer": (3, "str"),
    "variant": ("\ud800", "str"),
    "best_peer": (3, "str"),
    "unstable": (0, "bool"),
    "rounds_ms": (None, "list"),
    "warm": (None, "bool"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_documents_are_said(name: str, tmp_path: Path) -> None:
    change, said = DAMAGED[name]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**WHOLE, **change}))
    with pytest.raises(RecordsError, match=said):
        records.read(path)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_rows_have_their_types(name: str, tmp_path: Path) -> None:
    value, kind = FIELDS[name]
    row = {**WHOLE["rows"][0], name: value}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**WHOLE, "rows": [row]}))
    with pytest.raises(RecordsError, match=f"a row's {name} is no {kind}"):
        records.read(path)


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({**WHOLE, "rows": [{**WHOLE["rows"][0], "p50_ms": 16, "rounds_ms": [15, 17]}]})
    )
    assert records.read(path).rows == [replace(OURS, p50_ms=16.0, rounds_ms=[15.0, 17.0])]


@pytest.mark.parametrize("content", ["[" * 200_000, "9" * 5000])
def test_what_python_does_not_read_is_not_json(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content + "\n")
    with pytest.raises(RecordsError, match="line 1: not JSON"):
        records.read(path)
    assert not records.can_be_continued(path)


def test_the_end_of_a_run_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Journal(Document(dict(ENVIRONMENT), {}), None, path).end(0, 0.5)
    path.write_text(path.read_text().replace("0.5", '"abc"'))
    with pytest.raises(RecordsError, match="other_processes_cores is no float"):
        records.read(path)


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
