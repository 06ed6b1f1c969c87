"""What a command line names: `BACKEND:FILE`, and options that more than one backend has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inception_engine.backends import BACKENDS
from inception_engine.backends.sources import OnnxFile, Source
from inception_engine.errors import BackendError
from inception_engine.network import Network


def split(text: str) -> tuple[str | None, Path | None]:
    """The backend and the file that `backend:file`, `backend` or `file` name."""
    backend, colon, path = text.partition(":")
    if backend in BACKENDS:
        if colon and not path:
            raise BackendError(f"{text!r}: no file behind the colon")
        return backend, Path(path) if colon else None
    return None, Path(text)


def options(
    backend: str,
    source: Source,
    *,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    max_batch: int | None = None,
    emulate: bool = False,
) -> dict[str, Any]:
    """For ``load``: of what is given, what the backend has, by its own names. ``emulate`` is the engine's alone, and
    reaches the others to be refused."""
    of_network = isinstance(source, Network | OnnxFile)
    found: dict[str, Any] = {}
    if device is not None and backend in ("engine", "torch"):
        found["device"] = device
    elif device is not None and backend == "onnxruntime":
        found["providers"] = [device]
    if dtype is not None:
        found["dtype"] = dtype
    if threads is not None and backend in ("engine", "onnxruntime", "torch"):
        found["threads"] = threads
    if max_batch is not None and backend == "engine" and of_network:
        found["max_batch"] = max_batch
    elif max_batch is not None and backend == "tensorrt" and of_network:
        found["batches"] = (1, max_batch, max_batch)
    if emulate:
        found["emulate"] = True
    return found
