"""pytest-benchmark over the cases and peers of inception-bench: ``pytest benchmarks/``.

For comparing two states of this checkout (``--benchmark-autosave``, ``--benchmark-compare``). To compare peers use
``inception-bench``: it interleaves them, this suite runs them one after the other. Each peer is in its own process; a
time is that of a call there with the way there and back, a message each.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from inception_engine.bench.artefacts import Artefacts
from inception_engine.bench.cases import VARIANTS, Case, Workload
from inception_engine.bench.peers import PEERS
from inception_engine.bench.suite import Method, Suite


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return Artefacts(tmp_path_factory.mktemp("artefacts"))


@pytest.mark.parametrize("peer", [name for name, peer in PEERS.items() if not peer.slow])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_network(benchmark: Any, artefacts: Artefacts, variant: str, batch: int, peer: str) -> None:
    case = Case(peer, Workload(variant, batch), len(os.sched_getaffinity(0)))
    obstacle = PEERS[peer].obstacle(case)
    if obstacle is not None:
        pytest.skip(obstacle)
    benchmark.group = f"{variant}, batch {batch}"
    with Suite(artefacts, Method()).checked(case) as worker:
        benchmark(worker.time, 0, 1, 1)
