"""The command on a small network with peers of our own, each in its process, and once with all real peers."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from inception_engine.bench import arrivals, command, options, peers, process, records, suite
from inception_engine.bench.cases import Case, Workload
from inception_engine.bench.records import Journal, Row
from inception_engine.bench.timing import measure
from tests.bench.conftest import Install
from tests.bench.test_report import ENVIRONMENT, OURS

Receive = Callable[[list[Row]], None]
QUICK = ["--duration", "0.01", "--warmup", "0", "--rounds", "2", "--threads", "1"]
ONE = ["--batch", "2", "--variant", "plain"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    status = command.main([*QUICK, "--format", "json", *arguments])
    return status, json.loads(capsys.readouterr().out)["rows"]


FAULTS = {
    "last_image_off": "parity failed: 1.0e-02, bound 1e-04",
    "nan": "parity failed: nan, bound 1e-04",
    "swapped": "parity failed: ",
    "another_shape": "failed: logits of shape (2, 9), expected (2, 10)",
    "raises": "failed: RuntimeError: no such kernel",
    "raises_when_timed": "failed: RuntimeError: out of luck",
    "crashes_when_timed": "failed: killed by SIGSEGV",
    "leaves_when_timed": "failed: ended with status 3: no more",
}


def test_faulty_peers_are_rows_that_say_so_and_leave_the_others_alone(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [install(fault, fault) for fault in FAULTS]
    names.insert(4, install("good"))
    status, rows = run(capsys, "--peers", ",".join(names), *ONE, "--limit", "60")
    assert status == 1
    assert [row["peer"] for row in rows] == names
    for row in rows:
        if row["peer"] == "good":
            assert row["status"] == "ok" and row["samples"] >= 6 and len(row["rounds_ms"]) == 2
        else:
            assert row["status"].startswith(FAULTS[row["peer"]]) and "\n" not in row["status"]
            assert row["p50_ms"] is None and row["ratio"] is None


def test_a_peer_that_hangs_is_ended_and_the_others_go_on(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("hangs", "hangs_when_timed")
    install("good")
    status, (hangs, good) = run(capsys, "--peers", "hangs,good", *ONE, "--limit", "10")
    assert status == 1
    assert hangs["status"] == "failed: no answer within its limit of 10 s: ended" and hangs["p50_ms"] is None
    assert good["status"] == "ok" and len(good["rounds_ms"]) == 2


def test_what_is_not_here_is_a_row_and_no_failure(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("missing", package="a_package_that_nobody_has")
    install("absent", "is_not_here")
    install("good", "prints")
    status, rows = run(capsys, "--peers", "missing,absent,good,tensorrt", *ONE)
    assert status == 0
    assert [row["status"] for row in rows] == [
        "not installed: a_package_that_nobody_has",
        "not here: no such device",
        "ok",
        "not supported: cpu",
    ]


def test_rows_hold_every_case_and_field(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("ours", ours=True)
    install("one", "slow")
    install("two", "slower")
    status, rows = run(capsys, "--peers", "ours,one,two", "--batch", "1,7", "--variant", "lrn")
    assert status == 0
    assert [(row["batch"], row["peer"]) for row in rows] == [
        (batch, peer) for batch in (1, 7) for peer in ("ours", "one", "two")
    ]
    for row in rows:
        assert (row["status"], row["device"], row["dtype"], row["threads"]) == ("ok", "cpu", "fp32", 1)
        assert 0 <= row["parity"] < 1e-6
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["p999_ms"] is None  # of fewer than 10,000 samples
        assert row["best_peer"] == "one"  # sleeps 4 ms, the other 8; ours is no peer
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["includes"] == "compute" and row["compute_ms"] > 0 and row["preprocess_ms"] > 0
        assert row["h2d_ms"] is None and row["d2h_ms"] is None
        assert row["load_ms"] >= 0 and row["first_ms"] > 0 and row["starts"] == 1
        assert row["peak_mb"] > 10  # an interpreter with NumPy
    assert rows[0]["ratio"] < 1 < rows[2]["ratio"] and rows[1]["ratio"] == 1
    assert rows[1]["p50_ms"] >= 4 and rows[1]["images_per_s"] <= 250


def test_streams_pixels_copies_and_open_loop(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("parted", "parted")
    install("slow", "slow")
    arguments = ["--streams", "2", "--input", "uint8", "--open-loop", "100", "--open-seconds", "0.1"]
    status, (copied, slow) = run(capsys, "--peers", "parted,slow", *ONE, *arguments, "--starts", "2")
    assert status == 0
    assert copied["includes"] == "preprocess + h2d + compute + d2h" and copied["h2d_ms"] > 0
    assert slow["includes"] == "preprocess + compute"
    assert (slow["streams"], slow["input"], slow["starts"]) == (2, "uint8", 2)
    assert slow["p50_ms"] >= 4 and slow["images_per_s"] <= 2 * 2 / 4e-3  # two callers, two images each
    assert slow["open_bound_ms"] == 100 and 0 < slow["open_p99_ms"] <= 100
    assert 0 < slow["open_rate_per_s"] <= 2 / 4e-3


@pytest.mark.parametrize("form", ["table", "md", "csv", "jsonl", "ratios"])
def test_formats(
    form: str, install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good")
    rows = [Row(peer="good", variant="lrn", device="cpu", dtype="fp32", batch=1, threads=1)]
    monkeypatch.setattr(suite.Suite, "run", lambda self, group, receive: receive(rows))
    assert (
        command.main([*QUICK, "--peers", "good", "--batch", "1", "--variant", "lrn", "--format", form]) == 0
    )
    captured = capsys.readouterr()
    assert captured.err == ""  # the progress line is for terminals
    if form == "csv":
        assert next(csv.DictReader(io.StringIO(captured.out)))["peer"] == "good"
    elif form == "jsonl":
        kinds = [json.loads(line)["kind"] for line in captured.out.splitlines()]
        assert kinds == ["environment", "row", "end"]
    else:
        assert ("| good |" in captured.out) == (form == "md")
        assert ("p99 ms" in captured.out) == (form != "ratios") and "good" in captured.out


def test_both_files_hold_the_run(
    install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install("good")
    path, lines = tmp_path / "run.json", tmp_path / "run.jsonl"
    path.write_text("old")
    arguments = [*QUICK, "--peers", "good", *ONE, "--json", str(path), "--jsonl", str(lines)]
    assert command.main(arguments) == 0
    content = json.loads(path.read_text())
    assert content["rows"][0]["peer"] == "good"
    assert content["environment"]["command"] == " ".join(["inception-bench", *arguments])
    assert content["method"]["schedule"]["rounds"] == 2
    assert sorted(tmp_path.iterdir()) == [path, lines]
    assert records.read(lines) == records.read(path)
    assert "good" in capsys.readouterr().out
    assert command.main(["show", str(lines), "--format", "md"]) == 0
    assert "| good |" in capsys.readouterr().out


def _measured(case: Case) -> Row:
    return Row.of(case)


@pytest.mark.parametrize("end", ["interrupt", "disk full"])
def test_what_is_finished_is_kept(
    end: str,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Ctrl-C, or an error in writing, in the second group."""

    def rows(self: suite.Suite, group: list[Case], receive: Receive) -> None:
        if group[0].workload.batch == 3 and end == "interrupt":
            raise KeyboardInterrupt
        receive([_measured(case) for case in group])

    def write(self: Journal, rows: list[Row]) -> None:
        if rows[0].batch == 3:
            raise OSError(28, "No space left on device", str(tmp_path / "run.json"))
        original(self, rows)

    install("good")
    original = Journal.rows
    monkeypatch.setattr(suite.Suite, "run", rows)
    monkeypatch.setattr(Journal, "rows", write)
    path, lines = tmp_path / "run.json", tmp_path / "run.jsonl"
    arguments = ["--peers", "good", "--batch", "1,3", "--variant", "lrn"]
    arguments = [*QUICK, *arguments, "--json", str(path), "--jsonl", str(lines)]
    if end == "interrupt":
        assert command.main(arguments) == 130
    else:
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "good" in captured.out
    assert captured.err.count("\n") == 1
    assert ("No space left" if end == "disk full" else "cut off by SIGINT") in captured.err
    assert captured.out.startswith("CUT OFF: the run ended with status 130") == (end == "interrupt")
    for written in (path, lines):
        assert [row.batch for row in records.read(written).rows] == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", ["rounds", "reference"])
def test_sigterm_ends_the_run_its_peers_and_its_files(
    place: str,
    number: signal.Signals,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """In the second group: while its peers live, or before they are started."""
    living: list[process.Worker] = []

    def measured(workers: dict[str, process.Worker], *arguments: Any, **named: Any) -> Any:
        living.extend(workers.values())
        if len(living) == 2:
            os.kill(os.getpid(), number)
        return measure(workers, *arguments, **named)

    def expected(self: Workload) -> Any:
        if self.batch == 3 and place == "reference":
            os.kill(os.getpid(), number)
        return reference(self)

    install("good")
    reference = Workload.expected
    monkeypatch.setattr(suite, "measure", measured)
    monkeypatch.setattr(Workload, "expected", expected)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    default = signal.signal(number, signal.SIG_DFL)  # the tests may run behind nohup
    path = tmp_path / "run.json"
    arguments = ["--peers", "good", "--batch", "2,3", "--variant", "plain", "--json", str(path)]
    try:
        assert command.main([*QUICK, *arguments]) == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, default)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert len(living) == (2 if place == "rounds" else 1)
    assert all(worker._process.poll() is not None for worker in living)
    assert [row.batch for row in records.read(path).rows] == [2]
    captured = capsys.readouterr()
    assert "good" in captured.out
    assert captured.err == f"inception-bench: cut off by {number.name}\n"


def test_a_broken_torch_or_exporter_is_one_line_and_keeps_what_is_finished(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The reference of the second group; and, in a run of its own, a model."""

    def expected(self: Workload) -> Any:
        if self.batch == 3:
            raise OSError("libtorch_cuda.so: cannot open shared object file")
        return reference(self)

    def exported(*arguments: Any, **named: Any) -> None:
        raise AttributeError("module 'onnx' has no attribute 'TensorProto'\nand more")

    install("good")
    reference = Workload.expected
    monkeypatch.setattr(Workload, "expected", expected)
    path = tmp_path / "run.json"
    arguments = ["--peers", "good", "--batch", "2,3", "--variant", "plain", "--json", str(path)]
    with pytest.raises(SystemExit) as stopped:
        command.main([*QUICK, *arguments])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and [row.batch for row in records.read(path).rows] == [2]
    assert captured.err == (
        "inception-bench: error: the reference cannot be computed: OSError: libtorch_cuda.so: cannot open shared "
        "object file\n"
    )
    assert "good" in captured.out
    monkeypatch.setattr("inception_engine.exporters.onnx.to_onnx", exported)
    status, (good, openvino) = run(capsys, "--peers", "good,openvino", *ONE)
    assert (status, good["status"]) == (1, "ok")
    assert openvino["status"] == "failed: AttributeError: module 'onnx' has no attribute 'TensorProto'"


def test_a_first_call_compiles_anew_for_every_start(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caches: list[str] = []

    class Noted(process.Worker):
        def __init__(self, command: Any, limit: float, environment: Any) -> None:
            caches.append(environment["TORCHINDUCTOR_CACHE_DIR"])
            assert list(Path(caches[-1]).iterdir()) == []
            super().__init__(command, limit, environment)

    install("good")
    monkeypatch.setattr(suite, "Worker", Noted)
    status, _ = run(capsys, "--peers", "good", *ONE, "--starts", "2")
    assert status == 0 and len(set(caches)) == 2


def test_outputs_that_cannot_be_are_told_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "t-plain-fp32-cpu-1-2.json").mkdir()
    trace = ["--profile", "--trace", str(tmp_path / "t.json"), "--variant", "plain", "--threads", "1"]
    both = ["--json", str(tmp_path / "a"), "--plots", str(tmp_path / "a")]
    for arguments, message in [
        ([*trace, "--batch", "1,2"], "t-plain-fp32-cpu-1-2.json: exists and is not a file"),
        (both, "--json and --plots name the same file"),
        (["--profile", "--trace", ".", "--batch", "1,2"], "--trace: .: "),
    ]:
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        captured = capsys.readouterr()
        assert stopped.value.code == 2 and captured.out == "" and captured.err.count("\n") == 1
        assert message in captured.err
    path = tmp_path / "profile.json"
    path.write_text(records.Document(ENVIRONMENT, {}, profiles=[{"device": "cpu"}]).text())
    with pytest.raises(SystemExit) as stopped:
        command.main(["show", str(path), "--format", "csv"])
    assert stopped.value.code == 2 and "profiles, and no rows" in capsys.readouterr().err


def test_a_terminal_that_is_gone_takes_nothing_with_it(install: Install, tmp_path: Path) -> None:
    """SIGHUP of a terminal, to which nothing can be written any more."""
    path = tmp_path / "run.json"
    leader, terminal = os.openpty()
    program = (
        "import os, signal, sys\nfrom inception_engine.bench import command, suite\n"
        "from inception_engine.bench.records import Row\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "def run(self, group, receive):\n"
        "    if group[0].workload.batch == 2:\n"
        f"        os.close({leader})\n        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    receive([Row.of(case) for case in group])\n"
        "suite.Suite.run = run\nsys.exit(command.main(sys.argv[1:]))\n"
    )
    arguments = [
        *QUICK,
        "--peers",
        "engine",
        "--batch",
        "1,2",
        "--variant",
        "plain",
        "--json",
        str(path),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=terminal, stderr=terminal, pass_fds=[leader]
    ) as process:
        os.close(leader)
        os.close(terminal)
        assert process.wait(120) == 128 + signal.SIGHUP
    document = records.read(path)
    assert [row.batch for row in document.rows] == [1] and document.status == 128 + signal.SIGHUP


def test_a_run_that_is_cut_off_before_its_first_rows_prints_no_table(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def expected(self: Workload) -> Any:
        raise KeyboardInterrupt

    install("good")
    monkeypatch.setattr(Workload, "expected", expected)
    assert command.main([*QUICK, "--peers", "good", *ONE]) == 130
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_that_a_run_was_cut_off_is_shown_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, lines = tmp_path / "run.json", tmp_path / "run.jsonl"
    path.write_text(records.Document(ENVIRONMENT, {}, [OURS], status=143).text())
    assert command.main(["show", str(path), "--format", "jsonl"]) == 0
    lines.write_text(capsys.readouterr().out)
    for file in (path, lines):
        assert records.read(file).status == 143
        for form in ("table", "md", "ratios"):
            assert command.main(["show", str(file), "--format", form]) == 0
            assert capsys.readouterr().out.startswith("CUT OFF: the run ended with status 143, and some rows")


@pytest.mark.parametrize("place", ["search", "parts"])
def test_what_comes_behind_the_rounds_can_be_cut_off_without_them(
    place: str,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """In the open loop, or while the second peer's parts are timed."""
    asked: list[str] = []

    def search(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)

    def parts(self: process.Worker, calls: int) -> dict[str, list[int]]:
        asked.append("parts")
        if place == "parts" and len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, calls)

    install("good")
    install("slow", "slow")
    original = process.Worker.parts
    monkeypatch.setattr(arrivals, "search", search)
    monkeypatch.setattr(process.Worker, "parts", parts)
    path = tmp_path / "run.json"
    arguments = ["--peers", "good,slow", *ONE, "--open-loop", "100", "--json", str(path)]
    assert command.main([*QUICK, *arguments]) == 143
    document = records.read(path)
    assert document.status == 143
    for row, is_whole in zip(document.rows, (True, place == "search"), strict=True):
        assert row.status == "ok" and row.p50_ms and len(row.rounds_ms) == 2 and row.ratio
        assert (row.preprocess_ms is not None) == is_whole
        assert row.open_bound_ms is None and row.open_rate_per_s is None
    captured = capsys.readouterr()
    assert "slow" in captured.out and "cut off by SIGTERM" in captured.err


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_impatient_user_loses_nothing(
    first: signal.Signals,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Ctrl-C once more while the files are ended, and once more while the rest is cleaned up."""

    def rows(self: suite.Suite, group: list[Case], receive: Receive) -> None:
        if group[0].workload.batch == 3:
            os.kill(os.getpid(), first)
        receive([_measured(case) for case in group])

    def end(self: Journal, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    install("good")
    original = Journal.end
    monkeypatch.setattr(suite.Suite, "run", rows)
    monkeypatch.setattr(Journal, "end", end)
    path, before = tmp_path / "run.json", signal.default_int_handler
    arguments = ["--peers", "good", "--batch", "1,3", "--variant", "lrn", "--json", str(path)]
    ours = signal.signal(signal.SIGINT, before)  # the tests may be a shell's background job, which ignores it
    try:
        assert command.main([*QUICK, *arguments]) == 128 + first
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, ours)
    assert "good" in capsys.readouterr().out
    document = records.read(path)
    assert [row.batch for row in document.rows] == [1] and document.status == 128 + first


def test_a_compiler_that_is_no_command_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "'")
    status, (row,) = run(capsys, "--peers", "engine-c", *ONE)
    assert (status, row["status"]) == (1, "failed: CC is no command: No closing quotation")


def test_a_bound_below_the_call_is_not_searched(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched: list[str] = []
    search = arrivals.search

    def counted(served: Any, *arguments: Any, **named: Any) -> Any:
        searched.extend(served)
        return search(served, *arguments, **named)

    monkeypatch.setattr(arrivals, "search", counted)
    install("good")
    install("slower", "slower")
    loop = ["--open-loop", "6", "--open-seconds", "0.01"]
    status, (_, slower) = run(capsys, "--peers", "good,slower", *ONE, *loop)
    assert (status, slower["status"]) == (0, "ok") and "slower" not in searched
    assert (slower["open_rate_per_s"], slower["open_p99_ms"], slower["open_bound_ms"]) == (0, None, 6)


def test_the_rate_of_a_peer_that_ends_while_it_is_searched_is_not_known(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def arrivals(self: process.Worker, at_ns: list[int], *arguments: int) -> list[int]:
        raise process.PeerError("killed by SIGKILL")

    monkeypatch.setattr(process.Worker, "arrivals", arrivals)
    install("good")
    status, (row,) = run(capsys, "--peers", "good", *ONE, "--open-loop", "50")
    assert (status, row["status"]) == (1, "failed: killed by SIGKILL") and row["p50_ms"] > 0
    assert (row["open_rate_per_s"], row["open_p99_ms"], row["open_requests"]) == (None, None, None)


DAMAGED: dict[str, dict[str, Any]] = {
    "profile": {"profiles": [{"a": 1}]},
    "ratio without its range": {"rows": [{**asdict(OURS), "ratio_min": None}]},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_records_are_one_line(
    damage: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    whole = json.loads(records.Document(ENVIRONMENT, {}, [OURS]).text())
    path.write_text(json.dumps({**whole, **DAMAGED[damage]}))
    with pytest.raises(SystemExit) as stopped:
        command.main(["show", str(path)])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == "" and captured.err.count("\n") == 1
    assert f"{path}: damaged records" in captured.err


def test_a_picture_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path, folder = tmp_path / "run.json", tmp_path / "plots"
    path.write_text(records.Document(ENVIRONMENT, {}, [OURS]).text())
    assert command.main(["show", str(path), "--plots", str(folder)]) == 0
    throughput = next(folder.glob("*-throughput.png"))
    throughput.unlink()
    throughput.symlink_to("/dev/null")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        command.main(["show", str(path), "--plots", str(folder)])
    assert stopped.value.code == 2
    message = f"--plots: {throughput}: exists and is not a file"
    assert capsys.readouterr().err == f"inception-bench show: error: {message}\n"


@pytest.mark.parametrize("form", ["table", "md", "csv"])
def test_no_string_in_records_forges_a_line(
    form: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Shown, compared, or refused."""

    def printed(name: str, end: str, *more: str) -> str:
        row = replace(OURS, peer=f"engine{end}", status=f"ok{end}")
        document = records.Document({**ENVIRONMENT, "cpu": f"CPU{end}"}, {}, [row])
        (tmp_path / name).write_text(document.text())
        assert command.main([*more, str(tmp_path / name)]) == 0
        return capsys.readouterr().out

    hostile, shown = "\n\x1b[2Jfaster", "??[2Jfaster"
    show = ("show", "--format", form)
    assert printed("hostile.json", hostile, *show) == printed("plain.json", shown, *show)
    compare = ("compare", str(tmp_path / "hostile.json"))
    again = printed("again.json", hostile, *compare)
    assert shown in again and all(line.isprintable() for line in again.split("\n"))
    (tmp_path / "other.json").write_text(
        json.dumps({"format": hostile, "rows": [], "environment": {}, "method": {}})
    )
    with pytest.raises(SystemExit):
        command.main(["show", str(tmp_path / "other.json")])
    err = capsys.readouterr().err
    assert shown in err and err.count("\n") == 1


MISTAKES = {
    "peer": ["--peers", "engine,tensorflow"],
    "variant": ["--variant", "resnet"],
    "format": ["--format", "xml"],
    "dtype": ["--dtype", "fp128"],
    "device": ["--device", "tpu"],
    "batch of zero": ["--batch", "0"],
    "batch that is no number": ["--batch", "1,two"],
    "empty batch": ["--batch", ""],
    "huge batch": ["--batch", "1000000"],
    "threads": ["--threads", "-1"],
    "duration": ["--duration", "nan"],
    "negative warm-up": ["--warmup", "-1"],
    "rounds": ["--rounds", "0"],
    "unknown option": ["--frobnicate"],
    "no such folder": ["--json", "/nonexistent/folder/run.json"],
    "folder for a file": ["--json", "/"],
    "no such folder for lines": ["--jsonl", "/nonexistent/folder/run.jsonl"],
    "lines of others": ["--jsonl", __file__],
    "the same file": ["--json", "run", "--jsonl", "run"],
    "bounds the wrong way round": ["--min-calls", "5", "--max-calls", "4"],
    "launch on a CPU": ["--launch", "graph"],
    "launch of nobody": ["--device", "cuda", "--launch", "graph", "--peers", "torch"],
    "trace without profile": ["--trace", "t.json"],
    "open loop in a profile": ["--profile", "--open-loop", "5"],
    "open loop of nothing": ["--open-loop", "0"],
    "plots into a file": ["--plots", __file__],
    "the same file by another name": ["--profile", "--trace", "run", "--jsonl", "./run"],
    "streams of a profile": ["--profile", "--streams", "2"],
    "rows of a profile": ["--profile", "--format", "csv"],
    "ratios of a profile": ["--profile", "--format", "ratios"],
    "peers of a profile": ["--profile", "--rounds", "5", "--warmup", "0.5", "--peers", "engine"],
    "rounds of a profile": ["--profile", "--warmup", "0.5", "--rounds", "7"],
    "starts of a profile": ["--profile", "--warmup", "0.5", "--rounds", "5", "--starts", "3"],
    "launches of a profile": ["--profile", "--device", "cuda", "--launch", "graph"],
    "seconds of no open loop": ["--open-seconds", "3"],
    "a self-test's profile": ["--self-test", "--profile"],
    "a self-test's rows": ["--self-test", "--json", "run"],
    "a self-test's plots": ["--self-test", "--plots", "run"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_status_two(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([*QUICK, *MISTAKES[mistake]])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("inception-bench: error: ") and captured.err.count("\n") == 1


def test_a_folder_without_permission_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    for option in ("--json", "--jsonl", "--plots"):
        with pytest.raises(SystemExit) as stopped:
            command.main([*QUICK, option, str(tmp_path / "run")])
        captured = capsys.readouterr()
        assert stopped.value.code == 2 and captured.err.count("\n") == 1 and "writ" in captured.err


def test_without_a_gpu_every_way_to_use_one_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "gpus", lambda: 0)
    with pytest.raises(SystemExit) as stopped:
        command.main([*QUICK, "--device", "cuda", "--peers", "all", *ONE, "--format", "csv"])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    launches = [row["launch"] for row in rows if row["peer"] == "engine"]
    assert launches == ["walk", "module", "stream", "graph", "jit"]
    status = {row["peer"]: row["status"] for row in rows}
    assert list(status) == list(peers.PEERS)
    assert status.pop("openvino") == "not supported: cuda"
    assert set(status.values()) == {"not here: no CUDA device"}
    assert (
        captured.err.startswith("inception-bench: error: nothing was timed") and captured.err.count("\n") == 1
    )


def test_help_needs_no_framework() -> None:
    script = (
        "import sys; from inception_engine.bench import command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit as exit: assert exit.code == 0\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'triton', 'matplotlib', 'openvino'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    for name in vars(options.parser().parse_args([])):
        assert f"--{name.replace('_', '-')}" in shown.stdout


def test_real_peers_pass_parity_and_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    here = [name for name, peer in peers.PEERS.items() if not peer.slow and name != "tensorrt"]
    status, rows = run(capsys, "--peers", ",".join(here), "--batch", "7", "--variant", "lrn")
    if any(row["status"].startswith(("not installed", "not here")) for row in rows):
        pytest.skip("; ".join(row["status"] for row in rows if row["status"] != "ok"))
    assert [row["status"] for row in rows] == ["ok"] * len(here)
    assert status == 0
    assert all(0 < row["parity"] < 1e-4 and row["p50_ms"] > 0 and row["peak_mb"] > 0 for row in rows)


def test_our_engine_in_c_has_streams_pixels_and_arrivals(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--streams", "3", "--input", "uint8", "--open-loop", "1000", "--open-seconds", "0.05"]
    status, (row,) = run(capsys, "--peers", "engine-c", *ONE, *arguments)
    assert (status, row["status"]) == (0, "ok")
    assert row["includes"] == "compute (preprocessing inside)" and row["preprocess_ms"] is None
    assert row["samples"] >= 2 * 3 * 3 and row["open_rate_per_s"] > 0
    assert row["open_requests"] >= 200 and row["open_p99_ms"] <= 1000


def test_half_precision_has_its_own_bound_and_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    """What a peer cannot do is said in its own words; what it can is held to the dtype's bound."""
    _, rows = run(capsys, "--peers", "engine,onnxruntime", "--dtype", "fp16", *ONE)
    ours, theirs = rows
    assert ours["status"].startswith("not supported: target cpu has no kernels for dtype 'fp16'")
    assert theirs["status"] == "ok" and 1e-6 < theirs["parity"] < 2e-2
    _, rows = run(capsys, "--peers", "engine,engine-c", "--dtype", "bf16", *ONE)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all(1e-5 < row["parity"] < 1e-1 for row in rows)


def test_images_of_a_batch_repeat_at_an_odd_distance() -> None:
    images = Workload("plain", 8).images()
    assert images.shape[0] == 8 and images.flags.c_contiguous
    assert (images[0] == images[5]).all()
    assert all((images[0] != images[index]).any() for index in (1, 2, 4))


def test_default_threads_are_those_the_process_may_use() -> None:
    assert options.parser().parse_args([]).threads == [len(os.sched_getaffinity(0))]


def test_sweeps_are_groups_of_every_combination() -> None:
    workloads = [Workload("plain", batch) for batch in (1, 8)]
    found = suite.groups(workloads, ["engine", "torch"], ["cpu", "cuda"], [1, 2], [1], ["walk", "graph"])
    assert len(found) == 2 * 2 * 2
    assert [case.label for case in found[0]] == ["engine", "torch"]
    on_gpu: Callable[[Case], bool] = lambda case: case.device == "cuda"  # noqa: E731
    group = next(group for group in found if all(map(on_gpu, group)))
    assert [case.label for case in group] == ["engine/walk", "engine/graph", "torch"]
    (group,) = suite.groups(workloads[:1], ["engine-c", "torch"], ["cuda"], [1], [1], ["graph"])
    assert [case.label for case in group] == ["torch"]  # from C there is no such way
