"""Other runtimes, same face: a network, a plan or a model on the engine, ONNX Runtime, TensorRT or torch.

    with ie.load("googlenet.safetensors", backend="onnxruntime", providers=["cuda"]) as backend:
        logits = backend.run(images)

One file for each: ``engine``, ``onnxruntime``, ``tensorrt``, ``torch`` and ``reference``, the float64 oracle. ``base``
is the face, ``sources`` what a file holds. A backend's packages are imported when it is loaded.
"""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from inception_engine.errors import BackendError

if TYPE_CHECKING:
    from inception_engine.backends.base import Backend
    from inception_engine.backends.sources import Source

BACKENDS = {
    "engine": "EngineBackend",
    "onnxruntime": "OnnxRuntimeBackend",
    "tensorrt": "TensorRtBackend",
    "torch": "TorchBackend",
    "reference": "ReferenceBackend",
}
OF_NETWORKS = ("engine", "torch", "reference")  # they import an ONNX model


def load(
    source: str | os.PathLike[str] | Source,
    backend: str | None = None,
    *,
    keep_all: bool = False,
    **options: Any,
) -> Backend:
    """Open a file, a Network, a Plan or an ONNX model on a backend.

    ``backend``: "engine" (networks and plans), "onnxruntime" (networks and .onnx), "tensorrt" (networks, .onnx and
    engines that `inception export tensorrt` wrote), "torch" and "reference" (networks); default: the first of these
    that takes the file as it is. Networks are whatever ``load_network`` reads, checkpoints and .onnx too.
    ``keep_all``: the output of every layer can be asked for. ``options``: the backend's
    own, such as ``device``, ``threads``, ``providers`` and ``dtype``; see its class.
    Raises BackendError for what does not fit, PackageError for a package that is missing, and what reading the file and
    the backend raise: OSError, NetworkError, CompileError, ExportError and EngineErrors.
    """
    from inception_engine.backends.sources import OnnxFile, default_backend, read

    if isinstance(source, str | os.PathLike):
        source = read(source)
    name = default_backend(source) if backend is None else backend
    if name in OF_NETWORKS and isinstance(source, OnnxFile):
        source = source.network()
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; there is {', '.join(BACKENDS)}")
    kind = getattr(import_module(f"{__name__}.{name}"), BACKENDS[name])
    taken = list(inspect.signature(kind).parameters)[2:]  # behind source and keep_all
    for option in options:
        if option not in taken:
            raise BackendError(
                f"backend {name} has no option {option!r}; it has {', '.join(taken) or 'none'}"
            )
    opened: Backend = kind(source, keep_all, **options)
    return opened
