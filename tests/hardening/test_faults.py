"""Memory, threads and files that fail at any call: the library as it is installed."""

from __future__ import annotations

import re

import pytest

from inception_engine.compiler.plan import Dtype, OpFlag, Plan
from tests.hardening import commands, corpus


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_fails_makes_weights(dtype: str) -> None:
    """Here, under the thread sanitiser and in long runs: for Winograd's algorithm, and of half precision."""
    plan = Plan.from_bytes(corpus.compiled(2, dtype))
    for program in plan.programs:
        assert any(op["flags"] & OpFlag.WINOGRAD for op in program.ops)
        assert Dtype(int(program.header["dtype"])).name.lower() == dtype


@pytest.mark.parametrize("plan", ["tiny", "fp32", "bf16"])
def test_no_memory_or_threads_from_any_call_on(plan: str) -> None:
    content = corpus.tiny() if plan == "tiny" else corpus.compiled(2, plan)
    said = commands.c_program("faults", "memory", plan=content)
    points, memory, threads = map(int, re.findall(r"\d+", said))
    assert points > 300 and memory > 200 and threads >= 4


def test_files_that_fail_at_any_call() -> None:
    said = commands.c_program("faults", "files", plan=corpus.tiny())
    assert int(re.findall(r"\d+", said)[0]) > 25
