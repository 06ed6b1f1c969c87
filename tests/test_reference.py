"""The oracle against loops over single elements, written from the documentation of the layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from inception_engine import reference
from inception_engine.network import (
    LRN,
    AveragePool,
    Concat,
    Conv,
    Layer,
    Linear,
    MaxPool,
    Network,
    Preprocess,
    Softmax,
)

SHAPE = (5, 6, 7)
RNG = np.random.default_rng(11)
IMAGES = RNG.standard_normal((2, *SHAPE), dtype=np.float32)
WINDOWS = {
    "plain": ((3, 3), (1, 1), (0, 0, 0, 0)),
    "same": ((3, 3), (1, 1), (1, 1, 1, 1)),
    "asymmetric": ((2, 3), (2, 1), (1, 0, 0, 2)),
    "wide": ((1, 5), (3, 2), (0, 4, 0, 3)),
    "ceil": ((3, 3), (2, 2), (0, 0, 1, 2)),
}


def network_of(*layers: Layer, shape=SHAPE) -> Network:
    preprocess = Preprocess(mean=(0.0,), std=(1.0,))
    return Network(
        name="test", input_shape=shape, layers=layers, logits=layers[-1].name, preprocess=preprocess
    )


def run(layer: Layer, images: np.ndarray = IMAGES) -> np.ndarray:
    return reference.run(network_of(layer, shape=images.shape[1:]), images)[layer.name]


def windows(images: np.ndarray, kernel, stride, pads):
    """((n, y, x), pixels of the padded image): per output position the elements (kh, kw, row, column) of its window."""
    _, _, height, width = images.shape
    top, left, bottom, right = pads
    rows = (height + top + bottom - kernel[0]) // stride[0] + 1
    columns = (width + left + right - kernel[1]) // stride[1] + 1
    for n, y, x in itertools.product(range(len(images)), range(rows), range(columns)):
        taps = itertools.product(range(kernel[0]), range(kernel[1]))
        yield (
            (n, y, x),
            (rows, columns),
            [(kh, kw, y * stride[0] + kh - top, x * stride[1] + kw - left) for kh, kw in taps],
        )


def inside(row: int, column: int) -> bool:
    return 0 <= row < SHAPE[1] and 0 <= column < SHAPE[2]


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("relu", [True, False], ids=["relu", "linear"])
def test_convolution(window, relu) -> None:
    kernel, stride, pads = window
    weight = RNG.standard_normal((3, SHAPE[0], *kernel), dtype=np.float32)
    bias = RNG.standard_normal(3, dtype=np.float32)
    layer = Conv(
        name="conv", inputs=("input",), weight=weight, bias=bias, stride=stride, pads=pads, relu=relu
    )
    actual = run(layer)
    for (n, y, x), size, taps in windows(IMAGES, kernel, stride, pads):
        assert actual.shape[2:] == size
        total = bias.astype(np.float64)
        for kh, kw, row, column in taps:
            if inside(row, column):
                total = total + weight[:, :, kh, kw].astype(np.float64) @ IMAGES[n, :, row, column]
        np.testing.assert_allclose(actual[n, :, y, x], np.maximum(total, 0) if relu else total, atol=1e-12)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
def test_max_pool(window) -> None:
    kernel, stride, pads = window
    images = IMAGES - 10  # padding with zeros would win
    actual = run(MaxPool(name="pool", inputs=("input",), kernel=kernel, stride=stride, pads=pads), images)
    for (n, y, x), _, taps in windows(images, kernel, stride, pads):
        expected = np.max(
            [images[n, :, row, column] for _, _, row, column in taps if inside(row, column)], axis=0
        )
        np.testing.assert_array_equal(actual[n, :, y, x], expected)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("count_include_pad", [True, False], ids=["with padding", "without padding"])
def test_average_pool(window, count_include_pad) -> None:
    kernel, stride, pads = window
    layer = AveragePool(name="pool", inputs=("input",), kernel=kernel, stride=stride, pads=pads,
                        count_include_pad=count_include_pad)  # fmt: skip
    actual = run(layer)
    for (n, y, x), _, taps in windows(IMAGES, kernel, stride, pads):
        pixels = [
            IMAGES[n, :, row, column].astype(np.float64) for _, _, row, column in taps if inside(row, column)
        ]
        count = len(taps) if count_include_pad else len(pixels)
        np.testing.assert_allclose(actual[n, :, y, x], np.sum(pixels, axis=0) / count, atol=1e-13)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 11])
def test_lrn(size) -> None:
    alpha, beta, k = 0.7, 0.75, 2.0
    actual = run(LRN(name="lrn", inputs=("input",), size=size, alpha=alpha, beta=beta, k=k))
    x = IMAGES.astype(np.float64)
    for c in range(SHAPE[0]):
        around = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        expected = x[:, c] / (k + alpha / size * (around**2).sum(1)) ** beta
        np.testing.assert_allclose(actual[:, c], expected, rtol=1e-12)


def test_concat_is_in_the_order_of_the_inputs() -> None:
    pool = MaxPool(name="pool", inputs=("input",), kernel=(1, 1), stride=(1, 1))
    lrn = LRN(name="lrn", inputs=("input",), k=2.0)
    concat = Concat(name="concat", inputs=("lrn", "pool", "lrn"))
    kept = reference.run(network_of(pool, lrn, concat), IMAGES, keep="all")
    np.testing.assert_array_equal(
        kept["concat"], np.concatenate([kept["lrn"], kept["pool"], kept["lrn"]], axis=1)
    )


def test_linear_flattens_as_channels_height_width() -> None:
    weight = RNG.standard_normal((4, int(np.prod(SHAPE))), dtype=np.float32)
    bias = RNG.standard_normal(4, dtype=np.float32)
    expected = IMAGES.reshape(2, -1).astype(np.float64) @ weight.T.astype(np.float64) + bias
    actual = run(Linear(name="fc", inputs=("input",), weight=weight, bias=bias))
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    positive = run(Linear(name="fc", inputs=("input",), weight=weight, bias=bias, relu=True))
    np.testing.assert_allclose(positive, np.maximum(expected, 0), atol=1e-12)


def test_softmax_does_not_overflow() -> None:
    images = np.array([[1000.0, 1001.0, 998.0]], np.float32).reshape(1, 3, 1, 1)
    exponentials = np.exp([-1.0, 0.0, -3.0])
    actual = run(Softmax(name="softmax", inputs=("input",)), images)
    np.testing.assert_allclose(actual, [exponentials / exponentials.sum()], rtol=1e-12)


NAN_LAYERS: dict[str, Layer] = {
    "relu": Conv(name="x", inputs=("input",), weight=np.eye(5, dtype=np.float32)[:, :, None, None],
                 bias=np.zeros(5, np.float32)),
    "max pool": MaxPool(name="x", inputs=("input",), kernel=(1, 1), stride=(1, 1)),
    "average pool": AveragePool(name="x", inputs=("input",), kernel=(1, 1), stride=(1, 1)),
    "lrn": LRN(name="x", inputs=("input",), size=1),
}  # fmt: skip


@pytest.mark.parametrize("layer", NAN_LAYERS.values(), ids=NAN_LAYERS.keys())
def test_nan_propagates_and_stays_where_it_is(layer) -> None:
    images = IMAGES.copy()
    images[1, :, 3, 4] = np.nan
    np.testing.assert_array_equal(np.isnan(run(layer, images)), np.isnan(images))


def test_max_pool_of_a_window_with_nan() -> None:
    images = IMAGES.copy()
    images[0, 0, 0, 0] = np.nan
    actual = run(MaxPool(name="pool", inputs=("input",), kernel=(2, 2), stride=(1, 1)), images)
    assert np.isnan(actual[0, 0, 0, 0])
    assert np.isnan(actual).sum() == 1


def test_what_is_kept() -> None:
    pool = MaxPool(name="pool", inputs=("input",), kernel=(6, 7), stride=(1, 1))
    weight, bias = np.ones((3, 5), np.float32), np.zeros(3, np.float32)
    linear = Linear(name="fc", inputs=("pool",), weight=weight, bias=bias)
    network = network_of(pool, linear)
    assert {name: array.shape for name, array in reference.run(network, IMAGES).items()} == {"fc": (2, 3)}
    every = reference.run(network, IMAGES, keep="all", dtype="float32")
    assert {name: (array.shape, str(array.dtype)) for name, array in every.items()} == {
        "pool": ((2, 5, 1, 1), "float64"),
        "fc": ((2, 3), "float64"),
    }
    assert list(reference.run(network, IMAGES, keep=["pool"])) == ["pool"]
    with pytest.raises(ValueError, match="fc2"):
        reference.run(network, IMAGES, keep=["fc2"])
    with pytest.raises(ValueError, match="shape"):
        reference.run(network, IMAGES[:, :, :5])
