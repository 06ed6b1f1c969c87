"""Products that are cut along K, of which each task makes a part (tiling.cpp, schedule.cpp, arena.cpp)."""

from __future__ import annotations

import pytest

from tests import happens_before, plans, proof_rules
from tests.loader import verdict
from tests.plans import (
    CLASSIFIER,
    CONV,
    CONV_1X1,
    CONV_3X3,
    INPUT,
    MEAN,
    NONE,
    PANEL,
    POOL,
    PROBABILITIES,
    WAIT,
    Builder,
    Program,
    plan_file,
    small_program,
)
from tests.runtime.proof.changes import (
    HUGE,
    Change,
    parts_task,
    place_of_parts,
    set_op,
    set_task,
    signal_an_arrival,
)


def shorten_parts(program: Program) -> None:
    program.buffers[program.ops[CLASSIFIER].part_buffer].rows -= 1
    plans.fit_arena(program)


def wait_for_an_arrival(program: Program) -> None:
    lists = program.wait_lists()
    lists[-1].append(WAIT.new(counter=program.ops[CLASSIFIER].first_arrival, target=3))
    program.set_wait_lists(lists)


# (name, status, what is done to small_program(part_depth=16), whose classifier's K of 48 is cut into three).
BROKEN_PARTS: list[tuple[str, str, Change]] = [
    ("a place without parts", "IE_PLAN_VALUE", set_op(CONV_1X1, part_buffer=1)),
    ("arrivals without parts", "IE_PLAN_VALUE", set_op(CONV_1X1, first_arrival=1)),
    ("parts of a pool", "IE_PLAN_VALUE", set_op(POOL, part_depth=16)),
    ("one part", "IE_PLAN_VALUE", set_op(CLASSIFIER, part_depth=48)),
    ("half a panel in a part", "IE_PLAN_ALIGNMENT", set_op(CLASSIFIER, part_depth=24)),
    ("no buffer for parts", "IE_PLAN_VALUE", set_op(CLASSIFIER, part_buffer=HUGE)),
    ("parts beyond their buffer", "IE_PLAN_BOUNDS", shorten_parts),
    ("parts of huge tiles", "IE_PLAN_BOUNDS", set_op(CLASSIFIER, tile_columns=2**24 - 16)),
    ("no such arrivals", "IE_PLAN_VALUE", set_op(CLASSIFIER, first_arrival=HUGE)),
    ("arrivals that are signals", "IE_PLAN_COUNTER", set_op(CLASSIFIER, first_arrival=0)),
    ("a signal for an arrival", "IE_PLAN_COUNTER", signal_an_arrival),
    ("a wait for an arrival", "IE_PLAN_COUNTER", wait_for_an_arrival),
    ("a part twice", "IE_PLAN_TILES", parts_task(1, part=0)),
    ("no such part", "IE_PLAN_TILES", parts_task(2, part=3)),
    ("a part of what has none", "IE_PLAN_TILES", set_task(0, part=1)),
    ("longer parts, fewer of them", "IE_PLAN_TILES", set_op(CLASSIFIER, part_depth=32)),
    (
        "parts in a buffer of another op",
        "IE_PLAN_OVERLAP",
        lambda p: set_op(CLASSIFIER, part_buffer=p.ops[CONV_3X3].out_buffer)(p),
    ),
    ("parts over the input", "IE_PLAN_REUSE", place_of_parts(MEAN)),
    ("parts over the result", "IE_PLAN_REUSE", place_of_parts(CLASSIFIER)),
]


@pytest.mark.parametrize(("status", "change"), [pytest.param(s, c, id=name) for name, s, c in BROKEN_PARTS])
def test_each_rule_of_parts_refuses(status: str, change: Change) -> None:
    program = small_program(1, part_depth=16)
    assert verdict(plan_file(program)) == "IE_OK"
    happens_before.check(program)
    change(program)
    assert verdict(plan_file(program.count())) == status
    assert status in proof_rules.violations(program)


@pytest.mark.parametrize("op", [CONV_1X1, PROBABILITIES])
def test_parts_in_memory_that_others_have_used_or_will_use(op: int) -> None:
    program = small_program(1, part_depth=16)
    place_of_parts(op)(program)
    assert verdict(plan_file(program)) == "IE_OK"
    happens_before.check(program)


def test_parts_are_float32() -> None:
    build = Builder((32, 1, 1), dtype=plans.FP16)
    image, result = build.buffer(1, 32), build.buffer(1, 5)
    build.op(INPUT, NONE, image)
    build.op(CONV, image, result, in_h=1, in_w=1, part_depth=PANEL)
    build.output(result, 1, 1)
    program = build.finish()
    assert verdict(plan_file(program)) == "IE_OK"
    sums = program.buffers[program.ops[1].part_buffer]
    sums.dtype, sums.rows = plans.FP16, 2 * sums.rows
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_at_most_64_parts() -> None:
    for channels, status in ((64 * PANEL, "IE_OK"), (65 * PANEL, "IE_PLAN_VALUE")):
        build = Builder((channels, 1, 1))
        image, result = build.buffer(1, channels), build.buffer(1, 5)
        build.op(INPUT, NONE, image)
        build.op(CONV, image, result, in_h=1, in_w=1, part_depth=PANEL)
        build.output(result, 1, 1)
        program = build.finish()
        assert verdict(plan_file(program)) == status
        assert (proof_rules.violations(program) or {"IE_OK"}) == {status}
