"""Wrong calls of every function of the header."""

from __future__ import annotations

import re

import pytest

from tests.hardening import commands, corpus
from tests.hardening.build import HERE, RUNTIME


@pytest.mark.parametrize("plan", ["tiny", "compiled"])
def test_wrong_calls_get_a_status(plan: str) -> None:
    content = corpus.tiny() if plan == "tiny" else corpus.compiled(2)
    assert commands.c_program("misuse", plan=content) == ""


def test_every_function_is_called_wrongly() -> None:
    header = (RUNTIME / "include" / "inception_engine.h").read_text()
    declared = set(re.findall(r"^IE_API [^;(]*?\b(ie_\w+)\(", header, re.M))
    assert "ie_run" in declared
    programs = (HERE / "programs" / "misuse.c", HERE.parent / "c" / "misuse.c")
    called = set(re.findall(r"\b(ie_\w+)\(", "".join(path.read_text() for path in programs)))
    assert declared <= called, declared - called
