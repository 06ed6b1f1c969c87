"""Who is run: our engine and the engines that people would use instead, one row each in ``PEERS``.

All get the same contract: a float32 NCHW array in host memory in, a float32 array of logits out. What a peer does to
have its own layout or precision is part of its time. What it can prepare once (folding, packing, graph
optimisation, a fixed batch) it does before, in ``prepare``.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

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
def _engine(case: Case, threads: int) -> Iterator[Run]:
    import inception_engine as ie

    plan = ie.compile(case.network, batches=(case.batch,), dtype=case.dtype)
    with ie.Engine(plan, device="cpu", threads=threads) as engine:
        yield engine.run


@contextlib.contextmanager
def _torch(case: Case, threads: int, *, channels_last: bool = False) -> Iterator[Run]:
    import torch

    from inception_engine.model import GoogLeNet

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = GoogLeNet(case.spec)
    model.load_network(case.network)
    model.eval().to(memory_format=layout)  # type: ignore[call-overload]

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = model(torch.from_numpy(images).to(memory_format=layout)).numpy()
            return logits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield run
    finally:
        torch.set_num_threads(before)


def _torch_channels_last(case: Case, threads: int) -> AbstractContextManager[Run]:
    return _torch(case, threads, channels_last=True)


@contextlib.contextmanager
def _onnxruntime(case: Case, threads: int) -> Iterator[Run]:
    import onnxruntime

    from inception_engine.exporters.onnx import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("batch", case.batch)
    model = to_onnx(case.network).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(["logits"], {"input": images})[0]
        return logits

    yield run


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
