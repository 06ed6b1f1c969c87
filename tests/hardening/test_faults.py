"""Memory, threads and files that fail at any call: the library as it is installed."""

from __future__ import annotations

import re

import pytest

from tests.hardening import commands, corpus


@pytest.mark.parametrize("plan", ["tiny", "compiled"])
def test_no_memory_or_threads_from_any_call_on(plan: str) -> None:
    said = commands.c_program(
        "faults", "memory", plan=corpus.tiny() if plan == "tiny" else corpus.compiled(2)
    )
    points, memory, threads = map(int, re.findall(r"\d+", said))
    assert points > 300 and memory > 200 and threads >= 4


def test_files_that_fail_at_any_call() -> None:
    said = commands.c_program("faults", "files", plan=corpus.tiny())
    assert int(re.findall(r"\d+", said)[0]) > 25
