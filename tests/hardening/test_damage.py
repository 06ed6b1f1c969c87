"""Damaged plans are refused, or proven harmless by a judge that shares nothing with the loader."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.hardening import corpus, damage
from tests.hardening.commands import Failed
from tests.plans import PROGRAM, WEIGHTS, plan_file, read_sections, small_program


def test_every_flipped_bit_of_a_tiny_plan() -> None:
    """Of those that are accepted every third is proven harmless, for time's sake: tools/hardening damage proves all."""
    tiny = corpus.tiny()
    found = Counter(damage.judge_flip(tiny, bit, prove=bit % 3 == 0) for bit in range(8 * len(tiny)))
    weights = next(size for kind, _, size in read_sections(tiny) if kind == WEIGHTS)
    assert found["values"] >= 8 * weights
    assert found["refused"] > found["proven"] > 0


def test_a_whole_googlenet() -> None:
    assert damage.googlenet(16, seed=0).startswith("8 cuts, 16 flips: {")


def test_a_plan_that_is_accepted_and_wrong_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_file(small_program(1))
    begin = next(begin for kind, begin, _ in read_sections(plan) if kind == PROGRAM)
    bit = next(bit for bit in range(8 * begin, 8 * begin + 1024) if damage.judge_flip(plan, bit) == "refused")
    monkeypatch.setattr(
        damage, "verdict", lambda data: "IE_PLAN_HASH" if data == damage.flip(plan, bit) else "IE_OK"
    )
    with pytest.raises(Failed, match="accepted, and"):
        damage.judge_flip(plan, bit)
