"""Timing with a clock of our own: known latencies in, known figures out. Nothing here measures real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import pytest

from inception_engine.bench.process import PeerError, Turn
from inception_engine.bench.timing import (
    RARE,
    SETTLE_LIMIT,
    WARMUP_LIMIT,
    Clock,
    Samples,
    Schedule,
    measure,
    ratio,
    statistics,
    warm_up,
)

MILLISECOND = 1_000_000


class Machine:
    """A clock that only its peers' calls advance, by their latency times the ``slowness`` of the moment."""

    def __init__(self, slowness: Callable[[float], float] = lambda seconds: 1.0) -> None:
        self.time_ns = 0
        self.used_ns = 0
        self.spin_until_ns = 0
        self.slowness = slowness
        self.calls: list[str] = []
        self.clock = Clock(lambda: self.time_ns, self.sleep)

    def sleep(self, seconds: float) -> None:
        end = self.time_ns + round(seconds * 1e9)
        self.used_ns += max(0, min(end, self.spin_until_ns) - self.time_ns)
        self.time_ns = end
        self.calls.append("sleep")

    def peer(self, name: str, *latencies_ms: float, spin_ms: float = 0.0, good_calls: int = 1 << 60) -> Peer:
        """``spin_ms``: for how long its threads spin after each call. ``good_calls``: before it fails."""
        return Peer(self, name, cycle(latencies_ms), spin_ms, good_calls)


class Peer:
    """A worker without a process."""

    def __init__(
        self, machine: Machine, name: str, latencies_ms: Iterator[float], spin_ms: float, good_calls: int
    ) -> None:
        self.machine, self.name, self.latencies = machine, name, latencies_ms
        self.spin_ms, self.good_calls = spin_ms, good_calls
        self.while_spinning: list[bool] = []

    def time(self, seconds: float, least: int, most: int) -> Turn:
        begin = self.machine.time_ns
        times: list[int] = []
        while len(times) < most and (
            len(times) < least or not times or self.machine.time_ns < begin + seconds * 1e9
        ):
            times.append(self._call())
        return Turn(times, self.machine.time_ns - begin)

    def _call(self) -> int:
        machine = self.machine
        self.while_spinning.append(machine.time_ns < machine.spin_until_ns)
        machine.calls.append(self.name)
        self.good_calls -= 1
        if self.good_calls < 0:
            raise PeerError("out of luck")
        latency = round(next(self.latencies) * MILLISECOND * machine.slowness(machine.time_ns / 1e9))
        machine.time_ns += latency
        machine.spin_until_ns = machine.time_ns + round(self.spin_ms * MILLISECOND)
        return latency

    def cpu_ns(self) -> int:
        return self.machine.used_ns


def test_percentiles_of_known_latencies() -> None:
    machine = Machine()
    latencies = np.random.default_rng(0).gamma(4.0, 2.0, 5000) + 1.0
    schedule = Schedule(warmup=0, duration=float(latencies.sum()) * 20 / 1e3, rounds=4)
    timed = measure({"peer": machine.peer("peer", *latencies)}, schedule, clock=machine.clock)["peer"]
    figures = statistics(timed)
    assert figures.samples > 50_000
    expected = np.percentile(latencies, (50, 90, 95, 99, 99.9))
    found = (figures.p50_ms, figures.p90_ms, figures.p95_ms, figures.p99_ms, figures.p999_ms)
    np.testing.assert_allclose(found, expected, rtol=0.01)  # type: ignore[arg-type]
    assert figures.calls_per_s == pytest.approx(1e3 / latencies.mean(), rel=0.01)


@pytest.mark.parametrize(("count", "told"), [(RARE - 1, False), (RARE, True)])
def test_the_rarest_percentile_is_told_of_enough_samples_only(count: int, told: bool) -> None:
    figures = statistics(Samples(rounds=[list(range(1, count + 1))]))
    assert (figures.p999_ms is not None) == told


def test_rounds_are_interleaved_and_each_turn_settles() -> None:
    machine = Machine()
    peers = {name: machine.peer(name, 10.0) for name in "ab"}
    schedule = Schedule(warmup=0, duration=0.06, rounds=2, turn_iterations=1)
    timed = measure(peers, schedule, clock=machine.clock)
    warm_up = ["sleep", "a", "sleep", "b"]
    turns = ["sleep", *"aaaa", "sleep", *"bbbb"]  # one call uncounted, then 30 ms
    assert machine.calls == [*warm_up, *turns, *turns]
    assert [len(times) for times in timed["a"].rounds] == [3, 3]
    assert timed["a"].wall_ns == [30 * MILLISECOND] * 2


def test_a_turn_has_bounds_of_time_and_of_calls() -> None:
    machine = Machine()
    schedule = Schedule(warmup=0, duration=1.0, rounds=5, turn_iterations=3, most_iterations=50)
    latencies = {"slow": 900.0, "fast": 10.0, "fastest": 1.0}
    peers = {name: machine.peer(name, latency) for name, latency in latencies.items()}
    timed = measure(peers, schedule, clock=machine.clock)
    counts = {name: {len(times) for times in samples.rounds} for name, samples in timed.items()}
    assert counts == {"slow": {3}, "fast": {20}, "fastest": {50}}


def test_the_warm_up_takes_its_time() -> None:
    machine = Machine()
    assert warm_up(machine.peer("steady", 1.0), Schedule(warmup=0.1))
    assert machine.time_ns == 100 * MILLISECOND


def test_the_warm_up_goes_on_until_calls_agree() -> None:
    machine = Machine(slowness=lambda seconds: max(1.0, 4.0 - 15 * seconds))
    assert warm_up(machine.peer("compiles", 1.0), Schedule(warmup=0.1))
    assert 0.25e9 < machine.time_ns < WARMUP_LIMIT * 0.1e9


def test_a_warm_up_that_never_agrees_is_given_up_and_said() -> None:
    machine = Machine(slowness=lambda seconds: 2.0 ** (seconds * 10))
    schedule = Schedule(warmup=0.1, duration=0.01, rounds=1)
    timed = measure({"drifts": machine.peer("drifts", 1.0)}, schedule, clock=machine.clock)["drifts"]
    assert not timed.warm and timed.error is None and len(timed.rounds) == 1


def test_a_warm_up_of_slow_calls_has_three_blocks_in_any_case() -> None:
    machine = Machine()
    assert warm_up(machine.peer("slow", 4000.0), Schedule(warmup=0.5))
    assert machine.calls == ["slow"] * 3
    assert not warm_up(machine.peer("uneven", 4000.0, 5000.0), Schedule(warmup=0.5))


def test_the_pause_is_not_part_of_any_sample() -> None:
    machine = Machine()
    schedule = Schedule(warmup=0, duration=0.1, rounds=2)
    timed = measure({"peer": machine.peer("peer", 2.0)}, schedule, clock=machine.clock)["peer"]
    assert machine.calls.count("sleep") == 3
    assert {time for times in timed.rounds for time in times} == {2 * MILLISECOND}


def test_a_turn_waits_until_the_other_peers_threads_sleep() -> None:
    machine = Machine()
    peers = {"spins": machine.peer("spins", 1.0, spin_ms=64.0), "sleeps": machine.peer("sleeps", 1.0)}
    schedule = Schedule(warmup=0, duration=0.003, rounds=3)
    measure(peers, schedule, clock=machine.clock)
    found = peers["sleeps"].while_spinning
    assert len(found) == 13 and not any(found)
    assert any(peers["spins"].while_spinning)  # within its own turn it spins as it likes


def test_threads_that_never_sleep_do_not_hold_up_the_run() -> None:
    machine = Machine()
    schedule = Schedule(warmup=0, duration=0.001, rounds=2, turn_iterations=1)
    timed = measure({"peer": machine.peer("peer", 1.0, spin_ms=1e9)}, schedule, clock=machine.clock)["peer"]
    assert [len(times) for times in timed.rounds] == [1, 1]
    assert machine.time_ns < (3 * SETTLE_LIMIT + 1) * 1e9


def test_drift_of_the_machine_cancels_in_the_ratio() -> None:
    machine = Machine(slowness=lambda seconds: 1.0 + seconds / 10)  # half as slow again after five seconds
    peers = {"a": machine.peer("a", 8.0), "b": machine.peer("b", 10.0)}
    timed = measure(peers, Schedule(warmup=0, duration=5.0, rounds=25), clock=machine.clock)
    middle, lowest, highest = ratio(timed["a"], timed["b"])
    assert middle == pytest.approx(0.8, rel=0.03)
    assert 0.75 < lowest <= middle <= highest < 0.85
    figures = statistics(timed["a"])
    assert (
        figures.spread[0] < 0.85 and figures.spread[1] > 1.15
    )  # it shows the drift that the ratio is free of
    assert figures.unstable


def test_ratio_and_spread_are_taken_round_by_round() -> None:
    a = Samples(rounds=[[1, 1, 9], [4, 4, 4], [6, 6, 6]])
    b = Samples(rounds=[[2, 2, 2], [4, 4, 4], [4, 4, 4]])
    assert ratio(a, b) == (1.0, 0.5, 1.5)
    figures = statistics(a)
    assert figures.p50_ms == pytest.approx(4e-6)
    assert figures.spread == pytest.approx((0.25, 1.5))


@pytest.mark.parametrize(("low", "high", "unstable"), [(96, 105, False), (94, 105, True)])
def test_rounds_that_lie_apart_are_unstable(low: int, high: int, unstable: bool) -> None:
    rounds = [[low] * 3, [100] * 3, [100] * 3, [100] * 3, [high] * 3]
    assert statistics(Samples(rounds=rounds)).unstable == unstable


@pytest.mark.parametrize("good_calls", [0, 4])
def test_a_peer_that_fails_leaves_the_running_and_not_the_others(good_calls: int) -> None:
    machine = Machine()
    peers = {"bad": machine.peer("bad", 10.0, good_calls=good_calls), "good": machine.peer("good", 10.0)}
    schedule = Schedule(warmup=0, duration=0.09, rounds=3)
    timed = measure(peers, schedule, clock=machine.clock)
    assert str(timed["bad"].error) == "out of luck"
    assert machine.calls.count("bad") == good_calls + 1
    assert timed["good"].error is None
    assert [len(times) for times in timed["good"].rounds] == [3, 3, 3]


def test_progress_names_each_turn() -> None:
    machine = Machine()
    seen: list[tuple[str, int]] = []
    peers = {name: machine.peer(name, 10.0) for name in "ab"}
    schedule = Schedule(warmup=0, duration=0.02, rounds=2)
    measure(peers, schedule, clock=machine.clock, progress=lambda name, turn: seen.append((name, turn)))
    assert seen == [(name, turn) for turn in range(3) for name in "ab"]
