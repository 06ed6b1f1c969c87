"""A profile against the plan that it is of; figures of time are only asked to add up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine import trace_events
from inception_engine.bench import command, peak, profiling, records
from inception_engine.bench.artefacts import compiled
from inception_engine.bench.cases import Workload
from inception_engine.compiler.inspect import report

WORKLOAD = Workload("lrn", 3)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(peak, "SECONDS", 0.05)
    found, save = profiling.profile(WORKLOAD, "cpu", 2, tmp_path, 0.0)
    save(tmp_path / "trace.json")
    return found


def test_layers_add_up_to_the_plan(profile: dict[str, Any]) -> None:
    program = compiled(WORKLOAD, "cpu").programs[0]
    budget = report(compiled(WORKLOAD, "cpu"))
    layers = profile["layers"]
    assert [layer["name"] for layer in layers] == [layer["name"] for layer in budget["layers"]]
    assert sum(layer["nominal"] for layer in layers) == 3 * budget["macs"]["nominal"]
    assert sum(layer["executed"] for layer in layers) == 3 * budget["macs"]["executed"]
    assert sum(layer["tasks"] for layer in layers) == (program.tasks["op"] < len(program.ops)).sum()
    assert [layer["bytes"] // 3 for layer in layers] == [layer["bytes"] for layer in budget["layers"]]
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert profile["runs"] >= 5 and profile["source"] == "measured"
    assert 0 < profile["busy"] <= 1 and 0 <= profile["waiting"] < 1
    assert profile["slowest"] == sorted(profile["slowest"], key=lambda task: -task["ms"])


def test_shares_of_the_peak_follow_from_times_and_the_peak(profile: dict[str, Any]) -> None:
    limits = profile["peak"]
    assert (
        limits["macs_per_s"] > 1e8 and limits["bytes_per_s"] > 1e7 and limits["vector_bytes"] in (16, 32, 64)
    )
    conv = next(layer for layer in profile["layers"] if layer["name"] == "conv2 + norm2")
    seconds = conv["ms"] / 1e3
    assert conv["executed"] != conv["nominal"]
    assert conv["of_peak"] == pytest.approx(conv["executed"] / seconds / limits["macs_per_s"])
    assert conv["nominal_of_peak"] == pytest.approx(conv["nominal"] / seconds / limits["macs_per_s"])
    assert conv["of_memory"] == pytest.approx(conv["bytes"] / seconds / limits["bytes_per_s"])
    assert conv["macs_per_byte"] == pytest.approx(conv["executed"] / conv["bytes"])
    text = profiling.render(profile)
    line = next(line for line in text.splitlines() if line.startswith("conv2 "))
    assert f" {conv['of_peak']:.1%} " in line and f" {conv['nominal_of_peak']:.1%} " in line
    assert "measured in this run" in text


def test_a_document_whose_shares_were_nominal_is_printed_by_executed_ones(profile: dict[str, Any]) -> None:
    old = json.loads(json.dumps(profile))
    for layer in old["layers"]:
        layer["of_peak"] = layer.pop("nominal_of_peak")
    assert profiling.render(old) == profiling.render(profile)


def test_more_threads_than_cores_are_no_larger_machine(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    one, many = (peak.measure(threads, tmp_path)["macs_per_s"] for threads in (1, 8 * cores))
    assert many < 2 * cores * one


def test_the_trace_has_every_task_once(profile: dict[str, Any], tmp_path: Path) -> None:
    program = compiled(WORKLOAD, "cpu").programs[0]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    ran = [event for event in events if event.get("cat") == "run"]
    assert sorted(event["args"]["task"] for event in ran) == list(range(len(program.tasks)))
    assert min(event["ts"] for event in events if "ts" in event) == 0
    assert all(event["dur"] >= 0 for event in ran)
    # On a busy machine one worker may have run everything.
    tracks = {f"worker {event['tid']}" for event in ran}
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} == {"workers", *tracks}


def test_without_a_compiler_there_is_no_peak_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    found, _ = profiling.profile(WORKLOAD, "cpu", 1, tmp_path, 0.0)
    assert found["peak"] is None and all(layer["of_peak"] is None for layer in found["layers"])
    assert "peak: not known (no C compiler (/nonexistent/cc))" in profiling.render(found)


def test_of_a_gpu_it_is_predicted(tmp_path: Path) -> None:
    found, save = profiling.profile(Workload("plain", 1, "fp16"), "cuda", 1, tmp_path, 0.0)
    save(tmp_path / "gpu.json")
    assert found["source"] == "predicted" and "predicted by the simulator" in profiling.render(found)
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1)
    assert len(json.loads((tmp_path / "gpu.json").read_text())["traceEvents"]) > 100


def test_the_command_prints_and_keeps_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peak, "SECONDS", 0.05)
    path, trace = tmp_path / "run.json", tmp_path / "trace.json"
    arguments = ["--profile", "--variant", "plain", "--batch", "1,2", "--threads", "1", "--duration", "0"]
    assert command.main([*arguments, "--json", str(path), "--trace", str(trace)]) == 0
    printed = capsys.readouterr().out
    assert "plain, batch 1, fp32 on cpu, 1 thread:" in printed and "plain, batch 2," in printed
    assert command.main(["show", str(path), "--format", "md"]) == 0
    head, first, between, second, end = capsys.readouterr().out.split("```\n")
    assert "inception-bench --profile --variant plain" in head and all(
        line.endswith("  ") for line in head.splitlines()[:-1]
    )
    assert "plain, batch 1," in first and "plain, batch 2," in second and between.strip() == end == ""
    document = records.read(path)
    assert [profile["batch"] for profile in document.profiles] == [1, 2] and document.rows == []
    assert {found.name for found in tmp_path.glob("trace-*")} == {
        "trace-plain-fp32-cpu-1-1.json",
        "trace-plain-fp32-cpu-1-2.json",
    }
    assert np.isfinite([layer["ms"] for layer in document.profiles[0]["layers"]]).all()


def test_no_trace_is_written_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(workload: Workload, *others: Any) -> tuple[dict[str, Any], profiling.Save]:
        return {}, written.append

    written: list[Path] = []
    monkeypatch.setattr(profiling, "profile", profile)
    sweep = ["--variant", "plain", "--batch", "1,2", "--dtype", "fp32,bf16", "--threads", "1,2"]
    trace = ["--trace", str(tmp_path / "trace.json"), "--format", "json"]
    assert command.main(["--profile", *sweep, *trace]) == 0
    assert len(written) == len(set(written)) == 8


def test_what_was_measured_before_a_mistake_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peak, "SECONDS", 0.05)
    path = tmp_path / "run.json"
    arguments = ["--profile", "--variant", "plain", "--batch", "1", "--threads", "1", "--duration", "0"]
    with pytest.raises(SystemExit) as stopped:
        command.main([*arguments, "--dtype", "fp32,fp16", "--json", str(path)])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and "fp16" in captured.err
    assert "plain, batch 1, fp32 on cpu" in captured.out
    assert [profile["dtype"] for profile in records.read(path).profiles] == ["fp32"]


def test_a_trace_that_cannot_be_written_does_not_lose_its_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(events: Any, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(peak, "SECONDS", 0.05)
    monkeypatch.setattr(trace_events, "save", full)
    path, trace = tmp_path / "run.json", tmp_path / "trace.json"
    arguments = ["--profile", "--variant", "plain", "--batch", "1", "--threads", "1", "--duration", "0"]
    with pytest.raises(SystemExit) as stopped:
        command.main([*arguments, "--json", str(path), "--trace", str(trace)])
    captured = capsys.readouterr()
    assert (
        stopped.value.code == 2
        and captured.err == f"inception-bench: error: {trace}: No space left on device\n"
    )
    assert "plain, batch 1, fp32 on cpu" in captured.out and len(records.read(path).profiles) == 1


def test_what_cannot_be_compiled_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--profile", "--dtype", "fp16", "--variant", "plain", "--batch", "1"])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1
    assert "target cpu has no kernels for dtype 'fp16'" in captured.err
