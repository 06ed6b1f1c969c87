"""Engines shared by threads under the thread sanitiser."""

from __future__ import annotations

import pytest

from tests.hardening import commands, corpus

pytestmark = pytest.mark.timeout(900)  # the first test builds the runtime


@pytest.mark.parametrize("plan", ["compiled", "parts"])
def test_shared_engines_and_private_contexts(plan: str) -> None:
    content = corpus.compiled(2) if plan == "compiled" else corpus.stored()["parts"]
    said = commands.threads(8, 1500, content)
    assert said.startswith("threads: 8, inferences: 1500, contexts: ")
