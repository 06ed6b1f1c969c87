"""A maximum pool in front of a 1x1 convolution, in the same task (ops.cpp, weights.cpp)."""

from __future__ import annotations

import pytest

from tests import plans, proof_rules
from tests.happens_before import is_safe
from tests.loader import verdict
from tests.plans import (
    CONV,
    CUDA,
    IMAGE,
    INPUT,
    MEAN,
    NONE,
    NORM,
    POOL,
    PROBABILITIES,
    Builder,
    Program,
    plan_file,
    small_program,
)
from tests.runtime.proof.changes import Change, set_header, set_op


def pool_first(**changed: int) -> Program:
    """Two images, and a 1x1 convolution of the maxima of 3 x 3 pixels."""
    build = Builder((3, 6, 6), 2)
    image, out = build.buffer(36, 3), build.buffer(9, 20)
    build.op(INPUT, NONE, image, tile_rows=6)
    fields = {"kernel_h": 3, "kernel_w": 3, "stride_h": 2, "stride_w": 2, "pad_top": 1, "pad_left": 1}
    fields |= {"in_h": 6, "in_w": 6, "tile_rows": 3, "flags": plans.MAX_POOL_FIRST}
    build.op(CONV, image, out, **(fields | changed))
    build.output(out, 3, 3)
    return build.finish()


def test_a_pool_in_front_of_a_convolution() -> None:
    """It reads as the pool reads, and has weights of one tap."""
    program = pool_first()
    assert program.ops[1].weight_bytes == 3 * 32 * 4
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    assert is_safe(program)
    lists = program.wait_lists()  # a tile's first line of pixels is the last of another band
    assert [len(waits) for waits in lists[-6:]] == [2, 3, 3, 2, 3, 3]
    lists[-2].pop(0)
    program.set_wait_lists(lists)
    assert verdict(plan_file(program.count())) != "IE_OK"
    assert not is_safe(program)


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("IE_PLAN_WEIGHTS", set_op(1, weight_bytes=9 * 3 * 32 * 4)),
        ("IE_PLAN_WEIGHTS", set_op(1, flags=0)),
        ("IE_PLAN_VALUE", set_op(1, part_depth=16)),
        ("IE_PLAN_VALUE", set_op(1, flags=plans.MAX_POOL_FIRST | plans.WINOGRAD)),
        ("IE_PLAN_VALUE", set_op(0, flags=plans.MAX_POOL_FIRST)),
        ("IE_PLAN_VALUE", set_header(target=CUDA)),
    ],
)
def test_each_rule_of_a_pool_in_front_refuses(status: str, change: Change) -> None:
    program = pool_first()
    change(program)
    assert verdict(plan_file(program.count())) == status
    assert status in proof_rules.violations(program)


def test_no_pool_in_front_of_a_folded_convolution() -> None:
    """It would choose among channels of several pixels."""
    fields = {"in_channels": 6, "kernel_w": 1, "pad_left": 0}
    program = pool_first(**fields, flags=0)
    assert verdict(plan_file(program)) == "IE_OK"
    program = pool_first(**fields)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_a_pool_in_front_sees_a_pixel() -> None:
    """Padding as high as the window: of no pixels there is no maximum."""
    program = pool_first(kernel_h=1, kernel_w=1, pad_top=1, pad_left=0, stride_h=3, stride_w=2)
    assert verdict(plan_file(program)) == "IE_PLAN_GEOMETRY"
    assert proof_rules.violations(program) == {"IE_PLAN_GEOMETRY"}


@pytest.mark.parametrize("op", [IMAGE, POOL, NORM, MEAN, PROBABILITIES])
def test_ops_that_have_no_pool_in_front(op: int) -> None:
    program = small_program()
    set_op(op, flags=plans.MAX_POOL_FIRST)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}
