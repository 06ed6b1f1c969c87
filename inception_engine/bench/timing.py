"""Interleaved timing: every peer has one turn per round, A B C A B C, so that drift of the machine cancels.

One process holds all peers, and a peer's idle threads keep spinning after its last call: ONNX Runtime's for 2**20
pauses, which is 3 to 500 ms by the processor, libgomp's, under PyTorch, for some milliseconds. On the next
peer's cores that would count as that peer's time. A turn therefore begins by waiting until the process
uses no processor time, and with one call that is not counted: it wakes this peer's threads and brings its
weights back into the caches. Within its turn every peer spins as it likes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

SETTLE_STEP = 0.01  # seconds; threads are asleep when the process used less than a tenth of a step
SETTLE_LIMIT = 2.0  # seconds after which a turn begins in any case


@dataclass(frozen=True)
class Schedule:
    """``warmup`` and ``duration`` in seconds per peer; the duration is shared out among the rounds.

    A turn makes at least ``turn_iterations`` calls, so that a round has a median also where one call is slow.
    """

    warmup: float = 0.5
    duration: float = 3.0
    rounds: int = 5
    turn_iterations: int = 3


@dataclass(frozen=True)
class Clock:
    """Where the time comes from; tests give their own."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    used_ns: Callable[[], int] = time.process_time_ns  # by all threads of the process
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Samples:
    """Times of one peer in ns, a list per round. A peer that raised has the ``error`` and is out of the running."""

    rounds: list[list[int]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class Statistics:
    """Percentiles over all samples, in ms. ``spread``: lowest and highest median of a round, over the median."""

    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    spread: tuple[float, float]


def measure(
    calls: Mapping[str, Callable[[], object]],
    schedule: Schedule,
    *,
    clock: Clock | None = None,
    progress: Callable[[str, int], None] = lambda name, turn: None,
) -> dict[str, Samples]:
    """Times each call by ``schedule``; ``progress(name, turn)`` is told each turn, 0 for the warm-up."""
    clock = clock or Clock()
    results = {name: Samples() for name in calls}
    for turn in range(schedule.rounds + 1):
        for name, call in calls.items():
            samples = results[name]
            if samples.error is not None:
                continue
            progress(name, turn)
            try:
                if turn == 0:
                    _repeat(call, schedule.warmup, 1, clock)
                else:
                    _settle(clock)
                    call()
                    duration = schedule.duration / schedule.rounds
                    samples.rounds.append(_repeat(call, duration, schedule.turn_iterations, clock))
            except Exception as error:  # whatever a peer raises becomes the status of its row
                samples.error = error
    return results


def _settle(clock: Clock) -> None:
    limit = clock.now_ns() + SETTLE_LIMIT * 1e9
    while clock.now_ns() < limit:
        now, used = clock.now_ns(), clock.used_ns()
        clock.sleep(SETTLE_STEP)
        if clock.used_ns() - used < 0.1 * (clock.now_ns() - now):
            return


def _repeat(call: Callable[[], object], duration: float, iterations: int, clock: Clock) -> list[int]:
    times: list[int] = []
    end = clock.now_ns() + round(duration * 1e9)
    while True:
        start = clock.now_ns()
        call()
        stop = clock.now_ns()
        times.append(stop - start)
        if stop >= end and len(times) >= iterations:
            return times


def statistics(samples: Samples) -> Statistics:
    """Percentiles interpolate linearly between samples (NumPy's default)."""
    times = np.concatenate([np.asarray(times, np.float64) for times in samples.rounds]) / 1e6
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    medians = _medians(samples) / 1e6
    return Statistics(times.size, p50, p90, p99, (float(medians.min() / p50), float(medians.max() / p50)))


def ratio(samples: Samples, base: Samples) -> tuple[float, float, float]:
    """Median, lowest and highest over the rounds of this peer's median in a round over the base's in the same round."""
    ratios = _medians(samples) / _medians(base)
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


def _medians(samples: Samples) -> np.ndarray:
    return np.array([np.median(times) for times in samples.rounds])
