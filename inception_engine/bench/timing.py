"""Interleaved rounds: every peer has one turn per round, A B C A B C, so that drift of the machine cancels.

Each peer is a process, and its idle threads keep spinning after its last call: ONNX Runtime's for 2**20 pauses, which
is 3 to 500 ms by the processor, libgomp's, under PyTorch, for some milliseconds. On the next peer's cores that would
count as that peer's time. A turn therefore begins by waiting until no peer uses processor time, and with one call
that is not counted: it wakes this peer's threads and brings its weights back into the caches. Within its turn every
peer spins as it likes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from inception_engine.bench.process import PeerError, Turn

SETTLE_STEP = 0.02  # seconds; threads are asleep when all peers together used less than a tenth of a step
SETTLE_LIMIT = 2.0  # seconds after which a turn begins in any case
WARMUP_BLOCKS = 4  # per ``warmup``: their medians say when the warm-up may end
WARMUP_AGREEMENT = 0.05  # of the last three blocks' medians
WARMUP_LIMIT = 5  # times ``warmup``: then it is given up, and said
UNSTABLE = 0.1  # of the median: where the medians of the rounds lie farther apart, the row says so
RARE = 10_000  # samples from which on the 99.9th percentile is told


class Timed(Protocol):
    """Somebody whose calls can be timed; ``process.Worker`` is one. Both raise PeerError."""

    def time(self, seconds: float, least: int, most: int) -> Turn: ...

    def cpu_ns(self) -> int: ...


@dataclass(frozen=True)
class Schedule:
    """``warmup`` and ``duration`` in seconds per peer; the duration is shared out among the rounds.

    A turn makes at least ``turn_iterations`` calls, so that a round has a median also where one call is slow, and at
    most ``most_iterations``, whichever time that takes. The warm-up takes its time, and goes on until three blocks of
    it agree or WARMUP_LIMIT is reached; three blocks it has in any case, however slow the calls.
    """

    warmup: float = 0.5
    duration: float = 3.0
    rounds: int = 5
    turn_iterations: int = 3
    most_iterations: int = 1_000_000


@dataclass(frozen=True)
class Clock:
    """Where the parent's time comes from; tests give their own."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Samples:
    """Times of one peer in ns, a list per round, and how long each round's turn took, streams side by side.

    A peer that failed has the ``error`` and is out of the running. ``warm``: whether the warm-up came to agree.
    """

    rounds: list[list[int]] = field(default_factory=list)
    error: Exception | None = None
    wall_ns: list[int] = field(default_factory=list)
    warm: bool = True


@dataclass(frozen=True)
class Statistics:
    """Percentiles over all samples, in ms; ``p999_ms`` from RARE samples on. ``spread``: lowest and highest median of a
    round, over the median. ``calls_per_s``: None where the turns were not timed as wholes."""

    samples: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float | None
    spread: tuple[float, float]
    calls_per_s: float | None

    @property
    def unstable(self) -> bool:
        return self.spread[1] - self.spread[0] > UNSTABLE


def measure(
    peers: Mapping[str, Timed],
    schedule: Schedule,
    *,
    clock: Clock | None = None,
    progress: Callable[[str, int], None] = lambda name, turn: None,
) -> dict[str, Samples]:
    """Times each peer by ``schedule``; ``progress(name, turn)`` is told each turn, 0 for the warm-up."""
    clock = clock or Clock()
    results = {name: Samples() for name in peers}
    for turn in range(schedule.rounds + 1):
        for name, peer in peers.items():
            samples = results[name]
            if samples.error is not None:
                continue
            progress(name, turn)
            try:
                settle(list(peers.values()), clock)
                if turn == 0:
                    samples.warm = warm_up(peer, schedule)
                else:
                    peer.time(0, 1, 1)
                    seconds = schedule.duration / schedule.rounds
                    timed = peer.time(seconds, schedule.turn_iterations, schedule.most_iterations)
                    samples.rounds.append(timed.ns)
                    samples.wall_ns.append(timed.wall_ns)
            except PeerError as error:
                samples.error = error
    return results


def settle(peers: Sequence[Timed], clock: Clock) -> None:
    """Waits until the peers' threads sleep, at most SETTLE_LIMIT."""
    limit = clock.now_ns() + SETTLE_LIMIT * 1e9
    while clock.now_ns() < limit:
        now, used = clock.now_ns(), sum(peer.cpu_ns() for peer in peers)
        clock.sleep(SETTLE_STEP)
        if sum(peer.cpu_ns() for peer in peers) - used < 0.1 * (clock.now_ns() - now):
            return


def warm_up(peer: Timed, schedule: Schedule) -> bool:
    """Calls for ``warmup`` seconds, and on until the medians of three blocks agree. False: they never did."""
    if schedule.warmup == 0:
        peer.time(0, 1, 1)
        return True
    medians: list[float] = []
    wanted, spent = schedule.warmup * 1e9, 0
    while len(medians) < 3 or spent < WARMUP_LIMIT * wanted:
        turn = peer.time(schedule.warmup / WARMUP_BLOCKS, 1, schedule.most_iterations)
        medians.append(float(np.median(turn.ns)))
        spent += max(turn.wall_ns, 1)
        last = medians[-3:]
        if spent >= wanted and len(last) == 3 and max(last) - min(last) <= WARMUP_AGREEMENT * min(last):
            return True
    return False


def statistics(samples: Samples) -> Statistics:
    """Percentiles interpolate linearly between samples (NumPy's default)."""
    times = np.concatenate([np.asarray(times, np.float64) for times in samples.rounds]) / 1e6
    p50, p90, p95, p99, p999 = (float(value) for value in np.percentile(times, (50, 90, 95, 99, 99.9)))
    medians = np.array(round_medians(samples))
    wall = sum(samples.wall_ns)
    return Statistics(
        samples=times.size,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p999_ms=p999 if times.size >= RARE else None,
        spread=(float(medians.min() / p50), float(medians.max() / p50)),
        calls_per_s=times.size / wall * 1e9 if wall else None,
    )


def ratio(samples: Samples, base: Samples) -> tuple[float, float, float]:
    """Median, lowest and highest over the rounds of this peer's median in a round over the base's in the same round."""
    ratios = np.array(round_medians(samples)) / np.array(round_medians(base))
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


def round_medians(samples: Samples) -> list[float]:
    """In ms, a median for each round."""
    return [float(np.median(times)) / 1e6 for times in samples.rounds]
