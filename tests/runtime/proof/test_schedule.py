"""Launches hold all tasks, and the tasks of an op are its tiles, each once and in one launch (schedule.cpp)."""

from __future__ import annotations

from tests import plans
from tests.plans import IMAGE, LAUNCH, NONE, POOL, WAIT, Program
from tests.runtime.proof.changes import (
    HUGE,
    Change,
    cut_launch,
    drop_a_tile,
    insert_task,
    set_launch,
    set_op,
    set_task,
    skip_a_tile,
    tasks_of,
)


def compute_a_tile_twice(program: Program) -> None:
    number = tasks_of(program, POOL)[-1]
    again = plans.Record(**vars(program.tasks[number]))
    insert_task(program, number + 1, again, program.wait_lists()[number])


# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("no such op", "IE_PLAN_VALUE", set_task(0, op=8)),
    ("no such counter to signal", "IE_PLAN_VALUE", lambda p: set_task(0, signal=p.header.counter_count)(p)),
    ("no such launch mode", "IE_PLAN_VALUE", set_launch(mode=0)),
    ("launch's name", "IE_PLAN_TABLES", set_launch(name=1)),
    ("waits out of order", "IE_PLAN_TABLES", set_task(9, wait_begin=0)),
    ("waits beyond their table", "IE_PLAN_TABLES", lambda p: set_task(len(p.tasks) - 1, wait_count=2)(p)),
    ("waits that overflow", "IE_PLAN_TABLES", lambda p: set_task(len(p.tasks) - 1, wait_count=HUGE)(p)),
    ("waits of no task", "IE_PLAN_TABLES", lambda p: p.waits.append(WAIT.new(target=1))),
    ("a tile missing", "IE_PLAN_TILES", drop_a_tile),
    ("a JOIN instead of a tile", "IE_PLAN_TILES", skip_a_tile),
    ("a JOIN of a tile", "IE_PLAN_VALUE", lambda p: set_task(tasks_of(p, POOL)[-1], op=NONE)(p)),
    ("a tile twice", "IE_PLAN_TILES", compute_a_tile_twice),
    ("a tile elsewhere", "IE_PLAN_TILES", set_task(0, row=1)),
    ("a tile outside", "IE_PLAN_TILES", set_task(0, row=0xFFFFFFF8)),
    ("a column outside", "IE_PLAN_TILES", set_task(0, column=0xFFFFFFF0)),
    ("smaller tiles", "IE_PLAN_TILES", set_op(POOL, tile_rows=1)),
    ("larger tiles", "IE_PLAN_TILES", set_op(POOL, tile_rows=4)),
    ("more tiles than tasks", "IE_PLAN_TILES", set_op(IMAGE, tile_rows=1)),
    ("launches begin late", "IE_PLAN_LAUNCH", set_launch(first_task=1)),
    ("launches end early", "IE_PLAN_LAUNCH", lambda p: set_launch(task_count=len(p.tasks) - 1)(p)),
    ("launches end late", "IE_PLAN_LAUNCH", set_launch(task_count=HUGE)),
    ("an empty launch", "IE_PLAN_LAUNCH", lambda p: p.launches.insert(0, LAUNCH.new(mode=1))),
    ("a launch twice", "IE_PLAN_LAUNCH", lambda p: p.launches.append(p.launches[0])),
    ("an op in two launches", "IE_PLAN_LAUNCH", cut_launch(POOL, 1)),
]
