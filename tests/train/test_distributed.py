"""Two processes of torchrun against one with the same global batch."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inception_engine import datasets
from inception_engine.errors import ArgumentError
from inception_engine.network import Conv, Linear, Network
from inception_engine.train import checkpoint, distributed, output
from inception_engine.train.config import Config
from inception_engine.train.distributed import World, joined
from inception_engine.train.errors import ConfigError
from inception_engine.train.logs import read as read_rows
from inception_engine.train.loop import train
from inception_engine.train.samples import order
from tests.tolerances import TRAINING, error
from tests.train.conftest import TINY, write_classes

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
    one, two = (Network.load(Path(config.output) / output.NETWORK) for config in runs[:2])
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
    last = checkpoint.newest(Path(config.output) / output.CHECKPOINTS)
    assert last is not None and checkpoint.read(last).document["step"] == step


# A training whose batch norm is synchronised between CPUs, as PyTorch's is between GPUs alone.
SYNCHRONISED = """
import sys
import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce
from inception_engine import cli
from inception_engine.train import distributed

class Synchronised(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        size = torch.distributed.get_world_size()
        mean = all_reduce(x.mean((0, 2, 3))) / size
        variance = all_reduce((x - mean[:, None, None]).square().mean((0, 2, 3))) / size
        count = x.numel() // len(mean) * size
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]

def convert(model):
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = Synchronised
    return model

distributed.norms = lambda model: []
nn.SyncBatchNorm.convert_sync_batchnorm = convert
sys.exit(cli.main(["train", "--config", sys.argv[1]]))
"""


def test_two_fine_tune_a_network_with_folded_batch_norm_as_one_does(images: Path, tmp_path: Path) -> None:
    """It is unfolded with the statistics of the whole batch, and before batch norm is synchronised."""
    keys = {**TINY, "data": str(images), "average": "none", "log_every": 1}
    alone = World(device=torch.device("cpu"))
    first = Config(**{**keys, "output": str(tmp_path / "first"), "epochs": 1})  # type: ignore[arg-type]
    train(first, alone)
    network = str(Path(first.output) / output.NETWORK)
    keys = {**keys, "start": network, "norm": None, "width": None, "input_size": None, "learning_rate": 0.005}
    one = Config(**{**keys, "output": str(tmp_path / "one")})  # type: ignore[arg-type]
    train(one, alone)
    two = dataclasses.replace(one, output=str(tmp_path / "two"))
    script = tmp_path / "synchronised.py"
    script.write_text(SYNCHRONISED)
    done = subprocess.run(
        [BIN / "torchrun", "--standalone", "--nproc-per-node=2", script, written(two, tmp_path / "two.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [read_rows(Path(config.output) / "metrics.csv") for config in (one, two)]
    losses = [[row.loss for row in of if row.part == "train"] for of in rows]
    assert len(losses[0]) == 6 and len(set(losses[0])) == 6
    for a, b in zip(*losses, strict=True):
        assert abs(a - b) <= TRAINING * abs(a)


def pair(file: Path) -> list[tuple[int, str]]:
    """Exit status and standard error of two processes, which nobody ends when one of them has ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [BIN / "inception", "train", "--config", file],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [(process.returncode, err) for process, err in zip(processes, errors, strict=True)]


@pytest.mark.parametrize("mistaken", [0, 1])
def test_a_mistake_of_one_is_a_line_of_each(mistaken: int, tmp_path: Path) -> None:
    """The first finds a training in its output; or the second, behind the first step, an image that is damaged."""
    data = write_classes(tmp_path / "images", {"cat": 12, "dog": 10, "fox": 9})
    given = {**TINY, **KEYS, "data": str(data), "output": str(tmp_path / "run")}
    config = Config(**given)  # type: ignore[arg-type]
    message = "holds a training: --resume goes on with it"
    if mistaken == 0:
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        (tmp_path / "run" / "checkpoints" / "checkpoint-000000003.safetensors").write_bytes(b"")
    else:
        dataset = datasets.parts(str(data))["train"]
        second = order(config.seed, 0, len(dataset))[config.batch :][1]
        message = dataset.name(int(second))
        Path(message).write_bytes(b"no image")
    found = pair(written(config, tmp_path / "config.yaml"))
    assert [status for status, _ in found] == [2, 2], found
    lines = [err.splitlines() for _, err in found]
    assert len(lines[mistaken]) == 1 and message in lines[mistaken][0]
    assert lines[1 - mistaken] == [
        "inception: error: another process of this training ended, and this one with it"
    ]


def test_processes_that_do_not_find_each_other(configured, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"do not find each other: .*RANK"), joined("cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'two' in the environment"), joined("cpu"):
        pass


def test_an_error_of_ones_own_keeps_its_traceback() -> None:
    lost = RuntimeError("[pair.cc:534] gloo: Connection closed by peer [127.0.0.1]:1")
    assert distributed._is_of_a_peer(lost)
    assert not distributed._is_of_a_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not distributed._is_of_a_peer(torch.OutOfMemoryError("NCCL has nothing to do with it"))


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
