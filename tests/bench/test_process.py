"""Workers: what they answer, and how they end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from inception_engine.bench import native
from inception_engine.bench.artefacts import Artefacts
from inception_engine.bench.cases import Case, Workload
from inception_engine.bench.process import PeerError, Worker
from inception_engine.bench.suite import Method, Suite

ANSWER = "import json, os, sys, time, subprocess; out = os.fdopen(int(sys.argv[1]), 'w', buffering=1)\n"
READY = 'print(\'{"import_ns": 1, "load_ns": 2, "first_ns": 3, "shape": [4]}\', file=out)\n'


def worker(script: str, limit: float = 20.0) -> Worker:
    return Worker([sys.executable, "-c", ANSWER + script], limit)


def test_it_answers_and_ends() -> None:
    script = READY + "for line in sys.stdin:\n  if line == 'quit\\n': break\n"
    script += '  print(\'{"ns": [5], "wall_ns": 6}\', file=out)'
    with worker(script) as process:
        begun = process.ready()
        assert (begun.import_ns, begun.load_ns, begun.first_ns, begun.shape) == (1, 2, 3, (4,))
        turn = process.time(0.1, 1, 1)
        assert (turn.ns, turn.wall_ns) == ([5], 6)
        assert (process.peak_bytes() or 0) > 1 << 20
        pid = process._process.pid
    assert process._process.returncode == 0 and not Path(f"/proc/{pid}").exists()
    process.close()


def test_processor_time_is_that_of_the_process() -> None:
    with worker(
        "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n" + READY
    ) as process:
        process.ready()
        assert 0.25e9 < process.cpu_ns() < 3e9


ENDS = {
    "leaves": ("sys.exit('no licence')", "ended with status 1: no licence"),
    "is killed": ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    "says an error": ("print(json.dumps({'error': 'a \"b\"'}), file=out)", 'a "b"'),
    "hangs": ("time.sleep(600)", "no answer within its limit of 0.5 s: ended"),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_bad_end_is_one_line(end: str) -> None:
    script, message = ENDS[end]
    with worker(script, limit=0.5 if end == "hangs" else 20.0) as process, pytest.raises(PeerError) as error:
        process.ready()
    assert str(error.value) == message


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    child = f"subprocess.Popen(['sleep', '600']).pid"  # noqa: F541
    script = f"open({str(tmp_path / 'pid')!r}, 'w').write(str({child}))\n" + READY + "time.sleep(600)"
    process = worker(script, limit=20.0)
    process.ready()
    process._limit = 0.1
    with pytest.raises(PeerError, match="ended"):
        process.parts(1)
    process.close()
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    end = time.monotonic() + 10
    # Dead, or dead and not yet waited for by whoever inherited it.
    while stat.exists() and " Z " not in stat.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    assert not stat.exists() or " Z " in stat.read_text()


def test_what_was_asked_for_is_no_hang() -> None:
    """At least ten calls of 0.2 s, and requests that may be answered 2 s after the last arrival, with a limit of 0.3
    s for all else."""
    ready = READY.replace("3", "200_000_000".replace("_", ""))
    script = ready + "for line in sys.stdin:\n  time.sleep(1)\n"
    script += '  print(\'{"ns": [200000000], "wall_ns": 6, "parts": {}}\', file=out)'
    with worker(script) as process:
        process.ready()
        process._limit = 0.3
        assert process.time(0.1, 10, 20).ns == [200_000_000]
        assert process.arrivals([1000], 2_000_000_000, 0, 0) == [200_000_000]
        assert process.parts(10) == {}
        with pytest.raises(PeerError, match=r"limit of 0\.3 s"):
            process.time(0.1, 1, 20)


def test_a_slow_first_call_says_nothing_of_the_others() -> None:
    """Which compiled for a minute: a worker that hangs is found all the same."""
    script = READY.replace("3", "60_000_000_000".replace("_", ""))
    script += (
        'print(sys.stdin.readline() and \'{"ns": [5], "wall_ns": 6}\', file=out)\nsys.stdin.readline()\n'
    )
    script += "time.sleep(60)"
    with worker(script) as process:
        process.ready()
        process._limit = 0.3
        process.time(0.1, 1, 20)
        with pytest.raises(PeerError, match=r"limit of 0\.3 s"):
            process.arrivals([1000], 1000, 20, 50)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PeerError, match="No such file"):
        Worker(["/nonexistent/program"], 1.0)


def test_the_worker_in_c_says_what_is_wrong(tmp_path: Path) -> None:
    suite = Suite(Artefacts(tmp_path), Method(limit=20.0))
    case = Case("engine-c", Workload("plain", 1), threads=1)
    with suite.checked(case):
        pass
    (tmp_path / "plain-1-fp32-cpu.plan").write_bytes(b"no plan")
    with pytest.raises(PeerError, match="plan"), suite.checked(case):
        pass


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("/nonexistent/cc", "no C compiler"),
        ("", "no C compiler"),
        ("false", "false: "),
        ("'", "CC is no command: No closing quotation"),
    ],
)
def test_a_compiler_that_is_missing_or_fails_is_one_line(
    compiler: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(native.CompilerError, match=message) as error:
        native.build("engine", tmp_path)
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []
