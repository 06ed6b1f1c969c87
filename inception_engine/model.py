"""GoogLeNet as a trainable torch module: any variant of the spec, with the paper's auxiliary heads and dropout.

Layers, shapes and names come from ``Spec.layers``. Every Inception module is one submodule, which holds its layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from inception_engine.folding import folded
from inception_engine.network import Conv, Linear, Network
from inception_engine.seeded import Weights, assemble
from inception_engine.spec import (
    AUXILIARY_AFTER,
    AUXILIARY_CONVOLUTION,
    AUXILIARY_DROPOUT,
    AUXILIARY_HIDDEN,
    DROPOUT,
    GOOGLENET,
    LRN_ALPHA,
    LRN_BETA,
    LRN_K,
    LRN_SIZE,
    LayerSpec,
    Shape,
    Spec,
)


class ModelError(ValueError):
    """A network does not fit the model; the message names the layer."""


class Outputs(NamedTuple):
    """Logits in training: of the classifier and of the auxiliary heads after 4a and 4d; each (batch, classes)."""

    logits: Tensor
    auxiliary1: Tensor
    auxiliary2: Tensor


class GoogLeNet(nn.Module):
    """``model(images)`` with images (batch, channels, height, width): logits (batch, classes) in evaluation mode, and
    ``Outputs`` in training mode if it has the auxiliary heads. Weights are He-initialised from torch's generator."""

    def __init__(self, spec: Spec = GOOGLENET, *, auxiliary: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = nn.ModuleDict()
        for layer in spec.layers:
            if layer.kind == "concat":
                members = [member for member in spec.layers if member.module == layer.module]
                self.trunk[layer.module] = Inception(members, spec)
            elif not layer.module and layer.kind not in ("linear", "softmax"):
                self.trunk[layer.name] = _layer(layer, spec)
        heads = AUXILIARY_AFTER if auxiliary else ()
        self.auxiliary = nn.ModuleDict({name: AuxiliaryHead(spec.layer(name).output, spec) for name in heads})
        self.dropout = nn.Dropout(DROPOUT)
        self.fc = _linear(spec.layer("fc").input[0], spec.classes, gain=1.0)

    def forward(self, x: Tensor) -> Tensor | Outputs:
        auxiliary = []
        for name, layer in self.trunk.items():
            x = layer(x)
            if self.training and name in self.auxiliary:
                auxiliary.append(self.auxiliary[name](x))
        logits: Tensor = self.fc(self.dropout(x.flatten(1)))
        return Outputs(logits, *auxiliary) if auxiliary else logits

    def at(self, name: str) -> nn.Module:
        """The submodule that computes the layer that the spec calls ``name``. Raises KeyError; softmax has none."""
        if name == "fc":
            return self.fc
        module, _, branch = name.partition("/")
        layer = self.trunk[module]
        return layer.layers[branch] if branch and isinstance(layer, Inception) else layer

    def load_network(self, network: Network) -> None:
        """Take the weights of a network of this spec; batch norm becomes a shift by the bias. Raises ModelError."""
        shapes = {layer.name: layer.output for layer in self.spec.layers}
        found = network.shapes()
        for name, shape in shapes.items():
            if found.get(name) != shape:
                raise ModelError(
                    f"layer {name} gives {shape} in the model and {found.get(name)} in the network"
                )
        if extra := [layer.name for layer in network.layers if layer.name not in shapes]:
            raise ModelError(f"layer {extra[0]} of the network is not in the model")
        for layer in network.layers:
            if isinstance(layer, Conv | Linear):
                module = self.at(layer.name)
                try:
                    if isinstance(module, Convolution):
                        module.load(layer.weight, layer.bias)
                    elif isinstance(module, nn.Linear):
                        _copy(module.weight, layer.weight)
                        _copy(module.bias, layer.bias)
                except RuntimeError:  # another kernel that gives the same output size
                    raise ModelError(
                        f"layer {layer.name}: weight {layer.weight.shape} does not fit"
                    ) from None

    def to_network(self) -> Network:
        """The network for inference: batch norm folded, heads and dropout gone. Float32."""
        return assemble(self.spec, self._weights)

    def _weights(self, layer: LayerSpec) -> Weights:
        module = self.at(layer.name)
        if isinstance(module, Convolution):
            return module.folded()
        assert isinstance(module, nn.Linear)
        return _array(module.weight), _array(module.bias)


class Inception(nn.Module):
    """Fig. 2b: four branches on one input, concatenated along channels. ``layers`` by name within the module."""

    def __init__(self, members: Iterable[LayerSpec], spec: Spec) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                member.name.partition("/")[2]: _layer(member, spec)
                for member in members
                if member.kind != "concat"
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        layers = self.layers
        return torch.cat(
            [
                layers["1x1"](x),
                layers["3x3"](layers["3x3_reduce"](x)),
                layers["5x5"](layers["5x5_reduce"](x)),
                layers["pool_proj"](layers["pool"](x)),
            ],
            dim=1,
        )


class Convolution(nn.Module):
    """Convolution, batch norm if the spec says so (the convolution then has no bias), ReLU."""

    def __init__(self, layer: LayerSpec, spec: Spec) -> None:
        super().__init__()
        batch = spec.norm == "batch"
        channels, pad = layer.output[0], layer.pads[0]
        self.convolution = nn.Conv2d(
            layer.input[0], channels, layer.kernel, layer.stride, pad, bias=not batch
        )
        self.norm = nn.BatchNorm2d(channels, eps=spec.batch_norm_epsilon) if batch else None
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")
        if self.convolution.bias is not None:
            nn.init.zeros_(self.convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return torch.relu_(x if self.norm is None else self.norm(x))

    def load(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Raises RuntimeError when a shape differs."""
        _copy(self.convolution.weight, weight)
        if self.norm is None:
            _copy(self.convolution.bias, bias)
        else:
            self.norm.reset_parameters()  # mean 0, variance 1, weight 1
            _, variance = _statistics(self.norm)
            variance.fill_(1 - self.norm.eps)
            _copy(self.norm.bias, bias)

    def folded(self) -> Weights:
        """Weight and bias with batch norm multiplied in: in float64, then rounded to float32 once."""
        if self.norm is None:
            return _array(self.convolution.weight), _array(self.convolution.bias)
        norm = self.norm
        mean, variance, scale, shift = map(_double, (*_statistics(norm), norm.weight, norm.bias))
        weight, bias = folded(
            _double(self.convolution.weight),
            None,
            mean=mean,
            variance=variance,
            epsilon=norm.eps,
            scale=scale,
            shift=shift,
        )
        return weight.astype(np.float32), bias.astype(np.float32)


class AuxiliaryHead(nn.Module):
    """Section 5: average pool 5x5/3 to 4x4, 1x1 convolution, hidden layer, dropout, logits.

    Where 5x5/3 does not give 4x4, as on small images, the pool is adaptive. The spec's width multiplies channels and
    hidden units, too.
    """

    def __init__(self, shape: Shape, spec: Spec) -> None:
        super().__init__()
        channels, size, _ = shape
        fits = (size - 5) // 3 + 1 == 4
        self.pool = nn.AvgPool2d(5, 3) if fits else nn.AdaptiveAvgPool2d(4)
        reduced, hidden = spec.channels(AUXILIARY_CONVOLUTION), spec.channels(AUXILIARY_HIDDEN)
        self.convolution = Convolution(
            LayerSpec(name="auxiliary", kind="convolution", row="", inputs=(), input=(channels, 4, 4),
                      output=(reduced, 4, 4)),
            spec,
        )  # fmt: skip
        self.hidden = _linear(reduced * 4 * 4, hidden, gain=2.0)
        self.dropout = nn.Dropout(AUXILIARY_DROPOUT)
        self.fc = _linear(hidden, spec.classes, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(self.pool(x)).flatten(1)
        logits: Tensor = self.fc(self.dropout(torch.relu(self.hidden(x))))
        return logits


def _layer(layer: LayerSpec, spec: Spec) -> nn.Module:
    match layer.kind:
        case "convolution":
            return Convolution(layer, spec)
        case "max pool":
            top, _, bottom, _ = layer.pads
            return nn.MaxPool2d(layer.kernel, layer.stride, padding=top, ceil_mode=bottom > top)
        case "average pool":
            return nn.AdaptiveAvgPool2d(1)
        case "lrn":
            return nn.LocalResponseNorm(LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K)
    raise AssertionError(layer.kind)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=(gain / inputs) ** 0.5)
    nn.init.zeros_(linear.bias)
    return linear


def _array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().cpu().float().numpy().copy()


def _double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _copy(parameter: Tensor | None, values: np.ndarray) -> None:
    assert parameter is not None
    if parameter.shape != values.shape:  # copy_ would broadcast
        raise RuntimeError(f"{tuple(parameter.shape)} is not {values.shape}")
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))
