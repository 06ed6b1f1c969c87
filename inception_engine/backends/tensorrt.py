"""TensorRT: an engine from a file with its record, or one that is built now from a network or an ONNX model.

For comparisons, through Polygraphy's runner: it copies images to the GPU and results back in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inception_engine import packages
from inception_engine.backends.base import Backend, Face, refuse
from inception_engine.backends.sources import OnnxFile, Source, TensorRtFile
from inception_engine.errors import BackendError
from inception_engine.exporters import tensorrt_file
from inception_engine.exporters.tensorrt_file import Record
from inception_engine.network import Network


class TensorRtBackend(Backend):
    name = "tensorrt"

    def __init__(
        self,
        source: Source,
        keep_all: bool = False,
        *,
        dtype: str | None = None,
        batches: tuple[int, int, int] | None = None,
    ) -> None:
        """``dtype`` ("fp32" or "fp16") of a network; ``batches``: smallest, best and largest, of what is built now."""
        super().__init__()
        self._runner: Any = None
        if isinstance(source, TensorRtFile):
            if keep_all or dtype or batches:
                raise BackendError(
                    "keep_all, dtype and batches are of a network; an engine is what it was built to be"
                )
            record, engine = tensorrt_file.read(source.path)
            _check_machine(record, f"{source.path}: ")
        elif isinstance(source, Network | OnnxFile):
            record, engine = _build(source, keep_all, dtype, batches)
        else:
            raise refuse(self.name, "networks, ONNX models and TensorRT engines", source)
        self._record = record
        self.face = Face(
            description=f"TensorRT {record.machine.tensorrt}, {record.machine.gpu}, {record.dtype}, {record.network}",
            input_shape=record.input_shape,
            outputs=record.outputs,
            layers=record.layers,
            dtype=record.dtype,
            batches=(record.batches[0], record.batches[2]),
            preprocess=record.preprocess,
            labels=record.labels,
            random_weights=record.random_weights,
        )
        from polygraphy.backend.trt import TrtRunner

        self._runner = TrtRunner(lambda: deserialise(engine), name=self.name)
        self._quietly(self._runner.activate)

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        results = self._quietly(self._runner.infer, {self._record.input_name: images})
        return {name: results[name].copy() for name in names}  # the runner uses its buffers again

    def close(self) -> None:
        super().close()
        runner, self._runner = self._runner, None
        if runner is not None and runner.is_active:
            self._quietly(runner.deactivate)

    def _quietly(self, function: Any, *arguments: Any) -> Any:
        from inception_engine.exporters.tensorrt_check import polygraphy_errors

        with polygraphy_errors() as errors:
            try:
                return function(*arguments)
            except Exception as error:  # Polygraphy's, and whatever TensorRT's bindings raise
                raise BackendError(f"TensorRT: {[*errors, error][0]}") from None


def deserialise(engine: bytes) -> Any:
    """An ICudaEngine. The caller has compared the record, or built the engine itself.

    Not by Polygraphy's loader, which lets an engine bring host code with it; what is built here has none.
    """
    tensorrt = packages.load("tensorrt")
    from polygraphy.backend.trt import get_trt_logger

    loaded = tensorrt.Runtime(get_trt_logger()).deserialize_cuda_engine(engine)
    if loaded is None:
        raise BackendError(f"TensorRT {tensorrt.__version__} cannot load the engine")
    return loaded


def _check_machine(record: Record, where: str) -> None:
    refusal = record.machine.refusal(tensorrt_file.this_machine())
    if refusal is not None:
        raise BackendError(f"{where}{refusal}; build it again by `inception export tensorrt`")


def _build(
    source: Network | OnnxFile, keep_all: bool, dtype: str | None, batches: tuple[int, int, int] | None
) -> tuple[Record, bytes]:
    packages.load("tensorrt")  # before work is done that would be in vain
    packages.load("onnx")
    from inception_engine.exporters import tensorrt as exporter

    build = exporter.prepare(
        source if isinstance(source, Network) else source.read(keep_all),
        dtype=dtype or "fp32",
        batches=None if batches is None else exporter.Batches(*batches),
        keep_all=keep_all,
    )
    return exporter.record(build, tensorrt_file.this_machine()), exporter.engine_bytes(build)
