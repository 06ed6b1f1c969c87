"""The driver's double and the C API on it, from one process; and the log that the double keeps."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from inception_engine import binding

LOG = "IE_DOUBLE_LOG"
CUDA = binding.DEVICES.index("cuda")
AUTO = binding.DEVICES.index("auto")


class Driver:
    """The double as tests see it. Needs LD_LIBRARY_PATH set to its folder when the process began."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        for name, result, arguments in (
            ("double_script", None, [c_char_p]),
            ("double_calls", c_uint64, []),
            ("double_violations", c_uint64, []),
            ("double_read", c_int, [c_uint64, c_void_p, c_size_t]),
            ("double_write", c_int, [c_uint64, c_void_p, c_size_t]),
            ("double_leaks", None, [c_char_p, c_size_t]),
            ("double_current", c_uint64, []),
            ("double_depth", c_uint64, []),
            ("double_reset", None, []),
        ):
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self._seen = 0

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        assert status == 0, f"{name}: {status}"

    def script(self, failures: str = "") -> None:
        self.library.double_script(failures.encode())

    def calls(self) -> int:
        """Since the script was set."""
        count: int = self.library.double_calls()
        return count

    def violations(self) -> int:
        count: int = self.library.double_violations()
        return count

    def leaks(self) -> dict[str, int]:
        text = ctypes.create_string_buffer(4096)
        self.library.double_leaks(text, len(text))
        counts: dict[str, int] = json.loads(text.value)
        return counts

    def read(self, address: int, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        array = np.empty(shape, dtype)
        assert self.library.double_read(address, array.ctypes.data, array.nbytes) == 0
        return array

    def write(self, address: int, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        assert self.library.double_write(address, array.ctypes.data, array.nbytes) == 0

    @contextmanager
    def own_context(self, device: int = 0) -> Iterator[int]:
        """The primary context, retained and current, as in a program that uses CUDA itself. Yields its handle."""
        context = c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", byref(context), device)
        self.call("cuCtxPushCurrent_v2", context)
        yield context.value or 0
        self.call("cuCtxPopCurrent_v2", byref(c_void_p()))
        self.call("cuDevicePrimaryCtxRelease_v2", device)

    def allocate(self, size: int) -> int:
        address = c_uint64()
        self.call("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address.value

    def upload(self, array: np.ndarray) -> int:
        address = self.allocate(array.nbytes)
        self.write(address, array)
        return address

    def free(self, address: int) -> None:
        self.call("cuMemFree_v2", c_uint64(address))

    def stream(self, flags: int = 1) -> c_void_p:
        """1: not blocking, 0: ordered with the default stream."""
        stream = c_void_p()
        self.call("cuStreamCreate", byref(stream), c_uint(flags))
        return stream

    def lines(self, kind: str = "", name: str = "") -> list[dict[str, Any]]:
        """What the log holds since the last time, or of that only lines of a kind, or for a function."""
        with open(os.environ[LOG]) as log:
            log.seek(self._seen)
            text = log.read()
            self._seen = log.tell()
        lines = [json.loads(line) for line in text.splitlines()]
        return (
            [line for line in lines if kind in line and (not name or line[kind] == name)] if kind else lines
        )


class Failure(Exception):
    """``status``: an ie_status. The message is one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{binding.text(binding.library().ie_status_name(status))}: {message}")
        self.status, self.message = status, message
        self.name = binding.text(binding.library().ie_status_name(status))
        assert message and "\n" not in message and len(message) < binding.MESSAGE_BYTES - 1, message


def _check(status: int, message: bytes) -> None:
    if status:
        raise Failure(status, binding.text(message))
    assert message == b"", message


class Context:
    """An ie_context."""

    def __init__(self, engine: LoadedEngine, poison: bool = False) -> None:
        self.library, self.engine, self.handle = engine.library, engine, c_void_p()
        message = binding.message_buffer()
        options = binding.ContextOptions(poison=int(poison))
        _check(
            self.library.ie_context_create(engine.handle, options, byref(self.handle), message), message.value
        )

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self.library, function)(self.handle, *arguments)
        _check(status, self.library.ie_context_message(self.handle) if status else b"")

    def run(self, images: np.ndarray, outputs: Sequence[int] = (0,)) -> list[np.ndarray]:
        """From host memory to host memory, which holds NaN before."""
        images = np.ascontiguousarray(images)
        results = [np.full(self.engine.shape(i, len(images)), np.nan, np.float32) for i in outputs]
        self.run_at(images, images.ctypes.data, [result.ctypes.data for result in results], outputs)
        return results

    def run_at(
        self, like: np.ndarray, image: int, results: Sequence[int], outputs: Sequence[int] = (0,)
    ) -> None:
        """ie_run with given addresses."""
        self._call("ie_run", *_arguments(like, image, results, outputs))

    def enqueue(
        self,
        like: np.ndarray,
        image: int,
        results: Sequence[int],
        outputs: Sequence[int] = (0,),
        stream: Any = None,
    ) -> None:
        self._call("ie_enqueue", *_arguments(like, image, results, outputs), stream)

    def check(self) -> None:
        self._call("ie_context_check")

    def free(self) -> None:
        self.library.ie_context_free(self.handle)


def _arguments(
    like: np.ndarray, image: int, results: Sequence[int], outputs: Sequence[int]
) -> tuple[binding.Input, Any, int]:
    kind = binding.UINT8_NHWC if like.dtype == np.uint8 else binding.FLOAT32_NCHW
    given = binding.Input(format=kind, batch=len(like), data=image)
    wanted = (binding.Output * max(len(outputs), 1))(
        *(binding.Output(index=i, data=data) for i, data in zip(outputs, results, strict=True))
    )
    return given, wanted, len(outputs)


class LoadedEngine:
    """An ie_engine of a plan file's content."""

    def __init__(
        self, plan: bytes, kernels: Path | None = None, device: int = CUDA, ordinal: int = 0, **options: int
    ) -> None:
        self.library, self.handle = binding.library(), c_void_p()
        message = binding.message_buffer()
        path = None if kernels is None else os.fsencode(kernels)
        given = binding.EngineOptions(device=device, ordinal=ordinal, kernels=path, **options)
        _check(
            self.library.ie_engine_load_memory(plan, len(plan), given, byref(self.handle), message),
            message.value,
        )
        info = binding.EngineInfo()
        assert self.library.ie_engine_describe(self.handle, info) == 0
        self.device, self.outputs = binding.DEVICES[info.device], info.outputs
        self.specialised: int = info.specialised
        self.note = binding.text(self.library.ie_engine_note(self.handle))
        self._shapes = []  # contexts outlive their engine
        for index in range(info.outputs):
            output = binding.OutputInfo()
            assert self.library.ie_engine_output(self.handle, index, output) == 0
            self._shapes.append((output.channels, output.height, output.width))

    def shape(self, index: int, batch: int) -> tuple[int, int, int, int]:
        return batch, *self._shapes[index]

    def context(self, poison: bool = False) -> Context:
        return Context(self, poison)

    def free(self) -> None:
        self.library.ie_engine_free(self.handle)
