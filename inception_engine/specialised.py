"""An Inception module of a plan by the kernel ``module``, which is specialised for its shapes, instead of ``walk``.

The launch keeps its place in the plan and its buffers; what it computes is read off its ops. The kernel has no task
table: that its tiles wait for what they read follows from its own order (kernels/module.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inception_engine.compiler.plan import PANEL, Dtype, OpFlag, OpKind, Program
from inception_engine.kernels import module as kernel
from inception_engine.kernels.sizes import GROUP, Sizes
from inception_engine.kernels.walk import STATUS, STRIDE


class Buffers(NamedTuple):
    """Indices in the plan: what the module reads, both reduces, the pooled input, what it writes."""

    x: int
    reduced: int
    pooled: int
    out: int


@dataclass(frozen=True)
class Found:
    """``pixels``: of the largest batch. ``ops``: reduces, 1x1, 3x3, 5x5, projection."""

    sizes: Sizes
    pixels: int
    buffers: Buffers
    ops: tuple[np.void, ...]


def find(program: Program, launch: np.void, group: int | None = None) -> Found | None:
    """The module that a launch computes, or None if ``module`` cannot: other ops, strides, channels, long lines;
    buffers that share memory, for both reduces and the pooled input are written at the same time; or another launch
    that waits for one of its counters, for ``module`` signals none of them.

    ``group``: images that are worked on together. The C library has the same rule (runtime/cuda/module.cpp).
    """
    tasks = program.tasks[int(launch["first_task"]) :][: int(launch["task_count"])]
    ops = [program.ops[i] for i in np.unique(tasks["op"]) if i < len(program.ops)]
    pools = [op for op in ops if op["kind"] == OpKind.MAX_POOL]
    convolutions = [op for op in ops if op["kind"] == OpKind.CONV]
    if len(pools) != 1 or len(convolutions) != 5 or len(ops) != 6:
        return None
    (pool,) = pools
    x, pooled = int(pool["in_buffer"]), int(pool["out_buffer"])
    of_x = [op for op in convolutions if op["in_buffer"] == x]
    of_pool = [op for op in convolutions if op["in_buffer"] == pooled]
    windows = sorted(
        (op for op in convolutions if op["in_buffer"] not in (x, pooled)),
        key=lambda op: int(op["in_channel"]),
    )
    if (len(of_x), len(of_pool), len(windows)) != (2, 1, 2):
        return None
    reduced, out = int(windows[0]["in_buffer"]), int(windows[0]["out_buffer"])
    of_x.sort(key=lambda op: op["out_buffer"] != reduced)
    parts = (*of_x, *windows, *of_pool)
    reduce, one, three, five, projection = parts
    sides = (reduce, 1), (one, 1), (three, 3), (five, int(five["kernel_h"])), (projection, 1), (pool, 3)
    height, width, channels = (int(pool[name]) for name in ("in_h", "in_w", "in_channels"))
    widths = tuple(int(op["out_padded"]) for op in (one, three, five, projection))
    slices = [int(op["out_channel"]) for op in (reduce, one, three, five, projection, pool)]
    fits = (
        all(_is_same(op, side, height, width) for op, side in sides)
        and all(op["flags"] & OpFlag.RELU for op in parts)
        and all(op["out_channels"] == op["out_padded"] for op in (one, three, five, projection))
        and all(
            int(program.buffers[b]["pitch"]) == n
            for b, n in ((x, channels), (pooled, channels), (out, sum(widths)))
        )
        and int(reduce["out_padded"]) == int(program.buffers[reduced]["pitch"])
        and [int(reduce["out_buffer"]), int(five["in_buffer"])] == [reduced] * 2
        and [int(op["in_channels"]) for op in (reduce, one, projection)] == [channels] * 3
        and int(three["in_channels"]) + int(five["in_channels"]) == int(reduce["out_padded"])
        and [int(op["in_channel"]) for op in (*of_x, *windows, projection, pool)]
        == [0, 0, 0, int(three["in_channels"]), 0, 0]
        and slices == [0, 0, widths[0], widths[0] + widths[1], sum(widths[:3]), 0]
        and [int(op["out_buffer"]) for op in (one, three, five, projection)] == [out] * 4
        and not any(
            n % PANEL for n in (channels, *widths, int(three["in_channels"]), int(five["in_channels"]))
        )
        and width <= 128
        and _are_disjoint(program, (x, reduced, pooled, out))
        and not _is_waited_for(program, tasks)
    )
    if not fits:
        return None
    n1, n3, n5, n_pool = widths
    sizes = Sizes(
        height=height,
        width=width,
        channels=channels,
        widths=(n1, int(three["in_channels"]), n3, int(five["in_channels"]), n5, n_pool),
        reduced=int(reduce["out_channels"]),
        third=int(five["kernel_h"]),
        group=min(group or GROUP, int(program.header["max_batch"])),
    )
    return Found(
        sizes, height * width * int(program.header["max_batch"]), Buffers(x, reduced, pooled, out), parts
    )


def _is_waited_for(program: Program, tasks: np.ndarray) -> bool:
    """Whether a task of another launch waits for a counter that one of ``tasks``, a launch's, signals."""
    begin = int(tasks["wait_begin"][0])
    end = begin + int(tasks["wait_count"].sum())
    counters = program.waits["counter"]
    return bool(np.isin(np.concatenate([counters[:begin], counters[end:]]), tasks["signal"]).any())


def _are_disjoint(program: Program, buffers: Iterable[int]) -> bool:
    """In the arena, at the program's largest batch."""
    records = sorted((program.buffers[i] for i in buffers), key=lambda record: int(record["offset"]))
    images, element = int(program.header["max_batch"]), Dtype(int(program.header["dtype"])).bytes
    ends = [int(r["offset"]) + element * images * int(r["rows"]) * int(r["pitch"]) for r in records]
    return all(end <= int(r["offset"]) for end, r in zip(ends, records[1:], strict=False))


def _is_same(op: np.void, side: int, height: int, width: int) -> bool:
    """Whether the op's window is square, of this side, and leaves an image of this size as large as it is."""
    wanted = {"kernel_h": side, "kernel_w": side, "stride_h": 1, "stride_w": 1, "in_h": height, "in_w": width}
    wanted |= {"out_h": height, "out_w": width}
    wanted |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), side // 2)
    return side % 2 == 1 and all(int(op[name]) == value for name, value in wanted.items())


class ModuleLaunch:
    """A module on a device. For one stream at a time, like the executor that owns it.

    ``writes``: the plan's indices of the buffers that it writes.
    """

    def __init__(self, found: Found, program: Program, weights: Tensor, processors: int) -> None:
        """``weights``: the plan's, on the device, in the program's dtype. ``processors``: of the GPU; 0: a grid of one
        block for each task."""
        element = weights.element_size()
        self.sizes, self.writes, self._processors = found.sizes, {*found.buffers[1:]}, processors
        offsets = {i: int(program.buffers[i]["offset"]) // element for i in found.buffers}
        self._x, self._reduced, self._pooled, self._out = (offsets[i] for i in found.buffers)
        self._weights = [_weight(op, weights) for op in found.ops]
        self._bias = torch.cat([_bias(op, weights) for op in found.ops])
        groups = -(-int(program.header["max_batch"]) // found.sizes.group)
        self._state = torch.zeros(STRIDE * (groups + 2), dtype=torch.int32, device=weights.device)

    @property
    def status(self) -> Tensor:
        """int32 (1,): not zero when a wait has passed its bound."""
        return self._state[STATUS : STATUS + 1]

    def __call__(self, arena: Tensor, batch: int, x: Tensor | None = None, *, spins: int) -> None:
        """Enqueue the launch. ``x``: the module's input, (batch, height, width, channels), if not in the arena."""
        sizes = self.sizes
        pixels = batch * sizes.height * sizes.width

        def buffer(offset: int, channels: int) -> Tensor:
            return arena[offset:][: pixels * channels].view(pixels, channels)

        _, c3, _, c5, _, _ = sizes.widths
        x = buffer(self._x, sizes.channels) if x is None else x.view(pixels, sizes.channels)
        pooled, reduced = buffer(self._pooled, sizes.channels), buffer(self._reduced, c3 + c5)
        out = arena[self._out :]
        images = reduced.view(batch, sizes.height, sizes.width, c3 + c5)
        tickets = sizes.tickets(batch)
        blocks = min(tickets, sizes.blocks_per_sm * self._processors) if self._processors else tickets
        kernel.module[(blocks,)](
            *sizes.descriptors(x, pooled, images, self._weights),
            x,
            reduced,
            pooled,
            out,
            self._bias,
            self._state,
            self._state[-STRIDE:],
            batch,
            LOOP=self._processors > 0,
            SPINS=spins,
            **sizes.constants(),
            **sizes.options,
        )


def _weight(op: np.void, weights: Tensor) -> Tensor:
    """(columns, K) from panels of 16 columns, (columns / 16, K, 16)."""
    begin, size = (int(op[name]) // weights.element_size() for name in ("weight_offset", "weight_bytes"))
    panels = weights[begin:][:size].view(int(op["out_padded"]) // PANEL, -1, PANEL)
    return panels.transpose(1, 2).flatten(0, 1).contiguous()


def _bias(op: np.void, weights: Tensor) -> Tensor:
    floats = weights.view(torch.float32)[int(op["bias_offset"]) // 4 :]
    return floats[: int(op["out_padded"])]
