"""The plan loader and the engine behind it, under the address and the undefined behaviour sanitiser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening import build, commands, corpus
from tests.hardening.commands import Failed
from tests.hardening.extremes import extremes, large
from tests.loader import verdict
from tests.plans import WEIGHTS, read_sections

pytestmark = pytest.mark.timeout(900)  # the first test builds the runtime


def test_a_hundred_thousand_loads() -> None:
    counts = commands.fuzz("loader", 100_000)
    assert counts["executions"] == 100_000 + len(corpus.stored())
    assert counts["accepted"] > 1000  # mended mutations reach the end of the proof


def test_what_is_loaded_runs() -> None:
    counts = commands.fuzz("run", 10_000)
    assert counts["executions"] == 10_000 + len(corpus.stored())
    assert counts["run"] > 200


def test_every_prefix() -> None:
    tiny = corpus.tiny()
    counts = commands.damage("loader", "prefixes", tiny)
    assert (counts["executions"], counts["accepted"]) == (1 + 2 * len(tiny), 1)  # itself alone


def test_what_passes_with_a_flipped_bit_runs() -> None:
    """The run of each such plan is compared with one of another number of threads and other garbage in memory."""
    tiny = corpus.tiny()
    counts = commands.damage("run", "flips", tiny)
    weights = next(size for kind, _, size in read_sections(tiny) if kind == WEIGHTS)
    assert counts["executions"] >= 2 * 8 * (len(tiny) - weights)
    assert counts["run"] > 2 * 1000  # each that is accepted runs twice


def test_memory_for_plans_that_ask_for_much() -> None:
    counts = commands.load_extremes()
    assert counts["executions"] == counts["accepted"] == len(extremes() | large())


@pytest.mark.parametrize(
    ("length", "said"),
    [(1, "heap-buffer-overflow"), (2, "bytes held"), (3, " s for an input"), (4, "signed integer overflow")],
)
def test_a_planted_error_is_found(length: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(bytes(length))
    program = build.fuzz_target("planted", build.Kind("address"))
    with pytest.raises(Failed, match=said):
        commands.run([program, path], tmp_path)
    assert (tmp_path / "finding").read_bytes() == bytes(length)


def test_the_corpus_is_what_its_script_makes() -> None:
    """Of what the compiler makes the names alone: what it makes changes more often than what is worth keeping."""
    stored, made = corpus.stored(), corpus.seeds()
    assert {name for name in stored if not name.startswith("found-")} == made.keys()
    by_hand = [name for name in made if not name.startswith(("cpu-", "cuda-"))]
    assert len(by_hand) == 40
    assert all(stored[name] == made[name] for name in by_hand)
    assert all(verdict(stored[name]) == "IE_OK" for name in made)
