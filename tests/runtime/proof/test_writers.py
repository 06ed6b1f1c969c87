"""Ops that write one buffer write different columns; what ops and callers read has a writer (writers.cpp)."""

from __future__ import annotations

from tests import plans
from tests.loader import verdict
from tests.plans import CONV_1X1, NORM, POOL, PROBABILITIES, Program, plan_file, small_program
from tests.runtime.proof.changes import HUGE, Change, set_op, set_output


def write_zeros_over_values(program: Program) -> None:
    """The pool's 19 channels and a column of zeros; the convolution begins at those zeros."""
    vars(program.ops[POOL]).update(in_channels=19, out_channels=19)
    program.ops[CONV_1X1].out_channel = 19


def read_padding(program: Program) -> None:
    """The LRN's columns end two before those that its readers want."""
    op = program.ops[NORM]
    op.in_channels = op.out_channels = op.out_padded = 18


# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("columns written twice", "IE_PLAN_OVERLAP", set_op(CONV_1X1, out_channel=19)),
    ("zeros over values", "IE_PLAN_OVERLAP", write_zeros_over_values),
    ("in place", "IE_PLAN_OVERLAP", set_op(NORM, in_buffer=2)),
    ("columns that nobody writes", "IE_PLAN_UNWRITTEN", read_padding),
    (
        "an output that nobody writes",
        "IE_PLAN_UNWRITTEN",
        set_op(PROBABILITIES, in_channels=4, out_channels=4, out_padded=4),
    ),
    ("output of no buffer", "IE_PLAN_VALUE", set_output(buffer=7)),
    ("output without channels", "IE_PLAN_VALUE", set_output(channels=0)),
    ("output's name", "IE_PLAN_TABLES", set_output(name=1, name_bytes=HUGE)),
    ("output's shape", "IE_PLAN_GEOMETRY", set_output(height=2)),
    ("output beyond", "IE_PLAN_BOUNDS", set_output(channel=1)),
    ("output far beyond", "IE_PLAN_BOUNDS", set_output(channel=HUGE)),
]


def test_two_outputs_of_one_buffer_and_two_programs() -> None:
    program = small_program()
    program.outputs.append(plans.Record(**vars(program.outputs[0])))
    program.count()
    assert verdict(plan_file(program, small_program(1), small_program(3))) == "IE_OK"
