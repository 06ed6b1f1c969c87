"""pytest-benchmark over the cases and peers of inception-bench: ``pytest benchmarks/``.

For comparing two states of this checkout (``--benchmark-autosave``, ``--benchmark-compare``). To compare peers use
``inception-bench``: it interleaves them, this suite runs them one after the other.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from inception_engine.bench.cases import PARITY_BOUNDS, VARIANTS, Case
from inception_engine.bench.peers import PEERS
from inception_engine.parity import error as parity


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_network(benchmark: Any, variant: str, batch: int, peer: str) -> None:
    case = Case(variant, batch, "fp32")
    obstacle = PEERS[peer].obstacle("cpu", case.dtype)
    if obstacle is not None:
        pytest.skip(obstacle)
    images = case.images()
    with PEERS[peer].prepare(case, len(os.sched_getaffinity(0))) as run:
        assert parity(run(images), case.expected()) <= PARITY_BOUNDS[case.dtype]
        benchmark.group = f"{variant}, batch {batch}"
        benchmark(run, images)
