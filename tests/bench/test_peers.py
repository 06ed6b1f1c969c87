"""What a peer's figures are of: the peer, and not what of this package opens it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import inception_engine as ie
from inception_engine.bench import runners
from inception_engine.bench.peers import PEERS
from inception_engine.bench.runners import Task
from inception_engine.spec import Spec

SPEC = Spec(norm="none", width=0.125, input_size=64, classes=5)
# Prints the modules of this package that opening a peer imports, as worker.py opens it.
OPEN = """
import importlib, json, sys
from inception_engine.bench.runners import Task
task = Task(**json.loads(sys.argv[1]))
module, _, function = task.opener.partition(":")
for name in (*task.packages, module, *task.helpers):
    importlib.import_module(name)
known = set(sys.modules)
getattr(sys.modules[module], function)(task)
print(json.dumps([name for name in sys.modules if name not in known and name.startswith("inception_engine")]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("onnx")
    from inception_engine.exporters.onnx import to_onnx

    folder = tmp_path_factory.mktemp("models")
    network = ie.googlenet(spec=SPEC)
    network.save(folder / "network.safetensors")
    to_onnx(network, folder / "model.onnx")
    ie.compile(network).save(folder / "network.plan")
    return {
        "network": folder / "network.safetensors",
        "onnx": folder / "model.onnx",
        "plan": folder / "network.plan",
    }


def task_of(name: str, models: dict[str, Path]) -> Task:
    peer = PEERS[name]
    return Task(
        opener=peer.opener, packages=list(peer.packages), helpers=list(peer.helpers), model=str(models[peer.model]),
        images="", logits="", shape=[3, 64, 64], input="float32", mean=[], std=[], batch=1, dtype="fp32", threads=1,
        streams=1, device="cpu", launch="",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name, peer in PEERS.items() if "cpu" in peer.dtypes and peer.opener]
)
def test_opening_a_peer_imports_nothing_of_ours(name: str, models: dict[str, Path]) -> None:
    peer = PEERS[name]
    for package in peer.packages:
        pytest.importorskip(package)
    command = [sys.executable, "-c", OPEN, json.dumps(asdict(task_of(name, models)))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_callers_of_openvino_are_not_pinned_to_one_core(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ov = pytest.importorskip("openvino")
    options: list[dict[str, Any]] = []
    original = ov.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, given: dict[str, Any]) -> Any:
        options.append(given)
        return original(self, model, device, given)

    monkeypatch.setattr(ov.Core, "compile_model", compile_model)
    for streams in (1, 2):
        runners.openvino(replace(task_of("openvino", models), streams=streams)).close()
    pinning = ov.properties.hint.enable_cpu_pinning()
    assert pinning not in options[0] and options[1][pinning] is False


def test_threads_that_openvino_does_not_take_are_no_figures_of_theirs(models: dict[str, Path]) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(RuntimeError, match=r"not supported: OpenVINO takes \d+ threads here, not 1024"):
        runners.openvino(replace(task_of("openvino", models), threads=1024))
