"""The stages, and how one is run: in a process of its own, ended with all its children when its time is over."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu import records
from benchmarks.gpu.provenance import ROOT

_LAST_LINES = 200  # of a stage's output, of which the last that is not empty becomes its message


@dataclass(frozen=True)
class Stage:
    """``module``: has a function ``run(job)``. ``quick``, ``full``, ``rehearsal``: seconds that it may take."""

    name: str
    module: str
    quick: float
    full: float
    rehearsal: float = 240  # tens, where nothing else runs


# The quick limits of parity, launches, peers and ours together are under seven minutes.
STAGES = tuple(
    Stage(name, f"benchmarks.gpu.{name}", quick, full)
    for name, quick, full in (
        ("parity", 140, 540),
        ("launches", 45, 120),
        ("repeats", 60, 300),
        ("sanitizer", 180, 480),
        ("peers", 130, 580),
        ("ours", 95, 420),
        ("modules", 150, 480),
        ("micro", 60, 120),
        ("counters", 120, 300),
        ("tuner", 230, 580),
        ("fit", 90, 240),
    )
)


def run(stage: Stage, path: Path, mode: str, limit: float, environment: Mapping[str, str]) -> str:
    """Run a stage, which adds its rows to the file of records; add its beginning and end; return its status.

    ``mode``: "quick", "full" or "rehearsal".
    """
    records.append(path, {"kind": "begin", "stage": stage.name})
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.stage",
        stage.name,
        stage.module,
        str(path),
        mode,
        f"{limit:g}",
    ]
    start = time.monotonic()
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
    reader = threading.Thread(target=_pass_on, args=(child, lines), daemon=True)
    reader.start()
    status = records.DONE
    try:
        child.wait(limit)
    except subprocess.TimeoutExpired:
        status = records.TIMED_OUT
    finally:  # after Ctrl-C, too; and what a stage left running ends with it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    reader.join(5)
    rows = records.read(path).rows(stage.name)
    bad = [row["name"] for row in rows if row["ok"] is False]
    message = ""
    if status == records.TIMED_OUT:
        message = f"was ended after {limit:g} s"
    elif child.returncode != 0:
        status = records.FAILED
        message = next(
            (line for line in reversed(lines) if line.strip()), f"exit status {child.returncode}"
        ).strip()
    elif bad:
        status, message = records.FAILED, f"{len(bad)} of {len(rows)}: {bad[0]}"
    elif not rows:
        status, message = records.FAILED, "wrote nothing"
    seconds = round(time.monotonic() - start, 1)
    end = {
        "kind": "end",
        "stage": stage.name,
        "status": status,
        "seconds": seconds,
        "limit": limit,
        "message": message,
    }
    records.append(path, end)
    return status


def _pass_on(child: subprocess.Popen[str], lines: collections.deque[str]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.append(line)
        sys.stdout.write(f"    {line}")
        sys.stdout.flush()
