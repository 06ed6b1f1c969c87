"""The files that peers load, made once for all cases that need them: plan, ONNX model, network, images.

So a peer's load time begins with a file, as its user's does, and its process holds nothing that another peer needs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inception_engine.bench.cases import Case, Workload
from inception_engine.compiler.plan import Plan
from inception_engine.network import Network

KINDS = ("plan", "onnx", "network")


class Artefacts:
    """``folder``: where the files lie; it is the caller's to remove."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, kind: str, case: Case) -> Path:
        """Raises CompileError, ExportError and PackageError for what cannot be made, OSError."""
        workload = case.workload
        match kind:
            case "plan":
                return self.plan(workload, case.device)
            case "onnx":
                return self._onnx(workload)
            case "network":
                return self._network(workload)
        raise ValueError(f"unknown kind of model {kind!r}; there is {', '.join(KINDS)}")

    def plan(self, workload: Workload, device: str) -> Path:
        """A plan with one program, for exactly this batch."""
        path = self._path(f"{workload.variant}-{workload.batch}-{workload.dtype}-{device}.plan")
        if not path.exists():
            compiled(workload, device).save(path)
        return path

    def images(self, workload: Workload) -> Path:
        """The bytes of ``workload.images()``."""
        path = self._path(f"{workload.variant}-{workload.batch}-{workload.input}.images")
        if not path.exists():
            workload.images().tofile(path)
        return path

    def _onnx(self, workload: Workload) -> Path:
        """Any batch. A runtime that is asked for bfloat16 makes it from float32 by itself."""
        dtype = "fp16" if workload.dtype == "fp16" else "fp32"
        path = self._path(f"{workload.variant}-{dtype}.onnx")
        if not path.exists():
            from inception_engine import packages

            packages.load("onnx")
            from inception_engine.exporters.onnx import to_onnx

            to_onnx(workload.network, path, dtype=dtype)
        return path

    def _network(self, workload: Workload) -> Path:
        path = self._path(f"{workload.variant}.safetensors")
        if not path.exists():
            workload.network.save(path)
        return path

    def _path(self, name: str) -> Path:
        return self.folder / name


def compiled(workload: Workload, device: str) -> Plan:
    """Raises CompileError where the target has no kernels for the dtype."""
    from inception_engine.compiler import compile

    network: Network = workload.network
    return compile(network, targets=device, max_batch=workload.batch, dtype=workload.dtype)


def read_logits(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """float32 that a worker wrote. Raises ValueError when they do not fill the shape."""
    return np.fromfile(path, np.float32).reshape(shape)
