"""Single layers of the paper's network, one of each kind of kernel, on our engine and on ONNX Runtime."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.parts import ENGINES, checked, part
from inception_engine.bench.cases import Workload

# What each is in the paper: the 7x7/2 stem, the widest 3x3, a 1x1 of 28 x 28, 5x5 and 3x3 where there are few pixels.
LAYERS = ("conv1", "conv2", "3b/1x1", "3b/5x5", "5b/3x3", "pool1", "norm2", "3b/pool", "avgpool", "fc")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("layer", LAYERS)
def test_layer(benchmark: Any, layer: str, batch: int, engine: str) -> None:
    if engine != "engine":
        pytest.importorskip(engine)
    benchmark.group = f"{layer}, batch {batch}"
    with checked(part(Workload("lrn", batch).network, [layer]), engine, batch) as call:
        benchmark(call)
