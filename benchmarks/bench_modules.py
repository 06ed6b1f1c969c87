"""Inception modules, each a network of its own, on our engine and on ONNX Runtime."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.parts import ENGINES, checked, module
from inception_engine.bench.cases import Workload

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", MODULES)
def test_module(benchmark: Any, name: str, batch: int, engine: str) -> None:
    if engine != "engine":
        pytest.importorskip(engine)
    benchmark.group = f"{name}, batch {batch}"
    with checked(module(Workload("plain", batch).network, name), engine, batch) as call:
        benchmark(call)
