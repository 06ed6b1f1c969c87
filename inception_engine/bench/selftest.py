"""``inception-bench --self-test``: everything between a call and its percentile, on latencies that are known.

A worker serves an engine that does nothing but move a clock forward, by latencies of a distribution whose quantiles
have a formula. It is the real worker, asked through the real pipes by the real rounds; only its clock and its engine
are not real, so what else the machine does cannot disturb it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from inception_engine.bench import arrivals
from inception_engine.bench.arrivals import OpenLoop
from inception_engine.bench.process import PeerError, Worker
from inception_engine.bench.timing import Clock, Samples, Schedule, measure, ratio, statistics
from inception_engine.bench.worker import Clock as WorkerClock
from inception_engine.bench.worker import Service, serve
from inception_engine.terminal import printable_line

TOLERANCE = 0.01
RATE_TOLERANCE = 0.1  # a rate is searched with some hundreds of arrivals beyond the 99th percentile
LEAST_MS, MEAN_MS = 5.0, 2.0  # latencies: at least so long, and exponentially distributed above
CALLS = 20_000
MILLISECOND = 1_000_000
_MODULE = "inception_engine.bench.selftest"


@dataclass(frozen=True)
class Check:
    name: str
    found: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.found / self.expected - 1) <= self.tolerance


def quantile(share: float) -> float:
    """Of the latencies, in ms."""
    return LEAST_MS - MEAN_MS * float(np.log1p(-share))


def latencies(count: int, scale: float = 1.0) -> np.ndarray:
    """In ns: ``count`` of them, one from each of as many equally likely intervals, in random order."""
    shares = (np.arange(count) + 0.5) / count
    np.random.default_rng(0).shuffle(shares)
    return np.round((LEAST_MS - MEAN_MS * np.log1p(-shares)) * scale * MILLISECOND).astype(np.int64)


def start(*arguments: str) -> Worker:
    """A worker of this module: ``latencies SCALE`` or ``service MEAN_MS``."""
    return Worker([sys.executable, "-m", _MODULE, *arguments], limit=60.0)


def checks() -> list[Check]:
    return [*_percentiles(), *_open_loop()]


def _percentiles() -> list[Check]:
    """Two workers, one 1.25 times as slow, in interleaved rounds; the warm-up takes none of the latencies."""
    rounds = 5
    # A turn is as many calls as it may be at most, so that all latencies are seen exactly once.
    schedule = Schedule(
        warmup=0, duration=1e6, rounds=rounds, turn_iterations=1, most_iterations=CALLS // rounds
    )
    with start("latencies", "1") as fast, start("latencies", "1.25") as slow:
        for worker in (fast, slow):
            worker.ready()
        timed = measure({"fast": fast, "slow": slow}, schedule, clock=Clock(sleep=lambda seconds: None))
    _raise(timed)
    figures = statistics(timed["fast"])
    assert figures.p999_ms is not None and figures.calls_per_s is not None
    found = {
        "p50": (figures.p50_ms, 0.5),
        "p90": (figures.p90_ms, 0.9),
        "p95": (figures.p95_ms, 0.95),
        "p99": (figures.p99_ms, 0.99),
        "p99.9": (figures.p999_ms, 0.999),
    }
    percentiles = [Check(name, value, quantile(share), TOLERANCE) for name, (value, share) in found.items()]
    return [
        *percentiles,
        Check("calls per second", figures.calls_per_s, 1e3 / (LEAST_MS + MEAN_MS), TOLERANCE),
        Check("ratio of two", ratio(timed["slow"], timed["fast"])[0], 1.25, TOLERANCE),
        Check("samples", figures.samples, CALLS, 0.0),
    ]


def _open_loop() -> list[Check]:
    """One server with exponential times (M/M/1): answers take an exponential time with the rate of service minus
    arrivals, so the 99th percentile holds a bound up to a rate of service - ln(100) / bound."""
    mean_ms, bound_ms = 2.0, 40.0
    rate = 1e3 / mean_ms
    with start("service", str(mean_ms)) as worker:
        worker.ready()
        loop = OpenLoop(bound_ms, seconds=60_000 / rate)
        held = arrivals.search({"served": worker}, {"served": rate}, loop)["served"]
    if held.error is not None:
        raise held.error
    assert held.rate is not None
    expected = rate - np.log(100) / (bound_ms / 1e3)
    return [Check("rate that holds a p99 bound", held.rate, float(expected), RATE_TOLERANCE)]


def _raise(timed: dict[str, Samples]) -> None:
    for samples in timed.values():
        if samples.error is not None:
            raise samples.error


def main() -> int:
    """Prints a line for each check. Returns 0 if all passed, else 1, also where a worker ended."""
    try:
        found = checks()
    except PeerError as error:
        print(f"inception-bench: error: self-test: {printable_line(str(error))}", file=sys.stderr)
        return 1
    for check in found:
        sign = "ok" if check.passed else "FAILED"
        off = check.found / check.expected - 1
        bound = f"{check.tolerance:.0%}"
        print(
            f"{check.name:<28}{check.found:>12.4f}  expected {check.expected:>12.4f}  {off:+.3%} of {bound}  {sign}"
        )
    return int(not all(check.passed for check in found))


class _Engine:
    """Moves its clock by one latency per call."""

    def __init__(self, times: Any) -> None:
        self._times = times
        self._now = 0

    def clock(self) -> WorkerClock:
        return WorkerClock(lambda: self._now, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self._now += round(seconds * 1e9)

    def __call__(self) -> None:
        self._now += int(next(self._times))


def _of_latencies(scale: float) -> _Engine:
    """The first call of each turn is not counted, and takes no latency from the others."""
    times = iter(latencies(CALLS, scale))
    turn = CALLS // 5
    uncounted = itertools.chain.from_iterable(
        itertools.chain([MILLISECOND], itertools.islice(times, turn)) for _ in itertools.count()
    )
    return _Engine(itertools.chain([MILLISECOND], uncounted))  # the warm-up's


def _of_service(mean_ms: float) -> _Engine:
    random = np.random.default_rng(1)
    return _Engine(int(random.exponential(mean_ms * MILLISECOND)) for _ in itertools.count())


_ENGINES: dict[str, Callable[[float], _Engine]] = {"latencies": _of_latencies, "service": _of_service}


def _worker() -> None:
    kind, number, descriptor = sys.argv[1:]
    engine = _ENGINES[kind](float(number))
    with os.fdopen(int(descriptor), "w", encoding="utf-8", buffering=1) as answers:

        def reply(answer: dict[str, Any]) -> None:
            answers.write(json.dumps(answer) + "\n")

        reply({"import_ns": 0, "load_ns": 0, "first_ns": 0, "shape": [0]})
        serve(Service([engine], lambda count: {}, engine.clock()), sys.stdin, reply)


if __name__ == "__main__":
    _worker()
