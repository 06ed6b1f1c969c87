"""Where a training writes: one at a time, over nothing that is not its own, and nothing before it begins."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from inception_engine import cli
from inception_engine.train import output
from inception_engine.train.distributed import World
from inception_engine.train.errors import ConfigError
from inception_engine.train.loop import train
from inception_engine.train.output import Output

ALONE = World(device=torch.device("cpu"))


def holding(folder: Path, end: Connection) -> None:
    """A process that trains there until it is told to end, with a process of its own that lives on."""
    held = Output(folder)
    held.find(resume=True)
    held.claim()
    child = os.fork()
    if child == 0:
        os.read(end.fileno(), 1)
        os._exit(0)
    end.send(child)
    end.recv()
    os._exit(0)


def test_one_training_at_a_time(configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is a line; when the first is gone, however it ended, another goes on, even if its workers live."""
    config = configured(epochs=1)
    file = tmp_path / "config.yaml"
    file.write_text(config.yaml())
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=holding, args=(Path(config.output), there))
    process.start()
    worker = here.recv()
    for resume in ((), ("--resume",)):
        assert cli.main(["train", "--config", str(file), *resume]) == 2
        message = f"another process trains in {config.output}: wait for its end, or give another --output"
        assert capsys.readouterr().err == f"inception: error: {message}\n"
    process.kill()
    process.join()
    os.kill(worker, 0)  # it is there
    assert cli.main(["train", "--config", str(file)]) == 0
    here.close()
    os.kill(worker, 9)


def test_two_that_begin_at_once_in_a_new_folder(tmp_path: Path) -> None:
    """Both find nothing; the one that claims it second is refused, or finds what the first one left."""
    slow = Output(tmp_path / "run")
    assert slow.find(resume=False) is None
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=holding, args=(tmp_path / "run", there))
    process.start()
    worker = here.recv()
    with pytest.raises(ConfigError, match="another process trains in"):
        slow.claim()
    process.kill()
    process.join()
    os.kill(worker, 9)
    (tmp_path / "run" / output.CHECKPOINTS / "checkpoint-000000001.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds a training"):
        slow.claim()
    slow.release()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "curves.png", "network.safetensors", ".lock"])
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_no_training_are_not_overwritten(name: str, resume: bool, configured) -> None:
    config = configured()
    folder = Path(config.output)
    folder.mkdir()
    (folder / name).write_text("mine")
    (folder / "notes.txt").write_text("in nobody's way")
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"{name}.* would be overwritten"):
            train(config, ALONE, resume=resume)
        assert sorted(os.listdir(folder)) == sorted([name, "notes.txt"])
    assert (folder / name).read_text() == "mine"


def test_what_a_training_left_before_its_first_checkpoint_is_its_own(configured) -> None:
    config = configured(epochs=1)
    begun = Output(Path(config.output))
    begun.find(resume=False)
    begun.claim()
    begun.release()
    for name in ("config.yaml", "metrics.csv"):
        (begun.folder / name).write_text("")
    assert train(config, ALONE).path.exists()


def test_a_network_whose_checkpoints_are_gone_stays(configured) -> None:
    config = configured(epochs=1)
    train(config, ALONE)
    folder = Path(config.output)
    before = (folder / output.NETWORK).read_bytes()
    for path in (folder / output.CHECKPOINTS).iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="no checkpoint to go on from"):
        train(config, ALONE, resume=True)
    assert (folder / output.NETWORK).read_bytes() == before


@pytest.mark.parametrize("mistake", [{"batch": 50}, {"resize": 1_000_000}, {"interpolations": ("sharp",)}])
def test_a_start_that_fails_leaves_nothing(mistake: dict[str, object], configured) -> None:
    config = configured(**mistake)
    with pytest.raises(Exception, match=r"batch of 50|after resizing|interpolations"):
        train(config, ALONE)
    assert not Path(config.output).exists()
