"""The C API of runtime/include/inception_engine.h for ctypes, under the same names; ``check_plan``; and where header
and library lie for programs in C: ``get_include`` and ``get_library``.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_double, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from inception_engine.errors import LibraryError

ABI_VERSION = 1
MESSAGE_BYTES = 512
LIBRARY = "libinception_engine.so"
HEADER = "inception_engine.h"
LIBRARY_VARIABLE = "INCEPTION_ENGINE_LIBRARY"  # a path in the environment that goes before the package's own

FLOAT32_NCHW = 1
UINT8_NHWC = 2
DEVICES = ("auto", "cpu", "cuda")  # the position is the number, as in ie_device
ISAS = ("auto", "portable", "avx2", "avx512", "amx", "avx512_bf16")  # as in ie_isa
_ISAS_IN_ORDER = ("portable", "avx2", "avx512", "avx512_bf16", "amx")
SPECIALISE = ("auto", "never", "always")  # as in ie_specialise
ORDERS = ("RGB", "BGR")  # as in ie_order
LOG_LEVELS = ("", "error", "warning", "info")  # as in ie_log_level

LogFunction = CFUNCTYPE(None, c_void_p, c_uint32, c_char_p)
AllocateFunction = CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
ReleaseFunction = CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)


class _Sized(ctypes.Structure):
    """Begins with its own size, which it fills in."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **values)


class EngineOptions(_Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("device", c_uint32),
        ("emulate", c_uint32),
        ("ordinal", c_uint32),
        ("kernels", c_char_p),
        ("specialise", c_uint32),
        ("reserved", c_uint32),
        ("log", LogFunction),
        ("log_user", c_void_p),
        ("allocate", AllocateFunction),
        ("release", ReleaseFunction),
        ("allocate_user", c_void_p),
    )


class ContextOptions(_Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("threads", c_uint32),
        ("isa", c_uint32),
        ("poison", c_uint32),
        ("timeout_ms", c_uint32),
    )


class EngineInfo(_Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("device", c_uint32),
        ("max_batch", c_uint32),
        ("channels", c_uint32),
        ("height", c_uint32),
        ("width", c_uint32),
        ("outputs", c_uint32),
        ("programs", c_uint32),
        ("arena_bytes", c_uint64),
        ("weight_bytes", c_uint64),
        ("specialised", c_uint32),
        ("classes", c_uint32),
        ("labels", c_uint32),
        ("random_weights", c_uint32),
        ("name", c_char_p),
    )


class PreprocessInfo(_Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("resize", c_uint32),
        ("order", c_uint32),
        ("channels", c_uint32),
        ("mean", POINTER(c_double)),
        ("std", POINTER(c_double)),
    )


class Picture(_Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("channels", c_uint32),
        ("orientation", c_uint32),
        ("data", c_void_p),
        ("stride", c_size_t),
    )


class OutputInfo(_Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("channels", c_uint32),
        ("height", c_uint32),
        ("width", c_uint32),
        ("name", c_char_p),
    )


class Input(_Sized):
    _fields_ = (("struct_size", c_uint32), ("format", c_uint32), ("batch", c_uint32), ("data", c_void_p))


class Output(_Sized):
    _fields_ = (("struct_size", c_uint32), ("index", c_uint32), ("data", c_void_p))


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ie_version": (c_char_p, []),
    "ie_abi_version": (c_uint32, []),
    "ie_status_name": (c_char_p, [c_int]),
    "ie_cpu_isa": (c_uint32, []),
    "ie_engine_load": (c_int, [c_char_p, POINTER(EngineOptions), POINTER(c_void_p), c_char_p]),
    "ie_engine_load_memory": (
        c_int,
        [c_char_p, c_size_t, POINTER(EngineOptions), POINTER(c_void_p), c_char_p],
    ),
    "ie_plan_check": (c_int, [c_char_p, c_size_t, c_char_p]),
    "ie_engine_free": (None, [c_void_p]),
    "ie_engine_note": (c_char_p, [c_void_p]),
    "ie_engine_describe": (c_int, [c_void_p, POINTER(EngineInfo)]),
    "ie_engine_output": (c_int, [c_void_p, c_uint32, POINTER(OutputInfo)]),
    "ie_engine_preprocess": (c_int, [c_void_p, POINTER(PreprocessInfo)]),
    "ie_engine_label": (c_char_p, [c_void_p, c_uint32]),
    "ie_engine_metadata": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "ie_preprocess": (c_int, [c_void_p, POINTER(Picture), c_void_p, c_char_p]),
    "ie_context_create": (c_int, [c_void_p, POINTER(ContextOptions), POINTER(c_void_p), c_char_p]),
    "ie_context_free": (None, [c_void_p]),
    "ie_run": (c_int, [c_void_p, POINTER(Input), POINTER(Output), c_uint32]),
    "ie_enqueue": (c_int, [c_void_p, POINTER(Input), POINTER(Output), c_uint32, c_void_p]),
    "ie_context_check": (c_int, [c_void_p]),
    "ie_context_trace": (c_int, [c_void_p, c_void_p, c_size_t]),
    "ie_context_message": (c_char_p, [c_void_p]),
}


def library_path() -> Path:
    """Where the C library lies. Raises LibraryError if nowhere."""
    override = os.environ.get(LIBRARY_VARIABLE)
    return _first_file([Path(override)] if override else _installed("lib", LIBRARY), "the C library")


def get_library() -> str:
    """The path of the C library, libinception_engine.so, to link programs with. Raises LibraryError if nowhere."""
    return str(library_path())


def get_include() -> str:
    """The folder of inception_engine.h, for a compiler's ``-I``. Raises LibraryError if nowhere."""
    return str(_first_file(_installed("include", HEADER), "the C header").parent)


def _installed(folder: str, name: str) -> list[Path]:
    """An editable install has two folders: the sources, and the one where the build put the library."""
    import inception_engine

    return [Path(place) / folder / name for place in inception_engine.__path__]


def _first_file(candidates: list[Path], what: str) -> Path:
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = ", ".join(str(candidate) for candidate in candidates)
    raise LibraryError(f"{what} is missing (looked at {places}); install the package to build it")


@cache
def library() -> ctypes.CDLL:
    """The C library, loaded once, with its functions declared. Raises LibraryError."""
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path}: cannot be used: {error}") from None
    if loaded.ie_abi_version() != ABI_VERSION:
        raise LibraryError(
            f"{path}: has ABI version {loaded.ie_abi_version()}, this package needs {ABI_VERSION}"
        )
    return loaded


def machine_isas() -> tuple[str, ...]:
    """The instruction sets that this machine has, the best one last. Raises LibraryError."""
    best = ISAS[library().ie_cpu_isa()]
    return _ISAS_IN_ORDER[: _ISAS_IN_ORDER.index(best) + 1]


def message_buffer() -> ctypes.Array[ctypes.c_char]:
    """Room for the line of text that a function of the library leaves on failure."""
    return ctypes.create_string_buffer(MESSAGE_BYTES)


def text(message: bytes) -> str:
    """A line of the library as a string."""
    return message.decode("utf-8", "replace")


def check_plan(data: bytes) -> tuple[int, str]:
    """Let the loader prove every program of a plan file's content. Returns ``ie_status`` and message."""
    message = message_buffer()
    status: int = library().ie_plan_check(data, len(data), message)
    return status, text(message.value)
