"""The command on a small network with peers of our own, and once with all real peers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine.bench import cases, command, peers
from inception_engine.bench.cases import Case
from inception_engine.bench.peers import Peer, Run
from inception_engine.bench.timing import Clock, Schedule

QUICK = ["--duration", "0.01", "--warmup", "0", "--rounds", "2", "--threads", "1"]


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, spec in cases.VARIANTS.items():
        monkeypatch.setitem(cases.VARIANTS, name, replace(spec, width=0.125, input_size=64, classes=10))
    _forget()
    yield
    _forget()


def _forget() -> None:
    for function in (cases._network, cases._images, cases._reference):
        function.cache_clear()


class FakePeer:
    """Returns the reference's logits, altered; counts what is asked of it."""

    def __init__(self, alter: Callable[[np.ndarray, int], np.ndarray] = lambda logits, call: logits) -> None:
        self.alter = alter
        self.calls = 0
        self.closed = False

    @contextlib.contextmanager
    def prepare(self, case: Case, threads: int) -> Iterator[Run]:
        expected = case.expected()

        def run(images: np.ndarray) -> np.ndarray:
            assert images.shape == (case.batch, *case.network.input_shape) and images.dtype == np.float32
            self.calls += 1
            return self.alter(expected.astype(np.float32), self.calls)

        yield run
        self.closed = True


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePeer]:
    def install(name: str, fake: FakePeer | None = None, package: str = "numpy") -> FakePeer:
        fake = fake or FakePeer()
        monkeypatch.setitem(peers.PEERS, name, Peer(name, (package,), fake.prepare))
        return fake

    return install


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    status = command.main([*QUICK, "--format", "json", *arguments])
    return status, json.loads(capsys.readouterr().out)["rows"]


def raises(logits: np.ndarray, call: int) -> np.ndarray:
    raise RuntimeError("no such kernel\nand a second line")


def raises_when_timed(logits: np.ndarray, call: int) -> np.ndarray:
    return logits if call < 3 else raises(logits, call)


FAULTS = {
    "one logit off": (
        lambda logits, call: logits + np.float32(1e-2) * np.eye(*logits.shape, dtype=np.float32),
        1,
    ),
    "nan": (lambda logits, call: np.where(logits == logits.max(), np.nan, logits), 1),
    "images swapped": (lambda logits, call: logits[::-1], 1),
    "shape": (lambda logits, call: logits[:, :-1], 1),
    "raises": (raises, 1),
    "raises when timed": (raises_when_timed, 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_peer_is_a_row_that_says_so_and_is_not_timed(
    fault: str, install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str]
) -> None:
    alter, calls = FAULTS[fault]
    bad, good = install("bad", FakePeer(alter)), install("good")
    status, rows = run(capsys, "--peers", "bad,good", "--batch", "2", "--variant", "plain")
    assert status == 1
    assert [row["peer"] for row in rows] == ["bad", "good"]
    assert str(rows[0]["status"]).startswith(("parity failed", "failed: ")) and "\n" not in str(
        rows[0]["status"]
    )
    assert rows[0]["p50_ms"] is None and rows[0]["ratio"] is None
    assert bad.calls == calls
    assert rows[1]["status"] == "ok" and good.calls > 3 and good.closed


def test_a_missing_peer_is_a_row_and_no_failure(
    install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str]
) -> None:
    missing = install("missing", package="a_package_that_nobody_has")
    install("good")
    status, rows = run(capsys, "--peers", "missing,good", "--batch", "1", "--variant", "lrn")
    assert status == 0
    assert [row["status"] for row in rows] == ["not installed: a_package_that_nobody_has", "ok"]
    assert missing.calls == 0


def test_rows_hold_every_case_and_field(
    install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("engine", "one", "two"):
        install(name)
    status, rows = run(capsys, "--peers", "engine,one,two", "--batch", "1,7")
    assert status == 0
    keys = [(row["variant"], row["batch"], row["peer"]) for row in rows]
    assert keys == [(v, b, p) for v in ("lrn", "plain") for b in (1, 7) for p in ("engine", "one", "two")]
    for row in rows:
        assert (
            row["status"] == "ok"
            and row["device"] == "cpu"
            and row["dtype"] == "fp32"
            and row["threads"] == 1
        )
        assert 0 <= row["parity"] < 1e-6
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["p50_ms"] * 1e3)
        assert row["best_peer"] in ("one", "two")  # never our own engine
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["ratio"] == 1 or row["peer"] != row["best_peer"]


def test_parity_covers_every_image_of_the_batch(
    install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str]
) -> None:
    def last_image(logits: np.ndarray, call: int) -> np.ndarray:
        logits[-1, 0] += 0.01 * np.abs(logits).max()
        return logits

    install("bad", FakePeer(last_image))
    status, rows = run(capsys, "--peers", "bad", "--batch", "8", "--variant", "plain")
    assert status == 1 and rows[0]["parity"] == pytest.approx(0.01, rel=1e-3)


def test_the_clock_of_a_slow_peer_shows_in_the_ratio(install: Callable[..., FakePeer]) -> None:
    now = 0

    def after(latency: int) -> Callable[[np.ndarray, int], np.ndarray]:
        def alter(logits: np.ndarray, call: int) -> np.ndarray:
            nonlocal now
            now += latency
            return logits

        return alter

    def sleep(seconds: float) -> None:
        nonlocal now
        now += round(seconds * 1e9)

    for name, latency in (("engine", 3_000_000), ("slow", 6_000_000), ("fast", 4_000_000)):
        install(name, FakePeer(after(latency)))
    case, schedule = Case("plain", 2, "fp32"), Schedule(warmup=0, duration=0.1, rounds=2)
    chosen = [peers.PEERS[name] for name in ("engine", "slow", "fast")]
    rows = command.run_case(case, chosen, 1, "cpu", schedule, clock=Clock(lambda: now, lambda: 0, sleep))
    assert [(row.peer, row.p50_ms, row.ratio) for row in rows] == [
        ("engine", 3.0, 0.75),
        ("slow", 6.0, 1.5),
        ("fast", 4.0, 1.0),
    ]
    assert {row.best_peer for row in rows} == {"fast"}
    assert rows[0].images_per_s == pytest.approx(2 / 0.003)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_formats(form: str, install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str]) -> None:
    install("good")
    assert (
        command.main([*QUICK, "--peers", "good", "--batch", "1", "--variant", "lrn", "--format", form]) == 0
    )
    captured = capsys.readouterr()
    assert captured.err == ""  # the progress line is for terminals
    if form == "json":
        assert json.loads(captured.out)["rows"][0]["peer"] == "good"
    elif form == "csv":
        assert next(csv.DictReader(io.StringIO(captured.out)))["peer"] == "good"
    else:
        assert ("| good |" in captured.out) == (form == "md")
        assert "p99 ms" in captured.out and "good" in captured.out


def test_json_file_appears_whole(
    install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install("good")
    path = tmp_path / "run.json"
    path.write_text("old")
    arguments = [*QUICK, "--peers", "good", "--batch", "1", "--variant", "lrn", "--json", str(path)]
    assert command.main(arguments) == 0
    content = json.loads(path.read_text())
    assert content["rows"][0]["peer"] == "good"
    assert content["environment"]["command"] == " ".join(["inception-bench", *arguments])
    assert content["method"]["rounds"] == 2
    assert list(tmp_path.iterdir()) == [path]
    assert "good" in capsys.readouterr().out


def test_ctrl_c_keeps_the_finished_cases(
    install: Callable[..., FakePeer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(logits: np.ndarray, call: int) -> np.ndarray:
        if len(logits) == 3:
            raise KeyboardInterrupt
        return logits

    install("good", FakePeer(interrupted))
    path = tmp_path / "run.json"
    arguments = ["--peers", "good", "--batch", "1,3", "--variant", "lrn", "--json", str(path)]
    assert command.main([*QUICK, *arguments]) == 130
    assert [row["batch"] for row in json.loads(path.read_text())["rows"]] == [1]
    assert "good" in capsys.readouterr().out


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
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_status_two(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([*QUICK, *MISTAKES[mistake]])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("inception-bench: error: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize("impossible", [["--device", "cuda"], ["--dtype", "bf16"]])
def test_where_no_peer_can_run_the_rows_say_why_and_the_status_is_two(
    impossible: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([*QUICK, "--batch", "1", "--variant", "lrn", "--format", "csv", *impossible])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [row["peer"] for row in rows] == list(peers.PEERS)
    assert all(row["status"].startswith("not supported: ") for row in rows)
    assert (
        captured.err.startswith("inception-bench: error: nothing was timed") and captured.err.count("\n") == 1
    )


def test_without_permission_the_rows_are_still_printed(
    install: Callable[..., FakePeer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    install("good")
    monkeypatch.setattr(command, "write_atomically", full)
    with pytest.raises(SystemExit) as stopped:
        command.main([*QUICK, "--peers", "good", "--batch", "1", "--json", str(tmp_path / "run.json")])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert "good" in captured.out and captured.err.count("\n") == 1 and "No space left" in captured.err


def test_help_needs_no_framework() -> None:
    script = (
        "import sys; from inception_engine.bench import command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit as exit: assert exit.code == 0\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'triton'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    for option in (
        "batch",
        "peers",
        "dtype",
        "threads",
        "duration",
        "warmup",
        "device",
        "variant",
        "json",
        "format",
    ):
        assert f"--{option}" in shown.stdout


@pytest.mark.parametrize("peer", list(peers.PEERS))
@pytest.mark.parametrize("variant", ["lrn", "plain"])
def test_real_peers_pass_parity_and_are_timed(
    peer: str, variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    obstacle = peers.PEERS[peer].obstacle("cpu", "fp32")
    if obstacle is not None:
        pytest.skip(obstacle)
    status, rows = run(capsys, "--peers", peer, "--batch", "1,7", "--variant", variant)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert status == 0
    assert all(0 < row["parity"] < 1e-4 and row["p50_ms"] > 0 for row in rows)


@pytest.mark.parametrize("peer", ["torch", "torch-channels-last"])
def test_torch_gets_the_threads_and_gives_them_back(peer: str) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with peers.PEERS[peer].prepare(Case("plain", 1, "fp32"), before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_images_of_a_batch_repeat_at_an_odd_distance() -> None:
    images = Case("plain", 8, "fp32").images()
    assert images.shape[0] == 8 and images.flags.c_contiguous
    assert np.array_equal(images[0], images[5])
    assert all(not np.array_equal(images[0], images[index]) for index in (1, 2, 4))


def test_default_threads_are_those_the_process_may_use() -> None:
    assert command._parser().parse_args([]).threads == len(os.sched_getaffinity(0))
