"""torchvision's GoogLeNet -> Network, from a state dict's names and shapes.

Differences from the paper (torchvision/models/googlenet.py): batch norm with epsilon 0.001 behind every convolution,
3x3 where the paper has 5x5 (pytorch/vision#906; 5x5 is taken, too, where the file has it), and a last max pool
of 2x2. Any width, any number of classes, with and without the auxiliary heads, which are left out.

The network's input is what the first convolution sees. torchvision's model takes pixels normalised by ImageNet's mean
and deviation; its pretrained weights, and models fine-tuned from those, have ``transform_input=True`` and then bring
channel c to -1..1 inside the model:

    x * (deviation[c] / 0.5) + (mean[c] - 0.5) / 0.5          with mean and deviation of pixels in 0..1

An affine map behind an affine map is one: (pixel - 127.5) / 127.5. It is in the network's ``preprocess`` and never in
the first convolution, whose zero padding stands behind it.
"""

from __future__ import annotations

import dataclasses

from inception_engine.importers.checkpoint import Checkpoint
from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.imported import Imported, Options
from inception_engine.importers.layers import CLASSIFIER, find_head, head_layers, trunk
from inception_engine.importers.tensors import Block, Tensors
from inception_engine.network import Network, Preprocess
from inception_engine.spec import PRESETS, LayerSpec

MARKS = ("conv1.conv.weight", "inception3a.branch1.conv.weight")  # one of them says that it is torchvision's
HEADS = ("aux1", "aux2")
STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}
THIRD = "inception3a.branch3.1.conv.weight"

# ImageNet's, of pixels in 0..1, as torchvision's transform_input has them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def block(layer: LayerSpec) -> Block:
    """How torchvision names a convolution of the spec, and its batch norm."""
    module, _, branch = layer.name.partition("/")
    name = f"inception{module}.{BRANCHES[branch]}" if branch else STEM[module]
    return Block(f"{name}.conv", f"{name}.bn")


def from_torchvision(checkpoint: Checkpoint, options: Options) -> Imported:
    """Raises ImportFailed, and SpecError for an input size too small."""
    from inception_engine.importers.unfolded import torchvision_source

    options.refuse(checkpoint.path, "spec")
    tensors = Tensors(checkpoint)
    channels, third = tensors.shape(MARKS[0])[1:2], tensors.shape(THIRD)[2:3]
    spec = dataclasses.replace(
        PRESETS["torchvision"],
        input_channels=channels[0] if channels else 3,
        third_branch=5 if third == (5,) else 3,
        input_size=options.input_size or PRESETS["torchvision"].input_size,
    )
    transform = options.transform_input
    if transform and spec.input_channels != 3:
        raise ImportFailed(
            f"{checkpoint.path}: transform_input is of 3 channels, conv1 has {spec.input_channels}"
        )
    transform = spec.input_channels == 3 if transform is None else transform

    head = find_head(tensors, options.head_activation)
    layers, features = trunk(spec, tensors, block)
    pooled = layers[-1].name
    layers += head_layers(head, tensors, pooled, features)
    left_out = tensors.finish(HEADS)

    normalised = options.preprocess(Preprocess.default(spec.input_channels))
    preprocess = transformed(normalised) if transform else normalised
    network = Network(
        name=spec.name,
        input_shape=spec.layers[0].input,
        layers=tuple(layers),
        logits=CLASSIFIER if head.names else pooled,
        preprocess=preprocess,
        metadata={"architecture": "torchvision googlenet", "transform_input": str(transform).lower()},
    )
    notes = [head.note, f"auxiliary heads left out: {', '.join(left_out)}" if left_out else ""]
    if options.transform_input is None and transform:
        notes.append(
            "transform_input assumed, as pretrained weights and models fine-tuned from them have it; "
            "--no-transform-input for one trained from scratch"
        )
    outputs = network.shapes()[network.logits][0]
    return Imported(
        network=network,
        description=f"torchvision's GoogLeNet, {outputs} {'classes' if head.names else 'features'}, batch norm folded",
        notes=tuple(filter(None, notes)),
        source=torchvision_source(checkpoint, head, normalised, transform),
    )


def transformed(normalised: Preprocess) -> Preprocess:
    """``normalised``, then transform_input, as one: a * (pixel - mean) / std + b is (pixel - (mean - b std / a)) /
    (std / a). Rounded to a millionth of a pixel, so that 127.5 is 127.5. Raises NetworkError for another count."""
    normalised.constants(3)
    means, stds = (values * (3 // len(values)) for values in (normalised.mean, normalised.std))
    pairs = []
    for mean, std, image_mean, image_std in zip(means, stds, MEAN, STD, strict=True):
        factor, offset = image_std / 0.5, (image_mean - 0.5) / 0.5
        pairs.append((round(mean - offset * std / factor, 6), round(std / factor, 6)))
    return dataclasses.replace(
        normalised, mean=tuple(mean for mean, _ in pairs), std=tuple(std for _, std in pairs)
    )
