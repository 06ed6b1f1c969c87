"""Who is the best peer."""

from __future__ import annotations

from inception_engine.bench.rows import best_of
from inception_engine.bench.timing import Samples, ratio, statistics


def test_no_peer_has_a_ratio_below_one_to_the_best() -> None:
    """``often`` is the faster one in two rounds of three; ``once`` has the lower median of all calls."""
    peers = {
        "once": Samples(rounds=[[10], [20], [20, 1, 1, 20, 20]]),
        "often": Samples(rounds=[[9], [19], [30, 30, 30]]),
    }
    peers["once"].rounds[0] *= 9
    assert statistics(peers["once"]).p50_ms < statistics(peers["often"]).p50_ms
    assert best_of(peers) == "often"
    assert ratio(peers["once"], peers["often"])[0] > 1


def test_the_best_of_one_and_of_three_in_a_circle() -> None:
    circle = {
        "a": Samples(rounds=[[10], [20], [31]]),
        "b": Samples(rounds=[[20], [30], [10]]),
        "c": Samples(rounds=[[30], [10], [20]]),
    }
    assert best_of({"a": circle["a"]}) == "a"
    assert best_of(circle) in circle
