"""Packages that only some commands need: imported when used, and in one line how to get them where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from inception_engine.errors import PackageError

_EXTRAS = {
    "aiohttp": "serve",
    "matplotlib": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "polygraphy": "tensorrt",
    "prometheus_client": "serve",
    "ray": "ray",
    "ray.data": "ray",
    "sklearn": "train",
    "tensorboard": "train",
    "tensorrt": "tensorrt",
    "torch": "torch",
    "yaml": "train",
}
_NOTES = {"tensorrt": " (comes from NVIDIA and is of use with one of its GPUs only)"}


def load(name: str) -> ModuleType:
    """Import a package. Raises PackageError: how to get it, or why the one that is there cannot be imported."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise PackageError(f"{name} cannot be imported: {error}") from None
        extra, note = _EXTRAS[name], _NOTES.get(name, "")
        raise PackageError(
            f"{name} is not installed: pip install 'inception-engine[{extra}]'{note}"
        ) from None
    # A shared library that it needs is missing, or what the environment sets for it is wrong, as MPLBACKEND.
    except (ImportError, OSError, ValueError) as error:
        raise PackageError(f"{name} cannot be imported: {' '.join(str(error).split())}") from None
