"""Each row of the tables of broken rules is refused; each status of the proof has one; unbroken, all is sound."""

from __future__ import annotations

import pytest

from tests import proof_rules
from tests.happens_before import is_safe
from tests.loader import STATUS, verdict
from tests.plans import plan_file
from tests.runtime.proof.changes import Change, broken
from tests.runtime.proof.test_addresses import BROKEN as ADDRESSES
from tests.runtime.proof.test_alignment import BROKEN as ALIGNMENT
from tests.runtime.proof.test_order import BROKEN as ORDER
from tests.runtime.proof.test_schedule import BROKEN as SCHEDULE
from tests.runtime.proof.test_values import BROKEN as VALUES
from tests.runtime.proof.test_weights import BROKEN as WEIGHTS
from tests.runtime.proof.test_writers import BROKEN as WRITERS

TABLES = (ADDRESSES, ALIGNMENT, ORDER, SCHEDULE, VALUES, WEIGHTS, WRITERS)
ROWS = [pytest.param(status, change, id=name) for rules in TABLES for name, status, change in rules]


@pytest.mark.parametrize(("status", "change"), ROWS)
def test_each_rule_refuses(status: str, change: Change) -> None:
    program = broken(change)
    assert verdict(plan_file(program)) == status
    assert status in proof_rules.violations(program)


def test_what_the_rules_break_is_sound() -> None:
    program = broken(lambda p: None)
    assert verdict(plan_file(program)) == "IE_OK"
    assert is_safe(program)


def test_every_status_of_the_proof_has_its_test() -> None:
    file = {
        "TRUNCATED",
        "FOREIGN",
        "VERSION",
        "HASH",
        "SECTIONS",
        "LIMIT",
        "RESERVED",
        "METADATA",
    }  # in test_plan_file.py and test_metadata.py
    names = {name.removeprefix("IE_PLAN_") for name in STATUS.values() if name.startswith("IE_PLAN_")}
    assert names - file == {status.removeprefix("IE_PLAN_") for rules in TABLES for _, status, _ in rules}
