"""How inception-bench calls engines on a GPU."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine.bench import runners_cuda
from inception_engine.bench.cases import Workload
from inception_engine.bench.peers import LAUNCHES
from inception_engine.bench.runners import Runner, Task

torch = pytest.importorskip("torch")

TASK = Task(
    opener="",
    packages=[],
    helpers=[],
    model="",
    images="",
    logits="",
    shape=[3, 224, 224],
    input="float32",
    mean=[0.0],
    std=[1.0],
    batch=2,
    dtype="fp16",
    threads=1,
    streams=1,
    device="cuda",
    launch="",
)


class _Engine:
    specialised = 1

    def __init__(self, model: str, device: str, specialise: bool | None = None) -> None:
        self.model = model

    def run(self, images: Any) -> Any:
        return images

    def close(self) -> None:
        pass


@pytest.mark.parametrize("launch", ["walk", "module", "stream", "graph"])
def test_the_runner_keeps_its_engine(monkeypatch: pytest.MonkeyPatch, launch: str) -> None:
    """A graph replays memory and kernels of the engine that it was captured from."""
    monkeypatch.setattr(ie, "Engine", _Engine)
    monkeypatch.setattr(runners_cuda, "_graph", lambda run, task: Runner(lambda images: images))
    monkeypatch.setattr(runners_cuda, "on_device", Runner)
    made = runners_cuda.engine(dataclasses.replace(TASK, model="a plan", launch=launch))
    assert made.close.__self__.model == "a plan"  # type: ignore[attr-defined]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="backend cuda: there is no CUDA device")
@pytest.mark.parametrize("launch", [launch for launch in LAUNCHES if launch != "module"])
def test_launches(tmp_path: Path, launch: str) -> None:
    """``module`` has no kernel for two images."""
    workload = Workload("plain", 2, "fp16")
    path = tmp_path / "network.plan"
    ie.compile(workload.network, targets=("cuda",), dtype="fp16", max_batch=2).save(path)
    images = workload.images()
    task = dataclasses.replace(TASK, model=str(path), shape=[*images.shape[1:]], launch=launch)
    runner = runners_cuda.engine(task)
    gc.collect()
    for given in (images, np.ascontiguousarray(images[::-1])):  # a graph computes, and does not repeat
        value: Any = given if runner.upload is None else runner.upload(given)
        logits = runner.compute(value)
        logits = logits if runner.download is None else runner.download(logits)
        expected = workload.expected()[:: 1 if given is images else -1]
        assert np.abs(logits - expected).max() <= 0.02 * np.abs(expected).max()
    runner.close()
