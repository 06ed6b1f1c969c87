"""A spec's layers with a checkpoint's weights. Channel counts are the tensors' own, so any width will do."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.tensors import Block, Tensors, Weights
from inception_engine.network import INPUT, Layer, Linear, Softmax
from inception_engine.seeded import layer_of
from inception_engine.spec import LayerSpec, Spec

CLASSIFIER = "fc"


class Head(NamedTuple):
    """``names``: of the linear layers in the file, first to last; none for a bare trunk. ``relu``: after each of them.

    ``note``: what was assumed, for people, or "".
    """

    names: tuple[str, ...]
    relu: tuple[bool, ...]
    note: str = ""


def trunk(spec: Spec, tensors: Tensors, block: Callable[[LayerSpec], Block]) -> tuple[list[Layer], int]:
    """All layers up to the pooled features, and how many features there are. ``block`` says how a file names a layer.

    Raises ImportFailed.
    """
    layers: list[Layer] = []
    weights: dict[str, Weights] = {}
    channels = {INPUT: spec.input_channels}
    for layer in spec.layers:
        if layer.kind in ("linear", "softmax"):
            break
        count = outputs = sum(channels[name] for name in layer.inputs)
        if layer.kind == "convolution":
            weights[layer.name] = tensors.convolution(
                block(layer), count, layer.kernel, spec.batch_norm_epsilon
            )
            outputs = len(weights[layer.name][0])
        shaped = dataclasses.replace(
            layer, input=(count, *layer.input[1:]), output=(outputs, *layer.output[1:])
        )
        layers.append(layer_of(shaped, lambda layer: weights[layer.name]))
        channels[layer.name] = outputs
    return layers, channels[layers[-1].name]


def find_head(tensors: Tensors, activation: str | None) -> Head:
    """What stands behind the trunk under the name ``fc``: nothing, nn.Linear, or nn.Sequential of some.

    Dropout and activations leave no tensors. Between linear layers that stand next to each other there is nothing;
    where numbers are left out, ``activation`` says what is there: "relu" (default) or "none". Raises ImportFailed.
    """
    names = tensors.under(CLASSIFIER)
    if not names:
        if activation is not None:
            raise ImportFailed(f"{tensors.path}: there is no fc, and so no activation in it")
        return Head((), (), "no fc: the outputs are the pooled features, not classes")
    if f"{CLASSIFIER}.weight" in names:
        if activation is not None:
            raise ImportFailed(f"{tensors.path}: fc is one linear layer, with no activation in it")
        return Head((CLASSIFIER,), (False,))
    found = {name: re.fullmatch(rf"{CLASSIFIER}\.(\d+)\.(weight|bias)", name) for name in names}
    if foreign := [name for name, match in found.items() if match is None]:
        raise ImportFailed(
            f"{tensors.path}: {foreign[0]}: fc is neither nn.Linear nor nn.Sequential of nn.Linear"
        )
    places = sorted({int(match[1]) for match in found.values() if match})
    for place in places:
        name = f"{CLASSIFIER}.{place}.weight"
        if len(tensors.shape(name)) != 2:
            raise ImportFailed(
                f"{tensors.path}: {name} has shape {tensors.shape(name)}, not that of nn.Linear"
            )
    gaps = [after - before > 1 for before, after in itertools.pairwise(places)]
    if activation is not None and not any(gaps):
        raise ImportFailed(f"{tensors.path}: nothing stands between the linear layers of fc")
    assumed = activation or "relu"
    relu = tuple(gap and assumed == "relu" for gap in gaps)
    note = ""
    if any(gaps):
        sides = [f"fc.{places[i]} and fc.{places[i + 1]}" for i, gap in enumerate(gaps) if gap]
        word = "a ReLU" if assumed == "relu" else "no activation"
        reason = (
            "assumed: the file does not say; --head-activation none if not"
            if activation is None
            else "as asked"
        )
        note = f"{word} between {', '.join(sides)} ({reason})"
    return Head(tuple(f"{CLASSIFIER}.{place}" for place in places), (*relu, False), note)


def head_layers(head: Head, tensors: Tensors, source: str, features: int) -> list[Layer]:
    """The classifier on the layer ``source``; nothing for a bare trunk. Its last linear layer is called ``fc``."""
    layers: list[Layer] = []
    for name, relu in zip(head.names, head.relu, strict=True):
        weight, bias = tensors.linear(name, features)
        layer = CLASSIFIER if name == head.names[-1] else name
        layers.append(Linear(name=layer, inputs=(source,), weight=weight, bias=bias, relu=relu))
        source, features = layer, len(weight)
    if layers:
        layers.append(Softmax(name="softmax", inputs=(source,)))
    return layers
