"""The GPU that a TensorRT engine is built for, as the driver tells it: no CUDA package is needed to ask."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from inception_engine.errors import BackendError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, cuda.h
_TEXT_BYTES = (
    96  # more than NVML_DEVICE_NAME_V2_BUFFER_SIZE less 0 and NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
)


@dataclass(frozen=True)
class Gpu:
    """``name``: of the model. ``compute_capability``: such as "9.0". ``driver``: its version, such as "570.86.15"."""

    name: str
    compute_capability: str
    driver: str


def current_gpu() -> Gpu:
    """The first GPU that this process may use, which CUDA programs take by default. Raises BackendError."""
    cuda = _library("libcuda.so.1")
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_TEXT_BYTES)
    _check(cuda.cuInit(0), "cuInit")
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _check(cuda.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", _driver())


def _driver() -> str:
    """The driver's version. One driver serves all GPUs, so NVML's other order of GPUs does not matter."""
    nvml = _library("libnvidia-ml.so.1")
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    _check(nvml.nvmlInit_v2(), "nvmlInit")
    try:
        _check(nvml.nvmlSystemGetDriverVersion(text, len(text)), "nvmlSystemGetDriverVersion")
    finally:
        nvml.nvmlShutdown()
    return text.value.decode(errors="replace")


def _library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise BackendError(f"there is no NVIDIA driver on this machine ({name} cannot be loaded)") from None


def _check(status: int, function: str) -> None:
    if status:
        raise BackendError(f"the NVIDIA driver refused a call: {function} gave {status}")
