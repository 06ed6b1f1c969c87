"""What Engine.trace says of a run, against the plan's own waits."""

from __future__ import annotations

import numpy as np
import pytest

import inception_engine as ie
from inception_engine.compiler.plan import Program
from inception_engine.errors import BatchError, ClosedError


@pytest.fixture(scope="module")
def plan() -> ie.Plan:
    return ie.compile(ie.googlenet(width=0.25, input_size=64, classes=10), max_batch=3)


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, 64, 64), dtype=np.float32)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_task_ran_once_after_what_it_waits_for(plan: ie.Plan, threads: int) -> None:
    program = plan.programs[0]
    with ie.Engine(plan, threads=threads) as engine:
        plain = engine.run(images(3))
        times = engine.trace(images(3), len(program.tasks))
        assert np.array_equal(engine.run(images(3)), plain)
    assert (times["taken_ns"] > 0).all() and set(times["worker"]) <= set(range(threads))
    assert (times["taken_ns"] <= times["begin_ns"]).all() and (times["begin_ns"] <= times["end_ns"]).all()
    assert times["end_ns"].max() - times["taken_ns"].min() < 60e9
    for worker in set(times["worker"]):
        own = np.sort(times[times["worker"] == worker], order="taken_ns")
        assert (own["end_ns"][:-1] <= own["taken_ns"][1:]).all()
    assert _waited(program, times) > 100


def _waited(program: Program, times: np.ndarray) -> int:
    """How many tasks waited; asserts that each began when the signals that it waits for had been made."""
    done: dict[int, list[int]] = {}
    for task, time in zip(program.tasks, times, strict=True):
        done.setdefault(int(task["signal"]), []).append(int(time["end_ns"]))
    count = 0
    for task, time in zip(program.tasks, times, strict=True):
        begin = int(task["wait_begin"])
        for wait in program.waits[begin : begin + int(task["wait_count"])]:
            before = sum(end <= time["begin_ns"] for end in done[int(wait["counter"])])
            assert before >= wait["target"]
            count += 1
    return count


def test_only_the_tasks_asked_for_are_written(plan: ie.Plan) -> None:
    with ie.Engine(plan, threads=2) as engine:
        times = engine.trace(images(1), 7)
        assert (times["end_ns"] > 0).all() and len(times) == 7
        engine.run(images(1))  # and none any more
        before = times.copy()
        engine.run(images(1))
    assert np.array_equal(before, times)


def test_mistakes_leave_no_trace_behind(plan: ie.Plan) -> None:
    with ie.Engine(plan) as engine:
        with pytest.raises(BatchError):
            engine.trace(images(4), 7)
        engine.run(images(1))
    with pytest.raises(ClosedError):
        engine.trace(images(1), 7)
