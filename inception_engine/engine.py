"""Engine: a plan on a device, through the C library."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from ctypes import byref, c_void_p
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeGuard, overload

import numpy as np

from inception_engine import binding
from inception_engine.errors import (
    ArgumentError,
    BatchError,
    BusyError,
    ClosedError,
    DeviceError,
    FileError,
    InputShapeError,
    InputTypeError,
    OutputNameError,
    raise_for_status,
)

if TYPE_CHECKING:
    import torch

    from inception_engine.classification import Classification, Source
    from inception_engine.compiler.plan import Plan
    from inception_engine.network import Preprocess, Shape

# One task of a run, as ie_context_trace writes it: ns of the monotonic clock when a worker took it, began it, was done.
TASK_TIME = np.dtype([("taken_ns", "u8"), ("begin_ns", "u8"), ("end_ns", "u8"), ("worker", "u8")])

_FLOAT32, _UINT8 = np.dtype(np.float32), np.dtype(np.uint8)

_INTERRUPTED = (
    "the engine is in the middle of a run of this thread, or of its closing, which this call interrupts"
)

MAX_TASKS = 1 << 22  # of a program: the loader takes no more


class Engine:
    """Runs a plan. Safe to share between threads: runs of one engine follow each other, one at a time.

    For runs side by side make one engine per thread. An engine does not outlive a fork: its threads stay behind. What
    interrupts a run in its own thread, as a signal handler does, cannot use the same engine: it would wait for itself.

    ``input_shape``: (channels, height, width). ``max_batch``: images per run at most. ``outputs``: name ->
    (channels, height, width). ``device``: "cpu" or "cuda"; ``ordinal``: of the GPU; ``isa``: of the CPU, or "cuda".
    ``note``: why "auto" took the CPU though the plan has programs for a GPU, or empty. ``labels``: of the classes, or
    empty. ``preprocess``: how ``classify`` treats images. ``random_weights``: the plan was built without trained ones.
    ``programs``: how many of the plan's this machine runs; ``arena_bytes``: what a context allocates for activations,
    with the machine's best instruction set; ``weight_bytes`` of all; ``specialised``: how many of their launches take a
    kernel that was compiled for the sizes of their module.
    """

    def __init__(
        self,
        plan: str | os.PathLike[str] | bytes | Plan,
        device: str = "auto",
        threads: int = 0,
        isa: str = "auto",
        poison: bool = False,
        emulate: bool = False,
        kernels: str | os.PathLike[str] | None = None,
        specialise: bool | None = None,
    ) -> None:
        """Load and prove a plan: a file, a file's content, or a Plan.

        ``device``: "auto" (a GPU if the plan has programs for one and it can be used), "cpu", "cuda" or "cuda:1".
        ``threads``: 0 takes as many as the process may run on. ``isa``: "auto", "portable", "avx2", "avx512",
        "avx512_bf16" or "amx", of which the last two are for bfloat16 and do all else as "avx512" does. Both are for
        the CPU alone. ``poison``: fill the arena with NaN before each run, for tests. ``emulate``: the CPU also walks
        programs for other devices, slowly, for tests. ``kernels``: an archive of GPU kernels; default: its own.
        ``specialise``: whether Inception modules on a GPU take a kernel that was compiled for their sizes, where the
        archive has one; None: where it was measured to be faster.
        Raises PlanError, FileError, DeviceError, NoProgramError, ArgumentError, OutOfMemoryError and, with "cuda",
        NoDriverError, DriverError, UnsupportedGpuError, KernelsError and DeviceLostError, all EngineErrors.
        """
        self._engine, self._context = c_void_p(), c_void_p()
        # Reentrant, so that who holds it can find out that it does.
        self._lock, self._running = threading.RLock(), False
        self._process = os.getpid()
        kind, self.ordinal = _parse_device(device)
        if isa not in binding.ISAS:
            raise ArgumentError(f"unknown instruction set {isa!r}; there is {', '.join(binding.ISAS)}")
        if specialise not in (None, False, True):
            raise ArgumentError(f"specialise is {specialise!r}, not True, False or None")
        if not isinstance(threads, int) or not 0 <= threads < 2**32:
            raise ArgumentError(f"threads is {threads}, not 0 or a positive whole number")
        self._library = binding.library()
        try:
            archive = None if kernels is None else _as_path(kernels)
            choice = {None: "auto", False: "never", True: "always"}[specialise]
            options = binding.EngineOptions(
                device=binding.DEVICES.index(kind),
                emulate=emulate,
                ordinal=self.ordinal,
                kernels=archive,
                specialise=binding.SPECIALISE.index(choice),
            )
            self._load(plan, options)
            self._describe()
            self._create_context(threads, isa, poison)
        except BaseException:
            self.close()
            raise

    def _load(self, plan: str | os.PathLike[str] | bytes | Plan, options: binding.EngineOptions) -> None:
        message = binding.message_buffer()
        engine = byref(self._engine)
        if isinstance(plan, str | os.PathLike):
            path = _as_path(plan)
            status = self._library.ie_engine_load(path, options, engine, message)
            where = f"{os.fsdecode(path)}: "
        else:
            content = bytes(plan) if isinstance(plan, bytes | bytearray | memoryview) else _content(plan)
            status = self._library.ie_engine_load_memory(content, len(content), options, engine, message)
            where = ""
        text = binding.text(message.value)
        raise_for_status(status, text if text.startswith(where) else where + text)

    def _describe(self) -> None:
        info = binding.EngineInfo()
        raise_for_status(self._library.ie_engine_describe(self._engine, info), "ie_engine_describe")
        self.device = binding.DEVICES[info.device]
        self.note = binding.text(self._library.ie_engine_note(self._engine))
        self.input_shape: Shape = (info.channels, info.height, info.width)
        self.max_batch: int = info.max_batch
        self.programs: int = info.programs
        self.arena_bytes: int = info.arena_bytes
        self.weight_bytes: int = info.weight_bytes
        self.specialised: int = info.specialised
        self.outputs: dict[str, Shape] = {}
        self._output_index: dict[str, int] = {}
        for index in range(info.outputs):
            output = binding.OutputInfo()
            raise_for_status(self._library.ie_engine_output(self._engine, index, output), "ie_engine_output")
            name = binding.text(output.name)
            self.outputs[name] = output.channels, output.height, output.width
            self._output_index[name] = index  # two outputs of one name: the later, with its own shape
        self.name = binding.text(info.name)
        self.random_weights = bool(info.random_weights)
        label = self._library.ie_engine_label
        self.labels = tuple(binding.text(label(self._engine, index)) for index in range(info.labels))
        preprocess = binding.PreprocessInfo()
        raise_for_status(self._library.ie_engine_preprocess(self._engine, preprocess), "ie_engine_preprocess")
        self._preprocess: dict[str, Any] = {
            "mean": tuple(preprocess.mean[: preprocess.channels]),
            "std": tuple(preprocess.std[: preprocess.channels]),
            "order": binding.ORDERS[preprocess.order],
            "resize": preprocess.resize,
        }

    @cached_property
    def preprocess(self) -> Preprocess:
        from inception_engine.network import Preprocess  # a run can do without all that networks need

        return Preprocess(**self._preprocess)

    def _create_context(self, threads: int, isa: str, poison: bool) -> None:
        message = binding.message_buffer()
        options = binding.ContextOptions(threads=threads, isa=binding.ISAS.index(isa), poison=int(poison))
        status = self._library.ie_context_create(self._engine, options, byref(self._context), message)
        raise_for_status(status, binding.text(message.value))
        if self.device == "cuda":
            self.isa = "cuda"
        else:
            self.isa = binding.ISAS[self._library.ie_cpu_isa()] if isa == "auto" else isa

    @overload
    def run(self, images: np.ndarray, outputs: None = None) -> np.ndarray: ...
    @overload
    def run(self, images: np.ndarray, outputs: Sequence[str]) -> dict[str, np.ndarray]: ...
    @overload
    def run(self, images: torch.Tensor, outputs: None = None) -> torch.Tensor: ...
    @overload
    def run(self, images: torch.Tensor, outputs: Sequence[str]) -> dict[str, torch.Tensor]: ...

    def run(self, images: Any, outputs: Sequence[str] | None = None) -> Any:
        """Run a batch of 1 to ``max_batch`` images.

        ``images``: a NumPy array or torch tensor in host memory, (batch, channels, height, width) float32, normalised,
        or (batch, height, width, channels) uint8, to which the plan's mean and scale are applied. Contiguous data is
        not copied. NaN propagates. Returns the first output ("logits"), or a dict of the ``outputs`` named: float32
        (batch, channels), (batch, channels, height, width) if larger than 1 x 1; tensors if a tensor came in.

        A tensor on the engine's GPU stays there, and so do its results: all work is left to torch's current stream,
        which may be capturing a CUDA graph, and ``check`` says whether the results are good.
        Raises InputTypeError, InputShapeError, BatchError, OutputNameError, ClosedError, WaitTimeoutError, BusyError in
        a signal handler that interrupted a run of this engine, and DriverError and DeviceLostError on a GPU.
        """
        if isinstance(outputs, str):
            raise OutputNameError(f"outputs takes a list of names, not {outputs!r}")
        try:
            names = list(self.outputs)[:1] if outputs is None else list(dict.fromkeys(outputs))
        except TypeError:
            raise OutputNameError(f"outputs takes a list of names, not {outputs!r}") from None
        if unknown := [name for name in names if name not in self.outputs]:
            raise OutputNameError(f"no output {unknown[0]!r}; there is {', '.join(self.outputs)}")
        is_tensor = _is_tensor(images)
        if is_tensor and images.is_cuda and self.device == "cuda":
            results = self._enqueue(images, names)
        else:
            results = self._run(images, names)
            if is_tensor:
                from_numpy = sys.modules["torch"].from_numpy
                results = {name: from_numpy(result) for name, result in results.items()}
        return results if outputs is not None else results[names[0]]

    def _run(self, images: Any, names: Sequence[str]) -> dict[str, Any]:
        image_format, array = self._input(images)
        given = binding.Input(format=image_format, batch=len(array), data=_address(array))
        results = {name: np.empty(self._result_shape(name, len(array)), np.float32) for name in names}
        wanted = self._wanted({name: _address(result) for name, result in results.items()})
        self._call(self._library.ie_run, given, wanted, len(names))
        return results

    def _enqueue(self, images: torch.Tensor, names: Sequence[str]) -> dict[str, Any]:
        torch = sys.modules["torch"]
        if images.device.index != self.ordinal:
            raise InputTypeError(f"images are on {images.device}; the engine is on cuda:{self.ordinal}")
        if images.layout != torch.strided:
            raise InputTypeError(f"images are of layout {images.layout}; give a dense tensor")
        dtype = str(images.dtype).removeprefix("torch.")
        image_format = self._check_input(dtype, tuple(images.shape))
        images = images.detach().contiguous()
        given = binding.Input(format=image_format, batch=len(images), data=images.data_ptr())
        results = {
            name: torch.empty(
                self._result_shape(name, len(images)), dtype=torch.float32, device=images.device
            )
            for name in names
        }
        wanted = self._wanted({name: result.data_ptr() for name, result in results.items()})
        stream = torch.cuda.current_stream(images.device).cuda_stream
        self._call(self._library.ie_enqueue, given, wanted, len(names), stream)
        return results

    def check(self) -> None:
        """Wait for runs on tensors of the GPU. Raises WaitTimeoutError, once, if a wait inside one gave up.

        Work that was captured into a CUDA graph and replayed is to be waited for by the caller, before. Raises
        ClosedError, BusyError, DriverError and DeviceLostError, too.
        """
        self._call(self._library.ie_context_check)

    def trace(self, images: np.ndarray, tasks: int) -> np.ndarray:
        """Run a batch and say when its tasks ran: (tasks,) of dtype ``TASK_TIME``, in the order in which the
        plan's program for this batch has them; ``tasks`` is how many it has. ``images`` as for ``run``. Not while
        other threads run. Raises what ``run`` raises, and DeviceError on a GPU, whose tasks are not timed one by one.
        """
        if not isinstance(tasks, int | np.integer) or not 0 <= tasks <= MAX_TASKS:
            raise ArgumentError(f"tasks is {tasks!r}, not the number of a program's tasks")
        times = np.zeros(tasks, TASK_TIME)
        self._call(self._library.ie_context_trace, _address(times), len(times))
        try:
            self.run(images)
        finally:
            self._call(self._library.ie_context_trace, None, 0)
        return times

    def _call(self, function: Any, *arguments: Any) -> None:
        """A function of the library on the context. Raises the error of its status."""
        if self._process != os.getpid():
            raise ClosedError("the engine was made before this process was forked; make one in each process")
        with self._lock:
            if self._running:
                raise BusyError(_INTERRUPTED)
            try:
                self._running = True
                if not self._context:
                    raise ClosedError("the engine is closed")
                status = function(self._context, *arguments)
                message = binding.text(self._library.ie_context_message(self._context)) if status else ""
            finally:
                self._running = False
        raise_for_status(status, message)

    def _input(self, images: Any) -> tuple[int, np.ndarray]:
        """The ie_format of images in host memory, and the images as the C library reads them: copied, where they must
        be, once they are known to fit."""
        array = _as_array(images)
        # NumPy puts the name of a dtype together in Python.
        dtype = (
            "float32" if array.dtype == _FLOAT32 else "uint8" if array.dtype == _UINT8 else str(array.dtype)
        )
        image_format = self._check_input(dtype, array.shape)
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = np.require(array, requirements=("C", "A"))
        return image_format, array

    def _wanted(self, addresses: dict[str, int]) -> Any:
        return (binding.Output * len(addresses))(
            *(
                binding.Output(index=self._output_index[name], data=address)
                for name, address in addresses.items()
            )
        )

    def _result_shape(self, name: str, batch: int) -> tuple[int, ...]:
        channels, height, width = self.outputs[name]
        return (batch, channels) if height == width == 1 else (batch, channels, height, width)

    def _check_input(self, dtype: str, shape: tuple[int, ...]) -> int:
        """The ie_format of images that fit this plan."""
        channels, height, width = self.input_shape
        if dtype == "float32":
            image_format, wanted = binding.FLOAT32_NCHW, (channels, height, width)
        elif dtype == "uint8":
            image_format, wanted = binding.UINT8_NHWC, (height, width, channels)
        else:
            raise InputTypeError(f"images are {dtype}; give float32 (normalised) or uint8 (pixels)")
        if len(shape) != 4 or shape[1:] != wanted:
            text = ", ".join(map(str, wanted))
            raise InputShapeError(f"images of shape {shape}; {dtype} images are (batch, {text})")
        if not 1 <= shape[0] <= self.max_batch:
            raise BatchError(f"a batch of {shape[0]} images; the plan takes 1 to {self.max_batch}")
        return image_format

    def classify(self, images: Source | Iterable[Source], top_k: int = 5) -> list[Classification]:
        """What images show, one Classification per image, in order.

        ``images``: a path (JPEG or PNG), a folder (every such file in it and below), a PIL image, a uint8 array
        (height, width, channels) of any size, or an iterable of these; all are resized and cropped. Or a float32
        array or tensor as ``run`` takes it, of any batch or without one. A file that cannot be used has its ``error``
        in its place and does not disturb the others. Raises what ``run`` raises, and ArgumentError for ``top_k``.
        """
        return list(self.classify_each(images, top_k))

    def classify_each(self, images: Source | Iterable[Source], top_k: int = 5) -> Iterator[Classification]:
        """``classify`` one by one, for many images: holds at most a batch of them in memory."""
        from inception_engine.classification import classify_each  # a run can do without

        if _is_tensor(images):
            on_gpu = self.device == "cuda" and images.is_cuda
            images = _as_array(images.cpu() if on_gpu else images)
        yield from classify_each(self, images, top_k)

    def rank(self, logits: np.ndarray, top_k: int = 5, path: str | None = None) -> Classification:
        """What ``run`` gave for one image, float32 (classes,), as ``classify`` says it. Raises InputShapeError."""
        from inception_engine.classification import rank

        return rank(logits, self.labels, top_k, path)

    def close(self) -> None:
        """Free memory and threads, after a run that may be going on; the engine cannot run any more. Raises BusyError
        in a signal handler that interrupted a run of this engine, or its closing."""
        if self._process != os.getpid():  # after a fork the threads are not there to be joined
            return
        with self._lock:
            if self._running:
                raise BusyError(_INTERRUPTED)
            try:
                self._running = True
                context, self._context = self._context, c_void_p()
                engine, self._engine = self._engine, c_void_p()
                if context:
                    self._library.ie_context_free(context)
                if engine:
                    self._library.ie_engine_free(engine)
            finally:
                self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """A copy would share what the C library holds, and free it twice. Raises TypeError, for deepcopy, too."""
        raise TypeError("an Engine cannot be copied or pickled; make another from the plan")

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            self.close()


def _parse_device(device: str) -> tuple[str, int]:
    """One of binding.DEVICES and the number of the GPU. Raises DeviceError."""
    kind, colon, ordinal = device.partition(":") if isinstance(device, str) else (device, "", "")
    number = ordinal.isascii() and ordinal.isdigit() and len(ordinal) < 6
    if kind not in binding.DEVICES or (colon and not (kind == "cuda" and number)):
        raise DeviceError(f"unknown device {device!r}; there is {', '.join(binding.DEVICES)} and cuda:N")
    return kind, int(ordinal or 0)


def _as_path(path: str | os.PathLike[str]) -> bytes:
    """As the system has it. Raises FileError for what cannot be one."""
    try:
        encoded = os.fsencode(path)
    except (TypeError, UnicodeEncodeError):  # half of a surrogate pair
        encoded = b"\0"
    if b"\0" in encoded:
        raise FileError(f"{path!r}: not a path")
    return encoded


def _content(plan: object) -> bytes:
    """What the file of a Plan holds. Raises InputTypeError for anything else."""
    # The compiler comes with it: for those alone who hand one over.
    from inception_engine.compiler.plan import Plan

    if not isinstance(plan, Plan):
        raise InputTypeError(f"a plan is a path, a file's content or a Plan, not {type(plan).__name__}")
    return plan.to_bytes()


def _is_tensor(images: object) -> TypeGuard[torch.Tensor]:
    """Whether these are a torch tensor, without importing torch for those who do not use it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(images, torch.Tensor)


def _address(array: np.ndarray) -> int:
    """Of its first element. ``array.ctypes.data`` is Python code of NumPy, and a run leaves so little of an
    interpreter in the caches that each function costs microseconds."""
    address: int = array.__array_interface__["data"][0]
    return address


def _as_array(images: Any) -> np.ndarray:
    """An array of the same memory. Raises InputTypeError."""
    if _is_tensor(images):
        try:
            images = images.detach().numpy()
        except (
            TypeError,
            RuntimeError,
        ) as error:  # on another device, sparse, or of a dtype that NumPy lacks
            raise InputTypeError(f"tensor of {images.dtype} on {images.device}: {error}") from None
    if not isinstance(images, np.ndarray):
        raise InputTypeError(f"images are a {type(images).__name__}; give a NumPy array or a torch tensor")
    return images
