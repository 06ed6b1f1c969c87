"""A plan's CUDA program on a device, as torch tensors, and its launches: what ``jit`` runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inception_engine.compiler.plan import NONE, PANEL, Dtype, OpKind, Plan, Program
from inception_engine.errors import NoProgramError
from inception_engine.kernels.convolution import counts
from inception_engine.kernels.variants import Variant, kinds_for, variant
from inception_engine.kernels.walk import STRIDE
from inception_engine.network import Shape
from inception_engine.specialised import ModuleLaunch

_ACROSS_CHANNELS = (
    OpKind.INPUT,
    OpKind.LRN,
    OpKind.SOFTMAX,
)  # walk takes their columns in blocks of any size, and the rows of an INPUT
# Bits of KINDS: a convolution whose runs of channels are no whole panels, and one whose K is cut.
_RAGGED, _PARTS = 7, 8
_MAX_ELEMENTS = 1 << 31  # walk counts the elements of one buffer in 32 bits


@dataclass(frozen=True)
class Launch:
    """``blocks``: of the grid. ``ticket``: its line of the state. ``counters``: how many it clears."""

    first: int
    count: int
    blocks: int
    kinds: int
    variant: Variant
    ticket: torch.Tensor
    counters: int
    module: ModuleLaunch | None


@dataclass(frozen=True)
class Output:
    """``begin``: first element of the buffer in the arena. ``pitch``: elements between two pixels. ``end``: behind the
    last task that writes it. ``exported``: whether that is ``walk``'s, which so can store it for the caller, too."""

    buffer: int
    begin: int
    pitch: int
    channel: int
    shape: Shape
    end: int
    exported: bool = False


NO_OUTPUT = Output(buffer=-1, begin=0, pitch=0, channel=0, shape=(0, 1, 1), end=0)


@dataclass(frozen=True)
class LoadedProgram:
    """A program on the device; ``tables``: tasks, waits, ops and buffers as int32."""

    max_batch: int
    tables: tuple[torch.Tensor, ...]
    launches: tuple[Launch, ...]
    outputs: Mapping[str, Output]


def load(
    program: Program, modules: Sequence[ModuleLaunch | None], state: torch.Tensor, processors: int
) -> LoadedProgram:
    """Onto the device of ``state``, which holds status, counters and tickets as int32.

    ``modules``: for each launch, what runs it instead of ``walk``, if anything. ``processors``: of the device, or 0
    for as many blocks as tasks. Raises NoProgramError.
    """
    counters = int(program.header["counter_count"])
    tickets = state[STRIDE * (counters + 1) :]
    last = max((i for i, module in enumerate(modules) if module is None), default=-1)  # of walk's
    tables = (program.tasks, program.waits, program.ops, program.buffers)
    return LoadedProgram(
        max_batch=int(program.header["max_batch"]),
        tables=tuple(_words(table).to(state.device) for table in tables),
        launches=tuple(
            _launch(program, record, tickets[STRIDE * i :], counters if i == last else 0, processors, module)
            for i, (record, module) in enumerate(zip(program.launches, modules, strict=True))
        ),
        outputs={program.text(record): _output(program, record, modules) for record in program.outputs},
    )


def _output(program: Program, record: np.void, modules: Sequence[ModuleLaunch | None]) -> Output:
    """For an OutputRecord."""
    buffer = program.buffers[record["buffer"]]
    ops = program.tasks["op"]
    written = np.where(ops == NONE, NONE, program.ops["out_buffer"][np.where(ops == NONE, 0, ops)])
    return Output(
        buffer=int(record["buffer"]),
        begin=int(buffer["offset"]) // Dtype(int(program.header["dtype"])).bytes,
        pitch=int(buffer["pitch"]),
        channel=int(record["channel"]),
        shape=(int(record["channels"]), int(record["height"]), int(record["width"])),
        end=int(np.flatnonzero(written == record["buffer"])[-1]) + 1,
        exported=not any(module and record["buffer"] in module.writes for module in modules),
    )


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
        products = program.ops[program.ops["kind"] == OpKind.CONV]
        windows = {(int(op["kernel_h"]), int(op["kernel_w"]), int(op["in_channels"])) for op in products}
        if max(*elements, plan.weights.nbytes) >= _MAX_ELEMENTS or not all(
            counts(*window) for window in windows
        ):
            raise NoProgramError(f"the program for {batch} images is too large for the kernels")


def _launch(
    program: Program,
    record: np.void,
    ticket: torch.Tensor,
    counters: int,
    processors: int,
    module: ModuleLaunch | None,
) -> Launch:
    """Kernel and grid for a LaunchRecord."""
    first, count = int(record["first_task"]), int(record["task_count"])
    used = np.unique(program.tasks["op"][first : first + count])
    ops = program.ops[used[used != NONE]]
    # The bits of KINDS that the launch needs.
    kinds = int(bool({*ops["out_buffer"]} & {*program.outputs["buffer"]}))
    for op in ops:
        kinds |= 1 << int(op["kind"])
        if op["kind"] == OpKind.CONV and op["in_channels"] % PANEL:
            kinds |= 1 << _RAGGED
        if op["part_depth"]:
            kinds |= 1 << _PARTS
    rows = sorted({int(op["tile_rows"]) for op in ops if op["kind"] != OpKind.INPUT}) or [64]
    columns = sorted({int(op["tile_columns"]) for op in ops if op["kind"] not in _ACROSS_CHANNELS}) or [64]
    whole = sorted({int(op["tile_rows"]) for op in ops if op["part_depth"]})
    try:
        tile = variant(Dtype(int(program.header["dtype"])).name.lower(), rows, columns, whole)
    except ValueError as error:
        raise NoProgramError(f"launch {program.text(record)}: {error}") from None
    blocks = min(count, processors * tile.blocks_per_sm) if processors else count
    return Launch(first, count, blocks, kinds_for(kinds), tile, ticket, counters, module)


def _words(table: np.ndarray) -> torch.Tensor:
    """A table's records as int32; never empty, so that it has an address."""
    words = np.frombuffer(table.tobytes(), np.int32)
    return torch.tensor(words if len(words) else np.zeros(1, np.int32))
