"""A state dict of the project's own trainable model (inception_engine.model.GoogLeNet) -> Network.

Names and shapes say whether there is batch norm, the third branch's kernel, the width and the classes. They do not say
whether local response normalisation stands between layers, nor the pools: those are the ``spec``'s, by default the
paper's, and without LRN where there is batch norm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from inception_engine.importers.checkpoint import Checkpoint
from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.imported import Imported, Options
from inception_engine.importers.layers import CLASSIFIER, find_head, head_layers, trunk
from inception_engine.importers.tensors import Block, Tensors
from inception_engine.network import Network, Preprocess
from inception_engine.spec import TABLE, ConvolutionRow, InceptionRow, LayerSpec, Spec

MARKS = ("trunk.conv1.convolution.weight",)
NORM = "trunk.conv1.norm.running_mean"
THIRD = "trunk.3a.layers.5x5.convolution.weight"
AUXILIARY = "auxiliary"


def block(layer: LayerSpec, batch_norm: bool) -> Block:
    """How the model names a convolution of the spec, and its batch norm."""
    module, _, branch = layer.name.partition("/")
    name = f"trunk.{module}.layers.{branch}" if branch else f"trunk.{module}"
    return Block(f"{name}.convolution", f"{name}.norm" if batch_norm else "")


def from_trained(checkpoint: Checkpoint, options: Options) -> Imported:
    """Raises ImportFailed, and SpecError for an input size too small."""
    from inception_engine.importers.unfolded import model_source

    path = checkpoint.path
    options.refuse(path, "transform_input")
    tensors = Tensors(checkpoint)
    spec, notes = _spec(tensors, checkpoint, options)
    head = find_head(tensors, options.head_activation)
    layers, features = trunk(spec, tensors, lambda layer: block(layer, spec.norm == "batch"))
    pooled = layers[-1].name
    layers += head_layers(head, tensors, pooled, features)
    left_out = tensors.finish((AUXILIARY,))
    default = Preprocess.default(spec.input_channels)
    network = Network(
        name=spec.name,
        input_shape=spec.layers[0].input,
        layers=tuple(layers),
        logits=CLASSIFIER if head.names else pooled,
        preprocess=options.preprocess(default),
        metadata={"architecture": "inception_engine.model.GoogLeNet", "spec": repr(spec)},
    )
    outputs = network.shapes()[network.logits][0]
    notes += [head.note, "auxiliary heads left out" if left_out else ""]
    return Imported(
        network=network,
        description=f"GoogLeNet of this package's model, norm {spec.norm}, "
        f"{outputs} {'classes' if head.names else 'features'}",
        notes=tuple(filter(None, notes)),
        source=model_source(checkpoint, spec, head, network.preprocess),
    )


def _spec(tensors: Tensors, checkpoint: Checkpoint, options: Options) -> tuple[Spec, list[str]]:
    """The variant, and what was assumed of it."""
    notes = []
    spec = options.spec
    batch = NORM in tensors
    if spec is None:
        spec = Spec(norm="batch" if batch else "lrn")
        what = "the paper's pools" if batch else "the paper's LRN and pools"
        notes.append(f"{what} assumed: the tensors do not say; --variant, --norm and --pool-... for others")
    if (spec.norm == "batch") != batch:
        has = "has" if batch else "has no"
        raise ImportFailed(f"{checkpoint.path}: it {has} batch norm, and the variant is norm {spec.norm}")
    channels, third = tensors.shape(MARKS[0])[1:2], tensors.shape(THIRD)[2:3]
    return dataclasses.replace(
        spec,
        input_channels=channels[0] if channels else 3,
        third_branch=5 if third == (5,) else 3,
        width=_width(tensors),
        input_size=options.input_size or spec.input_size,
    ), notes


def _width(tensors: Tensors) -> float:
    """The roundest width that gives the channel counts found. ``Spec.channels`` rounds c * width to a multiple f of 8:
    so (f - 4) / c <= width < (f + 4) / c, and from nothing on for the least, 8. Raises ImportFailed."""
    low, high = 0.0, math.inf
    for row, name in _counted():
        found = tensors.shape(f"trunk.{name}.convolution.weight")[:1]
        count = found[0] if found else 0
        low = max(low, (count - 4) / row if count > 8 else 0.0)
        high = min(high, (count + 4) / row)
        if count % 8 or low >= high:
            raise ImportFailed(
                f"{tensors.path}: trunk.{name}.convolution.weight has {count} channels, which no width of GoogLeNet "
                "gives beside the others"
            )
    for digits in range(17):
        for width in (
            round(low, digits),
            round((low + high) / 2, digits),
            math.ceil(low * 10**digits) / 10**digits,
        ):
            if low <= width < high and 0 < width <= 16:
                return width
    raise ImportFailed(f"{tensors.path}: no width of GoogLeNet gives its channel counts")


def _counted() -> Iterator[tuple[int, str]]:
    """The paper's channel count of every convolution, with the model's name for it."""
    for row in TABLE:
        match row:
            case ConvolutionRow():
                if row.reduce:
                    yield row.reduce, f"{row.name}_reduce"
                yield row.channels, row.name
            case InceptionRow():
                yield row.one, f"{row.name}.layers.1x1"
                yield row.three_reduce, f"{row.name}.layers.3x3_reduce"
                yield row.three, f"{row.name}.layers.3x3"
                yield row.five_reduce, f"{row.name}.layers.5x5_reduce"
                yield row.five, f"{row.name}.layers.5x5"
                yield row.pool_proj, f"{row.name}.layers.pool_proj"
