from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inception_engine.bench import command
from inception_engine.bench.compare import Limit, changes
from inception_engine.bench.records import Document, Row
from tests.bench.test_report import BEST, ENVIRONMENT, MISSING, OURS


def write(folder: Path, name: str, rows: list[Row], **environment: Any) -> str:
    path = folder / name
    path.write_text(Document({**ENVIRONMENT, "python": "3.11.0", **environment}, {}, rows).text())
    return str(path)


LIMITS = {
    "within": ("p50:5%", 1.04, 0),
    "just at it": ("p50:5%", 1.05, 0),
    "beyond": ("p50:5%", 1.06, 1),
    "faster is no failure": ("p50:5%", 0.5, 0),
    "throughput fell": ("images_per_s:10%", 0.89, 1),
    "throughput rose": ("images_per_s:10%", 2.0, 0),
    "the other measure": ("p99:1%", 1.5, 0),
    "two limits": ("p99:1%,p50:40%", 1.5, 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limit, factor, status = LIMITS[name]
    changed = replace(OURS, **{_field(limit): getattr(OURS, _field(limit)) * factor})
    if "other" in name or "two" in name:
        changed = replace(OURS, p50_ms=OURS.p50_ms * factor)  # type: ignore[operator]
    old, new = write(tmp_path, "old.json", [OURS, BEST]), write(tmp_path, "new.json", [changed, BEST])
    assert command.main(["compare", old, new, "--fail-if", limit]) == status
    printed = capsys.readouterr().out
    assert printed.count("FAIL") == status
    assert printed.count("onnxruntime") == len(limit.split(","))


def _field(limit: str) -> str:
    measure = limit.split(":")[0]
    return measure if measure == "images_per_s" else f"{measure}_ms"


def test_without_a_limit_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = write(tmp_path, "old.json", [OURS]), write(tmp_path, "new.json", [replace(OURS, p50_ms=99.0)])
    assert command.main(["compare", old, new]) == 0
    assert "+518.8%" in capsys.readouterr().out


def test_a_case_that_fails_now_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = replace(OURS, status="failed: killed by SIGSEGV", p50_ms=None)
    old, new = write(tmp_path, "old.json", [OURS, BEST]), write(tmp_path, "new.json", [lost, BEST])
    assert command.main(["compare", old, new, "--fail-if", "p50:50%"]) == 1
    assert "FAIL: failed: killed by SIGSEGV" in capsys.readouterr().out


def test_what_differs_and_what_is_shaky_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write(tmp_path, "old.json", [OURS, BEST, replace(OURS, batch=64)])
    new = write(
        tmp_path, "new.json", [replace(OURS, unstable=True), BEST, replace(OURS, threads=1)], cpu="Another"
    )
    assert command.main(["compare", old, new]) == 0
    printed = capsys.readouterr().out
    assert "the runs differ in cpu: Some CPU and Another" in printed
    assert "+0.0%  unstable" in printed
    assert "only in the old run: lrn fp32 batch 64, engine on cpu, threads 2" in printed
    assert "only in the new run: lrn fp32 batch 8, engine on cpu, threads 1" in printed


LOST: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "not known now": ({"p99_ms": None}, "p99:5%", "FAIL: not known in the new run"),
    "gone": (None, "p50:5%", "FAIL: only in the old run: lrn fp32 batch 8, engine on cpu"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_the_new_run_no_longer_has_fails_a_limit_and_nothing_else(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, limit, said = LOST[name]
    kept = [] if values is None else [replace(OURS, **values)]
    old, new = write(tmp_path, "old.json", [OURS, BEST]), write(tmp_path, "new.json", [*kept, BEST])
    assert command.main(["compare", old, new, "--fail-if", limit]) == 1
    assert said in capsys.readouterr().out
    assert command.main(["compare", old, new]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_a_limit_is_not_passed_by_rounding() -> None:
    old, new = (Document(ENVIRONMENT, {}, [replace(OURS, p50_ms=value)]) for value in (1.0, 1.05))
    (change,) = changes(old, new, [Limit("p50", 0.05)])
    assert change.worse is not None and change.worse > 0.05 and not change.failed


UNLIKE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "ratio": ({"best_peer": "torch"}, {"best_peer": "onnxruntime"}, "over torch and over onnxruntime"),
    "open_rate": (
        {"open_bound_ms": 50.0, "open_rate_per_s": 9.0},
        {"open_bound_ms": 80.0, "open_rate_per_s": 12.0},
        "at 50.0 and at 80.0 ms",
    ),
}


@pytest.mark.parametrize("measure", UNLIKE)
def test_figures_of_unlike_things_are_not_compared_and_fail_a_limit(
    measure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, why = UNLIKE[measure]
    old, new = (
        write(tmp_path, f"{name}.json", [replace(OURS, **values)])
        for name, values in (("old", before), ("new", after))
    )
    assert command.main(["compare", old, new, "--fail-if", f"{measure}:50%"]) == 1
    assert f"  FAIL: not comparable: {why}\n" in capsys.readouterr().out
    assert command.main(["compare", old, old, "--fail-if", f"{measure}:50%"]) == 0
    (change,) = changes(
        Document(ENVIRONMENT, {}, [replace(OURS, **before)]), Document(ENVIRONMENT, {}, [OURS]), []
    )
    assert not change.failed  # of another measure


def test_another_method_a_busy_machine_and_an_early_end_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(name: str, rounds: int, status: int, **environment: Any) -> str:
        method = {"schedule": {"rounds": rounds, "duration": 3.0}, "starts": 1}
        (tmp_path / name).write_text(
            Document({**ENVIRONMENT, **environment}, method, [OURS], status=status).text()
        )
        return str(tmp_path / name)

    old = written("old.json", 5, 0, governor="performance", memory_bytes=16 * 10**9)
    new = written(
        "new.json", 9, 130, governor="powersave", memory_bytes=32 * 10**9, other_processes_cores=0.5
    )
    assert command.main(["compare", old, new]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "the runs differ in governor: performance and powersave",
        "the runs differ in memory: 16.0 GB and 32.0 GB",
        "the runs differ in method, rounds: 5 and 9",
        "the new run is UNRELIABLE: other processes used 0.50 cores during it",
        "the new run was cut off (status 130)",
    ]


def test_a_case_that_never_was_timed_may_be_gone(tmp_path: Path) -> None:
    old, new = write(tmp_path, "old.json", [OURS, MISSING]), write(tmp_path, "new.json", [OURS])
    assert command.main(["compare", old, new, "--fail-if", "p50:5%"]) == 0


def test_what_is_no_number_fails_a_limit() -> None:
    old, new = (Document(ENVIRONMENT, {}, [replace(OURS, p50_ms=value)]) for value in (1.0, math.nan))
    (change,) = changes(old, new, [Limit("p50", 10.0)])
    assert change.failed


def test_versions_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write(tmp_path, "old.json", [OURS], versions={"numpy": "2.3", "torch": "2.9"})
    new = write(tmp_path, "new.json", [OURS], versions={"numpy": "2.4", "torch": "2.9"})
    assert command.main(["compare", old, new]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "differ" in line] == ["the runs differ in numpy: 2.3 and 2.4"]


MISTAKES = {
    "limit": ["OLD", "NEW", "--fail-if", "p50"],
    "measure": ["OLD", "NEW", "--fail-if", "p42:5%"],
    "two limits for one measure": ["OLD", "NEW", "--fail-if", "p50:5%,p99:5%", "--fail-if", "p50:9%"],
    "a limit on what nobody knows": ["OLD", "NEW", "--fail-if", "p50:5%,p99.9:5%"],
    "a limit on what the old run does not know": ["OLD", "RARE", "--fail-if", "p99.9:5%"],
    "one file": ["OLD"],
    "no file": ["OLD", "/nonexistent.json"],
    "folder": ["OLD", "/"],
    "another version": ["OLD", "FORMAT1"],
    "not JSON": ["OLD", __file__],
    "JSON of others": ["OLD", "OTHERS"],
    "unknown field": ["OLD", "FUTURE"],
    "binary": ["OLD", "BINARY"],
    "nothing in common": ["OLD", "ELSE"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_status_two(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "OLD": write(tmp_path, "old.json", [OURS]),
        "NEW": write(tmp_path, "new.json", [OURS]),
        "ELSE": write(tmp_path, "else.json", [replace(OURS, batch=3)]),
    }
    files["RARE"] = write(tmp_path, "rare.json", [replace(OURS, p999_ms=1.0)])
    others = {
        "FORMAT1": b'{"format": 1, "environment": {}, "method": {}, "rows": []}',
        "OTHERS": b"[1, 2]",
        "FUTURE": b'{"format": 2, "environment": {}, "method": {}, "rows": [{"peer": "x", "joules": 1}]}',
        "BINARY": b"\xff\xfe\x00",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
        files[name] = str(tmp_path / name)
    with pytest.raises(SystemExit) as stopped:
        command.main(["compare", *(files.get(argument, argument) for argument in MISTAKES[mistake])])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == ""
    assert captured.err.startswith("inception-bench compare: error: ") and captured.err.count("\n") == 1
    if mistake == "another version":
        assert "another version of inception-bench (format 1; this one reads 2)" in captured.err
