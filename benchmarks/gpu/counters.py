"""Stage 9: the hardware's counters on the modules that are slowest beside cuDNN, by ncu, where it works."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.launches import KERNELS
from benchmarks.gpu.provenance import ROOT
from benchmarks.gpu.stage import Job

METRICS = {
    "gpu__time_duration.sum": "time",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "multiprocessors busy",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps resident",
    "lts__t_bytes.sum": "bytes at L2",
    "dram__bytes.sum": "bytes at DRAM",
}
SLOWEST = 2
BATCH = 32
DEFAULT = ("3b", "4e")


def run(job: Job) -> None:
    path = shutil.which("ncu")
    for module in slowest(job):
        if path is None:
            job.row(module, None, "ncu is not installed")
            continue
        # The clocks stay as they are.
        command = [path, "--clock-control", "none", "--csv", "--metrics", ",".join(METRICS)]
        command += ["--kernel-name", f"regex:^({'|'.join(KERNELS)})$", "--launch-count", "1"]
        command += [sys.executable, "-m", "benchmarks.gpu.small_modules", "--module", module]
        command += ["--batch", str(1 if job.rehearsal else BATCH)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=job.left() / 2, check=False
            )
        except subprocess.TimeoutExpired:
            job.row(module, None, "ncu did not end in time")
            continue
        found = metrics(done.stdout.splitlines())
        if found:
            job.row(module, batch=BATCH, **found)
        else:
            last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
            job.row(module, None, f"ncu gave no counters: {' '.join(last)}")


def slowest(job: Job) -> list[str]:
    rows = [
        row
        for row in job.earlier("modules")
        if row["ok"] and "cudnn_us" in row and row["batch"] == max(job.scale.module_batches)
    ]
    rows.sort(key=lambda row: -row["ratio"][0])
    return [row["module"] for row in rows[:SLOWEST]] or [name for name in DEFAULT if name in job.scale.modules] or [
        job.scale.modules[0]
    ]  # fmt: skip


def metrics(lines: Iterable[str]) -> dict[str, Any]:
    """Name -> value with its unit, from ncu's CSV, which stands among other lines."""
    table = csv.DictReader(line for line in lines if line.startswith('"'))
    return {
        METRICS[row["Metric Name"]]: f"{row['Metric Value']} {row['Metric Unit']}"
        for row in table
        if row.get("Metric Name") in METRICS
    }
