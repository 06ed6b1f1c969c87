"""An imported network beside the file that it came from: ONNX Runtime on the file, layer by layer."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from inception_engine import reference
from inception_engine.importers.onnx import OnnxImport, import_onnx
from tests.tolerances import violations


def exported(module: Any, size: tuple[int, int], *, opset: int = 17, batch: int = 1, **options: Any) -> bytes:
    """A torch module by torch's exporter, the one that traces."""
    import torch

    file = io.BytesIO()
    images = torch.zeros(batch, 3, *size)
    torch.onnx.export(module, (images,), file, opset_version=opset, dynamo=False, **options)  # type: ignore[arg-type]
    return file.getvalue()


def file_images(imported: OnnxImport, batch: int, seed: int = 0) -> np.ndarray:
    """Random images as the file takes them."""
    return np.random.default_rng(seed).standard_normal((batch, *imported.input_shape), dtype=np.float32)


def run_file(
    content: bytes, imported: OnnxImport, images: np.ndarray, *, optimise: bool = True
) -> Mapping[str, np.ndarray]:
    """What ONNX Runtime computes for every layer that the file has a value for, in the layer's shape, by its name."""
    model = onnx.load_from_string(content)
    outputs = [value.name for value in model.graph.output]
    for name in dict.fromkeys(imported.values.values()):
        if name not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    layers = list(imported.values)
    results = session.run([imported.values[layer] for layer in layers], {imported.input_name: images})
    shapes = imported.network.shapes()
    flat = {name for name, result in zip(layers, results, strict=True) if result.ndim == 2}
    return {
        name: result if name in flat else result.reshape(len(images), *shapes[name])
        for name, result in zip(layers, results, strict=True)
    }


def mismatches(
    content: bytes, imported: OnnxImport | None = None, *, batch: int = 0, seed: int = 0
) -> list[str]:
    """The reference on the imported network against the file: one line for each layer beyond its tolerance."""
    imported = imported or import_onnx(content)
    images = file_images(imported, imported.batch or batch or 2, seed)
    actual = reference.run(imported.network, imported.network_input(images), keep="all")
    expected = run_file(content, imported, images)
    shaped = {name: actual[name].reshape(value.shape) for name, value in expected.items()}
    return violations(shaped, expected, imported.network.logits)
