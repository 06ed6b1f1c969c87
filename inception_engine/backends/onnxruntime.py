"""ONNX Runtime, of a network that is exported in memory or of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inception_engine import packages
from inception_engine.backends.base import Backend, Face, network_face, refuse
from inception_engine.backends.onnx_providers import PROVIDERS
from inception_engine.backends.sources import OnnxFile, Source
from inception_engine.errors import BackendError
from inception_engine.network import Network

_SILENT = 4  # errors come as exceptions


class OnnxRuntimeBackend(Backend):
    name = "onnxruntime"

    def __init__(
        self,
        source: Source,
        keep_all: bool = False,
        *,
        providers: Sequence[str] = ("cpu",),
        threads: int = 0,
        batch: int | None = None,
        dtype: str | None = None,
    ) -> None:
        """``providers``: "cpu", "cuda", "tensorrt" or ONNX Runtime's own names, the preferred first; one that is not
        there is an error, and so is an operation that none of them can run. ``threads``: 0 takes its default.
        ``batch``: the only one that will be run, for which it then optimises. ``dtype``: of a network, "fp32" (default)
        or "fp16"."""
        super().__init__()
        ort = packages.load("onnxruntime")
        packages.load("onnx")
        content, dimension, face, self._names = _model(source, keep_all, dtype)
        options = ort.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if batch is not None:
            if not dimension:
                raise BackendError(
                    f"the model is made for batches of {face.batches[0]}, or its batch has no name"
                )
            options.add_free_dimension_override_by_name(dimension, batch)
            face = replace(face, batches=(batch, batch))
        self._session = _session(ort, content, options, providers)
        self._input = self._session.get_inputs()[0].name
        used = ", ".join(name.removesuffix("ExecutionProvider") for name in self._session.get_providers())
        self.face = replace(face, description=f"ONNX Runtime {ort.__version__}, {used}, {face.description}")

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        wanted = [self._names.get(name, name) for name in names]
        try:
            return dict(zip(names, self._session.run(wanted, {self._input: images}), strict=True))
        except Exception as error:  # its own types, which have Exception as their only base
            raise BackendError(f"ONNX Runtime: {error}") from None

    def close(self) -> None:
        super().close()
        self._session = None


def _model(
    source: Source, keep_all: bool, dtype: str | None
) -> tuple[bytes, str | None, Face, dict[str, str]]:
    """The model, the name of its batch if that is free, its face, and the model's names for outputs of other names."""
    if isinstance(source, Network):
        from inception_engine.exporters.onnx import to_onnx

        layers = [layer.name for layer in source.layers] if keep_all else []
        model = to_onnx(source, outputs=layers, dtype=dtype or "fp32")
        return (
            model.SerializeToString(),
            "batch",
            network_face(source, source.name, keep_all, dtype=dtype or "fp32"),
            {},
        )
    if not isinstance(source, OnnxFile):
        raise refuse("onnxruntime", "networks and ONNX models", source)
    if dtype is not None:
        raise BackendError("dtype is of a network; an ONNX model has its own precision")
    read = source.read(keep_all)
    from inception_engine.importers.onnx import metadata

    said = metadata.read(read.proto)
    fixed = isinstance(read.batch, int)
    face = Face(
        description=read.name,
        input_shape=read.input_shape,
        outputs=read.outputs,
        layers=read.layers,
        dtype=read.dtype,
        batches=(read.batch, read.batch) if isinstance(read.batch, int) else (1, None),
        preprocess=said.preprocess,
        labels=said.labels,
        random_weights=any((p.key, p.value) == ("weights", "random") for p in read.proto.metadata_props),
    )
    return read.content, None if fixed else str(read.batch), face, {}


def _session(ort: Any, content: bytes, options: Any, providers: Sequence[str]) -> Any:
    """A session on these providers and no other. Raises BackendError."""
    if isinstance(providers, str) or not providers:
        raise BackendError(f"providers takes a list of names, not {providers!r}")
    wanted = [PROVIDERS.get(name, (name, {})) for name in providers]
    available = ort.get_available_providers()
    for name, _ in wanted:
        if name not in available:
            raise BackendError(
                f"onnxruntime {ort.__version__} has no {name}, only {', '.join(available)}"
                + (": onnxruntime-gpu has those for NVIDIA" if "CPU" not in name else "")
            )
    names = [name for name, _ in wanted]
    if PROVIDERS["cpu"][0] not in names:  # else what the others cannot run would silently go there
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(content, options, providers=wanted, enable_fallback=0)
    except Exception as error:
        raise BackendError(f"ONNX Runtime: {error}") from None
    # A provider whose libraries cannot be loaded is left out without an error.
    found = session.get_providers()
    for name in names:
        if name not in found:
            raise BackendError(f"onnxruntime could not start its {name} (are CUDA and cuDNN installed?)")
    return session
