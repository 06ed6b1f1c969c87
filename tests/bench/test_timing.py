"""Timing with a clock of our own: known latencies in, known figures out. Nothing here measures real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import pytest

from inception_engine.bench.timing import SETTLE_LIMIT, Clock, Samples, Schedule, measure, ratio, statistics

MILLISECOND = 1_000_000


class Machine:
    """A clock that only its calls advance, by their latency times the ``slowness`` of the moment."""

    def __init__(self, slowness: Callable[[float], float] = lambda seconds: 1.0) -> None:
        self.time_ns = 0
        self.used_ns = 0
        self.spin_until_ns = 0
        self.slowness = slowness
        self.calls: list[str] = []
        self.clock = Clock(lambda: self.time_ns, lambda: self.used_ns, self.sleep)

    def sleep(self, seconds: float) -> None:
        end = self.time_ns + round(seconds * 1e9)
        self.used_ns += max(0, min(end, self.spin_until_ns) - self.time_ns)
        self.time_ns = end
        self.calls.append("sleep")

    def peer(self, name: str, *latencies_ms: float, spin_ms: float = 0.0) -> Callable[[], None]:
        """``spin_ms``: for how long its threads spin after each call."""
        latencies: Iterator[float] = cycle(latencies_ms)

        def call() -> None:
            self.calls.append(name)
            self.time_ns += round(next(latencies) * MILLISECOND * self.slowness(self.time_ns / 1e9))
            self.spin_until_ns = self.time_ns + round(spin_ms * MILLISECOND)

        return call


def test_percentiles_of_known_latencies() -> None:
    machine = Machine()
    latencies = np.random.default_rng(0).gamma(4.0, 2.0, 5000) + 1.0
    schedule = Schedule(warmup=0, duration=float(latencies.sum()) * 20 / 1e3, rounds=4)
    timed = measure({"peer": machine.peer("peer", *latencies)}, schedule, clock=machine.clock)["peer"]
    figures = statistics(timed)
    assert figures.samples > 50_000
    expected = np.percentile(latencies, (50, 90, 99))
    np.testing.assert_allclose((figures.p50_ms, figures.p90_ms, figures.p99_ms), expected, rtol=0.01)


def test_rounds_are_interleaved_and_each_turn_settles() -> None:
    machine = Machine()
    calls = {name: machine.peer(name, 10.0) for name in "ab"}
    schedule = Schedule(warmup=0.02, duration=0.06, rounds=2, turn_iterations=1)
    timed = measure(calls, schedule, clock=machine.clock)
    turns = ["sleep", *"aaaa", "sleep", *"bbbb"]  # one call uncounted, then 30 ms
    assert machine.calls == [*"aa", *"bb", *turns, *turns]
    assert [len(times) for times in timed["a"].rounds] == [3, 3]


def test_a_slow_peer_gets_its_iterations_and_a_fast_one_its_duration() -> None:
    machine = Machine()
    schedule = Schedule(warmup=0, duration=1.0, rounds=5, turn_iterations=3)
    timed = measure(
        {"slow": machine.peer("slow", 900.0), "fast": machine.peer("fast", 1.0)},
        schedule,
        clock=machine.clock,
    )
    assert [len(times) for times in timed["slow"].rounds] == [3] * 5
    assert [len(times) for times in timed["fast"].rounds] == [200] * 5


def test_the_pause_is_not_part_of_any_sample() -> None:
    machine = Machine()
    schedule = Schedule(warmup=0, duration=0.1, rounds=2)
    timed = measure({"peer": machine.peer("peer", 2.0)}, schedule, clock=machine.clock)["peer"]
    assert machine.calls.count("sleep") == 2
    assert {time for times in timed.rounds for time in times} == {2 * MILLISECOND}


def test_a_turn_waits_until_the_other_peers_threads_sleep() -> None:
    machine = Machine()
    calls = {"spins": machine.peer("spins", 1.0, spin_ms=64.0), "sleeps": machine.peer("sleeps", 1.0)}
    spinning: list[bool] = []

    def sleeps() -> None:
        spinning.append(machine.time_ns < machine.spin_until_ns)
        calls["sleeps"]()

    schedule = Schedule(warmup=0, duration=0.003, rounds=3)
    measure({"spins": calls["spins"], "sleeps": sleeps}, schedule, clock=machine.clock)
    assert len(spinning) == 13 and not any(spinning[1:])  # the warm-up need not wait


def test_threads_that_never_sleep_do_not_hold_up_the_run() -> None:
    machine = Machine()
    schedule = Schedule(warmup=0, duration=0.001, rounds=2, turn_iterations=1)
    timed = measure({"peer": machine.peer("peer", 1.0, spin_ms=1e9)}, schedule, clock=machine.clock)["peer"]
    assert [len(times) for times in timed.rounds] == [1, 1]
    assert machine.time_ns < (2 * SETTLE_LIMIT + 1) * 1e9


def test_drift_of_the_machine_cancels_in_the_ratio() -> None:
    machine = Machine(slowness=lambda seconds: 1.0 + seconds / 10)  # half as slow again after five seconds
    calls = {"a": machine.peer("a", 8.0), "b": machine.peer("b", 10.0)}
    timed = measure(calls, Schedule(duration=5.0, rounds=25), clock=machine.clock)
    middle, lowest, highest = ratio(timed["a"], timed["b"])
    assert middle == pytest.approx(0.8, rel=0.03)
    assert 0.75 < lowest <= middle <= highest < 0.85
    low, high = statistics(timed["a"]).spread
    assert low < 0.85 and high > 1.15  # the spread shows the drift that the ratio is free of


def test_ratio_and_spread_are_taken_round_by_round() -> None:
    a = Samples(rounds=[[1, 1, 9], [4, 4, 4], [6, 6, 6]])
    b = Samples(rounds=[[2, 2, 2], [4, 4, 4], [4, 4, 4]])
    assert ratio(a, b) == (1.0, 0.5, 1.5)
    figures = statistics(a)
    assert figures.p50_ms == pytest.approx(4e-6)
    assert figures.spread == pytest.approx((0.25, 1.5))


@pytest.mark.parametrize("last_good_call", [0, 4])
def test_a_peer_that_raises_leaves_the_running_and_not_the_others(last_good_call: int) -> None:
    machine = Machine()
    good = machine.peer("good", 10.0)
    remaining = iter(range(last_good_call))

    def bad() -> None:
        machine.peer("bad", 10.0)()
        if next(remaining, None) is None:
            raise RuntimeError("out of luck")

    schedule = Schedule(warmup=0, duration=0.09, rounds=3)
    timed = measure({"bad": bad, "good": good}, schedule, clock=machine.clock)
    assert str(timed["bad"].error) == "out of luck"
    assert machine.calls.count("bad") == last_good_call + 1
    assert timed["good"].error is None
    assert [len(times) for times in timed["good"].rounds] == [3, 3, 3]


def test_progress_names_each_turn() -> None:
    machine = Machine()
    seen: list[tuple[str, int]] = []
    calls = {name: machine.peer(name, 10.0) for name in "ab"}
    schedule = Schedule(warmup=0, duration=0.02, rounds=2)
    measure(calls, schedule, clock=machine.clock, progress=lambda name, turn: seen.append((name, turn)))
    assert seen == [(name, turn) for turn in range(3) for name in "ab"]
