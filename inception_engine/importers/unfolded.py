"""Files run as they are, which parity is checked against: nothing is folded.

torchvision's checkpoints by plain torch in float64, where names, strides and pools stand again; state dicts of this
package's model by that model, in float64; ONNX files by ONNX Runtime. No arithmetic is an importer's; what a file does
not say (``Head``, the spec, where an ONNX file's own normalisation ends) is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from inception_engine.importers.checkpoint import Checkpoint
from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.imported import Source
from inception_engine.importers.layers import Head
from inception_engine.network import Preprocess
from inception_engine.parity import BOUNDS
from inception_engine.preprocess import normalise as pixels_normalised
from inception_engine.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from inception_engine.importers.onnx import OnnxImport

# The reference differs from the source by the rounding of folded weights to float32 alone: measured up to
# 2e-7 at the logits of full width, 3e-6 an eighth as wide. What an import can do wrong is far away: an epsilon of 1e-5
# for 1e-3 gave 1e-2 and more.
FOLDING_TOLERANCE = 1e-5
# ONNX Runtime computes in the file's type, in an order of its own: as the engine does.
ONNX_TOLERANCE = BOUNDS["fp32"]
ONNX_HALF_TOLERANCE = BOUNDS["fp16"]
NAME = "PyTorch, float64, from the file's tensors unfolded"


def torchvision_source(checkpoint: Checkpoint, head: Head, normalised: Preprocess, transform: bool) -> Source:
    """torchvision's GoogLeNet: ToTensor and Normalize, transform_input if ``transform``, the network, ``head``."""

    def run(images: np.ndarray) -> np.ndarray:
        import torch

        tensors = _doubles(checkpoint.tensors, ignored=("aux1.", "aux2."))
        with torch.inference_mode():
            x = normalise(images, normalised)
            if transform:
                imagenet = ((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))
                shifted = [x[:, c] * (s / 0.5) + (m - 0.5) / 0.5 for c, (s, m) in enumerate(imagenet)]
                x = torch.stack(shifted, 1)
            return torchvision_forward(tensors, x, head).numpy()

    return Source(name=NAME, run=run, tolerance=FOLDING_TOLERANCE)


def normalise(images: np.ndarray, preprocess: Preprocess) -> Tensor:
    """uint8 (batch, height, width, channels) -> float64 (batch, channels, height, width)."""
    import torch

    x = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    mean, std = (
        torch.tensor(values).double().view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    return (x - mean) / std


def torchvision_forward(tensors: Mapping[str, Tensor], x: Tensor, head: Head) -> Tensor:
    """x (batch, channels, height, width) -> logits (batch, classes), or features (batch, channels) without a head."""
    import torch
    import torch.nn.functional as F

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = tensors[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (tensors[f"{name}.bn.{part}"] for part in names)
        return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=0.001))

    def inception(x: Tensor, name: str) -> Tensor:
        return torch.cat(
            [
                conv(x, f"{name}.branch1"),
                conv(conv(x, f"{name}.branch2.0"), f"{name}.branch2.1"),
                conv(conv(x, f"{name}.branch3.0"), f"{name}.branch3.1"),
                conv(F.max_pool2d(x, 3, 1, 1, ceil_mode=True), f"{name}.branch4.1"),
            ],
            1,
        )

    x = F.max_pool2d(conv(x, "conv1", stride=2), 3, 2, ceil_mode=True)
    x = F.max_pool2d(conv(conv(x, "conv2"), "conv3"), 3, 2, ceil_mode=True)
    x = inception(inception(x, "inception3a"), "inception3b")
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for letter in "abcde":
        x = inception(x, f"inception4{letter}")
    x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = inception(inception(x, "inception5a"), "inception5b").mean((2, 3))
    for name, relu in zip(head.names, head.relu, strict=True):
        x = F.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
        x = F.relu(x) if relu else x
    return x


def model_source(checkpoint: Checkpoint, spec: Spec, head: Head, preprocess: Preprocess) -> Source:
    """The project's own trainable model in evaluation mode; ``head`` is one linear layer, some, or none."""

    def run(images: np.ndarray) -> np.ndarray:
        import torch
        import torch.nn.functional as F

        from inception_engine.model import GoogLeNet

        tensors = _doubles(checkpoint.tensors)
        model = GoogLeNet(spec)
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("trunk.")}
        model.trunk.load_state_dict({name.removeprefix("trunk."): tensor for name, tensor in own.items()})
        with torch.inference_mode():
            x = normalise(images, preprocess)
            for layer in model.double().eval().trunk.values():
                x = layer(x)
            x = x.flatten(1)
            for name, relu in zip(head.names, head.relu, strict=True):
                x = F.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
                x = F.relu(x) if relu else x
            return x.numpy()

    return Source(name=NAME, run=run, tolerance=FOLDING_TOLERANCE)


def _doubles(arrays: Mapping[str, np.ndarray], ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.from_numpy(array.astype(np.float64)) if array.dtype.kind == "f" else torch.tensor(array)
        for name, array in arrays.items()
        if not name.startswith(ignored or "\0") and math.prod(array.shape) > 0
    }


def onnx_source(
    path: str | os.PathLike[str], imported: OnnxImport, file_preprocess: Preprocess | None
) -> Source:
    """ONNX Runtime on the file, its graph optimisations off: nodes run as they are written, nothing is folded.

    ``file_preprocess``: how pixels become the file's input, where that is known; else they become what gives the
    network's input behind the file's own normalisation. Compared is the value that the network calls logits.
    """

    def run(images: np.ndarray) -> np.ndarray:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ImportFailed(
                "the parity check needs ONNX Runtime: pip install 'inception-engine[onnx]', or leave it out"
            ) from None
        import onnx

        value = imported.values.get(imported.network.logits)
        if value is None:
            raise ImportFailed(
                f"{path}: has no value of its own for the logits, to be compared; leave the check out"
            )
        model = onnx.load(os.fspath(path), load_external_data=False)
        if value not in [output.name for output in model.graph.output]:
            model.graph.output.append(onnx.ValueInfoProto(name=value))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        x = _file_input(images, imported, file_preprocess)
        batch = imported.batch or len(x)
        results = [
            session.run([value], {imported.input_name: np.resize(x[i : i + batch], (batch, *x.shape[1:]))})[0]
            for i in range(0, len(x), batch)
        ]
        return np.concatenate(results)[: len(x)].astype(np.float64)

    half = _is_half(path)
    return Source(
        name=f"ONNX Runtime, {'float16' if half else 'float32'}, graph optimisations off",
        run=run,
        tolerance=ONNX_HALF_TOLERANCE if half else ONNX_TOLERANCE,
    )


def _is_half(path: str | os.PathLike[str]) -> bool:
    """Whether the file has weights in float16, whatever its input is."""
    import onnx

    graph = onnx.load(os.fspath(path), load_external_data=False).graph
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute]
    return any(t.data_type == onnx.TensorProto.FLOAT16 for t in [*graph.initializer, *constants])


def _file_input(images: np.ndarray, imported: OnnxImport, file_preprocess: Preprocess | None) -> np.ndarray:
    """What the file takes, of uint8 images (batch, height, width, channels) in the network's channel order."""
    front = imported.front
    x = np.empty((*images.shape[:3], front.channels))
    if file_preprocess is not None:
        x[..., list(front.source)] = images
        mean, std = file_preprocess.constants(front.channels)
        x = (x - mean) / std
    else:
        behind = pixels_normalised(images, imported.network.preprocess).transpose(0, 2, 3, 1)
        x[..., list(front.source)] = (behind - np.array(front.shift)) / np.array(front.scale)
    x = x if imported.channels_last else x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, np.float16 if imported.input_dtype == "float16" else np.float32)
