"""Nothing grows, and no result changes: short here, for hours with tools/hardening soak --night."""

from __future__ import annotations

import pytest

from tests.hardening import commands, corpus
from tests.hardening.commands import Failed


def test_cycles_of_loading_and_freeing() -> None:
    said = commands.c_program("soak", "cycles", 300, plan=corpus.compiled(1))
    assert said.startswith("cycles: 300,")
    commands.check_soak(said)


def test_many_threads_for_a_while() -> None:
    said = commands.c_program("soak", "run", 3, 16, 2, plan=corpus.compiled(1))
    assert int(said.rsplit(" ", 1)[1]) > 100
    commands.check_soak(said)


@pytest.mark.parametrize(
    "line",
    [
        "cycles: 300, growth: 2000000, descriptors: 3 3, threads: 1 1",
        "cycles: 300, growth: 0, descriptors: 3 4, threads: 1 1",
        "seconds: 1800, slope: 2000000, growth: 0, threads: 9 9, descriptors: 3 3, inferences: 9",
        "seconds: 4, slope: 0, growth: 0, threads: 9 10, descriptors: 3 3, inferences: 9",
    ],
)
def test_growth_is_noticed(line: str) -> None:
    with pytest.raises(Failed, match="grew"):
        commands.check_soak(line)
