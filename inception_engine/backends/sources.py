"""What a file holds: told by its first bytes where they say it, by its name otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_engine.compiler.plan import MAGIC as PLAN_MAGIC
from inception_engine.compiler.plan import Plan
from inception_engine.errors import BackendError
from inception_engine.exporters.tensorrt_file import MAGIC as TENSORRT_MAGIC
from inception_engine.network import Network

if TYPE_CHECKING:
    from inception_engine.onnx_model import OnnxModel


@dataclass(frozen=True)
class PlanFile:
    path: Path


@dataclass(frozen=True)
class OnnxFile:
    path: Path

    def read(self, keep_all: bool = False) -> OnnxModel:
        from inception_engine import packages

        packages.load("onnx")
        from inception_engine import onnx_model

        return onnx_model.read(self.path, keep_all)

    def network(self) -> Network:
        from inception_engine.importers import load_network

        return load_network(self.path)


@dataclass(frozen=True)
class TensorRtFile:
    path: Path


ReadSource = Network | PlanFile | OnnxFile | TensorRtFile
Source = ReadSource | Plan


def read(path: str | os.PathLike[str]) -> ReadSource:
    """A network or a checkpoint is imported, other files are left to the backend. Raises what ``load_network`` raises,
    and BackendError."""
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise BackendError(f"{path}: not a file")
    with path.open("rb") as file:
        begin = file.read(8)
    if begin == PLAN_MAGIC:
        return PlanFile(path)
    if begin == TENSORRT_MAGIC or path.suffix == ".engine":
        return TensorRtFile(path)
    if path.suffix == ".onnx":
        return OnnxFile(path)
    from inception_engine.importers import load_network

    return load_network(path)


def default_backend(source: object) -> str:
    """The backend that takes a source as it is. Raises BackendError for what is none."""
    for kinds, name in (
        ((Network, Plan, PlanFile), "engine"),
        ((OnnxFile,), "onnxruntime"),
        ((TensorRtFile,), "tensorrt"),
    ):
        if isinstance(source, kinds):
            return name
    raise BackendError(f"no backend takes {describe(source)}; give a path, a Network or a Plan")


def describe(source: Any) -> str:
    """In words, for messages."""
    match source:
        case Network():
            return f"the network {source.name}"
        case Plan():
            return "a plan"
        case PlanFile():
            return f"{source.path}, a plan"
        case OnnxFile():
            return f"{source.path}, an ONNX model"
        case TensorRtFile():
            return f"{source.path}, a TensorRT engine"
    return f"a {type(source).__name__}"
