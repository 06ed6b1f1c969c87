"""The model that a training begins with: new, or with the weights of a network or checkpoint (fine-tuning).

A ``Network`` has batch norm folded into its convolutions. Trained as it is, such a model would be another one from the
first step on: in training, batch norm divides by what it measures. ``unfold_batch_norm`` undoes the folding on data.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inception_engine.importers.formats import import_file
from inception_engine.importers.imported import Options
from inception_engine.model import Convolution, GoogLeNet, ModelError
from inception_engine.network import Network, NetworkError, Preprocess, typed, typed_fields
from inception_engine.spec import PRESETS, Spec, SpecError
from inception_engine.train import checkpoint
from inception_engine.train.config import VARIANT, Config
from inception_engine.train.distributed import World
from inception_engine.train.errors import CheckpointError, ConfigError


@dataclass(frozen=True, eq=False, kw_only=True)
class Beginning:
    """``notes``: what was taken from the file and what is new, a line each. ``folded``: the weights have batch norm
    folded in, so ``unfold_batch_norm`` comes before the first step."""

    model: GoogLeNet
    preprocess: Preprocess
    notes: tuple[str, ...] = ()
    folded: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class _Source:
    """A file of weights as a model's tensors. ``folded``: as in ``Beginning``."""

    spec: Spec
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    preprocess: Preprocess
    folded: bool


def begin(config: Config, classes: tuple[str, ...]) -> Beginning:
    """New weights are drawn from the seed. Raises ConfigError, SpecError, what reading ``start`` raises."""
    torch.manual_seed(config.seed)
    if config.start is None:
        model = GoogLeNet(config.spec(len(classes)), auxiliary=config.auxiliary)
        return Beginning(model=model, preprocess=preprocessing(config, model.spec, None))
    source = _read(Path(config.start), config)
    own = source.spec.input_size
    size = config.input_size or own
    spec = dataclasses.replace(source.spec, classes=len(classes), input_size=size)
    base = dataclasses.replace(source.preprocess, resize=max(round(source.preprocess.resize * size / own), 1))
    model = GoogLeNet(spec, auxiliary=config.auxiliary)
    same = len(source.classes) == len(classes) and source.classes in (classes, ("",) * len(classes))
    taken = dict(_taken(model, source, classifiers=same))
    try:
        model.load_state_dict(taken, strict=False)
    except RuntimeError as error:  # of auxiliary heads
        raise ConfigError(f"{config.start}: {' '.join(str(error).split())}") from None
    heads = any(name.startswith("auxiliary.") for name in taken)
    notes = [
        f"{config.start}: weights of {spec.name}, {len(source.classes)} classes",
        "" if same else f"new classifier for {len(classes)} classes",
        "new auxiliary heads" if config.auxiliary and not heads else "",
    ]
    return Beginning(
        model=model,
        preprocess=preprocessing(config, spec, base),
        notes=tuple(filter(None, notes)),
        folded=source.folded and spec.norm == "batch",
    )


def preprocessing(config: Config, spec: Spec, base: Preprocess | None) -> Preprocess:
    """``base``, else ImageNet's mean and deviation (of one channel: to -1..1) and a shorter side, before the centre
    crop, of 8/7 of the input, as 256 is of 224; with what the configuration says."""
    if base is None:
        resize = round(spec.input_size * 8 / 7)
        base = dataclasses.replace(Preprocess.default(spec.input_channels), resize=resize)
    result = dataclasses.replace(
        base,
        mean=config.mean or base.mean,
        std=config.std or base.std,
        resize=config.resize or base.resize,
    )
    result.constants(spec.input_channels)
    return result


def freeze(model: GoogLeNet, last: str | None) -> list[nn.Module]:
    """Stop the training of the layers up to ``last``, which are returned: their batch norm stays in evaluation mode.

    Raises ConfigError.
    """
    if last is None:
        return []
    names = list(model.trunk)
    if last not in names:
        module = re.split(r"[./]", last.removeprefix("trunk."))[0]
        whole = f"; {module} is frozen as a whole, with all its branches" if module in names else ""
        raise ConfigError(f"freeze is {last!r}, not one of {', '.join(names)}{whole}")
    frozen = [model.trunk[name] for name in names[: names.index(last) + 1]]
    for layer in frozen:
        layer.requires_grad_(False)
    return frozen


@torch.no_grad()
def unfold_batch_norm(model: GoogLeNet, images: Tensor, world: World) -> None:
    """Give batch norm that is folded into its convolutions the statistics of these images (batch, channels, height,
    width), normalised, and scale and shift by them, so that the model computes what it did.

    A folded convolution gives z + bias. With the mean m and deviation s of z, scale s and shift bias + m, batch norm
    makes s * (z - m) / s + bias + m of it: the same, in training mode, too. Several processes, each with as many images
    of its own, take the statistics of all: those that batch norm, synchronised, has in the first step.
    """

    def measure(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3), correction=0)
        both = world.summed(torch.stack([mean, variance + mean.square()])) / world.size
        mean, variance = both[0], (both[1] - both[0].square()).clamp(min=0)
        norm.bias.add_(mean)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    model.eval()
    handles = [
        layer.norm.register_forward_pre_hook(measure)
        for layer in model.trunk.modules()
        if isinstance(layer, Convolution) and layer.norm is not None and layer.norm.weight.requires_grad
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()


def _read(path: Path, config: Config) -> _Source:
    if checkpoint.is_checkpoint(path):
        spec, preprocess, classes, tensors = _read_checkpoint(path)
        folded = False
    else:
        network = import_file(path, Options()).network
        spec = _spec_of(network, config)
        source = GoogLeNet(spec, auxiliary=False)
        try:
            source.load_network(network)
        except ModelError as error:
            raise ConfigError(f"{path}: not the network of these keys: {error}") from None
        tensors, preprocess, folded = source.state_dict(), network.preprocess, True
        classes = network.labels or ("",) * spec.classes
    for name in VARIANT:
        given = getattr(config, name)
        if given is not None and name != "input_size" and given != getattr(spec, name):
            raise ConfigError(f"{name} is {given}, and {getattr(spec, name)} in {path}")
    if config.input_channels not in (None, spec.input_channels):
        raise ConfigError(f"input_channels is {config.input_channels}, and {spec.input_channels} in {path}")
    return _Source(spec=spec, tensors=tensors, classes=classes, preprocess=preprocess, folded=folded)


def _read_checkpoint(path: Path) -> tuple[Spec, Preprocess, tuple[str, ...], Mapping[str, Tensor]]:
    """What a checkpoint's document says of the model, and its tensors, which fit that.

    Raises CheckpointError and OSError."""
    read = checkpoint.read(path)
    try:
        spec = spec_from(read.document["spec"])
        preprocess = preprocess_from(read.document["preprocess"])
        preprocess.check(spec.input_channels)
        classes: tuple[str, ...] = typed("classes", read.document["classes"], tuple[str, ...])
    except KeyError as error:
        raise CheckpointError(f"{path}: says nothing of its {error.args[0]}") from None
    except (NetworkError, SpecError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if len(classes) != spec.classes:
        raise CheckpointError(f"{path}: {len(classes)} names for {spec.classes} classes")
    tensors = read.part("model")
    with torch.device("meta"):  # a few numbers can say any size
        wanted = GoogLeNet(spec, auxiliary=False).state_dict()
    for name, own in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != own.shape or found.is_floating_point() != own.is_floating_point():
            raise CheckpointError(f"{path}: {name} is not of the model that it describes")
    return spec, preprocess, classes, tensors


def _taken(model: GoogLeNet, source: _Source, *, classifiers: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a source that fit; those of classifiers only if asked for."""
    for name in model.state_dict():
        classifier = name.startswith("fc.") or ".fc." in name
        if name in source.tensors and (classifiers or not classifier):
            yield name, source.tensors[name]


def _spec_of(network: Network, config: Config) -> Spec:
    """What a network says of its variant, or, where it says nothing, what the configuration does."""
    classes, (channels, size, _) = network.shapes()[network.logits][0], network.input_shape
    own: dict[str, Any] = {"classes": classes, "input_channels": channels, "input_size": size}
    spec = Spec.parsed(network.metadata.get("spec", ""))
    if spec is None:
        torchvision = network.metadata.get("architecture") == "torchvision googlenet"
        spec = PRESETS["torchvision"] if torchvision else config.spec(classes)
    return dataclasses.replace(spec, **own)


def as_json(value: Spec | Preprocess) -> dict[str, Any]:
    """For ``spec_from`` and ``preprocess_from``."""
    document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(value)))
    return document


def spec_from(document: Any) -> Spec:
    """Raises NetworkError for a field of another type, and SpecError."""
    return Spec(**typed_fields(Spec, document, "spec: "))


def preprocess_from(document: Any) -> Preprocess:
    """Raises NetworkError for a field of another type."""
    return Preprocess(**typed_fields(Preprocess, document, "preprocess: "))
