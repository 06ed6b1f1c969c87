"""Stage 1: nothing is timed that is not right.

Single modules and the whole network, in every dtype, by every engine of ours, the arena full of NaN before each run,
against the float64 reference with the tests' tolerances; and the tests that need a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import needs_gpu, runners
from benchmarks.gpu.cases import ModuleCase, NetworkCase
from benchmarks.gpu.device import Device
from benchmarks.gpu.provenance import ROOT
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.stage import Job, first_line
from inception_engine.fused import FusedInception

Row = dict[str, Any]


def run(job: Job) -> None:
    """A process for each dtype: kernels are compiled by all of them at once."""
    if job.rehearsal:
        for dtype in job.scale.dtypes:
            write_rows(job, dtype)
    else:
        with ProcessPoolExecutor(len(job.scale.dtypes), get_context("spawn")) as pool:
            futures = [pool.submit(write_rows, job, dtype) for dtype in job.scale.dtypes]
            for future in as_completed(futures):
                future.result()
    if job.scale.kernel_tests:
        _kernel_tests(job)


def write_rows(job: Job, dtype: str) -> None:
    for row in rows(job.scale, dtype, job.device):
        job.row(**row)


def rows(scale: Scale, dtype: str, device: Device) -> Iterator[Row]:
    for batch in scale.parity_batches:
        network = NetworkCase(scale.variant, scale.spec, batch, dtype)
        for engine in (runners.engine, runners.specialised, runners.jit):
            name = f"{engine.__name__} {network.variant} {dtype} batch {batch}"
            try:
                with engine(network, device, poison=True) as prepared:
                    logits = prepared.call(network.images(device.torch_device))
                    prepared.check()
                    yield _judged(name, network.error(logits), network.bound)
            except runners.LeftOut as reason:
                yield {"name": name, "ok": None, "note": first_line(reason)}
            except Exception as error:
                yield {"name": name, "ok": False, "note": first_line(error)}
    for module in scale.modules:
        for batch in scale.module_batches:
            case = ModuleCase(module, scale.spec, batch, dtype)
            name = f"fused {module} {dtype} batch {batch}"
            try:
                with torch.no_grad():
                    x = case.x(device.torch_device)
                    fused = FusedInception(case.module).to(x.device, x.dtype)
                    y = fused(x)
                    fused.check()
                yield _judged(name, case.error(y), case.bound)
            except Exception as error:
                yield {"name": name, "ok": False, "note": first_line(error)}


def _judged(name: str, error: float, bound: float) -> Row:
    return {"name": name, "ok": error <= bound, "error": error, "bound": bound}


def _kernel_tests(job: Job) -> None:
    """Tests that are skipped without a GPU, in pytest: one row for each that failed, one for all."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "tests.xml")
        # The sources' folder, which pytest would put in front, lacks the kernels and the runtime.
        command = [sys.executable, "-m", "pytest", "-q", "-o", "pythonpath=", f"--junit-xml={report}"]
        command += ["-p", needs_gpu.__name__, *needs_gpu.files(ROOT / "tests")]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if not report.exists():
            job.row("tests that need a GPU", False, f"pytest ended with status {done.returncode}")
            return
        cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    for case in failed:
        job.row(f"{case.get('classname')}::{case.get('name')}", False)
    ok = bool(cases) and not failed and (job.rehearsal or not skipped) and done.returncode == 0
    job.row("tests that need a GPU", ok, tests=len(cases), failed=len(failed), skipped=len(skipped))
