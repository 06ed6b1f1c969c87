"""Open loop: requests arrive when they like, by a Poisson process, and wait if all streams are busy.

What a caller of a service sees is then the time from the arrival to the answer. Searched is the highest rate at which
its 99th percentile holds a bound: by bisection, below the rate at which calls can be made one behind the other. The
arrivals of a rate are seeded, so every peer gets the same, but for the unit of time.

Answers that come late come together, behind one that was in the way. In a few hundred requests there is often no such
heap, so the bisection by itself finds rates that are too high, or goes astray at one step. What it finds is therefore
only where the confirmation begins, by other arrivals and more of them: at a rate that goes up until the bound is no
longer held, or down until it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inception_engine.bench.process import PeerError

STEPS = 7  # of the bisection: the rate is told to 1/128 of the closed loop's
SEARCH_REQUESTS = 500  # at a rate of the bisection, where it does not take too long
CONFIRM_REQUESTS = 2000  # at one of the confirmation: twenty lie beyond the 99th percentile
LEAST_REQUESTS = 200  # at any rate; one at which they take too long is not tried
MOST_REQUESTS = 100_000
WARM_UP = 50  # requests more, of the first, which are not counted: they find an empty queue
LONGEST = 24  # times OpenLoop.seconds: longer no rate is tried, even if the requests become fewer
STRIDE = 0.93  # from one rate of the confirmation to the next lower one
CONFIRMATIONS = 12  # at most; the lowest is 0.45 of the first
CONFIRM_SEED = 1000  # from here on, so that no arrivals of the search come again
QUANTILE = 99


class Served(Protocol):
    """Somebody who answers requests that arrive; ``process.Worker`` is one. Raises PeerError."""

    def arrivals(self, at_ns: list[int], bound_ns: int, most: int, first: int) -> list[int]: ...


@dataclass(frozen=True)
class OpenLoop:
    """``bound_ms``: of the 99th percentile. ``seconds``: of arrivals at each rate that is tried."""

    bound_ms: float
    seconds: float = 5.0


@dataclass
class Held:
    """``rate``: requests per second, the highest that was confirmed to hold the bound; 0 where none that was tried
    held it, None where it is not known: the peer failed (``error``), nothing was confirmed, or only rates would hold it
    at which that takes too long to see (``lowest``). ``p99_ms`` and how many
    ``requests`` it was seen with. ``capped``: every rate that was tried held the bound, so a higher one might."""

    rate: float | None = 0.0
    p99_ms: float | None = None
    requests: int = 0
    capped: bool = False
    error: Exception | None = None


def lowest(seconds: float) -> float:
    """The rate at which LEAST_REQUESTS take LONGEST."""
    return LEAST_REQUESTS / (seconds * LONGEST)


def counted(rate: float, seconds: float, wanted: int) -> int:
    """How many requests of a rate count: those of so many seconds, at least ``wanted`` if that is no longer than
    LONGEST."""
    return int(min(max(rate * seconds, wanted), rate * seconds * LONGEST, MOST_REQUESTS))


def most_late(count: int) -> int:
    """Of so many requests, how many may take longer than a bound if their 99th percentile, interpolated linearly, is to
    hold it: one more, and it lies beyond, whatever the rest of them take."""
    return count - 1 - (count - 1) * QUANTILE // 100


def poisson(rate: float, count: int, seed: int) -> list[int]:
    """Arrivals in ns from the beginning, in order: exponential gaps with mean 1 / rate."""
    gaps = np.random.default_rng(seed).exponential(1e9 / rate, count)
    return [int(at) for at in np.cumsum(gaps)]


def search(
    served: Mapping[str, Served],
    closed_rates: Mapping[str, float],
    loop: OpenLoop,
    *,
    steps: int = STEPS,
    seed: int = 0,
    settle: Callable[[str], object] = lambda name: None,
    progress: Callable[[str, int], None] = lambda name, step: None,
) -> dict[str, Held]:
    """The highest rate of each; ``closed_rates``: calls per second, all streams busy. Peers take turns at every
    step, and at every confirmation, which ``progress`` is told as the steps behind the last; ``settle`` is called
    before each, and may raise PeerError as the peer may."""
    results = {name: Held() for name in served}
    between = {name: (0.0, closed_rates[name]) for name in served}

    def p99_ms(name: str, rate: float, count: int, seed: int) -> float:
        """Infinite where a request was given up; NaN where the peer failed."""
        arrivals = poisson(rate, WARM_UP + count, seed)
        try:
            settle(name)
            latencies = served[name].arrivals(arrivals, round(loop.bound_ms * 1e6), most_late(count), WARM_UP)
        except PeerError as error:
            results[name] = Held(rate=None, error=error)
            return np.nan
        if len(latencies) < len(arrivals):
            return np.inf
        return float(np.percentile(latencies[WARM_UP:], QUANTILE)) / 1e6

    for step in range(steps):
        for name in served:
            if results[name].error is not None:
                continue
            progress(name, step)
            low, high = between[name]
            rate = (low + high) / 2
            if rate < lowest(loop.seconds):
                results[name] = Held(rate=None)
                continue
            holds = (
                p99_ms(name, rate, counted(rate, loop.seconds, SEARCH_REQUESTS), seed + step) <= loop.bound_ms
            )
            between[name] = (rate, high) if holds else (low, rate)

    walks = {
        name: _Walk(rate=between[name][0], cap=closed_rates[name] * (1 - 2.0**-steps))
        for name in served
        if results[name].error is None and between[name][0]
    }
    for attempt in range(CONFIRMATIONS):
        for name, walk in list(walks.items()):
            if walk.rate < lowest(loop.seconds):
                continue
            progress(name, steps + attempt)
            count = counted(walk.rate, loop.seconds, CONFIRM_REQUESTS)
            p99 = p99_ms(name, walk.rate, count, seed + CONFIRM_SEED + attempt)
            if results[name].error is not None:
                del walks[name]
                continue
            if p99 <= loop.bound_ms:
                results[name] = Held(walk.rate, p99, count, capped=walk.rate >= walk.cap)
            if walk.ends(holds=p99 <= loop.bound_ms):
                del walks[name]
    for name, walk in walks.items():
        if not walk.held:
            results[name] = Held(rate=None)
    return results


@dataclass
class _Walk:
    """The confirmation's way from a rate, up to ``cap`` at most. ``held``, ``failed``: whether it has seen a rate that
    holds the bound, and one that does not."""

    rate: float
    cap: float
    held: bool = False
    failed: bool = False

    def ends(self, *, holds: bool) -> bool:
        """Whether nothing is to be tried behind this; else ``rate`` is the next."""
        self.held |= holds
        self.failed |= not holds
        if (self.held and self.failed) or (holds and self.rate >= self.cap):
            return True
        self.rate = min(self.rate / STRIDE, self.cap) if holds else self.rate * STRIDE
        return False
