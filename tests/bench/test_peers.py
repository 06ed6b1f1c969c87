"""What a peer's figures are of: the peer, and not what of this package opens it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import inception_engine as ie
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


@pytest.mark.parametrize(
    "name", [name for name, peer in PEERS.items() if "cpu" in peer.dtypes and peer.opener]
)
def test_opening_a_peer_imports_nothing_of_ours(name: str, models: dict[str, Path]) -> None:
    peer = PEERS[name]
    for package in peer.packages:
        pytest.importorskip(package)
    task = Task(
        opener=peer.opener, packages=list(peer.packages), helpers=list(peer.helpers), model=str(models[peer.model]),
        images="", logits="", shape=[3, 64, 64], input="float32", mean=[], std=[], batch=1, dtype="fp32", threads=1,
        streams=1, device="cpu", launch="",
    )  # fmt: skip
    command = [sys.executable, "-c", OPEN, json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
