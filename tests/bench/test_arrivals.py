"""Open loop against servers whose answers are worked out by hand, and everything together by the self-test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from inception_engine.bench import selftest
from inception_engine.bench.arrivals import OpenLoop, counted, lowest, most_late, poisson, search
from inception_engine.bench.process import PeerError
from inception_engine.bench.worker import Clock, Service

MILLISECOND = 1_000_000


class Server:
    """Serves in the worker's own loop, by a clock that its calls move."""

    def __init__(self, call_ms: Callable[[], float]) -> None:
        self.now = 0
        self.call_ms = call_ms
        self.service = Service([self.call], lambda count: {}, Clock(lambda: self.now, self.sleep))

    def call(self) -> None:
        self.now += round(self.call_ms() * MILLISECOND)

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def arrivals(self, at_ns: list[int], bound_ns: int, most: int, first: int) -> list[int]:
        text = " ".join(map(str, (bound_ns, most, first, *at_ns)))
        latencies: list[int] = self.service.answer(f"arrivals {text}")["ns"]
        return latencies


def test_latency_is_from_the_arrival_and_not_from_the_call() -> None:
    """Four arrivals at an engine that takes 10 ms: it is free, busy for 6 ms, busy for 11 ms, free again."""
    server = Server(lambda: 10.0)
    arrivals = [0, 4 * MILLISECOND, 9 * MILLISECOND, 100 * MILLISECOND]
    latencies = server.arrivals(arrivals, 10**12, 0, 0)
    assert [latency / MILLISECOND for latency in latencies] == [10, 16, 21, 10]


def test_a_rate_that_is_hopeless_is_given_up_early() -> None:
    server = Server(lambda: 10.0)
    arrivals = [MILLISECOND * i for i in range(1000)]
    assert len(server.arrivals(arrivals, 95 * MILLISECOND, 0, 0)) == 11  # latencies grow by 9 ms
    server.now = 0
    assert len(server.arrivals(arrivals, 95 * MILLISECOND, 3, 50)) == 54  # of those that count, four


@pytest.mark.parametrize("count", [200, 201, 299, 500, 2000, 2050])
def test_a_rate_is_given_up_when_no_other_request_can_change_that(count: int) -> None:
    most = most_late(count)
    assert np.percentile([0.0] * (count - most - 1) + [2.0] * (most + 1), 99) > 1
    assert np.percentile([0.0] * (count - most) + [1.0] * most, 99) <= 1


def test_a_search_without_hope_is_short() -> None:
    """Every fiftieth call is late by itself: no rate holds the bound, and some requests show that at each."""
    calls = itertools.count()
    peer = Server(lambda: 6.0 if next(calls) % 50 == 0 else 5.0)
    held = search({"a": peer}, {"a": 200.0}, OpenLoop(bound_ms=5.5, seconds=6.0))["a"]
    assert held.rate == 0.0 and peer.now < 300e9  # half of what all requests at all rates take


def test_arrivals_are_poisson_and_reproducible() -> None:
    arrivals = np.array(poisson(1000.0, 20_000, seed=3))
    gaps = np.diff(arrivals) / 1e9
    assert len(arrivals) == 20_000 and gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an exponential distribution
    assert poisson(1000.0, 20_000, seed=3) == arrivals.tolist()
    np.testing.assert_allclose(np.array(poisson(2000.0, 20_000, seed=3)) * 2, arrivals, atol=2)


def test_the_rate_found_is_the_one_that_theory_gives() -> None:
    """A queue with constant times of 10 ms (M/D/1): a request waits at most 20 ms with the probability
    (1 - r) (exp(2 r) - r exp(r)), r being the share of the time that it is busy: 0.99 at r = 0.32."""
    held = search({"a": Server(lambda: 10.0)}, {"a": 100.0}, OpenLoop(bound_ms=30.0, seconds=500.0))["a"]
    assert held.p99_ms is not None and held.p99_ms <= 30.0
    assert held.rate == pytest.approx(32.0, rel=0.08) and held.requests > 10_000 and not held.capped


def long_run(rate: float, call_ms: float) -> float:
    """The 99th percentile in ms of a server with constant times: what it ends with is what it began with, or the
    arrival, and a call more (Lindley)."""
    count = 300_000
    arrivals = np.cumsum(np.random.default_rng(77).exponential(1e3 / rate, count))
    behind = arrivals - call_ms * np.arange(count)
    latencies = np.maximum.accumulate(behind) - behind + call_ms
    return float(np.percentile(latencies, 99))


@pytest.mark.parametrize(("bound_ms", "share"), [(20.0, 0.3), (30.0, 0.25), (50.0, 0.2)])
def test_few_requests_find_what_a_long_run_finds(bound_ms: float, share: float) -> None:
    """Each of a dozen searches within ``share``, and their middle within a tenth."""
    low, high = 0.0, 100.0
    for _ in range(12):
        rate = (low + high) / 2
        low, high = (rate, high) if long_run(rate, 10.0) <= bound_ms else (low, rate)
    loop, closed = OpenLoop(bound_ms, seconds=5.0), {"a": 100.0}
    found = [search({"a": Server(lambda: 10.0)}, closed, loop, seed=100 * k)["a"].rate for k in range(12)]
    ratios = np.array(found, float) / low
    assert ratios.min() > 1 - share and ratios.max() < 1 + share
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)


def test_a_rate_is_confirmed_by_other_arrivals_and_more_of_them() -> None:
    asked: list[list[int]] = []

    class Noted(Server):
        def arrivals(self, at_ns: list[int], bound_ns: int, most: int, first: int) -> list[int]:
            asked.append(at_ns)
            return super().arrivals(at_ns, bound_ns, most, first)

    held = search({"a": Noted(lambda: 10.0)}, {"a": 100.0}, OpenLoop(bound_ms=40.0, seconds=5.0))["a"]
    counts = [len(at_ns) for at_ns in asked]
    assert counts[:7] == [550] * 7 and set(counts[7:]) == {2050} and held.requests == 2000
    assert len({round(at_ns[1] / at_ns[0], 6) for at_ns in asked}) == len(asked)  # no seed twice


def test_the_time_of_a_rate_is_bounded_and_its_requests_are_said() -> None:
    """Ten calls a second: 2,000 requests would take minutes, 48 seconds are given."""
    held = search({"a": Server(lambda: 100.0)}, {"a": 10.0}, OpenLoop(bound_ms=800.0, seconds=2.0))["a"]
    assert held.rate and held.requests == int(48 * held.rate) < 500
    assert counted(lowest(1.0), 1.0, 2000) == 200 and counted(1e6, 5.0, 2000) == 100_000


def test_rates_that_would_take_too_long_are_not_tried() -> None:
    """One call alone holds the bound, and no two that meet: only at some requests a second they do not."""
    asked: list[list[int]] = []

    class Noted(Server):
        def arrivals(self, at_ns: list[int], *arguments: int) -> list[int]:
            asked.append(at_ns)
            return super().arrivals(at_ns, *arguments)

    held = search({"a": Noted(lambda: 50.0)}, {"a": 20.0}, OpenLoop(bound_ms=51.0, seconds=5.0))["a"]
    assert (held.rate, held.requests) == (None, 0)
    assert len(asked) == 3 and max(at_ns[-1] for at_ns in asked) < 1.5 * 24 * 5e9


def test_the_first_requests_find_an_empty_queue_and_are_not_counted() -> None:
    """The first fifty, on a server that is slow for so many: they are no part of the percentile."""

    class Cold(Server):
        def arrivals(self, at_ns: list[int], *arguments: int) -> list[int]:
            calls = itertools.count()
            self.call_ms = lambda: 30.0 if next(calls) < 50 else 1.0
            return super().arrivals(at_ns, *arguments)

    held = search({"a": Cold(lambda: 0.0)}, {"a": 1.0}, OpenLoop(bound_ms=5.0, seconds=20.0))["a"]
    assert held.requests == int(480 * 127 / 128) and held.capped


def test_what_ended_at_its_cap_is_said() -> None:
    held = search({"a": Server(lambda: 1.0)}, {"a": 100.0}, OpenLoop(bound_ms=50.0, seconds=1.0))["a"]
    assert held.capped and held.rate == pytest.approx(100.0 * 127 / 128)


def test_what_was_never_confirmed_is_not_known() -> None:
    """It is fast while the rates are searched, and slow from then on."""
    asked = itertools.count()

    class Tired(Server):
        def arrivals(self, at_ns: list[int], *arguments: int) -> list[int]:
            self.call_ms = lambda: 1.0 if step < 7 else 100.0
            step = next(asked)
            return super().arrivals(at_ns, *arguments)

    held = search({"a": Tired(lambda: 0.0)}, {"a": 100.0}, OpenLoop(bound_ms=50.0, seconds=1.0))["a"]
    assert next(asked) > 7
    assert (held.rate, held.p99_ms, held.requests, held.capped) == (None, None, 0, False)


def test_a_bound_below_the_call_is_held_by_no_rate() -> None:
    held = search({"a": Server(lambda: 10.0)}, {"a": 100.0}, OpenLoop(bound_ms=9.0, seconds=20.0))["a"]
    assert (held.rate, held.p99_ms) == (0.0, None)


def test_a_peer_that_fails_leaves_the_search_and_not_the_others() -> None:
    class Fails(Server):
        def arrivals(self, at_ns: list[int], bound_ns: int, most: int, first: int) -> list[int]:
            if next(steps) == 2:
                raise PeerError("out of luck")
            return super().arrivals(at_ns, bound_ns, most, first)

    steps = itertools.count()
    peers = {"bad": Fails(lambda: 10.0), "good": Server(lambda: 10.0)}
    held = search(peers, dict.fromkeys(peers, 100.0), OpenLoop(bound_ms=50.0, seconds=2.0))
    assert str(held["bad"].error) == "out of luck" and held["bad"].rate is None
    assert held["good"].error is None and held["good"].rate


def test_each_turn_settles_and_a_peer_may_fail_there() -> None:
    settled: list[str] = []

    def settle(name: str) -> None:
        settled.append(name)
        if name == "bad":
            raise PeerError("out of luck")

    peers = {name: Server(lambda: 10.0) for name in ("bad", "good")}
    loop = OpenLoop(bound_ms=50.0, seconds=2.0)
    held = search(peers, dict.fromkeys(peers, 100.0), loop, steps=3, settle=settle)
    assert settled[:4] == ["bad", "good", "good", "good"] and set(settled[4:]) == {"good"}
    assert str(held["bad"].error) == "out of luck" and held["good"].rate


def test_the_self_test_passes_through_real_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main() == 0
    printed = capsys.readouterr().out
    for name in ("p50", "p90", "p95", "p99", "p99.9", "rate that holds a p99 bound"):
        assert any(line.startswith(f"{name} ") and line.endswith("  ok") for line in printed.splitlines())


def test_a_self_test_whose_worker_ends_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*arguments: str) -> None:
        raise PeerError("killed by SIGKILL")

    monkeypatch.setattr(selftest, "start", killed)
    assert selftest.main() == 1
    assert capsys.readouterr().err == "inception-bench: error: self-test: killed by SIGKILL\n"


def test_the_self_test_fails_where_percentiles_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.percentile
    monkeypatch.setattr(np, "percentile", lambda values, shares: right(values, np.asarray(shares) * 0.99))
    monkeypatch.setattr(selftest, "_open_loop", list)
    assert selftest.main() == 1
    assert "FAILED" in capsys.readouterr().out
