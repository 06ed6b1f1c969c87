"""What becomes part of a layer, and what must not: the front of the graph, padding, ReLU, shared values, heads."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")

import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper

from inception_engine import reference
from inception_engine.importers.onnx import ImportFailed, from_onnx, import_onnx
from inception_engine.network import AveragePool, Concat, Conv, Linear, MaxPool, Network, Preprocess, Softmax
from tests.importers.against import mismatches
from tests.importers.graphs import conv, model, node, weights
from tests.tolerances import TOLERANCES, error

W = {"w": weights(4, 3, 3, 3)}


def kinds(network: Network) -> list[str]:
    return [type(layer).__name__ for layer in network.layers]


def per_channel(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(3, 1, 1)


# The front


def test_a_shift_before_a_padded_convolution_is_no_bias() -> None:
    """The zeros that the convolution pads with lie behind the shift: as a bias it would be wrong along the edges."""
    tensors = {**W, "mean": per_channel(1, 2, 3), "std": per_channel(2, 3, 4)}
    nodes = [node("Sub", ["image", "mean"], "centred"), node("Div", ["centred", "std"], "normalised"),
             conv("normalised", pads=[1, 1, 1, 1])]  # fmt: skip
    content = model(nodes, tensors)
    imported = import_onnx(content)
    assert mismatches(content, imported) == []
    (layer,) = imported.network.layers
    assert isinstance(layer, Conv) and not layer.bias.any()
    np.testing.assert_array_equal(layer.weight, W["w"])

    # The control: the same as a bias differs, and where only the edges can.
    images = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)
    scale, shift = 1 / tensors["std"], -tensors["mean"] / tensors["std"]
    folded = dataclasses.replace(layer, weight=(W["w"] * scale.reshape(1, 3, 1, 1)).astype(np.float32),
                                 bias=(W["w"].sum((2, 3)) * shift.reshape(1, 3)).sum(1).astype(np.float32))  # fmt: skip
    wrong = reference.run(dataclasses.replace(imported.network, layers=(folded,)), images)["conv"]
    right = reference.run(imported.network, imported.network_input(images))["conv"]
    assert error(wrong[:, :, 1:-1, 1:-1], right[:, :, 1:-1, 1:-1]) < 1e-5 < 1e-2 < error(wrong, right)


@pytest.mark.parametrize(("mean", "std", "file", "assumed"), [
    ((104, 117, 123), (1, 1, 1), Preprocess(mean=(0.0,), std=(1.0,)), "0 to 255"),
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), Preprocess(mean=(0.0,), std=(1.0,)), "0 to 255"),
    ((0, 0, 0), (255, 255, 255), Preprocess(mean=(0.0,), std=(1.0,)), "0 to 255"),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), Preprocess(mean=(0.0,), std=(255.0,)), "0 to 1"),
    ((0.0655, 0.1964, 0.4178), (2.18, 2.23, 2.22), Preprocess(), "ImageNet"),
])  # fmt: skip
def test_the_files_normalisation_joins_that_of_the_pixels(mean, std, file, assumed) -> None:
    tensors = {**W, "mean": per_channel(*mean), "std": per_channel(*std)}
    nodes = [
        node("Sub", ["image", "mean"], "centred"),
        node("Div", ["centred", "std"], "normalised"),
        conv("normalised"),
    ]
    network = from_onnx(model(nodes, tensors))
    pixels = np.array([[0, 0, 0], [255, 255, 255], [10, 100, 200]], np.float64)

    def normalise(x: np.ndarray, preprocess: Preprocess) -> np.ndarray:
        first, second = preprocess.constants(3)
        return (x - first) / second

    expected = (normalise(pixels, file) - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalise(pixels, network.preprocess), expected, rtol=1e-5, atol=1e-5)
    assert assumed in network.metadata["input"]
    # Said by the caller, nothing is assumed.
    said = Preprocess(mean=(7.0,), std=(9.0,), order="BGR", resize=300)
    network = from_onnx(model(nodes, tensors), preprocess=said)
    expected = (normalise(pixels, said) - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalise(pixels, network.preprocess), expected, rtol=1e-5, atol=1e-5)
    assert (network.preprocess.order, network.preprocess.resize) == ("BGR", 300)
    assert "input" not in network.metadata


def test_channels_in_reverse_are_bgr() -> None:
    order = np.array([2, 1, 0], np.int64)
    tensors = {**W, "order": order, "mean": per_channel(104, 117, 123)}
    nodes = [
        node("Gather", ["image", "order"], "bgr", axis=1),
        node("Sub", ["bgr", "mean"], "centred"),
        conv("centred"),
    ]
    content = model(nodes, tensors)
    imported = import_onnx(content)
    assert mismatches(content, imported) == []
    preprocess = imported.network.preprocess
    assert (preprocess.order, preprocess.mean) == ("BGR", (104, 117, 123))
    grey = model(
        [node("Gather", ["image", "order"], "bgr", axis=1), conv("bgr")],
        {**W, "order": np.zeros(3, np.int64)},
    )
    with pytest.raises(ImportFailed, match=r"reads channels \[0, 0, 0\] of an input of 3"):
        from_onnx(grey)


def test_two_normalisations_of_one_image_are_refused() -> None:
    nodes = [node("Mul", ["image", "two"], "doubled"), conv("doubled", "a"), conv("image", "b"),
             node("Concat", ["a", "b"], "both", axis=1)]  # fmt: skip
    with pytest.raises(ImportFailed, match=r"node b \(Conv\): reads the image with another normalisation"):
        from_onnx(model(nodes, {**W, "two": np.array(2, np.float32)}))


def test_a_factor_of_zero_is_refused() -> None:
    nodes = [node("Mul", ["image", "zero"], "nothing"), conv("nothing")]
    with pytest.raises(ImportFailed, match="factor is 0"):
        from_onnx(model(nodes, {**W, "zero": per_channel(1, 0, 1)}))


def test_channels_last() -> None:
    """As converters from TensorFlow write it: the image is turned first, or behind its normalisation."""
    tensors = {**W, "mean": np.array([1, 2, 3], np.float32)}
    nodes = [node("Sub", ["image", "mean"], "centred"), node("Transpose", ["centred"], "turned", perm=[0, 3, 1, 2]),
             conv("turned", auto_pad="SAME_UPPER", strides=[2, 2])]  # fmt: skip
    content = model(nodes, tensors, dims=("N", 8, 6, 3))
    imported = import_onnx(content)
    assert imported.network.input_shape == (3, 8, 6) and imported.input_shape == (8, 6, 3)
    assert mismatches(content, imported) == []


# Layers


@pytest.mark.parametrize("opset", [9, 18])
def test_padding_that_no_neighbour_can_take(opset: int) -> None:
    """A Pad before every kind of node that cannot pad itself, or cannot with zeros."""
    ends = [node("LRN", ["padded"], "end", size=3), node("Relu", ["padded"], "end"),
            node("MaxPool", ["padded"], "end", kernel_shape=[3, 3]),
            node("MaxPool", ["padded"], "end", kernel_shape=[2, 1]),
            node("GlobalAveragePool", ["padded"], "end"), node("Concat", ["padded", "padded"], "end", axis=1),
            node("AveragePool", ["padded"], "end", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("AveragePool", ["padded"], "end", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
            node("Mul", ["padded", "factor"], "end"), node("Flatten", ["padded"], "end")]  # fmt: skip
    pads = [0, 0, 1, 2, 0, 0, 0, 1]
    for end in ends:
        tensors = {**W, "factor": weights(1, 4, 1, 1)}
        if opset < 11:
            pad = node("Pad", ["conv"], "padded", pads=pads)
        else:
            pad, tensors["pads"] = node("Pad", ["conv", "pads"], "padded"), np.array(pads, np.int64)
        assert mismatches(model([conv(), pad, end], tensors, opset=opset)) == [], end.op_type


def test_padding_that_a_neighbour_takes() -> None:
    pads: dict[str, np.ndarray] = {
        "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64),
        "low": np.array(-np.inf, np.float32),
    }
    zeros, lows = node("Pad", ["image", "pads"], "padded"), node("Pad", ["image", "pads", "low"], "padded")
    window: dict[str, Any] = {"kernel_shape": [3, 3]}
    cases = [([zeros, conv("padded", pads=[1, 0, 0, 1])], Conv, (2, 2, 0, 2)),
             ([lows, node("MaxPool", ["padded"], "end", **window)], MaxPool, (1, 2, 0, 1)),
             ([zeros, node("AveragePool", ["padded"], "end", **window)], AveragePool, (1, 2, 0, 1))]  # fmt: skip
    for nodes, kind, wanted in cases:
        content = model(nodes, {**W, **pads})
        imported = import_onnx(content)
        (layer,) = imported.network.layers
        assert isinstance(layer, kind) and layer.pads == wanted  # type: ignore[attr-defined]
        assert mismatches(content, imported) == []


def test_relu_and_normalisation_stand_alone_where_they_must() -> None:
    """Behind a pool, behind a value that something else reads too, behind a ReLU."""
    tensors = {
        **W,
        "scale": weights(4),
        "shift": weights(4, seed=1),
        "mean": weights(4),
        "var": np.ones(4, np.float32),
    }
    norm = ["scale", "shift", "mean", "var"]
    nodes = [conv(), node("MaxPool", ["conv"], "pool", kernel_shape=[2, 2]), node("Relu", ["pool"], "relu")]
    content = model(nodes, tensors)
    assert kinds(from_onnx(content)) == ["Conv", "MaxPool", "Conv"] and mismatches(content) == []

    nodes = [conv(), node("Relu", ["conv"], "relu"), node("Concat", ["conv", "relu"], "both", axis=1)]
    content = model(nodes, tensors)
    assert kinds(from_onnx(content)) == ["Conv", "Conv", "Concat"] and mismatches(content) == []

    nodes = [conv(), node("Relu", ["conv"], "relu"), node("BatchNormalization", ["relu", *norm], "norm"),
             node("Relu", ["norm"], "end")]  # fmt: skip
    content = model(nodes, tensors)
    network = from_onnx(content)
    assert kinds(network) == ["Conv", "Conv"] and mismatches(content) == []
    weight = network.layers[1].weight  # type: ignore[attr-defined]
    np.testing.assert_array_equal(weight[:, :, 0, 0], np.diag(np.diag(weight[:, :, 0, 0])))

    nodes = [conv(), node("Relu", ["conv"], "a"), node("MaxPool", ["a"], "b", kernel_shape=[2, 2]),
             node("Relu", ["b"], "c"), node("LRN", ["c"], "d", size=3), node("Relu", ["d"], "e")]  # fmt: skip
    assert kinds(from_onnx(model(nodes, tensors))) == ["Conv", "MaxPool", "LRN"]


def test_heads() -> None:
    """None, a convolution, several linear layers with what stands between them, softmax or none."""
    tensors = {
        **W,
        "a": weights(4 * 36, 9),
        "bias": weights(9),
        "b": weights(5, 9),
        "c": weights(1, 5),
        "d": weights(5, 5),
    }
    flat = [conv(), node("Flatten", ["conv"], "flat")]
    hidden = [*flat, node("MatMul", ["flat", "a"], "product"), node("Add", ["bias", "product"], "sum"),
              node("Relu", ["sum"], "hidden")]  # fmt: skip
    gemm = [*hidden, node("Gemm", ["hidden", "b", "c"], "gemm", transB=1, alpha=0.5, beta=3.0)]
    softmax, third = node("Softmax", ["gemm"], "p", axis=1), node("Gemm", ["gemm", "d"], "end")
    for nodes, wanted in (([conv()], ["Conv"]), (flat, ["Conv"]), (hidden, ["Conv", "Linear"]),
                          (gemm, ["Conv", "Linear", "Linear"]),
                          ([*gemm, softmax], ["Conv", "Linear", "Linear", "Softmax"]),
                          ([*gemm, third], ["Conv", "Linear", "Linear", "Linear"])):  # fmt: skip
        content = model(nodes, tensors)
        network = from_onnx(content)
        assert kinds(network) == wanted and mismatches(content) == []
        last = network.layers[-2 if wanted[-1] == "Softmax" else -1]
        assert network.logits == last.name


def test_features_of_images_are_concatenated_and_normalised_flat() -> None:
    tensors = {**W, **{name: weights(2 * 4 * 36, seed=i) for i, name in enumerate(("scale", "shift", "mean"))},
               "var": np.full(288, 2, np.float32), "fc": weights(288, 5)}  # fmt: skip
    nodes = [conv(), conv(output="other"), node("Flatten", ["conv"], "a"), node("Flatten", ["other"], "b"),
             node("Concat", ["a", "b"], "both", axis=1),
             node("BatchNormalization", ["both", "scale", "shift", "mean", "var"], "norm"),
             node("MatMul", ["norm", "fc"], "end")]  # fmt: skip
    content = model(nodes, tensors)
    network = from_onnx(content)
    assert mismatches(content) == []
    assert kinds(network) == ["Conv", "Conv", "Concat", "Linear", "Linear"]


def test_float16_and_double_become_float32() -> None:
    for dtype in (np.float16, np.float64):
        w = weights(4, 3, 3, 3).astype(dtype)
        cast = node("Cast", ["stored"], "w", to=TensorProto.FLOAT)
        network = from_onnx(model([cast, conv()], {"stored": w}))
        layer = network.layers[0]
        assert isinstance(layer, Conv) and layer.weight.dtype == np.float32
        np.testing.assert_array_equal(layer.weight, w.astype(np.float32))
    half = model([conv()], {"w": weights(4, 3, 3, 3).astype(np.float16)})
    assert from_onnx(half).layers[0].weight.dtype == np.float32  # type: ignore[attr-defined]


def test_a_file_that_computes_in_float16() -> None:
    """The network computes in float32, of the same weights and the same images."""
    tensors = {"w": weights(4, 3, 3, 3).astype(np.float16), "b": weights(4).astype(np.float16)}
    nodes = [node("Conv", ["image", "w", "b"], "conv"), node("Relu", ["conv"], "relu")]
    proto = onnx.load_from_string(model(nodes, tensors))
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    imported = import_onnx(proto.SerializeToString())
    assert imported.input_dtype == "float16"
    images = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float16)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": images})
    actual = reference.run(imported.network, imported.network_input(images))["conv"]
    assert error(actual, expected) <= TOLERANCES["fp16"].layer


# Windows


def pools(opset: int, ceil: bool) -> list[tuple[str, dict[str, Any]]]:
    """(op, attributes) of one line's pools: kernel and stride 1 to 3, pads below the kernel, all modes."""
    found: list[tuple[str, dict[str, Any]]] = []
    for kernel, stride, op in itertools.product((1, 2, 3), (1, 2, 3), ("MaxPool", "AveragePool")):
        modes: list[dict[str, Any]] = [{"pads": [0, a, 0, b]} for a in range(kernel) for b in range(kernel)]
        modes += [{"auto_pad": mode} for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")]
        for mode, include in itertools.product(modes, (0, 1) if op == "AveragePool" else (0,)):
            attributes = {"kernel_shape": [1, kernel], "strides": [1, stride], **mode}
            attributes |= {"ceil_mode": 1} if ceil else {}
            attributes |= {"count_include_pad": 1} if include else {}
            found.append((op, attributes))
    return found


@pytest.mark.parametrize(("opset", "ceil", "width"), [(7, False, 5), (11, True, 4), (22, True, 5)])
def test_every_small_window(opset: int, ceil: bool, width: int) -> None:
    """The same as ONNX Runtime, which runs all of them in one graph, or refused for one of three reasons."""
    refused = dict.fromkeys(("auto_pad", "ceil_mode", "count_include_pad"), 0)
    dims = (1, 2, 2, width)
    nodes, networks = [], []
    for i, (op, attributes) in enumerate(pools(opset, ceil)):
        pool = node(op, ["image"], f"pool{i}", **attributes)
        try:
            networks.append(from_onnx(model([pool], dims=dims, opset=opset)))
            nodes.append(pool)
        except ImportFailed as failure:
            refused[str(failure).split("attribute ")[1].split()[0]] += 1
    content = model(nodes, dims=dims, opset=opset, outputs=[pool.output[0] for pool in nodes])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal(dims, dtype=np.float32)
    for network, expected in zip(networks, session.run(None, {"image": images}), strict=True):
        actual = reference.run(network, images)[network.logits]
        assert error(actual, expected) <= TOLERANCES["fp32"].layer, network.layers
    # A stride beyond the kernel with SAME; rounding up with VALID; averages over two kinds of padding.
    assert refused["auto_pad"]
    assert bool(refused["count_include_pad"]) == bool(refused["ceil_mode"]) == ceil
    assert sum(refused.values()) < 0.2 * len(pools(opset, ceil))


# Modules


def module(source: str, name: str, channels: int, tensors: dict[str, np.ndarray]) -> list[NodeProto]:
    tensors |= {f"{name}.one": weights(2, channels, 1, 1), f"{name}.three": weights(2, 2, 3, 3)}
    return [conv(source, f"{name}/1x1", f"{name}.one"), conv(source, f"{name}/reduce", f"{name}.one"),
            conv(f"{name}/reduce", f"{name}/3x3", f"{name}.three", pads=[1, 1, 1, 1]),
            node("MaxPool", [source], f"{name}/pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Concat", [f"{name}/1x1", f"{name}/3x3", f"{name}/pool"], f"{name}/output", axis=1)]  # fmt: skip


def modules(network: Network) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for layer in network.layers:
        found.setdefault(layer.module, []).append(layer.name)
    return found


def test_modules_are_found_in_any_order_of_the_nodes() -> None:
    tensors: dict[str, np.ndarray] = {}
    nodes = [*module("image", "a", 3, tensors), *module("a/output", "b", 7, tensors)]
    found = modules(from_onnx(model(nodes, tensors)))
    assert list(found) == ["a", "b"] and all(len(layers) == 5 for layers in found.values())
    # Layers of two modules in turn, and a file that is not sorted at all.
    apart = [nodes[0], nodes[3], nodes[1], nodes[2], nodes[4], *nodes[5:]]
    for order in (apart, nodes[::-1]):
        content = model(order, tensors, outputs=["b/output"])
        network = from_onnx(content)
        assert {name: set(layers) for name, layers in modules(network).items()} == {
            name: set(layers) for name, layers in found.items()
        }
        runs = [name for name, _ in itertools.groupby(layer.module for layer in network.layers)]
        assert runs == ["a", "b"]


def test_what_is_no_module() -> None:
    """Something else reads inside; a layer that is neither convolution nor pool; one branch; a chain of modules."""
    tensors: dict[str, np.ndarray] = {"fc": weights(4, 3)}
    nodes = module("image", "a", 3, tensors)
    outside = node("Concat", ["a/output", "a/reduce"], "more", axis=1)
    assert set(modules(from_onnx(model([*nodes, outside], tensors)))) == {"more"}  # the whole of it is one
    reader = [node("LRN", ["a/reduce"], "lrn", size=3), node("Concat", ["a/output", "lrn"], "more", axis=1)]
    assert set(modules(from_onnx(model([*nodes, *reader], tensors)))) == {""}
    inside = [
        *nodes[:-1],
        node("LRN", ["a/pool"], "lrn", size=3),
        node("Concat", ["a/3x3", "lrn"], "a/output", axis=1),
    ]
    assert set(modules(from_onnx(model(inside, tensors)))) == {""}
    single = [conv(weight="a.one"), node("Concat", ["conv"], "end", axis=1)]
    assert set(modules(from_onnx(model(single, tensors)))) == {""}
    # A concatenation over the whole network does not swallow the modules in it.
    tensors["last"] = weights(2, 11, 1, 1)
    both = [*nodes, *module("a/output", "b", 7, tensors), conv("b/output", weight="last"),
            node("Concat", ["a/output", "conv"], "end", axis=1)]  # fmt: skip
    assert set(modules(from_onnx(model(both, tensors)))) == {"", "a", "b"}


def test_a_branch_that_splits_is_part_of_its_module() -> None:
    tensors = {"one": weights(2, 3, 1, 1), "wide": weights(2, 2, 1, 3), "high": weights(2, 2, 3, 1)}
    nodes = [conv("image", "m/1x1", "one"), conv("image", "m/reduce", "one"),
             conv("m/reduce", "m/1x3", "wide", pads=[0, 1, 0, 1]), conv("m/reduce", "m/3x1", "high", pads=[1, 0, 1, 0]),
             node("Concat", ["m/1x3", "m/3x1"], "m/Concat", axis=1),
             node("Concat", ["m/1x1", "m/Concat"], "m/Concat_1", axis=1)]  # fmt: skip
    content = model(nodes, tensors)
    assert list(modules(from_onnx(content))) == ["m"] and mismatches(content) == []


# Names and outputs


def test_names_are_readable_and_unique() -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["/a/conv/Conv_output_0"], name="/a/conv/Conv"),
             helper.make_node("Relu", ["/a/conv/Conv_output_0"], ["17"]),
             helper.make_node("MaxPool", ["17"], ["18"], kernel_shape=[2, 2]),
             helper.make_node("MaxPool", ["18"], ["input"], kernel_shape=[2, 2], name="input"),
             helper.make_node("LRN", ["input"], ["x y\n"], size=3),
             helper.make_node("LRN", ["x y\n"], ["x_y_"], size=3),
             helper.make_node("MaxPool", ["x_y_"], ["b"], kernel_shape=[1, 1], name="/s/s.0/MaxPool")]  # fmt: skip
    imported = import_onnx(model(nodes, W))
    assert imported.values == {
        "a/conv": "17",
        "18": "18",
        "input_2": "input",
        "x_y_": "x y\n",
        "x_y__2": "x_y_",
        "s.0": "b",
    }
    assert [layer.name for layer in imported.network.layers] == list(imported.values)


def test_which_output_is_the_classifiers() -> None:
    tensors = {**W, "a": weights(4, 5), "b": weights(4, 6)}
    trunk = [conv(), node("GlobalAveragePool", ["conv"], "mean"), node("Flatten", ["mean"], "flat")]
    one, two = node("MatMul", ["flat", "a"], "one"), node("MatMul", ["flat", "b"], "two")
    softmax = node("Softmax", ["two"], "p", axis=1)
    network = from_onnx(model([*trunk, two, softmax], tensors, outputs=["mean", "two", "p"]))
    assert network.logits == "two" and isinstance(network.layers[-1], Softmax)
    content = model([*trunk, one, two], tensors, outputs=["one", "two"])
    with pytest.raises(ImportFailed, match="several outputs: one, two"):
        from_onnx(content)
    network = from_onnx(content, output="two")
    assert network.logits == "two" and [layer.name for layer in network.layers] == ["conv", "mean", "two"]
    assert from_onnx(content, output="conv").logits == "conv"
    assert isinstance(from_onnx(content, output="one").layers[-1], Linear)
    assert not any(isinstance(layer, Concat) for layer in network.layers)


def test_the_size_of_the_image() -> None:
    for dims in (("N", 3, "h", "w"), (None, 3, None, None), ("N", 3, 0, 8), ("N", "c", "h", "w"), None):
        content = model([conv()], W, dims=dims)
        with pytest.raises(
            ImportFailed, match="input image: the file leaves the image's size open; give input_size"
        ):
            from_onnx(content)
        assert from_onnx(content, input_size=(8, 8)).input_shape == (3, 8, 8)
    fixed = model([conv()], W)
    assert from_onnx(fixed, input_size=(8, 8)).input_shape == (3, 8, 8)
    with pytest.raises(ImportFailed, match="fixes the image's size, 8 x 8, and input_size is 8 x 9"):
        from_onnx(fixed, input_size=(8, 9))
    with pytest.raises(ImportFailed, match="give height and width"):
        from_onnx(model([conv()], W, dims=None), input_size=(0, 8))
