"""Files as Caffe's converters write them, of the published BVLC GoogLeNet and BN-Inception."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")

from inception_engine import reference
from inception_engine.importers.onnx import import_onnx
from inception_engine.network import Conv, Softmax
from inception_engine.seeded import googlenet
from tests.importers.against import file_images, mismatches
from tests.importers.caffe import caffe_model
from tests.tolerances import FOLDING, TOLERANCES, error

# (input, pads of the pools) -> sizes of the grid behind conv1 and each pool
GRIDS = {(224, "none"): (112, 55, 27, 13, 6), (75, "ceil"): (38, 19, 9, 4, 2)}


@pytest.mark.parametrize(("opset", "scale", "size", "padding"), [
    (7, False, 75, "ceil"), (8, True, 75, "ceil"), (9, True, 224, "none"),
])  # fmt: skip
def test_bvlc_googlenet(opset: int, scale: bool, size: int, padding: str) -> None:
    network = googlenet(seed=1, width=0.125, classes=20, input_size=size, pool_padding=padding)
    content = caffe_model(network, opset, scale=scale)
    imported = import_onnx(content)
    assert mismatches(content, imported) == []
    assert imported.batch == 1

    result = imported.network
    shapes = result.shapes()
    grid = [shapes["conv1_1"][1], *(shapes[f"pool{i}_1"][1] for i in (1, 2, 3, 4))]
    assert tuple(grid) == GRIDS[size, padding]
    assert [layer.module for layer in result.layers if layer.module] == [
        f"inception_{layer.module}" for layer in network.layers if layer.module
    ]
    assert isinstance(result.layers[-1], Softmax) and result.layers[-1].inputs == (result.logits,)

    # The network that the file was made of, too, and weights that are folded as exactly as float32 allows.
    images = file_images(imported, 1)
    expected = reference.run(network, images)["fc"]
    assert error(reference.run(result, images)[result.logits], expected) <= TOLERANCES["fp32"].layer
    convolutions = [[layer for layer in n.layers if isinstance(layer, Conv)] for n in (network, result)]
    for ours, theirs in zip(*convolutions, strict=True):
        assert error(theirs.weight, ours.weight) <= FOLDING
        if not scale:
            np.testing.assert_array_equal(theirs.weight, ours.weight)
