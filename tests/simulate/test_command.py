"""`inception simulate`: its text, document and trace, and one line with exit status 2 for every mistake."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from inception_engine import Plan, cli, compile, googlenet
from inception_engine.compiler.plan import FILE_HEADER
from inception_engine.network import Network
from inception_engine.simulate import Gpu, simulate
from inception_engine.simulate.path import COSTS
from inception_engine.simulate.report import report
from inception_engine.simulate.trace import busy_share
from tests.simulate.programs import SQUARE

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its plan with a program for the CPU and two for GPUs, a plan for the CPU alone, a text."""
    path = tmp_path_factory.mktemp("simulate")
    network = googlenet(0, width=0.1, input_size=32, classes=10)
    network.save(path / "small.safetensors")
    both = compile(network, targets=("cpu", SQUARE), batches=(1, 4))
    both.save(path / "small.plan")
    compile(network).save(path / "cpu.plan")
    (path / "text.plan").write_text("not a plan")
    (path / "text.safetensors").write_text("not a network")
    return path


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(("simulate", *arguments))
    out, err = capsys.readouterr()
    return status, out, err


def document(capsys: Captured, *arguments: str) -> dict[str, Any]:
    status, out, err = run(capsys, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_document(folder: Path, capsys: Captured) -> None:
    found = document(capsys, str(folder / "small.plan"), "--gpu", "h200", "--batch", "3")
    assert (found["program"], found["batch"], found["max_batch"], found["dtype"]) == (4, 3, 4, "fp32")
    program = Plan.load(folder / "small.plan").programs[3]
    simulated = simulate(program, Gpu.load("h200"), 3)
    assert found["latency_seconds"] == simulated.seconds
    assert found["images_per_second"] == 3 / simulated.seconds
    assert found["fitted"] is False and "l2_bytes_per_second" in found["assumed"]
    for shares in (found["utilisation"], *(launch["utilisation"] for launch in found["launches"])):
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > -1e-12
    assert set(found["critical_path"]["seconds"]) == set(COSTS)
    assert sum(op["tasks"] for op in found["critical_path"]["ops"]) == found["critical_path"]["tasks"]
    assert sum(launch["tasks"] for launch in found["launches"]) == found["tasks"] == len(program.tasks)
    gaps = len(found["launches"]) * Gpu.load("h200").launch_seconds
    assert sum(launch["seconds"] for launch in found["launches"]) + gaps == pytest.approx(simulated.seconds)
    busy = found["utilisation"]["busy"] * found["workers"] * simulated.seconds
    assert sum(module["worker_seconds"] for module in found["modules"]) == pytest.approx(busy)
    assert [m["name"] for m in found["modules"]][-3:] == ["avgpool", "fc", "softmax"]


def test_one_worker_is_never_idle_within_a_launch(folder: Path) -> None:
    gpu = dataclasses.replace(Gpu.load("h200"), multiprocessors=1, resident_blocks=1)
    simulated = simulate(Plan.load(folder / "small.plan").programs[2], gpu)
    found = report(simulated)
    assert [launch["utilisation"]["idle"] for launch in found["launches"]] == pytest.approx([0] * 13)
    gaps = 13 * gpu.launch_seconds
    assert found["utilisation"]["idle"] == pytest.approx(gaps / simulated.seconds)


@pytest.mark.parametrize(
    ("arguments", "program", "batch"),
    [((), 3, 1), (("--batch", "1"), 3, 1), (("--batch", "2"), 4, 2), (("--program", "4"), 4, 4)],
    ids=str,
)
def test_choice_of_the_program(
    arguments: tuple[str, ...], program: int, batch: int, folder: Path, capsys: Captured
) -> None:
    found = document(capsys, str(folder / "small.plan"), *arguments)
    assert (found["program"], found["batch"]) == (program, batch)


def test_text(folder: Path, capsys: Captured) -> None:
    status, out, err = run(capsys, str(folder / "small.plan"))
    assert (status, err) == (0, "")
    assert "program 3: NVIDIA H200, fp32, 1 of up to 1 images" in out
    assert "not fitted: constants are assumed (" in out
    for word in ("latency", "dependencies", "critical path", "5b", "avgpool to softmax"):
        assert word in out


def test_names_in_a_plan_forge_no_line(folder: Path, capsys: Captured, tmp_path: Path) -> None:
    body = (folder / "small.plan").read_bytes()[FILE_HEADER.itemsize :]
    for name, hostile in (
        (b"avgpool", b"avg\npoo"),
        (b"softmax", b"so\x1b[2Jx"),
        (b"probabilities", 13 * b"\r"),
    ):
        assert name in body
        body = body.replace(name, hostile)
    header = np.frombuffer((folder / "small.plan").read_bytes(), FILE_HEADER, 1).copy()
    header["hash"] = xxhash.xxh64_intdigest(body)
    (tmp_path / "a.plan").write_bytes(header.tobytes() + body)
    status, plain, _ = run(capsys, str(folder / "small.plan"))
    assert status == 0
    status, out, err = run(capsys, str(tmp_path / "a.plan"))
    assert (status, err) == (0, "")
    assert out.count("\n") == plain.count("\n") and all(line.isprintable() for line in out.split("\n"))
    assert "avg?poo to so?[2Jx" in out


def test_network(folder: Path, capsys: Captured) -> None:
    found = document(capsys, str(folder / "small.safetensors"), "--batch", "2", "--dtype", "bf16")
    latencies = [one["latency_seconds"] for one in found["candidates"]]
    assert len(latencies) == 10 and latencies == sorted(latencies)
    tiles = [one["tile"] for one in found["candidates"]]
    assert sorted(filter(None, tiles)) == [
        [rows, columns] for rows in (32, 64, 128) for columns in (32, 64, 128)
    ]
    network = Network.load(folder / "small.safetensors")
    chosen = compile(network, targets="cuda", max_batch=2, dtype="bf16").programs[0]
    assert latencies[tiles.index(None)] == simulate(chosen, Gpu.load("h200")).seconds
    assert (found["dtype"], found["batch"], found["fitted"]) == ("bf16", 2, False)
    status, out, _ = run(capsys, str(folder / "small.safetensors"), "--batch", "2", "--dtype", "bf16")
    labels = ["as compiled" if tile is None else f"{tile[0]:>4} x {tile[1]:<4}" for tile in tiles]
    assert status == 0 and [line[:11] for line in out.splitlines()[4:]] == labels


def test_trace(folder: Path, capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    arguments = [str(folder / "small.plan"), "--program", "4"]
    assert run(capsys, *arguments, "--trace", str(path))[0] == 0
    events = json.loads(path.read_text())["traceEvents"]
    simulated = simulate(Plan.load(folder / "small.plan").programs[3], Gpu.load("h200"))
    slices = [event for event in events if event["ph"] == "X"]
    tasks = [event for event in slices if event["cat"] == "run"]
    assert len(tasks) == simulated.work.runs.sum()
    assert sum(event["dur"] for event in tasks) == pytest.approx(
        1e6 * (simulated.end - simulated.start).sum()
    )
    assert {event["name"] for event in slices if event["cat"] == "launch"} >= {"3a", "5b"}
    tracks: dict[tuple[int, int], list[Any]] = {}
    for event in slices:
        tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    for track in tracks.values():
        for before, after in pairwise(sorted(track, key=lambda event: event["ts"])):
            assert before["dur"] >= 0 and before["ts"] + before["dur"] <= after["ts"] + 1e-6
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert named == {track for process, track in tracks if process == 0}
    counter = [event["args"]["share"] for event in events if event["ph"] == "C"]
    busy = float((simulated.end - simulated.start).sum()) / (simulated.gpu.workers * simulated.seconds)
    assert np.mean(counter) == pytest.approx(busy)
    assert min(counter) + 1e-9 >= 0 and max(counter) <= 1 + 1e-9


def test_busy_share_of_one_interval_is_the_average(folder: Path) -> None:
    simulated = simulate(Plan.load(folder / "small.plan").programs[2], Gpu.load("h200"))
    begins, shares = busy_share(simulated, 2)
    assert begins == [0.0, simulated.seconds / 2]
    half = simulated.seconds / 2
    first = np.minimum(simulated.end, half) - np.minimum(simulated.start, half)
    assert shares[0] == pytest.approx(first.sum() / (half * simulated.gpu.workers))


MISTAKES = [
    ((), "PLAN"),
    (("missing.plan",), "missing.plan"),
    (("missing.safetensors",), "missing.safetensors"),
    (("",), "not a file"),
    (("text.plan",), "text.plan: not a plan"),
    (("text.safetensors",), "text.safetensors: not a safetensors file"),
    (("cpu.plan",), "no program for a GPU"),
    (("small.plan", "--gpu", "h2000"), "unknown gpu 'h2000'; there is h200"),
    (("small.plan", "--batch", "5"), "take 1 to 4"),
    (("small.plan", "--batch", "0"), "take 1 to 4"),
    (("small.plan", "--batch", "many"), "--batch"),
    (("small.plan", "--program", "5"), "the plan has 4"),
    (("small.plan", "--program", "0"), "the plan has 4"),
    (("small.plan", "--program", "1"), "not for a GPU"),
    (("small.plan", "--program", "3", "--batch", "1"), "not allowed with"),
    (("small.plan", "--dtype", "fp16"), "--dtype changes nothing"),
    (("small.plan", "--trace", "no/such/folder/trace.json"), "no/such/folder"),
    (("small.plan", "--trace", "."), "exists and is not a file"),
    (("small.plan", "--trace", "./small.plan"), "is the file that is read"),
    (("small.safetensors", "--dtype", "int8"), "int8"),
    (("small.safetensors", "--batch", "0"), "batches [0]"),
    (("small.safetensors", "--program", "1"), "--program"),
    (("small.safetensors", "--gpu", "cpu"), "unknown gpu"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=str)
def test_mistakes_are_one_line_and_status_2(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    status, out, err = run(capsys, *(str(folder) if name == "" else name for name in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("inception: error: ") and err.count("\n") == 1
    assert message in err
