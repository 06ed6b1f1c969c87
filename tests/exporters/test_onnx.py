from __future__ import annotations

import numpy as np
import pytest

from inception_engine import reference
from inception_engine.network import LRN, AveragePool, Conv, Linear, MaxPool, Network, Softmax
from inception_engine.seeded import googlenet
from inception_engine.spec import PRESETS
from tests.tolerances import violations

onnx = pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")

from inception_engine.exporters.onnx import ExportError, to_onnx  # noqa: E402 - needs onnx


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


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_opsets(opset, run_onnxruntime) -> None:
    import onnxruntime

    network = googlenet(width=0.25, input_size=64)
    images = np.random.default_rng(0).standard_normal((5, 3, 64, 64), dtype=np.float32)
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
