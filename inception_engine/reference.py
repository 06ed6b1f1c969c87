"""The oracle: a Network by plain torch operations, one after the other. No options, no tricks, nothing optimised.

Every NaN of an input reaches the outputs that depend on it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import numpy as np

from inception_engine.network import (
    INPUT,
    LRN,
    AveragePool,
    Concat,
    Conv,
    Layer,
    Linear,
    MaxPool,
    Network,
    Pads,
    Softmax,
)

if TYPE_CHECKING:
    import torch


def run(
    network: Network,
    images: np.ndarray,
    dtype: Literal["float64", "float32"] = "float64",
    keep: Collection[str] | Literal["all"] = (),
) -> dict[str, np.ndarray]:
    """The outputs of the layers in ``keep`` ("all": of every layer; default: the logits), by name.

    ``images``: (batch, channels, height, width) float32. Outputs are float64, (batch, channels, height, width), or
    (batch, classes) for linear layers and softmax, whatever ``dtype`` the arithmetic has. Raises ValueError for images
    of another shape and for names that the network does not have.
    """
    import torch

    if images.ndim != 4 or images.shape[1:] != network.input_shape:
        raise ValueError(
            f"images of shape {images.shape} for a network that takes (batch, *{network.input_shape})"
        )
    names = [layer.name for layer in network.layers]
    wanted = set(names if keep == "all" else keep or (network.logits,))
    if unknown := wanted - set(names):
        raise ValueError(f"no layer is called {', '.join(sorted(unknown))}")
    values = {INPUT: torch.tensor(images).to(getattr(torch, dtype))}
    with torch.inference_mode():
        for layer in network.layers:
            values[layer.name] = _apply(layer, [values[name] for name in layer.inputs])
    flat = {layer.name for layer in network.layers if isinstance(layer, Linear | Softmax)}
    return {
        name: (values[name].flatten(1) if name in flat else values[name]).double().numpy()
        for name in names
        if name in wanted
    }


def _apply(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    x = inputs[0]
    match layer:
        case Conv():
            weight, bias = _parameters(layer, x)
            y = F.conv2d(_pad(x, layer.pads, 0.0), weight, bias, layer.stride)
            return F.relu(y) if layer.relu else y
        case Linear():
            weight, bias = _parameters(layer, x)
            y = F.linear(x.flatten(1), weight, bias)[:, :, None, None]
            return F.relu(y) if layer.relu else y
        case MaxPool():
            return F.max_pool2d(_pad(x, layer.pads, -torch.inf), layer.kernel, layer.stride)
        case AveragePool():
            # Sums over windows; the padding adds nothing to them, and counts as pixels only if asked for.
            def sums(pixels: torch.Tensor) -> torch.Tensor:
                return F.avg_pool2d(pixels, layer.kernel, layer.stride, divisor_override=1)

            inside = torch.ones_like(x[:1, :1])
            count = sums(_pad(inside, layer.pads, 1.0 if layer.count_include_pad else 0.0))
            return sums(_pad(x, layer.pads, 0.0)) / count
        case LRN():
            # As torch does it; ONNX puts the odd channel of an even size behind.
            before, behind = layer.size // 2, (layer.size - 1) // 2
            squares = F.pad(x * x, (0, 0, 0, 0, before, behind))
            total = sum(squares[:, i : i + x.shape[1]] for i in range(layer.size))
            return x / (layer.k + layer.alpha / layer.size * total) ** layer.beta
        case Concat():
            return torch.cat(inputs, 1)
        case Softmax():
            return torch.softmax(x, 1)
    raise TypeError(f"layer {layer.name}: unknown kind {type(layer).__name__}")


def _parameters(layer: Conv | Linear, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    return torch.tensor(layer.weight).to(x.dtype), torch.tensor(layer.bias).to(x.dtype)


def _pad(x: torch.Tensor, pads: Pads, value: float) -> torch.Tensor:
    import torch.nn.functional as F

    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)
