"""Stage 4: compute-sanitizer on two small modules and a small network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.gpu.provenance import ROOT
from benchmarks.gpu.stage import Job

# Not racecheck: it looks at shared memory, and takes many minutes for pipelined kernels.
TOOLS = ("memcheck", "initcheck", "synccheck")
PROGRAM = (sys.executable, "-m", "benchmarks.gpu.small_modules")


def run(job: Job) -> None:
    path = shutil.which("compute-sanitizer")
    for tool in TOOLS:
        if path is None:
            job.row(tool, None, "compute-sanitizer is not installed")
        else:
            ok, note = examine(path, tool, PROGRAM, job.left() / 2)
            job.row(tool, ok, note)


def examine(path: str, tool: str, program: Sequence[str], seconds: float) -> tuple[bool | None, str]:
    """Whether a tool found nothing, None if it does not work on this machine; and what it said last."""
    # Without torch's cache each tensor is an allocation, and what lies behind it is out of bounds.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            [path, "--tool", tool, *program],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"was ended after {seconds:.0f} s"
    return verdict(done.stdout + done.stderr, done.returncode)


def verdict(output: str, status: int) -> tuple[bool | None, str]:
    """From what compute-sanitizer printed, and its exit status, which is the program's."""
    if "Device not supported" in output:
        return None, "compute-sanitizer does not support this device"
    summary = re.search(r"ERROR SUMMARY: (\d+) error", output)
    if summary is None:
        last = [line for line in output.splitlines() if line.strip()][-1:]
        return False, f"no summary, exit status {status}: {' '.join(last)}"
    if int(summary[1]):
        first = next((line.lstrip("= ") for line in output.splitlines() if line.startswith("========= ")
                      and "COMPUTE-SANITIZER" not in line), "")  # fmt: skip
        return False, f"{summary[1]} errors: {first}"
    if status:
        last = [line for line in output.splitlines() if line.strip() and not line.startswith("=====")][-1:]
        return False, f"no errors, but the program ended with status {status}: {' '.join(last)}"
    return True, "0 errors"
