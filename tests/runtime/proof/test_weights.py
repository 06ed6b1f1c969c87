"""What ops read of the section of weights, and what the CPU makes of it (weights.cpp)."""

from __future__ import annotations

import pytest

from tests import plans, proof_rules
from tests.loader import verdict
from tests.plans import (
    ALIGNMENT,
    CONV,
    CONV_1X1,
    CONV_3X3,
    IMAGE,
    INPUT,
    NONE,
    POOL,
    Builder,
    plan_file,
    small_program,
)
from tests.runtime.proof.changes import Change, set_op

# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("weights misaligned", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, weight_offset=4)),
    ("weights outside", "IE_PLAN_WEIGHTS", set_op(CONV_3X3, weight_offset=64)),
    ("weights far outside", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, weight_offset=2**64 - 64)),
    ("bias misaligned", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, bias_offset=4)),
    ("bias outside", "IE_PLAN_WEIGHTS", lambda p: set_op(CONV_1X1, bias_offset=p.weight_bytes)(p)),
    ("bias far outside", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, bias_offset=2**64 - 64)),
    ("too few weights", "IE_PLAN_WEIGHTS", set_op(CONV_1X1, weight_bytes=64)),
    ("weights of a pool", "IE_PLAN_WEIGHTS", set_op(POOL, weight_bytes=64)),
    ("scale outside", "IE_PLAN_WEIGHTS", lambda p: set_op(IMAGE, weight_offset=p.weight_bytes)(p)),
]


def test_a_window_of_too_many_weights() -> None:
    program = small_program(1)
    program.buffers[0].pitch, program.buffers[0].offset = 2**20, 2**30
    plans.fit_arena(program)
    vars(program.ops[CONV_3X3]).update(in_channels=2**20, kernel_h=64, kernel_w=64)
    for name in ("pad_top", "pad_left"):
        setattr(program.ops[CONV_3X3], name, 63)
    vars(program.ops[CONV_3X3]).update(pad_bottom=0, pad_right=0)
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"


def test_windows_that_overlap_are_refused() -> None:
    """A machine makes four times as much of them: a small file must not ask for much memory."""
    build = Builder((3, 4, 4), 1)
    image, *outs = (build.buffer(16, pitch) for pitch in (3, 16, 16))
    build.op(INPUT, NONE, image)
    fields = dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1) | {
        "kernel_h": 3,
        "kernel_w": 3,
    }
    for out in outs:
        build.op(CONV, image, out, in_h=4, in_w=4, flags=plans.WINOGRAD, **fields)
        build.output(out, 4, 4)
    program = build.finish()
    assert verdict(plan_file(program)) == "IE_OK"  # they share
    program.ops[2].weight_offset = ALIGNMENT
    program.weight_bytes += ALIGNMENT
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"
    assert proof_rules.violations(program) == {"IE_PLAN_LIMIT"}
    program.weight_bytes = 2 * program.ops[2].weight_bytes
    program.ops[2].weight_offset = program.ops[2].weight_bytes
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()


@pytest.mark.parametrize(
    ("dtype", "flags"), [(plans.FP32, plans.WINOGRAD), (plans.BF16, plans.WINOGRAD), (plans.BF16, 0)]
)
def test_windows_of_other_channels_do_not_share(dtype: int, flags: int) -> None:
    """What is made of 9 x 32 channels is not what is made of 9 x 16 channels of twice as many outputs."""
    build = Builder((16, 4, 4), 1, dtype=dtype)
    image, deep, shallow = (build.buffer(16, pitch) for pitch in (16, 32, 16))
    build.op(INPUT, NONE, image)
    fields = {"kernel_h": 3, "kernel_w": 3, "in_h": 4, "in_w": 4, "flags": flags}
    fields |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
    build.op(CONV, image, deep, weight_offset=0, **fields)
    build.op(CONV, deep, shallow, weight_offset=0, **fields)
    build.output(shallow, 4, 4)
    program = build.finish()
    assert program.ops[1].weight_bytes == program.ops[2].weight_bytes
    need = program.ops[1].weight_bytes + program.ops[2].weight_bytes
    program.weight_bytes = need
    assert verdict(plan_file(program)) == "IE_OK"
    program.weight_bytes = need - ALIGNMENT
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"
    assert proof_rules.violations(program) == {"IE_PLAN_LIMIT"}


@pytest.mark.parametrize(("window", "flags", "places"), [(3, 0, 2), (1, 0, 1), (2, plans.MAX_POOL_FIRST, 1)])
def test_weights_of_one_tap_share_with_others_of_one_tap(window: int, flags: int, places: int) -> None:
    """What is made of 16 channels behind a pool is what is made of them behind another pool, or none; not what is made
    of 3 x 3 x 16 channels of as many weights."""
    build = Builder((16, 4, 4), 1, dtype=plans.BF16)
    image, pooled = build.buffer(16, 16), build.buffer(4, 144)
    build.op(INPUT, NONE, image)
    fields = {"in_h": 4, "in_w": 4, "weight_offset": 0}
    build.op(CONV, image, pooled, kernel_h=3, kernel_w=3, flags=plans.MAX_POOL_FIRST, **fields)
    size = 5 - window
    other = build.buffer(size**2, 16 if places == 2 else 144)
    build.op(CONV, image, other, kernel_h=window, kernel_w=window, flags=flags, **fields)
    build.output(pooled, 2, 2)
    build.output(other, size, size)
    program = build.finish()
    assert program.ops[1].weight_bytes == program.ops[2].weight_bytes
    program.weight_bytes = places * program.ops[1].weight_bytes
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    program.weight_bytes -= ALIGNMENT
    status = "IE_PLAN_LIMIT" if places == 2 else "IE_PLAN_WEIGHTS"
    assert verdict(plan_file(program)) == status
    assert proof_rules.violations(program) >= {status}


def test_windows_of_other_patches_do_not_share() -> None:
    """What is made of windows for small patches is not what is made of them for large ones."""
    build = Builder((3, 4, 4), 1)
    image, *outs = (build.buffer(16, pitch) for pitch in (3, 16, 16))
    build.op(INPUT, NONE, image)
    fields = {"kernel_h": 3, "kernel_w": 3, "in_h": 4, "in_w": 4, "weight_offset": 0}
    fields |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
    for out, flags in zip(outs, (plans.WINOGRAD, plans.WINOGRAD | plans.SMALL_PATCHES), strict=True):
        build.op(CONV, image, out, flags=flags, **fields)
        build.output(out, 4, 4)
    program = build.finish()
    program.weight_bytes = 2 * program.ops[1].weight_bytes
    assert verdict(plan_file(program)) == "IE_OK"
    program.weight_bytes -= ALIGNMENT
    assert verdict(plan_file(program)) == "IE_PLAN_LIMIT"
    assert proof_rules.violations(program) == {"IE_PLAN_LIMIT"}
