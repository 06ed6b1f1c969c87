"""An LRN behind a convolution or a pool, in the same task (ops.cpp, tiling.cpp)."""

from __future__ import annotations

import pytest

from tests import plans, proof_rules
from tests.happens_before import is_safe
from tests.loader import verdict
from tests.plans import (
    CLASSIFIER,
    CONV,
    CUDA,
    IMAGE,
    INPUT,
    MEAN,
    NONE,
    NORM,
    PANEL,
    PROBABILITIES,
    RELU,
    TASK,
    Builder,
    Program,
    plan_file,
    small_program,
)
from tests.runtime.proof.changes import Change, insert_task, set_op, tasks_of


def normalised(flags: int = plans.THEN_LRN) -> Program:
    """A convolution and a maximum pool of two images, both with an LRN behind them."""
    build = Builder((3, 4, 4), 2)
    image, hidden, out = build.buffer(16, 3), build.buffer(16, 20), build.buffer(4, 21)
    half = {"kernel_h": 2, "kernel_w": 2, "stride_h": 2, "stride_w": 2}
    build.op(INPUT, NONE, image)
    build.op(CONV, image, hidden, in_h=4, in_w=4, tile_rows=8, flags=RELU | flags)
    fields = {"out_channel": 1, "tile_rows": 2, "flags": flags, **half}
    build.op(plans.MAX_POOL, hidden, out, in_h=4, in_w=4, **fields)
    build.output(out, 2, 2, channel=1, channels=20)
    return build.finish()


def cut_columns(op: int) -> Change:
    """The op's tiles have 16 of its 20 columns, and tasks for the others."""

    def apply(program: Program) -> None:
        program.ops[op].tile_columns = PANEL
        for number in reversed(tasks_of(program, op)):
            task = TASK.new(**vars(program.tasks[number]))
            task.column = PANEL
            insert_task(program, number + 1, task, program.wait_lists()[number])
        program.retarget()

    return apply


def test_lrn_behind_an_op() -> None:
    program = normalised()
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    assert is_safe(program)


@pytest.mark.parametrize("op", [1, 2])
@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("IE_PLAN_VALUE", {"lrn_size": 0}),
        ("IE_PLAN_VALUE", {"lrn_size": 2**24}),
        ("IE_PLAN_VALUE", {"lrn_alpha": float("inf")}),
        ("IE_PLAN_VALUE", {"lrn_beta": float("nan")}),
        ("IE_PLAN_VALUE", {"lrn_k": float("-inf")}),
        ("IE_PLAN_ALIGNMENT", {"tile_columns": 19}),
    ],
)
def test_each_rule_of_an_lrn_behind_an_op_refuses(status: str, change: dict[str, float], op: int) -> None:
    program = normalised()
    set_op(op, **change)(program)
    assert verdict(plan_file(program)) == status
    assert status in proof_rules.violations(program)


@pytest.mark.parametrize("op", [1, 2])
def test_an_lrn_behind_some_columns_is_refused(op: int) -> None:
    """It would read those of another task. Without an LRN the same tiles are sound."""
    plain = normalised(flags=0)
    cut_columns(op)(plain)
    assert verdict(plan_file(plain.count())) == "IE_OK"
    assert is_safe(plain)
    program = normalised()
    cut_columns(op)(program)
    assert verdict(plan_file(program.count())) == "IE_PLAN_ALIGNMENT"
    assert proof_rules.violations(program) == {"IE_PLAN_ALIGNMENT"}
    assert not is_safe(program)


@pytest.mark.parametrize("op", [IMAGE, NORM, MEAN, PROBABILITIES])
def test_ops_that_have_no_lrn_behind_them(op: int) -> None:
    program = small_program()
    set_op(op, flags=plans.THEN_LRN, lrn_size=5)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_no_lrn_behind_parts() -> None:
    program = small_program(1, part_depth=PANEL)
    set_op(CLASSIFIER, lrn_size=5)(program)
    assert verdict(plan_file(program)) == "IE_OK"
    set_op(CLASSIFIER, flags=plans.THEN_LRN)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_no_lrn_behind_ops_of_a_gpu() -> None:
    build = Builder((4, 2, 2), 1, CUDA)
    image, out = build.buffer(4, 4), build.buffer(4, PANEL)
    build.op(INPUT, NONE, image)
    build.op(CONV, image, out, in_h=2, in_w=2)
    build.output(out, 2, 2)
    program = build.finish()
    set_op(1, lrn_size=5)(program)
    assert verdict(plan_file(program)) == "IE_OK"
    set_op(1, flags=plans.THEN_LRN)(program)
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_an_lrn_behind_an_op_is_work() -> None:
    """2^20 pixels of a panel: of 2^44 multiply-adds, a window of LRN has 2^24 for each of its channels."""
    build = Builder((1, 1024, 1024))
    image, out = build.buffer(2**20, 1), build.buffer(2**20, PANEL)
    build.op(INPUT, NONE, image)
    build.op(CONV, image, out, in_h=1024, in_w=1024, flags=plans.THEN_LRN)
    build.output(out, 1024, 1024)
    program = build.finish()
    for size, status in ((2**20 - 2, "IE_OK"), (2**20 - 1, "IE_PLAN_WORK"), (2**24 - 1, "IE_PLAN_WORK")):
        program.ops[1].lrn_size = size
        assert verdict(plan_file(program)) == status
        assert (proof_rules.violations(program) or {"IE_OK"}) == {status}
