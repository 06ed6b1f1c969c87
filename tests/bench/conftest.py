from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_engine.bench import cases, peers
from inception_engine.bench.peers import Peer
from inception_engine.preprocess import normalise
from tests.bench import fakes

ROOT = Path(__file__).parents[2]
Install = Callable[..., str]


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, spec in cases.VARIANTS.items():
        small = replace(spec, width=0.125, input_size=64, classes=fakes.CLASSES)
        monkeypatch.setitem(cases.VARIANTS, name, small)
    _forget()
    yield
    _forget()


def _forget() -> None:
    for function in (cases._network, cases._images, cases._reference):
        function.cache_clear()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes an engine of ``fakes`` a peer, and the formula of its logits the reference's. Returns its name."""

    def expected(variant: str, count: int, kind: str) -> np.ndarray:
        network = cases._network(variant)
        images = cases._images(network.input_shape, kind)[:count]
        return fakes.logits(images if kind == "float32" else normalise(images, network.preprocess))

    expected.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(cases, "_reference", expected)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def install(name: str, opener: str = "good", package: str = "numpy", ours: bool = False) -> str:
        peer = Peer(name, "a fake", f"tests.bench.fakes:{opener}", "network", (package,), ours=ours)
        monkeypatch.setitem(peers.PEERS, name, peer)
        return name

    return install
