"""Random graphs: every one that is made of what Network knows is imported and computes the same; others are refused.

`INCEPTION_ENGINE_GRAPHS=200` tries more of them, and `..._FROM=1000` other ones.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")

from inception_engine import reference
from inception_engine.importers.onnx import ImportFailed, import_onnx
from tests.importers.against import file_images, run_file
from tests.importers.random_graphs import RandomGraph
from tests.tolerances import TOLERANCES, error

GRAPHS = int(os.environ.get("INCEPTION_ENGINE_GRAPHS", "60"))
FROM = int(os.environ.get("INCEPTION_ENGINE_GRAPHS_FROM", "0"))
ODD_EVERY = 4

# With few channels and random weights a layer's output may be the small difference of large sums: of 1,500 graphs, 7
# had a layer in which ONNX Runtime and float64 differ by 1e-5 to 3e-5. So layers are held to the bound of logits.
BOUND = TOLERANCES["fp32"].logits


@pytest.mark.parametrize("seed", range(FROM, FROM + GRAPHS))
def test_random_graph(seed: int, run_engine) -> None:
    graph = RandomGraph(np.random.default_rng(seed), odd=seed % ODD_EVERY == ODD_EVERY - 1)
    content = graph.model.SerializeToString()
    if graph.oddity:
        with pytest.raises(ImportFailed, match=r"node \S+ \(\w+\): "):
            import_onnx(content)
        return
    imported = import_onnx(content)
    network = imported.network
    images = file_images(imported, imported.batch or 2, seed)
    given = imported.network_input(images)
    expected = run_file(content, imported, images)
    actual = reference.run(network, given, keep="all")
    wrong = {name: found for name, value in expected.items()
             if not (found := error(actual[name].reshape(value.shape), value)) <= BOUND}  # fmt: skip
    assert wrong == {}
    if network.logits in expected:
        logits = run_engine(network, given, threads=1, poison=True)[network.logits]
        assert error(logits.reshape(expected[network.logits].shape), expected[network.logits]) <= BOUND


def test_the_graphs_are_of_many_kinds() -> None:
    """What they are made of, so that a change of the generator does not make the test above empty."""
    seen: set[str] = set()
    for seed in range(60):
        graph = RandomGraph(np.random.default_rng(seed), odd=seed % ODD_EVERY == ODD_EVERY - 1)
        seen.add(graph.oddity)
        for node in graph.model.graph.node:
            seen.add(node.op_type)
            seen.update(attribute.s.decode() for attribute in node.attribute if attribute.name == "auto_pad")
            seen.update(attribute.name for attribute in node.attribute if attribute.i)
    assert seen >= {
        "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Div", "Dropout",
        "Flatten", "Gather", "Gemm", "GlobalAveragePool", "LRN", "MatMul", "MaxPool", "Mul", "Pad", "ReduceMean",
        "Reshape", "SAME_LOWER", "SAME_UPPER", "Shape", "Slice", "Softmax", "Squeeze", "Transpose", "VALID",
        "ceil_mode", "count_include_pad", "group", "residual",
    }  # fmt: skip
