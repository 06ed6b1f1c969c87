"""TensorRT itself, where it is installed and there is a GPU. Without: tests/exporters/test_tensorrt.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inception_engine import googlenet, load, reference
from inception_engine.errors import BackendError
from tests.tolerances import TOLERANCES, error, violations


@pytest.fixture(scope="module")
def gpu() -> str:
    pytest.importorskip("tensorrt", reason="backend tensorrt: tensorrt is not installed")
    pytest.importorskip("polygraphy", reason="backend tensorrt: polygraphy is not installed")
    from inception_engine.exporters.nvidia import current_gpu

    try:
        return current_gpu().name
    except BackendError as missing:
        pytest.skip(f"backend tensorrt: {missing}")


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_an_engine_that_is_built_written_and_loaded(gpu: str, dtype: str, tmp_path: Path) -> None:
    from inception_engine.exporters.tensorrt import Batches, prepare, to_tensorrt

    network = googlenet(input_size=64, classes=7)
    images = np.random.default_rng(0).standard_normal((3, *network.input_shape), dtype=np.float32)
    expected = reference.run(network, images)["fc"]
    path, cache = tmp_path / "small.engine", tmp_path / "cache"
    build = prepare(network, dtype=dtype, batches=Batches(1, 2, 4), workspace=256, timing_cache=cache)
    record = to_tensorrt(build, path)
    assert record.machine.gpu == gpu
    assert cache.stat().st_size > 0
    with load(path) as backend:
        assert error(backend.run(images), expected) <= TOLERANCES[dtype].logits
        assert error(backend.run(images[:1]), expected[:1]) <= TOLERANCES[dtype].logits


def test_every_layer(gpu: str) -> None:
    network = googlenet(width=0.25, input_size=64, classes=7)
    images = np.random.default_rng(0).standard_normal((2, *network.input_shape), dtype=np.float32)
    expected = reference.run(network, images, keep="all")
    with load(network, "tensorrt", keep_all=True, batches=(1, 2, 2)) as backend:
        results = backend.run(images, list(backend.face.layers))
    wanted = {name: expected[name].reshape(results[name].shape) for name in results}
    assert violations(results, wanted, "fc") == []
