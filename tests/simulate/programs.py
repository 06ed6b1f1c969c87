"""Programs and a GPU whose simulated times can be worked out by hand: all constants are small whole numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from inception_engine.compiler import plan
from inception_engine.compiler.plan import NONE, Dtype, OpKind, Program, TargetKind
from inception_engine.compiler.targets import CUDA
from inception_engine.simulate import Gpu
from inception_engine.simulate.gpu import CONSTANTS, Provenance

SIDE = 64  # of a tile, and channels of the input: one full step of every kernel's K
SQUARE = dataclasses.replace(CUDA, shorter=(), narrower=())  # tiles of one size, a launch for each module
TILE_FLOP = 2 * SIDE**3
TILE_BYTES = 3 * SIDE * SIDE * 2  # fp16: pixels, weights, results
FREE = 1e30  # a rate that costs nothing
LAUNCH, TICKET, POLL, DEPENDENCY, TILE, COMPUTE = 1000.0, 100.0, 1.0, 20.0, 5.0, 3.0


def toy_gpu(**changes: Any) -> Gpu:
    """One block on each of 4 multiprocessors; a tile computes for COMPUTE seconds and loads for none."""
    gpu = Gpu(
        name="toy",
        multiprocessors=4,
        resident_blocks=1,
        tensor_flop_per_second=0.0,
        float_flop_per_second=FREE,
        dram_bytes_per_second=FREE,
        l2_bytes=FREE,
        l2_bytes_per_second=FREE,
        multiprocessor_bytes_per_second=FREE,
        block_share=1.0,
        launch_seconds=LAUNCH,
        ticket_seconds=TICKET,
        poll_seconds=POLL,
        dependency_seconds=DEPENDENCY,
        tile_seconds=TILE,
        provenance={name: Provenance("assumed", "a toy") for name in CONSTANTS},
    )
    gpu = dataclasses.replace(gpu, **changes)
    if "tensor_flop_per_second" in changes:
        return gpu
    return dataclasses.replace(gpu, tensor_flop_per_second=TILE_FLOP / COMPUTE * gpu.multiprocessors)


def toy_program(
    tasks: Sequence[tuple[Sequence[int], int]], launches: Sequence[int] | None = None, max_batch: int = 1
) -> Program:
    """A program of 1x1 convolutions over 64 channels in fp16. Task i computes tile i of the one op; it is given as
    (counters that it waits for, counter that it signals or NONE). ``launches``: how many tasks each has."""
    count = len(tasks)
    launches = launches or [count]
    ops = np.zeros(1, plan.OP)
    sizes = {"kernel_h": 1, "kernel_w": 1, "stride_h": 1, "stride_w": 1, "in_w": SIDE, "out_w": SIDE}
    channels = {"in_channels": SIDE, "out_channels": SIDE, "out_padded": SIDE}
    tiles = {"tile_rows": SIDE, "tile_columns": SIDE}
    height = count // max_batch
    for name, value in {**sizes, **channels, **tiles, "in_h": height, "out_h": height}.items():
        ops[name] = value
    ops["kind"], ops["out_buffer"] = OpKind.CONV, 1
    ops["weight_bytes"], ops["nominal_macs"] = SIDE * SIDE * 2, SIDE**3 * height
    buffers = np.zeros(2, plan.BUFFER)
    buffers["rows"], buffers["pitch"], buffers["dtype"] = SIDE * height, SIDE, Dtype.FP16
    table = np.zeros(count, plan.TASK)
    signals = [signal for _, signal in tasks if signal != NONE]
    waits: list[tuple[int, int]] = []
    for i, (counters, signal) in enumerate(tasks):
        table[i]["row"], table[i]["signal"] = i * SIDE, signal
        table[i]["wait_begin"], table[i]["wait_count"] = len(waits), len(counters)
        waits += [(counter, max(signals.count(counter), 1)) for counter in counters]
    header = np.zeros((), plan.PROGRAM_HEADER)
    header["target"], header["dtype"], header["max_batch"] = TargetKind.CUDA, Dtype.FP16, max_batch
    header["counter_count"] = 1 + max((counter for counters, _ in tasks for counter in counters), default=0)
    header["counter_count"] = max(int(header["counter_count"]), 1 + max(signals, default=0))
    records = np.zeros(len(launches), plan.LAUNCH)
    records["first_task"], records["task_count"] = np.cumsum([0, *launches[:-1]]), launches
    records["mode"] = plan.LaunchMode.LAYER
    return Program(
        header=header,
        buffers=buffers,
        outputs=np.zeros(0, plan.OUTPUT),
        ops=ops,
        launches=records,
        tasks=table,
        waits=np.array(waits, plan.WAIT),
    )
