"""What it takes to have a network ready: load and proof of a plan, beside ONNX Runtime's session creation.

The plan is read and proven in one call. Batches 1, 8 and 64 show that the proof is linear: ``extra_info`` holds
tasks plus waits. Below that, what every command line pays first: imports, and ``--help``.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inception_engine as ie
from inception_engine.binding import check_plan


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_load_and_proof(benchmark: Any, batch: int) -> None:
    plan = ie.compile(ie.googlenet(seed=0), max_batch=batch)
    program = plan.programs[0]
    benchmark.extra_info["tasks_plus_waits"] = len(program.tasks) + len(program.waits)
    benchmark.group = "ready to run"
    data = plan.to_bytes()
    assert check_plan(data)[0] == 0
    benchmark(check_plan, data)


def test_engine_from_a_file(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "googlenet.plan"
    ie.compile(ie.googlenet(seed=0)).save(path)
    benchmark.group = "ready to run"
    benchmark(lambda: ie.Engine(path).close())


def test_onnxruntime_session(benchmark: Any) -> None:
    ort = pytest.importorskip("onnxruntime")
    from inception_engine.exporters.onnx import to_onnx

    model = to_onnx(ie.googlenet(seed=0)).SerializeToString()
    benchmark.group = "ready to run"
    benchmark(lambda: ort.InferenceSession(model, providers=["CPUExecutionProvider"]))


@pytest.mark.parametrize(
    "package", ["inception_engine", "inception_engine.engine", "onnxruntime", "openvino", "torch"]
)
def test_import(benchmark: Any, package: str) -> None:
    """A fresh interpreter each time; ``test_an_interpreter`` is what that takes by itself."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"not installed: {package}")
    benchmark.group = "import"
    benchmark(lambda: subprocess.run([sys.executable, "-c", f"import {package}"], check=True))


def test_an_interpreter(benchmark: Any) -> None:
    benchmark.group = "import"
    benchmark(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))


@pytest.mark.parametrize("command", ["inception", "inception-bench"])
def test_help(benchmark: Any, command: str) -> None:
    benchmark.group = "command line"
    benchmark(
        lambda: subprocess.run(
            [Path(sys.executable).parent / command, "--help"], check=True, stdout=subprocess.DEVNULL
        )
    )
