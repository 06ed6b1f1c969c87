from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from inception_engine.bench import report
from inception_engine.bench.records import Row

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
    p95_ms=22.0,
    p99_ms=30.25,
    images_per_s=400.0,
    samples=150,
    rounds_ms=[19.8, 20.4],
    spread_min=0.99,
    spread_max=1.02,
    ratio=1.0,
    ratio_min=1.0,
    ratio_max=1.0,
    best_peer="onnxruntime",
    includes="compute",
    compute_ms=20.0,
    preprocess_ms=3.0,
    import_ms=100.0,
    load_ms=60.0,
    first_ms=30.0,
    starts=1,
    peak_mb=200.0,
)
OURS = replace(
    BEST,
    peer="engine",
    p50_ms=16.0,
    p99_ms=24.2,
    images_per_s=500.0,
    ratio=0.8,
    ratio_min=0.78,
    ratio_max=0.815,
    load_ms=10.0,
    first_ms=17.0,
    peak_mb=80.0,
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
    "isa": "avx2",
    "other_processes_cores": 0.02,
    "os": "Linux",
    "python": "3.11.0",
    "versions": {"numpy": "2.3"},
    "git": {"commit": "0123456789abcdef", "dirty": True},
}


def test_table_shows_every_figure_and_aligns() -> None:
    lines = report.table(ROWS, ENVIRONMENT).splitlines()
    assert "Some CPU, 4 cores, instruction set avx2" in lines[0]
    assert "numpy 2.3" in lines[1] and "0123456789ab with changes" in lines[1]
    assert lines[2].startswith("fp32, on cpu, 2 threads; ") and lines[2].endswith("; of compute")
    head = next(index for index, line in enumerate(lines) if line.startswith("variant"))
    ours, best, gap, missing = lines[head + 2 :]
    figures = ["16.00", "21.50", "22.00", "24.20", "500.0", "150", "0.99..1.02", "3.00", "10.0", "17.0", "80"]
    assert ours.split() == ["lrn", "8", "engine", *figures, "2.5e-06", "0.80", "[0.78..0.81]", "ok"]
    assert "best peer" in best
    assert gap == ""  # between two cases
    assert missing.endswith("failed: Error: a | b") and missing.split()[3:15] == ["-"] * 12
    places = {line.index(word) for line, word in ((lines[head], "status"), (ours, "ok"), (best, "ok"))}
    assert len(places) == 1


def test_columns_that_say_nothing_are_left_out_and_those_that_differ_are_there() -> None:
    def columns(*rows: Row) -> str:
        lines = report.table(rows, ENVIRONMENT).splitlines()
        return next(line for line in lines if line.startswith("variant"))

    usual = columns(OURS, BEST)
    for name in ("dtype", "threads", "streams", "device", "p99.9", "h2d", "includes", "rate/s"):
        assert name not in usual
    swept = columns(
        OURS, replace(BEST, dtype="bf16", threads=4, streams=2, p999_ms=31.0, open_rate_per_s=9.0)
    )
    for name in ("dtype", "threads", "streams", "p99.9", "rate/s"):
        assert name in swept
    gpu = replace(BEST, device="cuda", h2d_ms=0.1, d2h_ms=0.1, includes="h2d + compute + d2h")
    for name in ("device", "h2d ms", "d2h ms", "compute ms", "includes"):
        assert name in columns(OURS, gpu)


@pytest.mark.parametrize("form", [report.table, report.markdown, report.ratios])
def test_unstable_is_printed_in_every_form(form: Any) -> None:
    text = form([replace(OURS, unstable=True), BEST, replace(OURS, unstable=True, warm=False)], ENVIRONMENT)
    rows = [line for line in text.splitlines() if "engine " in line and "0.80" in line]
    assert len(rows) == 2 and "unstable" in rows[0] and "unstable from warm-up on" in rows[1]


def test_one_round_says_nothing_of_stability() -> None:
    row = replace(OURS, rounds_ms=[16.0])
    assert report.table([row], ENVIRONMENT).endswith("one round\n")
    assert report.table([replace(row, unstable=True, warm=False)], ENVIRONMENT).endswith("warm-up on\n")
    assert report.table([replace(row, status="failed: x")], ENVIRONMENT).endswith("failed: x\n")


def test_a_rate_stands_with_its_requests_and_its_cap() -> None:
    row = replace(OURS, open_bound_ms=50.0, open_rate_per_s=9.0, open_p99_ms=40.0, open_requests=432)
    lines = report.table([row, replace(row, open_capped=True)], ENVIRONMENT).splitlines()
    assert "  9.0      40.00       432  " in lines[-2] and "  >= 9.0      40.00       432  " in lines[-1]
    assert any(
        line.startswith("rate: ") and "of at most 50 ms, by so many requests" in line for line in lines
    )


def test_ratios_are_over_the_best_peer_and_hold_no_time() -> None:
    text = report.ratios(ROWS, ENVIRONMENT)
    ours = next(line for line in text.splitlines() if " engine " in line)
    #                                      p50 and range            p99     images/s  ready   memory
    assert ours.split()[3:] == ["0.80", "[0.78..0.81]", "0.80", "1.25", "0.30", "0.40", "2.5e-06", "ok"]
    head = next(line for line in text.splitlines() if line.startswith("variant"))
    assert all(name in report.RATIO_COLUMNS for name in ("ratio to best peer", "p99", "peak memory"))
    assert " ms" not in head


def test_a_busy_machine_is_said() -> None:
    assert "UNRELIABLE" not in report.table(ROWS, ENVIRONMENT)
    assert "UNRELIABLE: other processes used 0.75 cores" in report.table(
        ROWS, {**ENVIRONMENT, "other_processes_cores": 0.75}
    )


def test_markdown_is_one_table_and_escapes_bars() -> None:
    lines = report.markdown(ROWS, ENVIRONMENT).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(ROWS)
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "failed: Error: a \\| b" in rows[-1]


@pytest.mark.parametrize("form", [report.table, report.markdown])
def test_date_command_and_commit_stand_above(form: Any) -> None:
    made = {"date": "2026-11-27T05:00:00+00:00", "command": "inception-bench --batch 8"}
    lines = form(ROWS, {**ENVIRONMENT, **made}).splitlines()
    assert lines[0].rstrip() == "2026-11-27T05:00:00+00:00: inception-bench --batch 8"
    assert "commit 0123456789ab with changes" in lines[2]


def test_csv_has_every_field_of_every_row() -> None:
    rows = list(csv.DictReader(io.StringIO(report.comma_separated(ROWS))))
    assert [row["peer"] for row in rows] == ["engine", "onnxruntime", "torch"]
    assert float(rows[0]["p99_ms"]) == 24.2 and rows[2]["p50_ms"] == ""
    assert rows[0]["rounds_ms"] == "19.8 20.4"
    assert rows[2]["status"] == "failed: Error: a | b"
