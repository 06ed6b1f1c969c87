"""Two processes of torchrun against one with the same global batch."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inception_engine.errors import ArgumentError
from inception_engine.network import Conv, Linear, Network
from inception_engine.train import checkpoint, loop
from inception_engine.train.config import Config
from inception_engine.train.distributed import World, joined
from inception_engine.train.errors import ConfigError
from inception_engine.train.logs import read as read_rows
from inception_engine.train.loop import train
from tests.tolerances import TRAINING, error
from tests.train.conftest import TINY

BIN = Path(sys.executable).parent
# Of the paper's network: LRN. With everything whose randomness several processes could draw differently.
KEYS = {
    "variant": "lrn",
    "norm": None,
    "auxiliary": True,
    "epochs": 3,
    "average_from": 1,
    "clip": 1.0,
    "weight_decay": 1e-3,
}


def torchrun(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    processes: list[str | Path] = ["--standalone", "--nproc-per-node=2", "--no-python"]
    return subprocess.run(
        [BIN / "torchrun", *processes, BIN / "inception", "train", "--config", file, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def written(config: Config, path: Path) -> Path:
    path.write_text(config.yaml())
    return path


@pytest.fixture(scope="module")
def runs(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config, str]:
    """One process; two that go on from where one stopped after the first epoch, and what these printed."""
    folder = tmp_path_factory.mktemp("processes")
    config = Config(**{**TINY, **KEYS, "data": str(images), "output": str(folder / "one")})  # type: ignore[arg-type]
    train(config, World(device=torch.device("cpu")))
    both = dataclasses.replace(config, output=str(folder / "two"))
    train(dataclasses.replace(both, epochs=1), World(device=torch.device("cpu")))
    done = torchrun(written(both, folder / "two.yaml"), "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    return config, both, done.stdout


def test_the_same_losses(runs: tuple[Config, Config, str]) -> None:
    one, two = (read_rows(Path(config.output) / "metrics.csv") for config in runs[:2])
    assert [(row.part, row.step) for row in one] == [(row.part, row.step) for row in two]
    assert two[-1].step == 9
    for a, b in zip(one, two, strict=True):
        assert abs(a.loss - b.loss) <= TRAINING * abs(a.loss)
        assert (a.top1, a.top5) == (b.top1, b.top5)
    assert len({row.loss for row in one}) == len(one)


def test_the_same_weights(runs: tuple[Config, Config, str]) -> None:
    one, two = (Network.load(Path(config.output) / loop.NETWORK) for config in runs[:2])
    for a, b in zip(one.layers, two.layers, strict=True):
        if isinstance(a, Conv | Linear):
            assert isinstance(b, Conv | Linear)
            assert error(b.weight, a.weight) <= TRAINING


# A process that gets a signal of its own, "between steps" or at the first batch of validation.
SIGNALLED = """
import os, signal, sys
from inception_engine import cli
from inception_engine.train import checkpoint, loop
from inception_engine.train.logs import Progress

def signalled():
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)

def step(self):
    self.done = getattr(self, "done", 0) + 1
    if self.done == 2:
        signalled()

def validate(model, batches, *arguments):
    signalled()
    return before(model, batches, *arguments)

before = loop.validate
if sys.argv[1] == "steps":
    Progress.step = step
else:
    loop.validate = validate
status = cli.main(["train", "--config", sys.argv[2]])
os.write(1, f"status {status}\\n".encode())  # at once: two processes write
"""


@pytest.mark.parametrize(("where", "step"), [("steps", 2), ("validation", 3)])
def test_a_signal_to_one_of_them_stops_both_at_once(
    where: str, step: int, images: Path, tmp_path: Path
) -> None:
    """However seldom they write rows."""
    given = {**TINY, **KEYS, "log_every": 1000, "data": str(images), "output": str(tmp_path / "run")}
    config = Config(**given)  # type: ignore[arg-type]
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED)
    done = subprocess.run(
        [BIN / "torchrun", "--standalone", "--nproc-per-node=2", script, where,
         written(config, tmp_path / "config.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("status 143") == 2
    assert f"stopped by SIGTERM behind step {step}, which is saved" in done.stdout
    last = checkpoint.newest(Path(config.output) / loop.CHECKPOINTS)
    assert last is not None and checkpoint.read(last).document["step"] == step


def test_one_of_them_writes(runs: tuple[Config, Config, str]) -> None:
    out = runs[2]
    assert (
        out.count("epoch 2, weights") == out.count("epoch 3, average") == 1
        and out.count("network.safetensors: ") == 1
    )
    assert "held out" in out


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (2, ConfigError, "SyncBatchNorm does not run on CPUs; train the variant lrn or plain"),
        (3, ArgumentError, "8 images cannot be shared evenly by 3 processes"),
    ],
)
def test_what_several_processes_cannot_do(
    size: int, kind: type[Exception], message: str, configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(rank=1, size=size, device=torch.device("cpu"))
    monkeypatch.setattr(World, "from_first", lambda self, value: None)
    with pytest.raises(kind, match=message):
        train(configured(), world)


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cpu:x"])
def test_devices_that_do_not_exist(device: str) -> None:
    with pytest.raises(ConfigError, match="device is"), joined(device):
        pass


def test_alone() -> None:
    with joined("cpu") as world:
        assert world.first and world.sums([1.5, 2]) == [1.5, 2] and world.from_first("x") == "x"
    assert not torch.distributed.is_initialized()
