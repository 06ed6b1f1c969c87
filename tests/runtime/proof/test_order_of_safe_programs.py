"""Programs that are as safe as they are unusual: which of them the rules of order accept (order.cpp)."""

from __future__ import annotations

import pytest

from tests.happens_before import is_safe
from tests.loader import verdict
from tests.plans import CONV_3X3, IMAGE, MEAN, NONE, NORM, TASK, WAIT, Program, plan_file, small_program
from tests.runtime.proof.changes import Change, cut_launch, forget_waits, insert_task, stack, tasks_of


def wait_for_op(waiter: int, op: int) -> Change:
    def apply(program: Program) -> None:
        lists = program.wait_lists()
        counters = {program.tasks[number].signal for number in tasks_of(program, op)}
        for number in tasks_of(program, waiter):
            lists[number] += [WAIT.new(counter=counter) for counter in sorted(counters)]
        program.set_wait_lists(lists)
        program.retarget()

    return apply


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_reuse_behind_waits(max_batch: int) -> None:
    program = small_program(max_batch)
    stack(MEAN)(program)
    wait_for_op(MEAN, IMAGE)(program)
    wait_for_op(MEAN, CONV_3X3)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def test_reuse_behind_a_launch() -> None:
    program = small_program()
    stack(NORM)(program)
    cut_launch(NORM, 0)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def test_a_launch_orders_what_nothing_waits_for() -> None:
    program = small_program()
    cut_launch(MEAN, 0)(program)
    forget_waits(MEAN)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def join_before_mean(program: Program) -> int:
    """A JOIN waits for what the average pool waits for, which now waits for the JOIN alone. Returns its counter."""
    number = tasks_of(program, MEAN)[0]
    counter = program.header.counter_count
    program.header.counter_count += 1
    lists = program.wait_lists()
    waits, lists[number] = lists[number], [WAIT.new(counter=counter)]
    program.set_wait_lists(lists)
    insert_task(program, number, TASK.new(op=NONE, signal=counter), waits)
    return counter


def test_a_join_stands_for_complete_ops() -> None:
    program = small_program()
    join_before_mean(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_OK"


def test_a_join_does_not_stand_for_tiles() -> None:
    """Refused though safe, because the proof asks for direct waits for tiles of an op that is not complete.

    The last tile of LRN needs the last two bands of the image only, through the convolution; here it gets the
    counters of the convolution's tiles through a JOIN.
    """
    program = small_program()
    number = tasks_of(program, NORM)[-1]
    counter = program.header.counter_count
    program.header.counter_count += 1
    lists = program.wait_lists()
    waits, lists[number] = lists[number], [WAIT.new(counter=counter)]
    program.set_wait_lists(lists)
    insert_task(program, number, TASK.new(op=NONE, signal=counter), waits)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_PLAN_MISSING_WAIT"


def test_tiles_of_tiles_do_not_make_an_op_complete() -> None:
    """Refused though safe: the average pool waits for all tiles of the branches, they for all tiles of the LRN, and so
    on back to the image, but no task waits for the whole image."""
    program = small_program()
    stack(MEAN)(program)
    assert is_safe(program)
    assert verdict(plan_file(program.count())) == "IE_PLAN_REUSE"
