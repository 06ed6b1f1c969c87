"""A checkpoint comes back as it was, or is refused; and whatever happens while one is written, the old ones stay."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest
import torch

from inception_engine.importers.formats import TRAINING_KEY
from inception_engine.train import checkpoint
from inception_engine.train.checkpoint import Checkpoint
from inception_engine.train.errors import CheckpointError


def made(step: int, **more: object) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model.a.weight": torch.randn(3, 2, 5, 5, generator=generator).to(memory_format=torch.channels_last),
        "model.count": torch.tensor(step),
        "momentum.a.weight": torch.randn(3, 2, 5, 5, generator=generator),
        "average": torch.tensor(7),
    }
    return Checkpoint(
        tensors=tensors, document={"step": step, "classes": ["ä", "b"], "loss": 0.1 + 0.2, **more}
    )


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    written = made(5)
    read = checkpoint.read(checkpoint.write(tmp_path, written, keep=2))
    assert read.document == written.document
    assert read.tensors.keys() == written.tensors.keys()
    for name, tensor in written.tensors.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)
    assert read.part("momentum").keys() == {"a.weight"}
    assert read.part("average") == {}


def test_the_same_training_gives_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    a, b = (checkpoint.write(tmp_path / name, made(5), keep=2) for name in "ab")
    assert filecmp.cmp(a, b, shallow=False)


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4_000_000_000):
        checkpoint.write(tmp_path, made(step), keep=2)
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoint-000000030.safetensors", "checkpoint-4000000000.safetensors",
    ]  # fmt: skip
    newest = checkpoint.newest(tmp_path)
    assert newest is not None and checkpoint.read(newest).document["step"] == 4_000_000_000


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    """In the header, in tensors and in the hash itself."""
    path = checkpoint.write(tmp_path, made(5), keep=2)
    content = path.read_bytes()
    for position in range(0, len(content), 13):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.read(path)
    for length in (0, 7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            checkpoint.read(path)
    path.write_bytes(content)
    checkpoint.read(path)


def test_a_damaged_one_is_passed_over_with_a_word(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, made(1), keep=3)
    checkpoint.write(tmp_path, made(2), keep=3)
    last = checkpoint.newest(tmp_path)
    assert last is not None
    last.write_bytes(last.read_bytes()[:-1])
    found, complaints = checkpoint.read_newest(tmp_path)
    assert found is not None and found.document["step"] == 1
    assert len(complaints) == 1 and last.name in complaints[0]
    found_at = tmp_path / "checkpoint-000000001.safetensors"
    found_at.write_bytes(b"")
    with pytest.raises(CheckpointError, match=last.name):
        checkpoint.read_newest(tmp_path)


@pytest.mark.parametrize("keep", [1, 2])
def test_after_damaged_ones_what_is_written_stays_and_they_go(keep: int, tmp_path: Path) -> None:
    """Those of steps 7 and 9 are damaged; the training went on from step 4 and saves at step 5."""
    for step in (4, 7, 9):
        checkpoint.write(tmp_path, made(step), keep=3)
    for step in (7, 9):
        (tmp_path / f"checkpoint-{step:09}.safetensors").write_bytes(b"")
    path = checkpoint.write(tmp_path, made(5), keep=keep)
    names = [f"checkpoint-{step:09}.safetensors" for step in (4, 5)]
    assert sorted(os.listdir(tmp_path)) == names[-keep:]
    assert checkpoint.read(path).document["step"] == 5


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert checkpoint.read_newest(tmp_path) == (None, [])
    (tmp_path / "checkpoint-final.safetensors").write_bytes(b"the user's")
    assert checkpoint.newest(tmp_path) is None


def test_other_safetensors_are_none(tmp_path: Path) -> None:
    from inception_engine import googlenet

    path = tmp_path / "net.safetensors"
    googlenet(width=0.1, input_size=32, classes=2).save(path)
    assert not checkpoint.is_checkpoint(path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.read(path)
    assert checkpoint.is_checkpoint(checkpoint.write(tmp_path, made(1), keep=1))


def test_a_full_disk_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full behind a few bytes of the new file."""
    old = checkpoint.write(tmp_path, made(1), keep=1)
    content = old.read_bytes()

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, chunk: bytes) -> None:
            self.file.write(chunk[:100])
            self.file.flush()
            raise OSError(28, "No space left on device")

    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *arguments: Full(fdopen(*arguments)))
    with pytest.raises(CheckpointError, match=rf"No space left on device; {old.name} is intact"):
        checkpoint.write(tmp_path, made(2), keep=1)
    assert os.listdir(tmp_path) == [old.name]
    assert old.read_bytes() == content


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = checkpoint.write(tmp_path, made(1), keep=1)
    (tmp_path / f".{kept.name}.a1b2c3").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("the user's")
    checkpoint.clear_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [kept.name, "notes.txt"]


@pytest.mark.parametrize("text", ['["hash"]', "[" * 100_000, "5"])
def test_a_description_that_is_no_document(text: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"model.a": torch.zeros(1)}, tmp_path / "file.safetensors", {TRAINING_KEY: text})
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        checkpoint.read(tmp_path / "file.safetensors")
