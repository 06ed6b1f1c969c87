"""Open loop against servers whose answers are worked out by hand, and everything together by the self-test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from inception_engine.bench import selftest
from inception_engine.bench.arrivals import OpenLoop, poisson, search
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

    def arrivals(self, at_ns: list[int], limit_ns: int) -> list[int]:
        text = " ".join(map(str, (limit_ns, *at_ns)))
        latencies: list[int] = self.service.answer(f"arrivals {text}")["ns"]
        return latencies


def test_latency_is_from_the_arrival_and_not_from_the_call() -> None:
    """Four arrivals at an engine that takes 10 ms: it is free, busy for 6 ms, busy for 11 ms, free again."""
    server = Server(lambda: 10.0)
    arrivals = [0, 4 * MILLISECOND, 9 * MILLISECOND, 100 * MILLISECOND]
    latencies = server.arrivals(arrivals, 10**12)
    assert [latency / MILLISECOND for latency in latencies] == [10, 16, 21, 10]


def test_a_rate_that_is_hopeless_is_given_up_early() -> None:
    server = Server(lambda: 10.0)
    latencies = server.arrivals([MILLISECOND * i for i in range(1000)], 95 * MILLISECOND)
    assert len(latencies) == 11  # latencies grow by 9 ms: the eleventh is over the limit


def test_arrivals_are_poisson_and_reproducible() -> None:
    arrivals = np.array(poisson(1000.0, 20.0, seed=3))
    gaps = np.diff(arrivals) / 1e9
    assert len(arrivals) == 20_000 and gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an exponential distribution
    assert poisson(1000.0, 20.0, seed=3) == arrivals.tolist()
    np.testing.assert_allclose(np.array(poisson(2000.0, 10.0, seed=3)) * 2, arrivals, atol=2)


def test_the_rate_found_is_the_one_that_theory_gives() -> None:
    """A queue with constant times of 10 ms (M/D/1): a request waits at most 20 ms with the probability
    (1 - r) (exp(2 r) - r exp(r)), r being the share of the time that it is busy: 0.99 at r = 0.32."""
    held = search({"a": Server(lambda: 10.0)}, {"a": 100.0}, OpenLoop(bound_ms=30.0, seconds=500.0))["a"]
    assert held.p99_ms is not None and held.p99_ms <= 30.0
    assert held.rate == pytest.approx(32.0, rel=0.05)


def test_a_bound_below_the_call_is_held_by_no_rate() -> None:
    held = search({"a": Server(lambda: 10.0)}, {"a": 100.0}, OpenLoop(bound_ms=9.0, seconds=1.0))["a"]
    assert (held.rate, held.p99_ms) == (0.0, None)


def test_a_peer_that_fails_leaves_the_search_and_not_the_others() -> None:
    class Fails(Server):
        def arrivals(self, at_ns: list[int], limit_ns: int) -> list[int]:
            if next(steps) == 2:
                raise PeerError("out of luck")
            return super().arrivals(at_ns, limit_ns)

    steps = itertools.count()
    peers = {"bad": Fails(lambda: 10.0), "good": Server(lambda: 10.0)}
    held = search(peers, dict.fromkeys(peers, 100.0), OpenLoop(bound_ms=50.0, seconds=2.0))
    assert str(held["bad"].error) == "out of luck" and held["good"].error is None and held["good"].rate > 0


def test_each_turn_settles_and_a_peer_may_fail_there() -> None:
    settled: list[str] = []

    def settle(name: str) -> None:
        settled.append(name)
        if name == "bad":
            raise PeerError("out of luck")

    peers = {name: Server(lambda: 10.0) for name in ("bad", "good")}
    loop = OpenLoop(bound_ms=50.0, seconds=2.0)
    held = search(peers, dict.fromkeys(peers, 100.0), loop, steps=3, settle=settle)
    assert settled == ["bad", "good", "good", "good"]
    assert str(held["bad"].error) == "out of luck" and held["good"].rate > 0


def test_the_self_test_passes_through_real_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main() == 0
    printed = capsys.readouterr().out
    for name in ("p50", "p90", "p95", "p99", "p99.9", "rate that holds a p99 bound"):
        assert any(line.startswith(f"{name} ") and line.endswith("  ok") for line in printed.splitlines())


def test_the_self_test_fails_where_percentiles_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.percentile
    monkeypatch.setattr(np, "percentile", lambda values, shares: right(values, np.asarray(shares) * 0.99))
    monkeypatch.setattr(selftest, "_open_loop", list)
    assert selftest.main() == 1
    assert "FAILED" in capsys.readouterr().out
