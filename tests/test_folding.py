"""Folding against torch's own batch norm in float64, for every part that may be absent."""

from __future__ import annotations

import numpy as np
import pytest

from inception_engine.folding import folded

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("absent", [(), ("bias",), ("scale", "shift"), ("bias", "scale", "shift")], ids=str)
def test_folded(absent: tuple[str, ...], dtype: type, epsilon: float) -> None:
    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {
        name: rng.uniform(0.01, 1.5, 5).astype(dtype)
        for name in ("mean", "variance", "bias", "scale", "shift")
    }
    weight: np.ndarray = rng.standard_normal((5, 3, 3, 3)).astype(dtype)
    given = {name: None if name in absent else array for name, array in values.items()}
    new_weight, new_bias = folded(
        weight,
        given["bias"],
        mean=values["mean"],
        variance=values["variance"],
        epsilon=epsilon,
        scale=given["scale"],
        shift=given["shift"],
    )
    assert new_weight.dtype == new_bias.dtype == np.float64

    def tensor(name: str):
        array = given[name]
        return None if array is None else torch.from_numpy(array).double()

    x = torch.from_numpy(rng.standard_normal((2, 3, 6, 6)))
    y = torch.nn.functional.conv2d(x, torch.from_numpy(weight).double(), tensor("bias"))
    expected = torch.nn.functional.batch_norm(
        y, tensor("mean"), tensor("variance"), tensor("scale"), tensor("shift"), eps=epsilon
    )
    actual = torch.nn.functional.conv2d(x, torch.from_numpy(new_weight), torch.from_numpy(new_bias))
    assert torch.allclose(actual, expected, rtol=0, atol=1e-12)
