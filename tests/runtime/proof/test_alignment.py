"""Tiles have all columns or whole panels; on a GPU so have the slices that ops read and write (tiling.cpp)."""

from __future__ import annotations

import pytest

from tests import plans, proof_rules
from tests.loader import verdict
from tests.plans import CONV, CONV_3X3, CUDA, INPUT, NONE, NORM, PROBABILITIES, Builder, plan_file
from tests.runtime.proof.changes import Change, set_header, set_op

# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("half a panel", "IE_PLAN_ALIGNMENT", set_op(CONV_3X3, tile_columns=8)),
    ("LRN of some columns", "IE_PLAN_ALIGNMENT", set_op(NORM, tile_columns=16)),
    ("softmax of some columns", "IE_PLAN_ALIGNMENT", set_op(PROBABILITIES, tile_columns=4)),
    ("half a panel on a GPU", "IE_PLAN_ALIGNMENT", set_header(target=CUDA)),
]


@pytest.mark.parametrize(
    ("status", "op", "fields", "pitch"),
    [
        ("IE_OK", 1, {}, 16),
        ("IE_OK", 1, {}, 32),
        ("IE_PLAN_ALIGNMENT", 1, {"in_channels": 3}, 16),
        ("IE_PLAN_ALIGNMENT", 1, {"in_channel": 1, "in_channels": 3}, 16),
        ("IE_PLAN_ALIGNMENT", 1, {"out_padded": 8, "out_channels": 8}, 16),
        ("IE_PLAN_ALIGNMENT", 2, {"out_channel": 8}, 16),
        ("IE_PLAN_ALIGNMENT", 3, {"in_channel": 8}, 16),
        ("IE_PLAN_ALIGNMENT", 3, {}, 17),
        ("IE_PLAN_ALIGNMENT", 3, {"in_buffer": 0, "in_channels": 4, "out_channels": 4, "in_channel": 0}, 16),
        ("IE_PLAN_ALIGNMENT", 3, {"tile_columns": 8}, 16),
    ],
)
def test_slices_on_a_gpu(status: str, op: int, fields: dict[str, int], pitch: int) -> None:
    """Two convolutions of an image with four channels fill a buffer of 32; a pool takes the second half."""
    build = Builder((4, 2, 2), 2, CUDA, plans.FP16)
    image, joined, out = build.buffer(4, 4), build.buffer(4, 32), build.buffer(4, pitch)
    build.op(INPUT, NONE, image)
    for channel in (0, 16):
        build.op(CONV, image, joined, in_h=2, in_w=2, out_channel=channel, out_channels=16)
    build.op(plans.MAX_POOL, joined, out, in_h=2, in_w=2, in_channel=16, in_channels=16, out_channels=16)
    build.output(out, 2, 2, channels=4)
    vars(build.program.ops[op]).update(fields)
    for number in (1, 2):
        build.program.ops[number].weight_bytes = plans.window_bytes(build.program, build.program.ops[number])
    program = build.finish()
    assert verdict(plan_file(program)) == status
    assert (status in proof_rules.violations(program)) == (status != "IE_OK")
