"""Parts of a network as the pytest-benchmark suites time them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bench_kernels, bench_modules, parts
from inception_engine import reference
from inception_engine.bench.cases import Workload
from inception_engine.network import Network


@pytest.mark.parametrize("what", [["conv1"], ["pool1"], ["norm2"], ["3b/5x5"], ["avgpool"], ["fc"], "4e"])
def test_a_part_computes_what_it_does_in_the_whole(what: list[str] | str) -> None:
    whole = Workload("lrn", 2).network
    small = parts.module(whole, what) if isinstance(what, str) else parts.part(whole, what)
    (source,) = {
        name for layer in whole.layers if layer.name in _names(small) for name in layer.inputs
    } - set(_names(small))
    images = Workload("lrn", 2).images()
    kept = reference.run(whole, images, keep=[small.logits, *({source} - {"input"})])
    given = images if source == "input" else kept[source].astype(np.float32)
    found = reference.run(small, given)[small.logits]
    np.testing.assert_allclose(
        found.reshape(kept[small.logits].shape), kept[small.logits], rtol=1e-4, atol=1e-5
    )


def _names(network: Network) -> list[str]:
    return [layer.name for layer in network.layers]


@pytest.mark.parametrize("engine", parts.ENGINES)
def test_a_part_is_checked_before_it_is_timed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine != "engine":
        pytest.importorskip(engine)
    small = parts.module(Workload("plain", 2).network, "3a")
    with parts.checked(small, engine, 2) as call:
        assert np.isfinite(np.asarray(call())).all()
    run = reference.run
    monkeypatch.setattr(
        reference,
        "run",
        lambda network, images: {name: 1.01 * out for name, out in run(network, images).items()},
    )
    with pytest.raises(AssertionError), parts.checked(small, engine, 2):
        pass


def test_the_suites_name_layers_and_modules_that_are_there() -> None:
    network = Workload("lrn", 1).network
    assert set(bench_kernels.LAYERS) <= {layer.name for layer in network.layers}
    assert set(bench_modules.MODULES) == {layer.module for layer in network.layers if layer.module}
