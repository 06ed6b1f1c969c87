"""A training in one file, from which it goes on bit for bit.

It is a safetensors file, no pickle:

1. Tensors: ``model.NAME`` (parameters and buffers), ``momentum.NAME`` (of SGD, as far as it has any), ``average.NAME``
   (the averaged model, as far as averaging has begun). Float32, but for counters.
2. Metadata: one entry, ``inception_engine.training``: JSON of the ``document`` and of ``hash``: XXH3-128 over the
   document's JSON with sorted keys, then name, dtype, shape and bytes of each tensor, by name.

It appears whole or not at all (``files.write_atomically``); the last few are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from inception_engine.files import write_atomically
from inception_engine.importers.formats import TRAINING_KEY as KEY
from inception_engine.train.errors import CheckpointError

_NAME = "checkpoint-{:09}.safetensors"
_PATTERN = re.compile(r"checkpoint-(\d{9,})\.safetensors")
_UNFINISHED = ".checkpoint-*"  # what a killed process left of a file that it was writing


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """``document``: what JSON can hold; this module asks only for its ``step``, the number of steps done."""

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors ``name.NAME`` by NAME."""
        before = f"{name}."
        return {key.removeprefix(before): t for key, t in self.tensors.items() if key.startswith(before)}


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a file of its step, and then remove all but the last ``keep`` up to it, and those of later steps: damaged
    ones that the training did not go on from. Raises CheckpointError; then all that were there still are."""
    path = folder / _NAME.format(checkpoint.document["step"])
    # Not as they lie in memory, channels last perhaps.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    document = {**checkpoint.document, "hash": _hash(tensors, checkpoint.document)}
    try:
        write_atomically(path, [save(arrays, {KEY: json.dumps(document, sort_keys=True)})])
    except OSError as error:
        last = newest(folder)
        kept = f"; {last.name} is intact" if last else ""
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}{kept}") from None
    there = _all(folder)
    own = there.index(path)
    for other in there[: max(own + 1 - keep, 0)] + there[own + 1 :]:
        other.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """What ``write`` wrote. Raises CheckpointError for any other file, and OSError."""
    with path.open("rb"):  # OSError with the path in it, which safetensors does not always give
        pass
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise CheckpointError(f"{path}: not a checkpoint of inception train")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document: dict[str, Any] = json.loads(text)
        expected = document.pop("hash")
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: truncated or damaged: {error}") from None
    if _hash(tensors, document) != expected:
        raise CheckpointError(f"{path}: changed since it was written")
    return Checkpoint(tensors=tensors, document=document)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one by its metadata. Raises OSError."""
    with path.open("rb"):
        pass
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def newest(folder: Path, before: int | None = None) -> Path | None:
    """The file of the last step, or of the last one below ``before``."""
    return next((path for path in reversed(_all(folder)) if before is None or _step(path) < before), None)


def read_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The last checkpoint that can be read, and a line about each newer one that cannot. None if there are none.

    Raises CheckpointError where there are some and all are damaged.
    """
    complaints: list[str] = []
    for path in reversed(_all(folder)):
        try:
            return read(path), complaints
        except (CheckpointError, OSError) as error:
            complaints.append(str(error))
    if complaints:
        raise CheckpointError(complaints[0])
    return None, []


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for path in folder.glob(_UNFINISHED):
        path.unlink(missing_ok=True)


def _step(path: Path) -> int:
    """Of a file by its name."""
    match = _PATTERN.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _all(folder: Path) -> list[Path]:
    """By step."""
    found = {path: _PATTERN.fullmatch(path.name) for path in folder.glob("checkpoint-*")}
    return sorted((path for path, match in found.items() if match), key=lambda p: (len(p.name), p.name))


def _hash(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    digest = xxhash.xxh3_128(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
