"""Which ONNX files runtimes are given: one float32 batch of images in, all weights inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inception_engine.errors import BackendError
from inception_engine.seeded import googlenet

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")

from onnx import ModelProto, TensorProto, helper, numpy_helper

from inception_engine import onnx_model
from inception_engine.exporters.onnx import to_onnx

IMAGE = ("batch", 3, 4, 4)


def model(
    shape: tuple[str | int, ...] = IMAGE,
    kind: int = TensorProto.FLOAT,
    output: tuple[str | int, ...] = IMAGE,
    extra: bool = False,
) -> ModelProto:
    """input + 1 -> Relu -> output."""
    inputs = [helper.make_tensor_value_info("input", kind, shape)]
    if extra:
        inputs.append(helper.make_tensor_value_info("more", kind, shape))
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [
        helper.make_node("Add", ["input", "one"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["output"]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, output)]
    return helper.make_model(helper.make_graph(nodes, "small", inputs, outputs, [one]))


def test_what_is_known_of_our_own_models(tmp_path: Path) -> None:
    network = googlenet(width=0.1, input_size=32, classes=5)
    to_onnx(network, tmp_path / "a.onnx")
    found = onnx_model.read(tmp_path / "a.onnx")
    assert (found.input_name, found.input_shape, found.batch) == ("input", (3, 32, 32), "batch")
    assert (found.outputs, found.layers, found.dtype) == ({"logits": (5, 1, 1)}, (), "fp32")
    shapes = network.shapes()
    kept = onnx_model.read(tmp_path / "a.onnx", keep_all=True)
    assert {name: kept.outputs[name] for name in shapes.keys() & kept.outputs.keys()} == {
        name: shape for name, shape in shapes.items() if name not in ("input", "softmax")
    }
    assert next(iter(kept.outputs)) == "logits"


def test_nodes_are_layers_in_their_order() -> None:
    kept = onnx_model.describe(model(), "small", keep_all=True)
    assert kept.layers == ("sum", "output")
    assert list(kept.outputs) == ["output", "sum"]


def outside(proto: ModelProto) -> TensorProto:
    """A tensor that claims to lie in another file."""
    tensor = TensorProto(name="elsewhere", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def as_weight(proto: ModelProto) -> None:
    proto.graph.initializer.append(outside(proto))


def as_constant(proto: ModelProto) -> None:
    node = helper.make_node(
        "Constant", [], ["constant"], value=numpy_helper.from_array(np.ones(1, np.float32))
    )
    node.attribute[0].t.CopyFrom(outside(proto))
    proto.graph.node.append(node)


def in_a_branch(proto: ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [outside(proto)])
    proto.graph.node.append(helper.make_node("If", ["sum"], ["x"], then_branch=branch, else_branch=branch))


@pytest.mark.parametrize("hide", [as_weight, as_constant, in_a_branch])
def test_weights_in_other_files_are_refused(hide: Callable[[ModelProto], None], tmp_path: Path) -> None:
    proto = model()
    hide(proto)
    (tmp_path / "a.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(BackendError, match=r"a\.onnx: tensor 'elsewhere' lies in another file"):
        onnx_model.read(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("proto", "word"),
    [
        (model(extra=True), "2 inputs"),
        (model(kind=TensorProto.FLOAT16), "not float32"),
        (model(shape=("batch", 48)), "not float32"),
        (model(shape=("batch", 3, "height", 4)), "must be numbers"),
        (model(output=("batch", "n")), "'output'"),
        (ModelProto(), "no nodes"),
    ],
)
def test_other_models_are_refused(proto: ModelProto, word: str) -> None:
    onnx_model.describe(model(), "small")
    with pytest.raises(BackendError, match=word):
        onnx_model.describe(proto, "small")


def test_a_fixed_batch() -> None:
    fixed = (4, 3, 4, 4)
    assert onnx_model.describe(model(shape=fixed, output=fixed), "small").batch == 4
