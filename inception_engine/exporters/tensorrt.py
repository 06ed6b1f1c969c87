"""ONNX -> TensorRT engine, over NVIDIA's Polygraphy: its loaders, its timing cache, its comparison with ONNX Runtime.

For TensorRT 10 and 11. Networks are strongly typed in both: precision is what the ONNX model says, weight by weight.
11 knows nothing else (its flags FP16 and INT8 and its calibrators are gone); in 10 it is a flag of the network. TF32 is
off: it would round float32 to 10 bits of mantissa.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inception_engine import onnx_model, packages
from inception_engine.exporters import tensorrt_file
from inception_engine.exporters.errors import ExportError
from inception_engine.exporters.tensorrt_file import Machine, Record
from inception_engine.files import write_atomically
from inception_engine.network import Network
from inception_engine.onnx_model import OnnxModel

DTYPES = ("fp32", "fp16")
LARGEST_BATCH = 4096
MIB = 1 << 20


@dataclass(frozen=True)
class Batches:
    """The optimisation profile: the smallest, the best and the largest number of images of a run."""

    smallest: int = 1
    best: int = 8
    largest: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest <= LARGEST_BATCH:
            raise ExportError(
                f"batches {self.smallest},{self.best},{self.largest}: give the smallest, the best and the largest, "
                f"from 1 to {LARGEST_BATCH}"
            )


@dataclass(frozen=True, kw_only=True)
class Build:
    """What is built and how. ``workspace``: MiB of GPU memory that a layer may use for scratch (default: all there is).
    ``timing_cache``: a file of measured kernels, used and added to. ``network``: what the model was exported from."""

    model: OnnxModel
    batches: Batches
    workspace: int | None = None
    timing_cache: Path | None = None
    network: Network | None = None

    def __post_init__(self) -> None:
        if self.workspace is not None and self.workspace < 1:
            raise ExportError(f"a workspace of {self.workspace} MiB: give 1 or more")
        fixed = self.model.batch
        if isinstance(fixed, int) and {self.batches.smallest, self.batches.largest} != {fixed}:
            raise ExportError(f"the model is made for batch {fixed}: give batches {fixed},{fixed},{fixed}")

    def shape(self, batch: int) -> tuple[int, ...]:
        return (batch, *self.model.input_shape)

    def trtexec(self, path: str | os.PathLike[str]) -> str:
        """The command of NVIDIA's trtexec that builds the same engine from the ONNX model beside ``path``, into
        ``path``.trt: it makes no record of the machine."""
        command = ["trtexec", f"--onnx={onnx_beside(path)}", f"--saveEngine={os.fspath(path)}.trt"]
        command += ["--stronglyTyped", "--noTF32", "--skipInference"]
        if not isinstance(self.model.batch, int):
            batches = self.batches
            for name, batch in (("min", batches.smallest), ("opt", batches.best), ("max", batches.largest)):
                shape = "x".join(map(str, self.shape(batch)))
                command.append(f"--{name}Shapes={self.model.input_name}:{shape}")
        if self.workspace is not None:
            command.append(f"--memPoolSize=workspace:{self.workspace}M")
        if self.timing_cache is not None:
            command.append(f"--timingCacheFile={self.timing_cache}")
        return shlex.join(command)


def prepare(
    source: Network | OnnxModel,
    *,
    dtype: str = "fp32",
    batches: Batches | None = None,
    workspace: int | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
    keep_all: bool = False,
) -> Build:
    """What ``build`` takes. ``dtype``: of a network's weights and activations, "fp32" or "fp16"; images and logits are
    float32. ``keep_all``: every layer of a network becomes an output. Raises ExportError."""
    if dtype not in DTYPES:
        raise ExportError(f"dtype {dtype!r}: there is {', '.join(DTYPES)}")
    network = source if isinstance(source, Network) else None
    if isinstance(source, OnnxModel):
        if dtype not in ("fp32", source.dtype):
            raise ExportError(
                f"the precision of an ONNX model is its own, {source.dtype}; dtype is of a network"
            )
        model = source
    else:
        from inception_engine.exporters.onnx import to_onnx

        layers = tuple(layer.name for layer in source.layers) if keep_all else ()
        model = onnx_model.describe(to_onnx(source, outputs=layers, dtype=dtype), source.name)
        model = replace(model, layers=layers)
    if batches is None:
        batches = Batches(*[model.batch] * 3) if isinstance(model.batch, int) else Batches()
    cache = None if timing_cache is None else Path(timing_cache)
    return Build(model=model, batches=batches, workspace=workspace, timing_cache=cache, network=network)


def to_tensorrt(build: Build, path: str | os.PathLike[str], check: bool = True) -> Record:
    """Build an engine on this machine's GPU and write it with its record; the ONNX model goes to ``path``.onnx.

    ``check``: run it beside ONNX Runtime at the smallest and the largest batch first, and write nothing if the logits
    differ. Raises PackageError where TensorRT, Polygraphy or ONNX Runtime are missing, BackendError where there is no
    GPU, ExportError where the build fails or the engine computes something else, OSError.
    """
    machine = tensorrt_file.this_machine()
    engine = engine_bytes(build)
    if check:
        from inception_engine.exporters.tensorrt_check import check_engine

        check_engine(build, engine)
    made = record(build, machine, path)
    write_atomically(onnx_beside(path), [build.model.content])
    tensorrt_file.write(path, made, engine)
    return made


def onnx_beside(path: str | os.PathLike[str]) -> str:
    """Where the ONNX model of an engine goes: what `trtexec` reads."""
    return f"{os.fspath(path)}.onnx"


def engine_bytes(build: Build) -> bytes:
    """The serialised engine. Raises PackageError and ExportError."""
    tensorrt = packages.load("tensorrt")
    packages.load("polygraphy")
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, NetworkFromOnnxBytes, Profile

    from inception_engine.exporters.tensorrt_check import polygraphy_errors

    batches = (build.batches.smallest, build.batches.best, build.batches.largest)
    profile = Profile().add(build.model.input_name, *(build.shape(batch) for batch in batches))
    limits = {tensorrt.MemoryPoolType.WORKSPACE: build.workspace * MIB} if build.workspace else None
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(polygraphy_errors())
        cache = None if build.timing_cache is None else stack.enter_context(_cache_file(build.timing_cache))
        config = CreateConfig(
            profiles=[profile],
            memory_pool_limits=limits,
            load_timing_cache=cache,
            profiling_verbosity=tensorrt.ProfilingVerbosity.LAYER_NAMES_ONLY,
        )
        network = NetworkFromOnnxBytes(build.model.content, strongly_typed=True)
        try:
            engine = bytes(EngineBytesFromNetwork(network, config=config, save_timing_cache=cache)())
        except Exception as error:  # Polygraphy's, and whatever TensorRT's bindings raise
            raise ExportError(
                f"TensorRT {tensorrt.__version__} built no engine: {[*errors, error][0]}"
            ) from None
        if cache is not None and build.timing_cache is not None and (size := cache.tell()):
            cache.seek(0)
            write_atomically(
                build.timing_cache, [cache.read(size)]
            )  # what the old content had more is behind it
    return engine


@contextlib.contextmanager
def _cache_file(path: Path) -> Iterator[Any]:
    """A temporary copy that Polygraphy writes to: the file itself is replaced whole, when the engine is there."""
    with tempfile.TemporaryFile() as file:
        if path.exists():
            file.write(path.read_bytes())
            file.seek(0)
        yield file


def record(build: Build, machine: Machine, path: str | os.PathLike[str] = "model.engine") -> Record:
    """What is written before an engine. ``path``: where it goes; trtexec, which makes no record, writes another."""
    network, model = build.network, build.model
    known: dict[str, Any] = {"network": model.name}
    if network is not None:
        known = {
            "network": network.name,
            "labels": network.labels,
            "preprocess": network.preprocess,
            "random_weights": network.metadata.get("weights") == "random",
        }
    return Record(
        machine=machine,
        dtype=model.dtype,
        input_name=model.input_name,
        input_shape=model.input_shape,
        outputs=model.outputs,
        batches=(build.batches.smallest, build.batches.best, build.batches.largest),
        workspace=build.workspace,
        onnx_sha256=hashlib.sha256(model.content).hexdigest(),
        trtexec=build.trtexec(path),
        layers=model.layers,
        **known,
    )
