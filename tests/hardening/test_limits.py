"""Limits that keep the loader's memory and time in proportion to the file; extremes.py has plans just inside."""

from __future__ import annotations

import time

import pytest

from inception_engine.binding import check_plan
from tests.hardening import extremes
from tests.hardening.extremes import FREE_NAMES, MAX_OPS
from tests.loader import verdict
from tests.plans import plan_file


def test_names_longer_than_the_strings_hold() -> None:
    """An engine copies the names of outputs: many of one long string would be more than the file."""
    program = extremes.many_outputs()
    assert verdict(plan_file(program)) == "IE_OK"
    program.strings = program.strings[: FREE_NAMES // 2]
    assert verdict(plan_file(program.count())) == "IE_PLAN_LIMIT"


@pytest.mark.parametrize("table", ["ops", "buffers"])
def test_more_ops_or_buffers_than_the_proof_has_memory_for(table: str) -> None:
    program = extremes.many_ops()
    records = getattr(program, table)
    assert len(records) == MAX_OPS
    records.append(records[-1])
    assert verdict(plan_file(program.count())) == "IE_PLAN_LIMIT"


def test_more_counters_than_the_proof_has_memory_for() -> None:
    """Sets of complete ops, one per counter: with all the ops there may be, three for 16 tasks and 4096 more."""
    program = extremes.many_counters(4096 + MAX_OPS)
    assert verdict(plan_file(program)) == "IE_PLAN_WORK"
    assert verdict(plan_file(extremes.many_counters(4096))) == "IE_OK"


@pytest.mark.parametrize("name", extremes.extremes())
def test_time_for_plans_that_ask_for_much(name: str) -> None:
    """A tenth of a second of processor time, the best of three, for a file of up to a MiB."""
    data = extremes.extremes()[name]
    assert len(data) <= 2**20
    seconds = []
    for _ in range(3):
        start = time.process_time()
        check_plan(data)
        seconds.append(time.process_time() - start)
    assert min(seconds) <= 0.1
