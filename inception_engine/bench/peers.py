"""Who is run: our engine and the engines that people would use instead, one row each in ``PEERS``.

All get the same contract: a float32 NCHW array in host memory in, a float32 array of logits out. What a peer does to
have its own layout or precision is part of its time. What it can prepare once (folding, packing, graph
optimisation, a fixed batch) it does before, in ``prepare``. They are the backends of `ie.load`, with options.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from inception_engine.bench.cases import Case

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Peer:
    """``prepare(case, threads)`` yields the call to time, and cleans up. ``packages`` must be installed for it."""

    name: str
    packages: tuple[str, ...]
    prepare: Callable[[Case, int], AbstractContextManager[Run]]
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("fp32",)

    def obstacle(self, device: str, dtype: str) -> str | None:
        """Why this peer cannot be run at all, or None."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if device not in self.devices:
            return f"not supported: {device}"
        if dtype not in self.dtypes:
            return f"not supported: {dtype} on {device}"
        return None


@contextlib.contextmanager
def _backend(name: str, case: Case, **options: Any) -> Iterator[Run]:
    import inception_engine as ie

    with ie.load(case.network, name, **options) as backend:
        yield backend.run


def _engine(case: Case, threads: int) -> AbstractContextManager[Run]:
    return _backend("engine", case, device="cpu", threads=threads, max_batch=case.batch, dtype=case.dtype)


def _torch(case: Case, threads: int) -> AbstractContextManager[Run]:
    return _backend("torch", case, threads=threads)


def _torch_channels_last(case: Case, threads: int) -> AbstractContextManager[Run]:
    return _backend("torch", case, threads=threads, channels_last=True)


def _onnxruntime(case: Case, threads: int) -> AbstractContextManager[Run]:
    return _backend("onnxruntime", case, threads=threads, batch=case.batch, providers=("cpu",))


ENGINE = "engine"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(ENGINE, ("inception_engine",), _engine),
        Peer("torch", ("torch",), _torch),
        Peer("torch-channels-last", ("torch",), _torch_channels_last),
        Peer("onnxruntime", ("onnxruntime", "onnx"), _onnxruntime),
    )
}
