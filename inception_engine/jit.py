"""A plan's CUDA programs on torch tensors, by the Triton kernels as torch and Triton compile and launch them.

The way for programs that live in PyTorch. Everything lies on the device from the beginning: tables, weights, one arena
for all programs, counters. With TRITON_INTERPRET=1, set before Triton is imported, the same runs on the CPU, slowly.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import overload

import numpy as np
import torch
from triton.runtime.interpreter import InterpretedFunction

from inception_engine.compiler.plan import Dtype, Plan, Program, TargetKind
from inception_engine.errors import (
    BatchError,
    DeviceError,
    InputShapeError,
    InputTypeError,
    NoProgramError,
    OutputNameError,
    WaitTimeoutError,
)
from inception_engine.jit_program import NO_OUTPUT, LoadedProgram, Output, check_sizes, load
from inception_engine.kernels import walk as kernel
from inception_engine.kernels.copy_output import BLOCK, copy_output
from inception_engine.kernels.interpreter import mend_bfloat16
from inception_engine.kernels.tuning import specialise_from
from inception_engine.kernels.variants import DEPENDENT_FROM
from inception_engine.network import Shape
from inception_engine.specialised import ModuleLaunch, find

INTERPRETED = isinstance(kernel.walk, InterpretedFunction)
if INTERPRETED:
    mend_bfloat16()
# Polls of one wait before a block gives up. Some seconds: far more than any tile takes, also when GPUs are shared.
SPINS = 1 if INTERPRETED else 1 << 24
OVERLAP_DRIVER = 12030  # before this version a launch that may begin early could not be captured into a graph
_TORCH_DTYPES = {Dtype.FP32: torch.float32, Dtype.FP16: torch.float16, Dtype.BF16: torch.bfloat16}


class TritonExecutor:
    """Runs a plan's CUDA programs; each batch by the smallest that takes it. For one thread and one stream at a time.

    ``input_shape``: (channels, height, width). ``max_batch``: images per run at most. ``outputs``: name -> (channels,
    height, width). ``dtype``: of weights and activations. ``device``: where tensors must lie.
    """

    @torch.inference_mode(False)  # tensors made in that mode could not be cleared outside of it
    def __init__(
        self,
        plan: Plan,
        device: torch.device | str | None = None,
        *,
        specialise: bool | None = None,
        one_task_per_block: bool = False,
        poison: bool = False,
    ) -> None:
        """Prove the plan, copy it to ``device`` (default: the current CUDA device; interpreted: the CPU).

        ``specialise``: whether Inception modules take the kernel ``module`` where it fits (half precision; compute
        capability 9.0 or newer); None: where it was measured to be faster (kernels/tuned). For tests:
        ``one_task_per_block``: a grid as large as the launch instead of as the GPU. ``poison``: the arena is filled
        with NaN before each run. Raises PlanError, NoProgramError and DeviceError.
        """
        self.device = _device(device)
        self._loop, self._poison = not one_task_per_block, poison
        self._specialise = specialise
        self._arch = _arch(self.device)
        dependent = self._arch >= DEPENDENT_FROM
        overlaps = dependent and _driver_cuda() >= OVERLAP_DRIVER
        self._dependent = {"DEPENDENT": dependent} | ({"launch_pdl": True} if overlaps else {})
        plan = Plan.from_bytes(plan.to_bytes())  # a copy, proven; the caller may change the original
        programs = [p for p in plan.programs if p.header["target"] == TargetKind.CUDA]
        if not programs:
            raise NoProgramError("the plan holds no program for CUDA; compile it with targets=('cuda',)")
        programs.sort(key=lambda program: int(program.header["max_batch"]))
        first = programs[0]
        if len({_face(program) for program in programs}) > 1:
            raise NoProgramError("the plan's CUDA programs differ in dtype, input or outputs")
        self.dtype = _TORCH_DTYPES[Dtype(int(first.header["dtype"]))]
        self.max_batch = int(programs[-1].header["max_batch"])
        self.input_shape: Shape = (
            int(first.header["input_channels"]),
            int(first.header["input_height"]),
            int(first.header["input_width"]),
        )
        self.outputs: dict[str, Shape] = {
            first.text(o): (int(o["channels"]), int(o["height"]), int(o["width"])) for o in first.outputs
        }
        check_sizes(plan, programs)
        element = self.dtype.itemsize
        arena_bytes = max(int(program.header["arena_bytes"]) for program in programs)
        self._arena = torch.zeros(arena_bytes // element, dtype=self.dtype, device=self.device)
        whole = len(plan.weights) // element * element
        self._weights = torch.tensor(plan.weights[:whole]).view(self.dtype).to(self.device)
        processors = _multiprocessors(self.device) if self._loop else 0
        # Status, counters, tickets. The status stays until it is read, each run leaves the rest as it was: zero.
        lines = max(int(p.header["counter_count"]) + len(p.launches) for p in programs) + 1
        self._state = torch.zeros(kernel.STRIDE * lines, dtype=torch.int32, device=self.device)
        self._programs = [
            load(
                program,
                [self._specialised(program, record, processors) for record in program.launches],
                self._state,
                processors,
            )
            for program in programs
        ]

    def _specialised(self, program: Program, record: np.void, processors: int) -> ModuleLaunch | None:
        """What runs the launch instead of ``walk``, if anything."""
        if self._specialise is False or self.dtype == torch.float32:
            return None
        on_gpu = self.device.type == "cuda"
        if on_gpu and self._arch < 90:
            return None
        found = find(program, record)
        if found is None or (
            self._specialise is None and found.pixels < specialise_from(self._arch if on_gpu else 0)
        ):
            return None
        found = dataclasses.replace(found, sizes=found.sizes.on(self._arch))
        return ModuleLaunch(found, program, self._weights, processors)

    @overload
    def run(self, images: torch.Tensor, outputs: None = None) -> torch.Tensor: ...
    @overload
    def run(self, images: torch.Tensor, outputs: Sequence[str]) -> dict[str, torch.Tensor]: ...

    def run(
        self, images: torch.Tensor, outputs: Sequence[str] | None = None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Run a batch of 1 to ``max_batch`` images, and wait until it is done.

        ``images``: on ``device``, (batch, channels, height, width) float32, normalised, or (batch, height, width,
        channels) uint8, to which the plan's mean and scale are applied; contiguous data is not copied. Returns
        the first output ("logits"), or a dict of the ``outputs`` named: float32 (batch, channels), (batch, channels,
        height, width) if larger than 1 x 1. Raises what ``enqueue`` and ``check`` raise.
        """
        results = self.enqueue(images, outputs)
        self.check()
        return results

    def enqueue(
        self, images: torch.Tensor, outputs: Sequence[str] | None = None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """``run`` without waiting: all work is left to the current stream, so that a CUDA graph can capture it.

        Call ``check`` before the results are trusted. Raises InputTypeError, InputShapeError, BatchError and
        OutputNameError.
        """
        self._check_input(images)
        if isinstance(outputs, str):
            raise OutputNameError(f"outputs takes a list of names, not {outputs!r}")
        names = list(self.outputs)[:1] if outputs is None else list(dict.fromkeys(outputs))
        if unknown := [name for name in names if name not in self.outputs]:
            raise OutputNameError(f"no output {unknown[0]!r}; there is {', '.join(self.outputs)}")
        batch = len(images)
        program = next(program for program in self._programs if program.max_batch >= batch)
        images = images.contiguous()
        with _current(self.device):
            results = {name: self._result(program.outputs[name], batch) for name in names}
            wanted = [program.outputs[name] for name in names]
            if len(names) == 1 and wanted[0].exported:
                result = results[names[0]]
                self._walk(program, images, batch, result=result, output=wanted[0], end=wanted[0].end)
            else:
                self._walk(program, images, batch, end=max((o.end for o in wanted), default=None))
                for name in names:
                    self._copy(program.outputs[name], results[name])
        flat = {name: r.flatten(1) if r.shape[2:] == (1, 1) else r for name, r in results.items()}
        return flat if outputs is not None else flat[names[0]]

    def check(self) -> None:
        """Wait for what was enqueued. Raises WaitTimeoutError, once, if a wait inside a run since then gave up."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the work may be in another stream than the current one
        modules = [launch.module for program in self._programs for launch in program.launches]
        words = [self._state[: kernel.STATUS + 1], *(module.status for module in modules if module)]
        if int(torch.stack(words).sum()):
            for word in words:
                word.zero_()
            raise WaitTimeoutError("a wait inside a launch passed its bound; the results are void")

    def _walk(
        self,
        program: LoadedProgram,
        image: torch.Tensor,
        batch: int,
        *,
        result: torch.Tensor | None = None,
        output: Output = NO_OUTPUT,
        source: int = -1,
        end: int | None = None,
    ) -> None:
        """All launches, the last one up to the task ``end``: behind the last one that a result needs, for none waits
        for what is left out. ``source``: see ``walk``."""
        if self._poison:
            self._arena.fill_(torch.nan)
        for launch in program.launches:
            count = launch.count
            if end is not None and launch is program.launches[-1]:
                count = min(count, max(end - launch.first, 1))
            if launch.module:
                launch.module(self._arena, batch, spins=SPINS)
                continue
            kernel.walk[(launch.blocks,)](
                *program.tables,
                self._weights,
                self._arena,
                image if source >= 0 else image.view(torch.uint8),
                self._state,
                launch.ticket,
                self._state.view(torch.float32) if result is None else result,
                launch.first,
                count,
                batch,
                int(image.dtype == torch.uint8),
                launch.counters,
                output.buffer,
                output.channel,
                output.shape[0],
                KINDS=launch.kinds,
                LOOP=self._loop,
                SPINS=SPINS,
                SOURCE=source,
                **self._dependent,
                **launch.variant.constants,
                **launch.variant.options(launch.kinds, self._arch),
            )

    def _result(self, output: Output, batch: int) -> torch.Tensor:
        return torch.empty((batch, *output.shape), dtype=torch.float32, device=self.device)

    def _copy(self, output: Output, result: torch.Tensor) -> None:
        batch, channels, height, width = result.shape
        pixels = height * width
        grid = -(-batch * pixels // BLOCK), -(-channels // BLOCK)
        source = self._arena[output.begin + output.channel :]
        copy_output[grid](source, result, pixels, output.pitch, channels, batch)

    def _check_input(self, images: torch.Tensor) -> None:
        channels, height, width = self.input_shape
        if not isinstance(images, torch.Tensor) or images.device != self.device:
            place = images.device if isinstance(images, torch.Tensor) else type(images).__name__
            raise InputTypeError(f"images are on {place}; give a tensor on {self.device}")
        if images.dtype not in (torch.float32, torch.uint8):
            raise InputTypeError(f"images are {images.dtype}; give float32 (normalised) or uint8 (pixels)")
        is_float = images.dtype == torch.float32
        shape = (channels, height, width) if is_float else (height, width, channels)
        if images.ndim != 4 or images.shape[1:] != shape:
            wanted = ", ".join(map(str, shape))
            raise InputShapeError(
                f"images of shape {tuple(images.shape)}; {images.dtype} images are (batch, {wanted})"
            )
        if not 1 <= len(images) <= self.max_batch:
            raise BatchError(f"a batch of {len(images)} images; the plan takes 1 to {self.max_batch}")


def _device(device: torch.device | str | None) -> torch.device:
    """With its index. Raises DeviceError."""
    try:
        wanted = torch.device(device or ("cpu" if INTERPRETED else "cuda"))
    except RuntimeError:
        raise DeviceError(f"unknown device {device!r}") from None
    if wanted.type == "cpu" and INTERPRETED:
        return torch.device("cpu")
    if wanted.type != "cuda":
        raise DeviceError(f"the kernels run on CUDA devices, not on {wanted}")
    if INTERPRETED:
        raise DeviceError(f"the kernels are interpreted, on the CPU and not on {wanted}")
    if not torch.cuda.is_available():
        raise DeviceError("there is no CUDA device")
    return torch.device("cuda", torch.cuda.current_device() if wanted.index is None else wanted.index)


def _arch(device: torch.device) -> int:
    """Compute capability, 90 for 9.0; of the interpreter the oldest."""
    if device.type == "cpu":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _driver_cuda(library: str = "libcuda.so.1") -> int:
    """The newest CUDA that the driver knows, 12030 for 12.3; 0 where it cannot be asked."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0
    return version.value


def _multiprocessors(device: torch.device) -> int:
    """The interpreter runs blocks one after the other: one takes all tasks."""
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count


def _current(device: torch.device) -> AbstractContextManager[object]:
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)


def _face(program: Program) -> tuple[object, ...]:
    """What a caller sees of a program."""
    fields = ("dtype", "input_channels", "input_height", "input_width")
    outputs = [
        (program.text(o), int(o["channels"]), int(o["height"]), int(o["width"])) for o in program.outputs
    ]
    return *(int(program.header[field]) for field in fields), *outputs
