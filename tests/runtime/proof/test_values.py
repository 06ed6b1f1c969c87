"""Every field has a value that exists; counts, sizes and work are capped (proof.cpp, ops.cpp)."""

from __future__ import annotations

import pytest

from inception_engine.binding import check_plan
from tests import plans
from tests.loader import STATUS, verdict
from tests.plans import (
    CONV_1X1,
    CONV_3X3,
    COUNT_INCLUDE_PAD,
    IMAGE,
    MEAN,
    NONE,
    NORM,
    POOL,
    PROBABILITIES,
    RELU,
    Program,
    plan_file,
    small_program,
)
from tests.runtime.proof.changes import HUGE, Change, set_header, set_op


def pool_for_days(kernel: int, *ops: int) -> Change:
    """The ops become pools of a window of kernel x kernel pixels at each of 2^23 pixels."""

    def apply(program: Program) -> None:
        offset = 2**30
        for op in (program.ops[index] for index in ops):
            op.in_buffer, op.out_buffer = len(program.buffers), len(program.buffers) + 1
            for _ in range(2):
                program.buffers.append(plans.BUFFER.new(rows=2**23, pitch=1, dtype=plans.FP32, offset=offset))
                offset += 2**26
            op.in_channels = op.out_channels = op.out_padded = 1
            op.in_h = op.out_h = 2**12
            op.in_w = op.out_w = 2**11
            op.stride_h = op.stride_w = 1
            op.kernel_h = op.kernel_w = kernel
            op.pad_top = op.pad_left = op.pad_bottom = op.pad_right = kernel // 2
            op.tile_rows = 2**24
        plans.fit_arena(program)

    return apply


# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("no target", "IE_PLAN_VALUE", set_header(target=0)),
    ("unknown target", "IE_PLAN_VALUE", set_header(target=3)),
    ("unknown dtype", "IE_PLAN_VALUE", set_header(dtype=4)),
    ("no batch", "IE_PLAN_VALUE", set_header(max_batch=0)),
    ("no input channels", "IE_PLAN_VALUE", set_header(input_channels=0)),
    ("huge input", "IE_PLAN_VALUE", set_header(input_height=HUGE)),
    ("no outputs", "IE_PLAN_VALUE", lambda p: p.outputs.clear()),
    *((f"kind {kind}", "IE_PLAN_VALUE", set_op(POOL, kind=kind)) for kind in (0, 7, HUGE)),
    ("ReLU of a pool", "IE_PLAN_VALUE", set_op(POOL, flags=RELU)),
    ("padding of a convolution counted", "IE_PLAN_VALUE", set_op(CONV_1X1, flags=COUNT_INCLUDE_PAD)),
    ("unknown flag", "IE_PLAN_VALUE", set_op(CONV_1X1, flags=4)),
    ("packing of a pool", "IE_PLAN_VALUE", set_op(POOL, packing=plans.PANEL_16)),
    ("no packing", "IE_PLAN_VALUE", set_op(CONV_1X1, packing=plans.NO_WEIGHTS)),
    *(
        (f"no {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: 0}))
        for name in (
            "in_channels",
            "out_channels",
            "out_padded",
            "in_h",
            "in_w",
            "out_h",
            "out_w",
            "kernel_h",
        )
    ),
    *(
        (f"no {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: 0}))
        for name in ("kernel_w", "stride_h", "stride_w", "tile_rows", "tile_columns")
    ),
    *(
        (f"huge {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: HUGE}))
        for name in ("in_channels", "out_channels", "out_padded", "in_h", "out_w", "kernel_h", "stride_w")
    ),
    *(
        (f"huge {name}", "IE_PLAN_VALUE", set_op(CONV_3X3, **{name: HUGE}))
        for name in ("pad_top", "pad_left", "pad_bottom", "pad_right", "tile_rows", "tile_columns")
    ),
    ("no such output buffer", "IE_PLAN_VALUE", set_op(POOL, out_buffer=7)),
    ("no such input buffer", "IE_PLAN_VALUE", set_op(POOL, in_buffer=7)),
    ("a pool of nothing", "IE_PLAN_VALUE", set_op(POOL, in_buffer=NONE)),
    ("an image from a buffer", "IE_PLAN_VALUE", set_op(IMAGE, in_buffer=1)),
    # Such a window would let the proof believe that the task reads other lines than it does.
    ("LRN with padding", "IE_PLAN_VALUE", set_op(NORM, pad_top=4)),
    ("LRN with a stride", "IE_PLAN_VALUE", set_op(NORM, stride_h=4)),
    ("LRN with a window", "IE_PLAN_VALUE", set_op(NORM, kernel_h=2)),
    ("softmax with padding", "IE_PLAN_VALUE", set_op(PROBABILITIES, pad_left=1)),
    ("LRN over no channels", "IE_PLAN_VALUE", set_op(NORM, lrn_size=0)),
    ("LRN's constant is NaN", "IE_PLAN_VALUE", set_op(NORM, lrn_beta=float("nan"))),
    ("LRN's constant is infinite", "IE_PLAN_VALUE", set_op(NORM, lrn_k=float("inf"))),
    ("op's name", "IE_PLAN_TABLES", set_op(POOL, name=2, name_bytes=2)),
    ("op's name overflows", "IE_PLAN_TABLES", set_op(POOL, name=HUGE, name_bytes=4)),
    ("module's name", "IE_PLAN_TABLES", set_op(POOL, module=4)),
    ("one op works for days", "IE_PLAN_WORK", pool_for_days(1023, POOL)),
    ("two ops work for days", "IE_PLAN_WORK", pool_for_days(255, POOL, MEAN)),
]


def test_counters_that_nobody_signals_take_no_memory() -> None:
    """The loader and every context hold memory for each counter; a counter without tasks is of no use."""
    program = small_program()
    program.header.counter_count = len(program.tasks)
    assert verdict(plan_file(program)) == "IE_OK"
    program.header.counter_count += 1
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff\xfe\xfd", b"\0\0\0", b"%s%n"])
def test_a_message_is_one_printable_line_whatever_names_hold(name: bytes) -> None:
    program = small_program()
    program.strings = name
    for op in program.ops:
        op.name, op.name_bytes = 0, len(name)
    for record in (*program.outputs, *program.launches):
        record.name, record.name_bytes = 0, len(name)
    program.ops[POOL].stride_h = 1
    status, message = check_plan(plan_file(program.count()))
    assert STATUS[status] == "IE_PLAN_GEOMETRY"
    assert message.isprintable()
