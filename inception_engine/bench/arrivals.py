"""Open loop: requests arrive when they like, by a Poisson process, and wait if all streams are busy.

What a caller of a service sees is then the time from the arrival to the answer. Searched is the highest rate at which
its 99th percentile holds a bound: by bisection, below the rate at which calls can be made one behind the other. The
arrivals of a rate are seeded, so every peer gets the same, but for the unit of time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inception_engine.bench.process import PeerError

STEPS = 7  # of the bisection: the rate is told to 1/128 of the closed loop's
LEAST_REQUESTS = 200  # at a rate, so that two lie beyond the 99th percentile
MOST_REQUESTS = 100_000
GIVE_UP = 20  # times the bound: after one such request the rate is not to be held
QUANTILE = 99


class Served(Protocol):
    """Somebody who answers requests that arrive; ``process.Worker`` is one. Raises PeerError."""

    def arrivals(self, at_ns: list[int], limit_ns: int) -> list[int]: ...


@dataclass(frozen=True)
class OpenLoop:
    """``bound_ms``: of the 99th percentile. ``seconds``: of arrivals at each rate that is tried."""

    bound_ms: float
    seconds: float = 5.0


@dataclass
class Held:
    """``rate``: requests per second, the highest found that holds the bound, 0 where none did; ``p99_ms`` and how many
    ``requests`` it was seen with."""

    rate: float = 0.0
    p99_ms: float | None = None
    requests: int = 0
    error: Exception | None = None


def poisson(rate: float, seconds: float, seed: int) -> list[int]:
    """Arrivals in ns from the beginning, in order: exponential gaps with mean 1 / rate."""
    count = int(min(max(rate * seconds, LEAST_REQUESTS), MOST_REQUESTS))
    gaps = np.random.default_rng(seed).exponential(1e9 / rate, count)
    return [int(at) for at in np.cumsum(gaps)]


def search(
    served: Mapping[str, Served],
    closed_rates: Mapping[str, float],
    loop: OpenLoop,
    *,
    steps: int = STEPS,
    settle: Callable[[str], object] = lambda name: None,
    progress: Callable[[str, int], None] = lambda name, step: None,
) -> dict[str, Held]:
    """The highest rate of each; ``closed_rates``: calls per second, all streams busy. Peers take turns at every
    step; ``settle`` is called before each, and may raise PeerError as the peer may."""
    results = {name: Held() for name in served}
    between = {name: (0.0, closed_rates[name]) for name in served}
    for step in range(steps):
        for name, server in served.items():
            held = results[name]
            if held.error is not None:
                continue
            progress(name, step)
            low, high = between[name]
            rate = (low + high) / 2
            arrivals = poisson(rate, loop.seconds, seed=step)
            try:
                settle(name)
                latencies = server.arrivals(arrivals, round(GIVE_UP * loop.bound_ms * 1e6))
            except PeerError as error:
                held.error = error
                continue
            p99 = float(np.percentile(latencies, QUANTILE)) / 1e6 if latencies else np.inf
            if len(latencies) == len(arrivals) and p99 <= loop.bound_ms:
                between[name] = rate, high
                held.rate, held.p99_ms, held.requests = rate, p99, len(arrivals)
            else:
                between[name] = low, rate
    return results
