"""Where each activation lives: an offset in one arena, shared by activations that are not alive together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from inception_engine.compiler.plan import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """Steps of the schedule, both inclusive, in which a buffer of ``size`` bytes holds something of use."""

    first: int
    last: int
    size: int


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets, in bytes, and the size of the arena. Buffers whose lifetimes meet do not overlap.

    Greedy by size, each at the lowest offset that is free during its life: the rule that Pisarchyk and Lee
    (2020, "Efficient memory management for deep neural net inference") found best for networks with
    branches.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size, i)):
        mine = lifetimes[index]
        others = [i for i in placed if lifetimes[i].first <= mine.last and mine.first <= lifetimes[i].last]
        offset = 0
        for other in sorted(others, key=lambda i: offsets[i]):
            if offset + mine.size <= offsets[other]:
                break
            offset = max(offset, _aligned(offsets[other] + lifetimes[other].size))
        offsets[index] = offset
        placed.append(index)
    end = max((offset + life.size for offset, life in zip(offsets, lifetimes, strict=True)), default=0)
    return offsets, _aligned(end)


MOST_TRIED = 200  # buffers whose rest is tried one by one, each time with all of them placed anew


def rested(lifetimes: Sequence[Lifetime], steps: int) -> list[Lifetime]:
    """The same, each ``steps`` longer wherever that makes the arena no larger; of more than ``MOST_TRIED`` all are.

    Memory that rests after its last use is written again without waiting for those who read it. Small buffers come
    first: few tasks read them, and the fewer there are, the longer a worker waits for the last one.
    """
    longer = [dataclasses.replace(each, last=each.last + steps) for each in lifetimes]
    if len(lifetimes) > MOST_TRIED:
        return longer
    result = list(lifetimes)
    _, least = place(result)
    for index in sorted(range(len(result)), key=lambda i: result[i].size):
        result[index] = longer[index]
        if place(result)[1] > least:
            result[index] = lifetimes[index]
    return result


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
