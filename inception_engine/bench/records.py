"""What a run leaves behind: one row per peer and case, and the environment in which it was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inception_engine.errors import EngineError

FORMAT = 1  # of the JSON document
OK = "ok"
INCLUDES = (
    "one call: float32 NCHW images in host memory to float32 logits in host memory; "
    "without decoding, preprocessing, loading and compiling"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer on one case. Where ``status`` is not ``ok`` the row was not timed, and the figures are None.

    ``parity`` is max|d| / max|ref| of the logits against the float64 reference. ``spread_*`` are the lowest and the
    highest median of a round over ``p50_ms``. ``ratio`` is the median over the rounds of this peer's median
    over that of ``best_peer``, the fastest peer that is not our engine, in the same round; ``ratio_min`` and
    ``ratio_max`` are its range. Below 1 is faster than the best peer.
    """

    peer: str
    variant: str
    device: str
    dtype: str
    batch: int
    threads: int
    status: str = OK
    parity: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_s: float | None = None
    samples: int | None = None
    spread_min: float | None = None
    spread_max: float | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    best_peer: str | None = None


def document(rows: Sequence[Row], environment: dict[str, Any], method: dict[str, Any]) -> str:
    """The JSON text: ``format``, ``environment``, ``method`` and ``rows``."""
    content = {
        "format": FORMAT,
        "environment": environment,
        "method": method,
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def environment(arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """The machine, the versions, the commit, the date and the command line. Unknown values are None.

    ``other_processes_cores`` is filled in when the run is over.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["inception-bench", *arguments]),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "isa": _isa(),
        "other_processes_cores": None,
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("inception-engine", "numpy", "torch", "onnxruntime")},
        "git": _git(Path(__file__).parent),
    }


class OtherProcesses:
    """How much of the machine they used since this was made: they slow peers unequally, so a run has to say."""

    def __init__(self) -> None:
        self._start = self._read()

    def cores(self) -> float | None:
        """Average number of cores, to 0.01; None where /proc/stat does not tell."""
        start, now = self._start, self._read()
        if start is None or now is None or now[0] == start[0]:
            return None
        wall, busy, own = (after - before for before, after in zip(start, now, strict=True))
        return round(max(0.0, busy - own) / wall, 2)

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Seconds: wall, busy on all cores, used by this process."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        except (OSError, ValueError):
            return None
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, time.process_time()


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _isa() -> str | None:
    """What our CPU kernels use here."""
    from inception_engine import binding

    try:
        return binding.ISAS[binding.library().ie_cpu_isa()]
    except EngineError:  # not built: the engine's rows say so
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """The commit of the checkout that ``folder`` is tracked in, and whether the checkout differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed package may lie inside some other project's checkout (its .venv): not our commit.
        git("ls-files", "--error-unmatch", str(folder / "records.py"))
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
