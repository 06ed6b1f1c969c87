"""Buffers that are alive together never overlap, and the arena is no larger than it must be in easy cases."""

from __future__ import annotations

import numpy as np
import pytest

from inception_engine.compiler.arena import MOST_TRIED, Lifetime, place, rested
from inception_engine.compiler.plan import ALIGNMENT


def some_lifetimes(seed: int) -> list[Lifetime]:
    rng = np.random.default_rng(seed)
    lifetimes = []
    for _ in range(int(rng.integers(1, 40))):
        first = int(rng.integers(0, 20))
        lifetimes.append(Lifetime(first, first + int(rng.integers(0, 6)), int(rng.integers(1, 5000))))
    return lifetimes


@pytest.mark.parametrize("seed", range(50))
def test_live_buffers_do_not_overlap(seed: int) -> None:
    lifetimes = some_lifetimes(seed)
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


@pytest.mark.parametrize("seed", range(50))
def test_what_rests_makes_the_arena_no_larger(seed: int) -> None:
    lifetimes = some_lifetimes(seed)
    resting = rested(lifetimes, 2)
    assert place(resting)[1] <= place(lifetimes)[1]
    for before, after in zip(lifetimes, resting, strict=True):
        assert after in (before, Lifetime(before.first, before.last + 2, before.size))


def test_a_buffer_rests_where_there_is_room() -> None:
    """While the large pair is alive there is room for nothing else; afterwards the small ones need not hurry."""
    large = [Lifetime(0, 1, 6400), Lifetime(1, 2, 6400)]
    small = [Lifetime(i, i + 1, 640) for i in range(2, 9)]
    resting = rested([*large, *small], 1)
    assert resting[1:] == [Lifetime(each.first, each.last + 1, each.size) for each in (large[1], *small)]
    assert resting[0] == large[0]  # it would meet the first of the small ones


def test_of_very_many_buffers_all_rest() -> None:
    """Whether each may is tried with all of them, so that the time would grow with the cube of their number."""
    chain = [Lifetime(i, i + 1, 640) for i in range(MOST_TRIED + 1)]
    assert rested(chain, 1) == [Lifetime(each.first, each.last + 1, 640) for each in chain]
    assert rested(chain[1:], 1) != [Lifetime(each.first, each.last + 1, 640) for each in chain[1:]]
