"""Where figures come from: the machine, the versions, the commit, the date, the command; and what else ran beside
them."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inception_engine.errors import EngineError

PACKAGES = (
    "inception-engine",
    "numpy",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "triton",
)


def environment(arguments: Sequence[str]) -> dict[str, Any]:
    """Unknown values are None. ``other_processes_cores`` is filled in when the run is over."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["inception-bench", *arguments]),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "isa": _isa(),
        "governor": _governor(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "gpu": _gpu(),
        "other_processes_cores": None,
        "os": system(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
        "git": _git(Path(__file__).parent),
    }


class OtherProcesses:
    """How much of the machine they used since this was made: they slow peers unequally, so a run has to say.

    Own are this process and its children, those that live (``living_ns``: their processor time) and those that ended.
    """

    def __init__(self, living_ns: Callable[[], int] = lambda: 0) -> None:
        self._living_ns = living_ns
        self._start = self._read()

    def cores(self) -> float | None:
        """Average number of cores, to 0.01; None where /proc/stat does not tell."""
        start, now = self._start, self._read()
        if start is None or now is None or now[0] == start[0]:
            return None
        wall, busy, own = (after - before for before, after in zip(start, now, strict=True))
        return round(max(0.0, busy - own) / wall, 2)

    def _read(self) -> tuple[float, float, float] | None:
        """Seconds: wall, busy on all cores, own."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        except (OSError, ValueError):
            return None
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = time.process_time() + ended.ru_utime + ended.ru_stime + self._living_ns() / 1e9
        return time.monotonic(), busy, own


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None


def _governor() -> str | None:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text("ascii").strip()
    except OSError:  # virtual machines have none
        return None


def _gpu() -> str | None:
    return output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])


def system() -> str:
    """Kernel and C library, without the kernel's build, which names a host."""
    return f"{platform.system()} {platform.release().split('-')[0]}, {' '.join(platform.libc_ver())}"


def version(distribution: str) -> str | None:
    """Of an installed package, else None."""
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
    git = ["git", "-C", str(folder)]
    # An installed package may lie inside some other project's checkout (its .venv): not our commit.
    if output([*git, "ls-files", "--error-unmatch", str(folder / "records.py")]) is None:
        return None
    commit, changes = output([*git, "rev-parse", "HEAD"]), output([*git, "status", "--porcelain"])
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def output(command: Sequence[str]) -> str | None:
    """What a command prints; None if it cannot be run, fails or takes more than 20 seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
