"""Buffers that are alive together never overlap, and the arena is no larger than it must be in easy cases."""

from __future__ import annotations

import numpy as np
import pytest

from inception_engine.compiler.arena import Lifetime, place
from inception_engine.compiler.plan import ALIGNMENT


@pytest.mark.parametrize("seed", range(50))
def test_live_buffers_do_not_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lifetimes = []
    for _ in range(int(rng.integers(1, 40))):
        first = int(rng.integers(0, 20))
        lifetimes.append(Lifetime(first, first + int(rng.integers(0, 6)), int(rng.integers(1, 5000))))
    offsets, arena = place(lifetimes)
    for i, (mine, begin) in enumerate(zip(lifetimes, offsets, strict=True)):
        assert begin % ALIGNMENT == 0
        assert begin + mine.size <= arena
        for other, start in zip(lifetimes[:i], offsets[:i], strict=True):
            together = mine.first <= other.last and other.first <= mine.last
            assert not (together and begin < start + other.size and start < begin + mine.size)


def test_a_chain_needs_two_buffers() -> None:
    chain = [Lifetime(i, i + 1, 640) for i in range(10)]
    assert place(chain)[1] == 2 * 640


def test_nothing_needs_nothing() -> None:
    assert place([]) == ([], 0)
