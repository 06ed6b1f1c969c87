"""Engines shared by threads under the thread sanitiser."""

from __future__ import annotations

import pytest

from tests.hardening import build, commands, corpus
from tests.hardening.commands import Failed

pytestmark = pytest.mark.timeout(900)  # the first test builds the runtime


@pytest.mark.parametrize("plan", ["fp32", "bf16", "parts"])
def test_shared_engines_and_private_contexts(plan: str) -> None:
    content = corpus.stored()["parts"] if plan == "parts" else corpus.compiled(2, plan)
    said = commands.threads(8, 1500, content)
    assert said.startswith("threads: 8, inferences: 1500, contexts: ")


def test_a_race_would_be_reported() -> None:
    program = build.build("race", ["programs/race.cpp"], build.Kind("thread"))
    with pytest.raises(Failed, match="data race"):
        commands.run([program])
