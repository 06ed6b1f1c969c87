"""At every batch what an op reads and writes lies in its buffers, and they in the arena (arena.cpp, ops.cpp)."""

from __future__ import annotations

import pytest

from tests import plans, proof_rules
from tests.happens_before import is_safe
from tests.loader import verdict
from tests.plans import (
    ALIGNMENT,
    CLASSIFIER,
    CONV,
    CONV_1X1,
    CONV_3X3,
    IMAGE,
    INPUT,
    MEAN,
    NONE,
    NORM,
    POOL,
    Builder,
    Program,
    plan_file,
)
from tests.runtime.proof.changes import HUGE, Change, set_buffer, set_header, set_op


def far_away(program: Program) -> None:
    """An offset at which the end of the buffer overflows 64 bits."""
    program.buffers[0].offset = 2**64 - ALIGNMENT


def leave_rows_unwritten(program: Program) -> None:
    """A buffer has a line more than the LRN writes, and its readers want that line."""
    program.buffers[program.ops[NORM].out_buffer].rows = 20
    program.ops[POOL].in_h = program.ops[CONV_1X1].in_h = 5
    program.ops[CONV_1X1].stride_h = 3


# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("buffer's dtype", "IE_PLAN_VALUE", set_buffer(1, dtype=plans.FP16)),
    ("misaligned buffer", "IE_PLAN_BUFFER", set_buffer(0, offset=32)),
    ("buffer beyond the arena", "IE_PLAN_BUFFER", set_header(arena_bytes=64)),
    ("arena beyond the buffers", "IE_PLAN_BUFFER", set_header(arena_bytes=2**30)),
    ("buffer's end overflows", "IE_PLAN_BUFFER", far_away),
    ("buffer without rows", "IE_PLAN_BUFFER", set_buffer(0, rows=0)),
    ("buffer without columns", "IE_PLAN_BUFFER", set_buffer(0, pitch=0)),
    ("buffer of huge rows", "IE_PLAN_BUFFER", set_buffer(0, rows=HUGE, pitch=HUGE)),
    ("rows that nobody writes", "IE_PLAN_GEOMETRY", leave_rows_unwritten),
    ("output too high", "IE_PLAN_GEOMETRY", set_op(POOL, out_h=3)),
    ("output transposed", "IE_PLAN_GEOMETRY", set_op(MEAN, out_h=2)),
    ("input too low", "IE_PLAN_GEOMETRY", set_op(CONV_3X3, in_h=3, pad_bottom=2)),
    ("input too wide", "IE_PLAN_GEOMETRY", set_op(POOL, in_w=5)),
    ("kernel too large", "IE_PLAN_GEOMETRY", set_op(MEAN, kernel_h=3)),
    ("stride too small", "IE_PLAN_GEOMETRY", set_op(POOL, stride_h=1)),
    ("padding too large", "IE_PLAN_GEOMETRY", set_op(CONV_3X3, pad_bottom=2)),
    ("a pool changes the channels", "IE_PLAN_GEOMETRY", set_op(POOL, in_channels=19)),
    ("LRN changes the channels", "IE_PLAN_GEOMETRY", set_op(NORM, in_channels=19)),
    ("windows of padding alone", "IE_PLAN_GEOMETRY", set_op(POOL, pad_top=2, stride_h=4)),
    ("more values than columns", "IE_PLAN_GEOMETRY", set_op(CLASSIFIER, out_channels=6)),
    ("another image", "IE_PLAN_GEOMETRY", set_header(input_width=5)),
    ("image padded above", "IE_PLAN_GEOMETRY", set_op(IMAGE, pad_top=1)),
    ("not all of the image", "IE_PLAN_GEOMETRY", set_op(IMAGE, in_channels=2, out_channels=2)),
    ("columns read beyond", "IE_PLAN_BOUNDS", set_op(CONV_1X1, in_channel=1)),
    ("columns read far beyond", "IE_PLAN_BOUNDS", set_op(CONV_1X1, in_channel=HUGE)),
    ("columns written beyond", "IE_PLAN_BOUNDS", set_op(CLASSIFIER, out_channel=1)),
    ("columns written far beyond", "IE_PLAN_BOUNDS", set_op(CLASSIFIER, out_channel=HUGE)),
]


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("IE_OK", {}),
        ("IE_OK", {"in_channels": 4, "kernel_h": 1, "stride_h": 2}),
        ("IE_PLAN_BOUNDS", {"in_channels": 8}),
        ("IE_PLAN_BOUNDS", {"stride_w": 2}),
        ("IE_PLAN_BOUNDS", {"stride_w": 2**24 - 1}),
        ("IE_PLAN_GEOMETRY", {"in_channel": 1}),
        ("IE_PLAN_GEOMETRY", {"kernel_w": 2}),
        ("IE_PLAN_GEOMETRY", {"pad_left": 1}),
        ("IE_PLAN_GEOMETRY", {"pad_right": 1}),
        ("IE_PLAN_GEOMETRY", {"stride_h": 3}),
    ],
)
def test_a_convolution_folded_along_lines(status: str, fields: dict[str, int]) -> None:
    """Three pixels of two channels are one tap of six, in lines of six pixels."""
    build = Builder((2, 3, 6), 2)
    image, out = build.buffer(18, 2), build.buffer(8, 16)
    build.op(INPUT, NONE, image, tile_rows=6)
    build.op(CONV, image, out, in_h=3, in_w=6, in_channels=6, kernel_h=2, tile_rows=4)
    build.output(out, 2, 4)
    op = build.program.ops[1]
    vars(op).update(fields)
    op.weight_bytes = plans.window_bytes(build.program, op)
    build.program.weight_bytes = 2 * op.weight_bytes
    program = build.finish()
    assert verdict(plan_file(program)) == status
    assert proof_rules.violations(program) == ({status} if status != "IE_OK" else set())
    if status != "IE_PLAN_GEOMETRY":
        assert is_safe(program) == (status == "IE_OK")
