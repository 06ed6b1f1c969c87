"""A TensorRT engine with the record of what it was built by and for, in one file.

  0   8 bytes  "INCTRTE" and a line feed
  8   u32      version, 1
 12   u32      bytes of the record
 16   u64      bytes of the engine
 24   u64      xxh64 of record and engine
 32            the record: a JSON object, see ``Record``
               the engine, as TensorRT serialised it

Numbers are little-endian. One file and not a record beside the engine: it cannot be copied without its record nor have
another engine's, and both appear by one rename.

TensorRT says that to load an untrusted engine is to run untrusted native code, so nothing of an engine is handed to it
before the record is compared with this machine. That keeps out what was built elsewhere by accident. It is no proof of
who made a file: load engines of those alone whose programs you would run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from inception_engine import packages
from inception_engine.errors import BackendError
from inception_engine.exporters.nvidia import current_gpu
from inception_engine.files import write_atomically
from inception_engine.network import Preprocess, Shape

MAGIC = b"INCTRTE\n"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")
_LARGEST_RECORD = 1 << 24


@dataclass(frozen=True)
class Machine:
    """What an engine depends on: versions of TensorRT and the driver, the GPU's name and compute capability."""

    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str

    def refusal(self, here: Machine) -> str | None:
        """Why an engine that was built on this machine must not be loaded on ``here``, or None.

        Engines are bound to the version of TensorRT and to the model of GPU (its Developer Guide, on compatibility). A
        newer driver runs what an older one ran, not the reverse (CUDA Compatibility).
        """
        for what in ("tensorrt", "gpu", "compute_capability"):
            built, found = getattr(self, what), getattr(here, what)
            if built != found:
                return f"built with {_WORDS[what]} {built}, this machine has {found}"
        if _numbers(self.driver) > _numbers(here.driver):
            return f"built with driver {self.driver}, this machine has the older {here.driver}"
        return None


def this_machine() -> Machine:
    """Raises PackageError without TensorRT, BackendError without a GPU."""
    version = str(packages.load("tensorrt").__version__)
    packages.load("polygraphy")
    gpu = current_gpu()
    return Machine(version, gpu.name, gpu.compute_capability, gpu.driver)


_WORDS = {"tensorrt": "TensorRT", "gpu": "GPU", "compute_capability": "compute capability"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """``outputs``: (channels, height, width) by name, logits first. ``batches``: smallest, best and largest number of
    images. ``workspace``: limit in MiB, or None. ``network``, ``labels``, ``preprocess``, ``random_weights``: what is
    known of the network. ``onnx_sha256``: of the ONNX model. ``trtexec``: the command that does the same."""

    machine: Machine
    dtype: str
    input_name: str
    input_shape: Shape
    outputs: Mapping[str, Shape]
    batches: tuple[int, int, int]
    workspace: int | None
    onnx_sha256: str
    trtexec: str
    network: str = ""
    labels: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    random_weights: bool = False
    layers: tuple[str, ...] = ()


def write(path: str | os.PathLike[str], record: Record, engine: bytes) -> None:
    """Raises OSError."""
    text = json.dumps(dataclasses.asdict(record), ensure_ascii=False).encode()
    digest = xxhash.xxh64(text)
    digest.update(engine)
    header = _HEADER.pack(MAGIC, VERSION, len(text), len(engine), digest.intdigest())
    write_atomically(path, [header, text, engine])


def read(path: str | os.PathLike[str]) -> tuple[Record, bytes]:
    """The record and the engine, which is not looked into. Raises OSError, and BackendError for other files."""
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
        if header[: len(MAGIC)] != MAGIC:
            raise BackendError(
                f"{path}: holds no record of what it was built with; build engines by `inception export tensorrt`"
            )
        if len(header) < _HEADER.size:
            raise BackendError(f"{path}: shorter than it says")
        _, version, record_bytes, engine_bytes, digest = _HEADER.unpack(header)
        if version != VERSION:
            raise BackendError(f"{path}: version {version} of the format, this is {VERSION}")
        left = os.fstat(file.fileno()).st_size - _HEADER.size
        if record_bytes > _LARGEST_RECORD or record_bytes + engine_bytes != left:
            raise BackendError(f"{path}: shorter or longer than it says")
        text, engine = file.read(record_bytes), file.read(engine_bytes)
    found = xxhash.xxh64(text)
    found.update(engine)
    if found.intdigest() != digest:
        raise BackendError(f"{path}: changed since it was written")
    try:
        return _from_document(json.loads(text)), engine
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BackendError(f"{path}: its record is damaged: {error!r}") from None


def _from_document(document: dict[str, Any]) -> Record:
    fields = dict(document)
    fields["machine"] = Machine(**{name: str(value) for name, value in document["machine"].items()})
    fields["input_shape"] = _shape(document["input_shape"])
    fields["outputs"] = {str(name): _shape(shape) for name, shape in document["outputs"].items()}
    smallest, best, largest = map(int, document["batches"])
    fields["batches"] = smallest, best, largest
    for name in ("labels", "layers"):
        fields[name] = tuple(map(str, document[name]))
    if not fields["outputs"]:
        raise ValueError("no outputs")
    if document["preprocess"] is not None:
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in document["preprocess"].items()
        }
        fields["preprocess"] = Preprocess(**given)
        fields["preprocess"].constants(fields["input_shape"][0])
    return Record(**fields)


def _shape(values: Any) -> Shape:
    channels, height, width = map(int, values)
    return channels, height, width


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]
