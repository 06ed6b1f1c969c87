from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inception_engine.bench import report
from inception_engine.bench.records import OtherProcesses, Row, _git, document, environment

BEST = Row(
    peer="onnxruntime",
    variant="lrn",
    device="cpu",
    dtype="fp32",
    batch=8,
    threads=2,
    parity=2.5e-6,
    p50_ms=20.0,
    p90_ms=21.5,
    p99_ms=30.25,
    images_per_s=400.0,
    samples=150,
    spread_min=0.99,
    spread_max=1.02,
    ratio=1.0,
    ratio_min=1.0,
    ratio_max=1.0,
    best_peer="onnxruntime",
)
OURS = replace(
    BEST, peer="engine", p50_ms=16.0, images_per_s=500.0, ratio=0.8, ratio_min=0.78, ratio_max=0.815
)
MISSING = Row(
    peer="torch",
    variant="plain",
    device="cpu",
    dtype="fp32",
    batch=1,
    threads=2,
    status="failed: Error: a | b",
)
ROWS = [OURS, BEST, MISSING]
ENVIRONMENT: dict[str, Any] = {
    "cpu": "Some CPU",
    "cores": 4,
    "threads": 2,
    "isa": "avx2",
    "other_processes_cores": 0.02,
    "os": "Linux",
    "python": "3.11.0",
    "versions": {"numpy": "2.3", "torch": None},
    "git": {"commit": "0123456789abcdef", "dirty": True},
}


def test_table_shows_every_figure_and_aligns() -> None:
    lines = report.table(ROWS, ENVIRONMENT).splitlines()
    assert "Some CPU" in lines[0] and "2 threads" in lines[0]
    assert "numpy 2.3" in lines[1] and "torch" not in lines[1] and "0123456789ab with changes" in lines[1]
    head = next(index for index, line in enumerate(lines) if line.startswith("variant"))
    ours, best, gap, missing = lines[head + 2 :]
    expected = [
        "lrn",
        "8",
        "engine",
        "16.00",
        "21.50",
        "30.25",
        "500.0",
        "2.5e-06",
        "0.80",
        "[0.78..0.81]",
        "ok",
    ]
    assert ours.split() == expected
    assert "best peer" in best
    assert gap == ""  # between two cases
    assert missing.endswith("failed: Error: a | b") and missing.split()[3:8] == ["-"] * 5
    assert (
        len({line.index(word) for line, word in ((lines[head], "status"), (ours, "ok"), (best, "ok"))}) == 1
    )


def test_a_busy_machine_is_said() -> None:
    assert "UNRELIABLE" not in report.table(ROWS, ENVIRONMENT)
    assert "UNRELIABLE: other processes used 0.75 cores" in report.table(
        ROWS, {**ENVIRONMENT, "other_processes_cores": 0.75}
    )


def test_other_processes_are_counted_and_our_own_work_is_not() -> None:
    others = OtherProcesses()
    assert others._start is not None
    wall, busy, own = others._start
    others._start = (
        wall - 10.0,
        busy - 5.0,
        own - 3.0,
    )  # ten seconds ago, five of work since, three of them ours
    assert others.cores() == pytest.approx(0.2, abs=0.02)


def test_markdown_is_one_table_and_escapes_bars() -> None:
    lines = report.markdown(ROWS, ENVIRONMENT).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(ROWS)
    columns = {line.replace("\\|", "").count("|") for line in rows}
    assert columns == {len(report.COLUMNS) + 1}
    assert "failed: Error: a \\| b" in rows[-1]


def test_csv_has_every_field_of_every_row() -> None:
    rows = list(csv.DictReader(io.StringIO(report.comma_separated(ROWS))))
    assert [row["peer"] for row in rows] == ["engine", "onnxruntime", "torch"]
    assert float(rows[0]["p99_ms"]) == 30.25 and rows[2]["p50_ms"] == ""
    assert rows[2]["status"] == "failed: Error: a | b"


def test_json_round_trips() -> None:
    content = json.loads(document(ROWS, ENVIRONMENT, {"rounds": 5}))
    assert set(content) == {"format", "environment", "method", "rows"}
    assert [Row(**row) for row in content["rows"]] == ROWS


def test_environment_names_machine_versions_and_command() -> None:
    content = environment(["--batch", "1"], threads=3)
    assert content["command"] == "inception-bench --batch 1"
    assert content["threads"] == 3 and content["cores"] >= 1
    assert content["versions"]["numpy"].count(".") >= 1
    assert json.dumps(content, allow_nan=False)


def test_git_names_the_commit_only_where_the_package_is_tracked(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "records.py"
    source.write_text("")
    assert _git(tmp_path) is None
    git("init", "--quiet")
    assert _git(tmp_path) is None  # in a checkout, but not of it
    git("add", ".")
    git("commit", "--quiet", "--message", "m")
    assert _git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    source.write_text("changed")
    assert _git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
