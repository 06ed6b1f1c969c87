"""A plan's CUDA programs on torch tensors, by the Triton kernels as torch and Triton compile and launch them.

The way for programs that live in PyTorch. Everything lies on the device from the beginning: tables, weights, one arena
for all programs, counters. With TRITON_INTERPRET=1, set before Triton is imported, the same runs on the CPU, slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from triton.runtime.interpreter import InterpretedFunction

from inception_engine.compiler.plan import NONE, PANEL, Dtype, OpKind, Plan, Program, TargetKind
from inception_engine.errors import (
    BatchError,
    DeviceError,
    InputShapeError,
    InputTypeError,
    NoProgramError,
    OutputNameError,
    WaitTimeoutError,
)
from inception_engine.kernels import walk as kernel
from inception_engine.kernels.interpreter import mend_bfloat16
from inception_engine.kernels.variants import Variant, variant
from inception_engine.network import Shape

INTERPRETED = isinstance(kernel.walk, InterpretedFunction)
if INTERPRETED:
    mend_bfloat16()
# Polls of one wait before a block gives up. Some seconds: far more than any tile takes, also when GPUs are shared.
SPINS = 1 if INTERPRETED else 1 << 24
_TORCH_DTYPES = {Dtype.FP32: torch.float32, Dtype.FP16: torch.float16, Dtype.BF16: torch.bfloat16}
_ACROSS_CHANNELS = (
    OpKind.INPUT,
    OpKind.LRN,
    OpKind.SOFTMAX,
)  # walk takes their columns in blocks of any size
_RAGGED = 7  # bit of KINDS: a convolution whose runs of channels are no whole panels
_MAX_ELEMENTS = 1 << 31  # walk counts the elements of one buffer in 32 bits


@dataclass(frozen=True)
class _Launch:
    """``blocks``: of the grid. ``ticket``: int32 (1,), on the device."""

    first: int
    count: int
    blocks: int
    kinds: int
    variant: Variant
    ticket: torch.Tensor


@dataclass(frozen=True)
class _Loaded:
    """A program on the device; ``tables``: tasks, waits, ops and buffers as int32."""

    max_batch: int
    tables: tuple[torch.Tensor, ...]
    launches: tuple[_Launch, ...]
    counters: torch.Tensor  # of waits and then tickets, all zero when a run begins
    # First element of the buffer; height, width, pitch; channels.
    outputs: Mapping[str, tuple[int, tuple[int, int, int], slice]]


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
        one_task_per_block: bool = False,
        poison: bool = False,
    ) -> None:
        """Prove the plan, copy it to ``device`` (default: the current CUDA device; interpreted: the CPU).

        For tests: ``one_task_per_block``: a grid as large as the launch instead of as the GPU. ``poison``: the arena is
        filled with NaN before each run. Raises PlanError, NoProgramError and DeviceError.
        """
        self.device = _device(device)
        self._loop, self._poison = not one_task_per_block, poison
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
        # Status and counters. The status stays until it is read, the rest is cleared by each run.
        lines = max(int(p.header["counter_count"]) + len(p.launches) for p in programs) + 1
        self._state = torch.zeros(kernel.STRIDE * lines, dtype=torch.int32, device=self.device)
        self._programs = [self._load(program, processors) for program in programs]

    def _load(self, program: Program, processors: int) -> _Loaded:
        element = self.dtype.itemsize
        counters = int(program.header["counter_count"])
        tickets = self._state[kernel.STRIDE * (counters + 1) :]
        outputs = {}
        for record in program.outputs:
            buffer = program.buffers[record["buffer"]]
            begin = int(record["channel"])
            outputs[program.text(record)] = (
                int(buffer["offset"]) // element,
                (int(record["height"]), int(record["width"]), int(buffer["pitch"])),
                slice(begin, begin + int(record["channels"])),
            )
        return _Loaded(
            max_batch=int(program.header["max_batch"]),
            tables=tuple(
                _words(table).to(self.device)
                for table in (program.tasks, program.waits, program.ops, program.buffers)
            ),
            launches=tuple(
                _launch(program, record, tickets[kernel.STRIDE * i :][:1], processors)
                for i, record in enumerate(program.launches)
            ),
            counters=self._state[kernel.STRIDE :][: kernel.STRIDE * (counters + len(program.launches))],
            outputs=outputs,
        )

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
        with _current(self.device):
            self._walk(program, images.contiguous(), batch)
            results = {name: self._output(program, name, batch) for name in names}
        return results if outputs is not None else results[names[0]]

    def check(self) -> None:
        """Wait for what was enqueued. Raises WaitTimeoutError, once, if a wait inside a run since then gave up."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the work may be in another stream than the current one
        if int(self._state[kernel.STATUS]):
            self._state[kernel.STATUS] = 0
            raise WaitTimeoutError("a wait inside a launch passed its bound; the results are void")

    def _walk(self, program: _Loaded, images: torch.Tensor, batch: int) -> None:
        program.counters.zero_()  # in the stream, so that it is repeated with a graph
        if self._poison:
            self._arena.fill_(torch.nan)
        for launch in program.launches:
            tile = launch.variant
            kernel.walk[(launch.blocks,)](
                *program.tables,
                self._weights,
                self._arena,
                images,
                self._state,
                launch.ticket,
                launch.first,
                launch.count,
                batch,
                KINDS=launch.kinds,
                BM=tile.block_rows,
                BN=tile.block_columns,
                BK=tile.block_depth,
                STAGES=tile.stages,
                PRECISION="ieee",
                LOOP=self._loop,
                SPINS=SPINS,
                **tile.options,
            )

    def _output(self, program: _Loaded, name: str, batch: int) -> torch.Tensor:
        offset, (height, width, pitch), channels = program.outputs[name]
        rows = self._arena[offset:][: batch * height * width * pitch]
        pixels = rows.view(batch, height, width, pitch)[..., channels].permute(0, 3, 1, 2)
        result = pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return result.flatten(1) if height == width == 1 else result

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


def _multiprocessors(device: torch.device) -> int:
    """The interpreter runs blocks one after the other: one takes all tasks."""
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count


def _current(device: torch.device) -> AbstractContextManager[object]:
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)


def _words(table: np.ndarray) -> torch.Tensor:
    """A table's records as int32; never empty, so that it has an address."""
    words = np.frombuffer(table.tobytes(), np.int32)
    return torch.tensor(words if len(words) else np.zeros(1, np.int32))


def _face(program: Program) -> tuple[object, ...]:
    """What a caller sees of a program."""
    fields = ("dtype", "input_channels", "input_height", "input_width")
    outputs = [
        (program.text(o), int(o["channels"]), int(o["height"]), int(o["width"])) for o in program.outputs
    ]
    return *(int(program.header[field]) for field in fields), *outputs


def check_sizes(plan: Plan, programs: Sequence[Program]) -> None:
    """What the proof allows and walk cannot count. Raises NoProgramError."""
    for program in programs:
        header = program.header
        batch = int(header["max_batch"])
        images = [int(header[f"input_{side}"]) for side in ("channels", "height", "width")]
        elements = [
            batch * math.prod(images),
            *(batch * int(b["rows"]) * int(b["pitch"]) for b in program.buffers),
        ]
        if max(*elements, plan.weights.nbytes) >= _MAX_ELEMENTS:
            raise NoProgramError(f"the program for {batch} images is too large for the kernels")


def _launch(program: Program, record: np.void, ticket: torch.Tensor, processors: int) -> _Launch:
    """Kernel and grid for a LaunchRecord; ``processors``: of the device, or 0 for as many blocks as tasks."""
    first, count = int(record["first_task"]), int(record["task_count"])
    used = np.unique(program.tasks["op"][first : first + count])
    ops = program.ops[used[used != NONE]]
    kinds = 0
    for op in ops:
        kinds |= 1 << int(op["kind"])
        if op["kind"] == OpKind.CONV and op["in_channels"] % PANEL:
            kinds |= 1 << _RAGGED
    rows = {int(op["tile_rows"]) for op in ops}
    columns = {int(op["tile_columns"]) for op in ops if op["kind"] not in _ACROSS_CHANNELS} or {64}
    try:
        if len(rows) > 1 or len(columns) > 1:
            raise ValueError(
                f"tiles of {sorted(rows)} rows and {sorted(columns)} columns; a launch has one kind"
            )
        tile = variant(Dtype(int(program.header["dtype"])).name.lower(), *rows, *columns)
    except ValueError as error:
        raise NoProgramError(f"launch {program.text(record)}: {error}") from None
    blocks = min(count, processors * tile.blocks_per_sm) if processors else count
    return _Launch(first, count, blocks, kinds, tile, ticket)
