"""What an op moves, beside what it computes: the two halves of a layer's distance to the machine's limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inception_engine.compiler.plan import PANEL, Dtype, OpKind, Program


@dataclass(frozen=True)
class Traffic:
    """Bytes for a run of one batch, each counted once: ``read`` of the input, ``weights`` with biases and padding as
    they stand in the plan (Winograd's algorithm reads up to four times that), and ``written``. No schedule moves less
    through memory, unless it fuses layers or keeps them in a cache."""

    read: int
    weights: int
    written: int

    @property
    def total(self) -> int:
        return self.read + self.weights + self.written


def traffic(program: Program, op: np.void, batch: int) -> Traffic:
    """Of one op in a run of ``batch`` images. An input reads the caller's float32 numbers."""
    pixels_in = batch * int(op["in_h"]) * int(op["in_w"])
    pixels_out = batch * int(op["out_h"]) * int(op["out_w"])
    channels, element = int(op["in_channels"]), Dtype.FP32.bytes
    if op["kind"] != OpKind.INPUT:
        element = _element(program, int(op["in_buffer"]))
        # A folded stem's pixels are runs that overlap in memory.
        channels = min(channels, int(program.buffers[int(op["in_buffer"])]["pitch"]))
    biases = 0
    if op["kind"] == OpKind.CONV:
        biases = -(-int(op["out_channels"]) // PANEL) * PANEL * Dtype.FP32.bytes
    return Traffic(
        read=pixels_in * channels * element,
        weights=int(op["weight_bytes"]) + biases,
        written=pixels_out * int(op["out_channels"]) * _element(program, int(op["out_buffer"])),
    )


def _element(program: Program, buffer: int) -> int:
    return Dtype(int(program.buffers[buffer]["dtype"])).bytes
