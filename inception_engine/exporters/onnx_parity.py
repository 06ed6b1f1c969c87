"""An exported ONNX model in ONNX Runtime, against the float64 reference on the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from inception_engine.exporters.errors import ExportError
from inception_engine.importers.parity import IMAGES, SEED, Report, compare, random_images, spread_of
from inception_engine.network import Network
from inception_engine.parity import BOUNDS
from inception_engine.preprocess import normalise

# As of the engine. In float16 measured up to 1.3e-3.
TOLERANCES = {dtype: BOUNDS[dtype] for dtype in ("fp32", "fp16")}


def check(model: onnx.ModelProto, network: Network, *, dtype: str) -> Report:
    """Run what ``to_onnx`` made of ``network`` on random pixels, in the type and layout that it takes, at two batches.

    Needs torch and ONNX Runtime; its graph optimisations are on, as by default. Raises ExportError where it does not
    take the model.
    """
    import onnxruntime

    from inception_engine import reference

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no base class
        text = " ".join(str(error).split())[:200]
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} does not take the model: {text}") from None
    pixels = random_images(network.input_shape, IMAGES, SEED)
    normalised = normalise(pixels, network.preprocess)
    expected = reference.run(network, normalised)[network.logits].reshape(IMAGES, -1)
    spread = spread_of(expected)
    image, output = session.get_inputs()[0], session.get_outputs()[0]
    if output.name == "probabilities":
        expected = np.exp(expected - expected.max(1, keepdims=True))
        expected /= expected.sum(1, keepdims=True)
    types = {"tensor(uint8)": pixels, "tensor(float16)": normalised.astype(np.float16)}
    given = types.get(image.type, normalised)

    def run(x: Any) -> np.ndarray:
        result: np.ndarray = session.run([output.name], {image.name: x})[0]
        return result.astype(np.float64).reshape(len(x), -1)

    found = np.concatenate([run(given[:1]), run(given[1:])])
    row = compare(f"ONNX Runtime, {dtype}", found, expected, TOLERANCES[dtype])
    return Report(against="the float64 reference", rows=(row,), spread=spread)
