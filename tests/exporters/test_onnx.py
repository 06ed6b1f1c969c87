from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from inception_engine import reference
from inception_engine.network import LRN, AveragePool, Conv, Linear, MaxPool, Network, Softmax
from inception_engine.seeded import googlenet
from inception_engine.spec import PRESETS
from tests.tolerances import violations

onnx = pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")

from inception_engine.exporters.errors import ExportError  # noqa: E402 - needs onnx
from inception_engine.exporters.onnx import DESCRIPTION, newest_opset, to_onnx  # noqa: E402
from inception_engine.exporters.onnx_parity import check  # noqa: E402


def linear(name: str, source: str, inputs: int, outputs: int = 4, **fields) -> Linear:
    weight = np.arange(outputs * inputs, dtype=np.float32).reshape(outputs, inputs) / 7 - 1
    return Linear(name=name, inputs=(source,), weight=weight, bias=np.ones(outputs, np.float32), **fields)


def small(*layers, logits: str = "fc") -> Network:
    return Network(name="small", input_shape=(3, 5, 4), layers=layers, logits=logits)


@pytest.mark.parametrize("name", PRESETS)
def test_googlenet(name) -> None:
    spec = PRESETS[name]
    network = googlenet(spec=spec, width=0.25)
    model = to_onnx(network)
    image, logits = model.graph.input[0], model.graph.output[0]
    dimensions = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, logits)]
    assert (image.name, logits.name) == ("input", "logits")
    assert dimensions == [["batch", 3, 224, 224], ["batch", 1000]]
    kinds = [node.op_type for node in model.graph.node]
    convolutions = sum(layer.kind == "convolution" for layer in spec.layers)
    assert kinds.count("Conv") == kinds.count("Relu") == convolutions == 57
    assert kinds.count("LRN") == (2 if name == "lrn" else 0)
    assert kinds.count("Concat") == 9
    assert "Softmax" not in kinds  # nothing that the logits need
    assert {p.key: p.value for p in model.metadata_props}["weights"] == "random"


def test_the_file_is_the_model_and_is_written_whole(tmp_path) -> None:
    network = googlenet(width=0.25, input_size=64)
    model = to_onnx(network, tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx") == model
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    with pytest.raises(OSError, match="nowhere"):
        to_onnx(network, tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize("opset", range(13, newest_opset() + 1))
def test_opsets(opset, run_onnxruntime) -> None:
    import onnxruntime

    network = googlenet(width=0.1, input_size=32)
    images = np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)
    model = to_onnx(network, opset=opset)
    assert model.opset_import[0].version == opset
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"input": images})[0]
    assert violations({"fc": logits}, reference.run(network, images), "fc") == []


def test_hidden_layers_and_softmax(run_onnxruntime) -> None:
    network = small(
        linear("hidden", "input", 60, relu=True),
        linear("fc", "hidden", 4),
        Softmax(name="softmax", inputs=("fc",)),
    )
    images = np.random.default_rng(0).standard_normal((3, 3, 5, 4), dtype=np.float32)
    expected = reference.run(network, images, keep="all")
    assert violations(run_onnxruntime(network, images, list(expected)), expected, "fc") == []


def test_average_counts_padding_only_if_asked(run_onnxruntime) -> None:
    for include in (True, False):
        pool = AveragePool(name="pool", inputs=("input",), kernel=(3, 2), stride=(2, 1), pads=(2, 0, 0, 1),
                           count_include_pad=include)  # fmt: skip
        network = small(pool, logits="pool")
        images = np.ones((2, 3, 5, 4), np.float32)
        expected = reference.run(network, images)
        assert (expected["pool"] == 1).all() == (not include)
        assert violations(run_onnxruntime(network, images, ["pool"]), expected, "pool") == []


def test_a_layer_called_logits() -> None:
    network = small(linear("logits", "input", 60), logits="logits")
    assert [output.name for output in to_onnx(network, outputs=["logits"]).graph.output] == ["logits"]
    with pytest.raises(ExportError, match="logits"):
        to_onnx(small(linear("logits", "input", 60), linear("fc", "logits", 4)))


def test_what_cannot_be_exported() -> None:
    network = googlenet(width=0.25, input_size=64)
    with pytest.raises(ExportError, match="opset 9"):
        to_onnx(network, opset=9)
    with pytest.raises(ExportError, match="6a"):
        to_onnx(network, outputs=["6a"])
    weight = np.ones((2, 4, 1, 1), np.float32)
    after = Conv(name="conv", inputs=("fc",), weight=weight, bias=np.ones(2, np.float32))
    with pytest.raises(ExportError, match="conv"):
        to_onnx(small(linear("fc", "input", 60), after, logits="conv"))


def test_even_lrn() -> None:
    with pytest.raises(ExportError, match="even"):
        to_onnx(small(LRN(name="lrn", inputs=("input",), size=4), logits="lrn"))


def test_layers_that_nothing_needs_are_left_out() -> None:
    pool = MaxPool(name="pool", inputs=("input",), kernel=(2, 2), stride=(1, 1))
    network = small(linear("fc", "input", 60), pool)
    assert [node.op_type for node in to_onnx(network).graph.node] == ["Flatten", "Gemm", "Identity"]
    assert "MaxPool" in [node.op_type for node in to_onnx(network, outputs=["pool"]).graph.node]


SMALL = googlenet(width=0.25, input_size=64, classes=9)
WANTED = {
    "fp32": {},
    "softmax": {"probabilities": True},
    "pixels": {"preprocess": True},
    "fp16": {"dtype": "fp16"},
    "fp16 throughout": {"dtype": "fp16", "io": "fp16"},
    "fp16, pixels, softmax": {"dtype": "fp16", "preprocess": True, "probabilities": True},
}


@pytest.mark.parity
@pytest.mark.parametrize("options", WANTED.values(), ids=WANTED.keys())
def test_types_and_parity(options) -> None:
    model = to_onnx(SMALL, **options)
    dtype = options.get("dtype", "fp32")
    report = check(model, SMALL, dtype=dtype)
    assert report.passed, "\n".join(report.lines())
    assert report.spread > 1e-3
    kinds = {tensor.data_type for tensor in model.graph.initializer if not tensor.name.startswith("input/")}
    assert kinds == {onnx.TensorProto.FLOAT16 if dtype == "fp16" else onnx.TensorProto.FLOAT}
    inner = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inner.graph.value_info}
    for node in model.graph.node:  # strongly typed: nothing is cast but the input, LRN and the output
        if node.op_type == "Conv":
            assert types[node.output[0]] in kinds
    casts = [node.name for node in model.graph.node if node.op_type == "Cast"]
    assert bool(casts) == (options not in ({}, {"probabilities": True}))
    image, output = model.graph.input[0], model.graph.output[0]
    pixels = options.get("preprocess", False)
    assert (
        image.type.tensor_type.elem_type
        == {
            "fp32": onnx.TensorProto.UINT8 if pixels else onnx.TensorProto.FLOAT,
            "fp16": onnx.TensorProto.FLOAT16,
        }[options.get("io", "fp32")]
    )
    dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert dims == (["batch", 64, 64, 3] if pixels else ["batch", 3, 64, 64])
    assert output.name == ("probabilities" if options.get("probabilities") else "logits")
    assert model.producer_version


def test_the_check_finds_another_network() -> None:
    model = to_onnx(googlenet(seed=1, width=0.25, input_size=64, classes=9))
    assert not check(model, SMALL, dtype="fp32").passed
    assert not check(model, SMALL, dtype="fp16").passed


def test_pixels_inside_are_described_as_they_are() -> None:
    network = dataclasses.replace(SMALL, labels=tuple("abcdefghi"))
    for inside, mean in ((False, [123.675, 116.28, 103.53]), (True, [0.0])):
        properties = {p.key: p.value for p in to_onnx(network, preprocess=inside).metadata_props}
        description = json.loads(properties[DESCRIPTION])
        assert description["labels"] == list("abcdefghi")
        assert description["preprocess"]["mean"] == mean and description["preprocess"]["resize"] == 256


def test_half_precision_has_limits() -> None:
    huge = linear("fc", "input", 60)
    huge.weight[0, 0] = 1e5
    with pytest.raises(ExportError, match=r"fc\.weight: values beyond the range of float16"):
        to_onnx(small(huge), dtype="fp16")
    for options, message in (
        ({"dtype": "bf16"}, "dtype 'bf16'"),
        ({"io": "fp16"}, "for dtype fp16"),
        ({"dtype": "fp16", "io": "fp16", "preprocess": True}, "uint8"),
        ({"opset": newest_opset() + 1}, "is not supported: 13 to"),
    ):
        with pytest.raises(ExportError, match=message):
            to_onnx(SMALL, **options)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["logits", "probabilities"])
def test_a_layer_of_the_outputs_name_in_another_type(name: str) -> None:
    network = small(linear(name, "input", 60), logits=name)
    model = to_onnx(network, dtype="fp16", probabilities=name == "probabilities")
    assert model.graph.output[0].name == name
    assert check(model, network, dtype="fp16").passed
