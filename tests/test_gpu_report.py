"""tools/gpu without a GPU: its rehearsal, and what it does with stages that fail, hang or were done before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="backend triton: torch is not installed")
pytest.importorskip("triton", reason="backend triton: triton is not installed")

import torch
from inception_engine.kernels import tuning

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import counters, records, rehearsal, report, sanitizer
from benchmarks.gpu.device import Call, Host, interleaved
from benchmarks.gpu.module_kernels import proposal
from benchmarks.gpu.provenance import sources
from benchmarks.gpu.stages import STAGES, Stage
from inception_engine import binding

ROOT = Path(__file__).parents[1]
GOOD, WRONG, RAISING = (
    Stage(name, f"tests.gpu_stages.{name}", 60, 60) for name in ("good", "wrong", "raising")
)
HANGING = Stage("hanging", "tests.gpu_stages.hanging", 8, 8, 8)


# The whole of it


def python_without_the_package(folder: Path) -> Path:
    """Everything that is installed beside the package can be imported, as on a machine that only runs tools/gpu."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    places = [place for place in sys.path if place.endswith("site-packages")]
    (packages / "others.pth").write_text("".join(f"{place}\n" for place in places))
    return folder / "bin" / "python"


@pytest.mark.timeout(900)
def test_rehearsal(tmp_path: Path) -> None:
    """Every stage, end to end."""
    environment = os.environ | {
        "PYTHON": str(python_without_the_package(tmp_path / "venv")),
        "INCEPTION_ENGINE_LIBRARY": str(binding.library_path()),
    }
    # As a run before leaves it where Python keeps bytecode.
    (ROOT / "build/gpu/site/inception_engine/__pycache__").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [ROOT / "tools" / "gpu", "--rehearse", "--out", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    (path,) = tmp_path.glob("*.jsonl")
    found = records.read(path)
    assert list(found.stages) == [stage.name for stage in STAGES]
    assert {name: stage.status for name, stage in found.stages.items() if stage.status != "done"} == {}
    (environment_record,) = found.environments
    assert environment_record["rehearsal"] is True and environment_record["sources"] == sources()
    assert path.with_suffix(".md").read_text().startswith(report.REHEARSAL + "\n")

    launches = {row["name"]: row["launches"] for row in found.rows("launches")}
    assert launches["fused modules 3a, 5b"] == 2
    assert launches["engine tiny batch 2, one launch per network"] == 1
    assert launches["jit tiny batch 2, one launch per module"] > 9
    for row in found.rows("ours"):
        if row["ok"]:
            assert row["p50_us"] > 0 and row["ratio"][1] <= row["ratio"][0] <= row["ratio"][2]
            assert row["images_per_s"] == pytest.approx(row["batch"] * 1e6 / row["p50_us"])
    timed = {row["name"] for row in found.rows("ours") if row["ok"]}
    assert {"engine", "jit", "fused", "torch", "torch-channels-last-graph", "torch-compile"} <= timed
    (both,) = (row for row in found.rows("modules") if "module_to_walk" in row)
    assert both["ok"] and (both["name"], both["pixels"]) == ("5b batch 1, both kernels", 49)
    tuned = json.loads(path.with_name(f"{path.stem}-tuning.json").read_text())
    (candidate,) = tuned["batches"]["1"]
    assert candidate["variant"]["rows"] == [32, 64] and candidate["target"]["tile_pixels"] == 64
    assert tuned["environment"]["rehearsal"] is True
    assert not path.with_name(f"{path.stem}-module.json").exists()  # nothing was measured


# Stages


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages here use no device, so that none has to be made."""
    monkeypatch.setattr(rehearsal, "environment", lambda folder, library: {})
    monkeypatch.setattr(binding, "library_path", lambda: Path("unused"))


def run(folder: Path, stages: Sequence[Stage], *options: str) -> int:
    return command.main(["--rehearse", "--out", str(folder), *options], stages)


@pytest.fixture
def only(tmp_path: Path) -> Any:
    """The one file of records."""

    def read() -> records.Records:
        (path,) = tmp_path.glob("*.jsonl")
        return records.read(path)

    return read


@pytest.mark.usefixtures("no_driver")
def test_failures_are_reported_and_the_others_go_on(tmp_path: Path, only: Any) -> None:
    assert run(tmp_path, [WRONG, RAISING, GOOD]) == 1
    found = only()
    assert {name: stage.status for name, stage in found.stages.items()} == {
        "wrong": "failed", "raising": "failed", "good": "done",
    }  # fmt: skip
    assert found.stages["wrong"].end["message"] == "1 of 2: wrong"
    assert found.stages["raising"].end["message"] == "ValueError: no such thing"
    assert [row["name"] for row in found.rows("raising")] == ["before"]
    (text,) = (path.read_text() for path in tmp_path.glob("*.md"))
    assert "| wrong | FAILED | nan | parity \\| too large |" in text


@pytest.mark.usefixtures("no_driver")
def test_a_stage_that_hangs_is_ended_with_its_children(tmp_path: Path, only: Any) -> None:
    assert run(tmp_path, [HANGING, GOOD]) == 1
    found = only()
    assert found.stages["hanging"].status == "timed out"
    assert found.stages["hanging"].end["message"] == "was ended after 8 s"
    assert found.stages["good"].status == "done"
    (row,) = found.rows("hanging")
    assert ends(row["value"])


def ends(process: int) -> bool:
    """Whether a process is gone, or will not run again."""
    for _ in range(100):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.usefixtures("no_driver")
def test_resume_runs_what_is_not_done(tmp_path: Path, only: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [GOOD, WRONG]) == 1
    mended = Stage("wrong", GOOD.module, 60, 60)
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"kind": "be')  # the machine went away in the middle of a line
    capsys.readouterr()
    assert run(tmp_path, [GOOD, mended], "--resume") == 0
    assert "good: done before" in capsys.readouterr().out
    found = only()
    assert len(found.environments) == 2
    assert [row["name"] for row in found.rows("wrong")] == ["figure"]  # the first attempt's no longer count
    assert found.stages["wrong"].status == "done"


@pytest.mark.usefixtures("no_driver")
def test_resume_of_other_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [GOOD]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text().replace(sources(), "0123456789abcdef"))
    assert mistake(tmp_path, capsys, "--resume").endswith(
        f"with sources 0123456789abcdef, this is {sources()}"
    )


@pytest.mark.usefixtures("no_driver")
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert run(tmp_path, [GOOD]) == 0
    (first,) = tmp_path.glob("*.jsonl")
    content = first.read_bytes()
    assert run(tmp_path, [GOOD]) == 0
    assert first.read_bytes() == content and len(list(tmp_path.glob("*.jsonl"))) == 2
    assert len(list(tmp_path.glob("*.md"))) == 2


@pytest.mark.usefixtures("no_driver")
def test_selection(tmp_path: Path, only: Any) -> None:
    assert run(tmp_path, [GOOD, RAISING], "--stages", "good") == 0
    assert list(only().stages) == ["good"]


# Mistakes


def mistake(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line, and status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        command.main(["--rehearse", "--out", str(folder), *options], [GOOD])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "good,speed"], "unknown stage 'speed'; there is good"),
        (["--out", "/nowhere"], "--out: /nowhere is not a folder that can be written to"),
        (["--resume"], "--resume: there are no records in"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert mistake(tmp_path, capsys, *options).startswith(f"tools/gpu: {message}")
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SystemExit) as caught:
        command.main(["--out", str(tmp_path)], [GOOD])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "tools/gpu: torch sees no CUDA device\n"


def test_missing_packages_are_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    done = subprocess.run(
        [ROOT / "tools" / "gpu"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "tools/gpu: missing: the Python package torch 2.11" in done.stderr.splitlines()


# Records and reports


def test_calls_take_turns() -> None:
    class Noted(Host):
        def sample(self, call: Call, seconds: float) -> list[int]:
            call()
            return [round(seconds * 1e9)]

    def raising() -> torch.Tensor:
        turns.append("b")
        raise RuntimeError("once")

    turns: list[str] = []
    nothing = torch.zeros(1)

    def noting(name: str) -> Call:
        def call() -> torch.Tensor:
            turns.append(name)
            return nothing

        return call

    calls = {"a": noting("a"), "b": raising, "c": noting("c")}
    samples = interleaved(Noted(), calls, 3, 6)
    assert turns == ["a", "b", "c", "a", "c", "a", "c"]
    assert samples["a"].rounds == [[2 * 10**9]] * 3
    assert str(samples["b"].error) == "once"


def test_what_is_proposed_for_the_choice_of_a_kernel() -> None:
    """From where on `module` was faster in all rounds of all modules; the other generations' data stay."""
    environment = {"capability": "10.0", "gpu": "X", "date": "2026-01-01"}

    def row(pixels: int, highest: float, ok: bool = True) -> dict[str, Any]:
        return {"ok": ok, "pixels": pixels, "module_to_walk": [0.8, 0.7, highest]}

    def proposed(*rows: dict[str, Any]) -> Any:
        document = proposal(rows, environment, "x.jsonl")
        if document is None:
            return None
        assert tuning.document()["generations"]["90"] == document["generations"]["90"]
        entry = document["generations"]["100"]
        assert entry["provenance"] == "measured" and entry["source"] == "X, 2026-01-01, x.jsonl"
        return entry["from_pixels"]

    assert proposed(row(100, 0.9), row(200, 1.1), row(300, 0.9), row(400, 0.95)) == 300
    assert proposed(row(100, 0.9), row(100, 1.0), row(300, 0.9)) == 300  # one module of that size was not
    assert proposed(row(100, 0.9), row(300, 0.9)) == 100
    assert proposed(row(100, 0.9), row(300, 1.2)) is None
    assert proposal([row(100, 0.9, ok=False), {"ok": True, "cudnn_us": 1.0}], environment, "x") is None
    assert proposal([row(100, 0.9)], {"gpu": "none"}, "x") is None  # a rehearsal


def test_report_from_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "2026-01-01-gpu-x.jsonl"
    environment = {
        "kind": "environment", "rehearsal": False, "quick": True, "date": "2026-01-01T00:00:00+00:00", "gpu": "X",
        "driver": "1.2", "versions": {"torch": "2.11"}, "python": "3.12", "os": "Linux", "commit": "a" * 40,
        "dirty": True, "sources": "b" * 16, "command": "tools/gpu --quick",
    }  # fmt: skip
    row = {
        "kind": "row",
        "stage": "ours",
        "name": "engine",
        "ok": True,
        "ratio": [0.5, 0.45, 0.625],
        "p50_us": 81.25,
    }
    for record in (environment, {"kind": "begin", "stage": "ours"}, row):
        records.append(path, record)
    with path.open("a") as file:
        file.write('{"kind": "row", "stage": "ou')  # a line that was cut off
    assert report.main([str(path)]) == 0
    text = path.with_suffix(".md").read_text()
    assert text.startswith("# GPU report\n") and report.REHEARSAL not in text
    assert "X, driver 1.2; torch 2.11" in text and f"commit {'a' * 12} with changes" in text
    assert "| ours | failed | was cut off |" in text
    assert "| engine | ok | 0.5 [0.45..0.625] | 81.2 |" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no records"),
        ("{}\n", "line 1: not a record"),
        ("[]\n", "line 1: not a record"),
        ("text\n", "line 1: not JSON"),
    ],
)
def test_files_that_hold_no_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    assert report.main([str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


# Tools of others


CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
DIRTY = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 2 bytes
=========     at walk+0x1a90
========= ERROR SUMMARY: 3 errors
"""


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (CLEAN, 0, (True, "0 errors")),
        (DIRTY, 0, (False, "3 errors: Invalid __global__ write of size 2 bytes")),
        (f"{CLEAN}Error: off\n", 1, (False, "no errors, but the program ended with status 1: Error: off")),
        ("========= Error: Device not supported\n", 1, (None, "compute-sanitizer does not support this device")),
        ("Killed\n", 137, (False, "no summary, exit status 137: Killed")),
    ],
)  # fmt: skip
def test_what_the_sanitizer_says(output: str, status: int, expected: tuple[bool | None, str]) -> None:
    assert sanitizer.verdict(output, status) == expected


def test_the_sanitizer_as_a_program(tmp_path: Path) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\necho \"$3\" >{tmp_path}/program\ncat <<'END'\n{DIRTY}END\n")
    tool.chmod(0o755)
    ok, note = sanitizer.examine(str(tool), "memcheck", ("a-program",), 20)
    assert ok is False and note.startswith("3 errors")
    assert (tmp_path / "program").read_text() == "a-program\n"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    assert sanitizer.examine(str(tool), "memcheck", ("a-program",), 0.5) == (False, "was ended after 0 s")


def test_metrics() -> None:
    lines = (
        "==PROF== Connected to process 7",
        '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"',
        '"0","walk","dram__bytes.sum","Mbyte","12.50"',
        '"0","walk","something__else.sum","","1"',
    )
    assert counters.metrics(lines) == {"bytes at DRAM": "12.50 Mbyte"}
    assert counters.metrics(["==ERROR== ERR_NVGPUCTRPERM"]) == {}
