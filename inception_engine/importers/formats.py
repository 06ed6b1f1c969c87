"""Which importer a file is for, by its content; a name can be anything."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat

from safetensors import SafetensorError, safe_open

from inception_engine.importers import pickled, torchvision, trained
from inception_engine.importers.checkpoint import Checkpoint, read_pickled, read_safetensors
from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.imported import Imported, Options
from inception_engine.importers.labels import read_labels
from inception_engine.network import GRAPH_KEY, Network, NetworkError, Preprocess

TRAINING_KEY = "inception_engine.training"  # in the metadata of train.checkpoint, which needs torch
PLAN_MAGIC = b"INCPLAN\n"
LFS_MAGIC = b"version https://git-lfs"
ONNX_MAGIC = b"\x08"  # a ModelProto begins with its first field, the version of the format

# A name that only such a network has, and what it is; for the message where a checkpoint is of none that is known.
OTHERS = {
    "layer1.0.conv1.weight": "a ResNet",
    "features.0.weight": "a VGG or AlexNet",
    "Conv2d_1a_3x3.conv.weight": "an Inception v3",
    "features.conv0.weight": "a DenseNet",
    "features.0.0.weight": "a MobileNet, EfficientNet or ConvNeXt",
}


def import_file(
    path: str | os.PathLike[str], options: Options, labels: str | os.PathLike[str] | None = None
) -> Imported:
    """``load_network``, with what there is to be told about the file. Raises what it raises."""
    options.check()
    try:
        imported = _read(path, options)
    except NetworkError as error:
        text = str(error)
        raise type(error)(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None
    network = imported.network
    if labels is not None:
        names = read_labels(labels, network.shapes()[network.logits][0])
        network = dataclasses.replace(network, labels=names)
    if imported.source is not None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        origin = {"file": os.path.basename(os.fsencode(path)).decode("utf-8", "replace"), "sha256": digest}
        network = dataclasses.replace(network, metadata={**network.metadata, **origin})
    return dataclasses.replace(imported, network=network)


def _read(path: str | os.PathLike[str], options: Options) -> Imported:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise ImportFailed(f"{path}: not a file")
    with open(path, "rb") as file:
        head = file.read(64)
    if _is_safetensors(head, os.stat(path).st_size):
        return _safetensors(path, options)
    if head.startswith((pickled.ZIP_MAGIC, pickled.PICKLE_MAGIC)):
        return _state_dict(read_pickled(path), options)
    if head.startswith(ONNX_MAGIC):
        return _onnx(path, options)
    if head.startswith(PLAN_MAGIC):
        raise ImportFailed(f"{path}: a plan, compiled already; inspect and classify take it")
    if head.startswith(LFS_MAGIC):
        raise ImportFailed(f"{path}: a pointer of Git LFS and not the file: git lfs pull")
    if head.startswith(b"\x80"):
        raise ImportFailed(f"{path}: a pickle that is not of torch.save; {pickled.HOW}")
    raise ImportFailed(f"{path}: neither a PyTorch checkpoint nor safetensors nor ONNX")


def _is_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes of length, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") + 8 <= size


def _safetensors(path: str | os.PathLike[str], options: Options) -> Imported:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ImportFailed(f"{path}: truncated or damaged: {error}") from None
    if TRAINING_KEY in metadata:
        raise ImportFailed(
            f"{path}: a checkpoint of a training; its network.safetensors, when done, is the network"
        )
    if GRAPH_KEY not in metadata:
        return _state_dict(read_safetensors(path), options)
    options.refuse(os.fspath(path), "transform_input", "input_size", "head_activation", "spec")
    network = Network.load(path)
    network = dataclasses.replace(network, preprocess=options.preprocess(network.preprocess))
    return Imported(network=network, description="a saved network")


def _state_dict(checkpoint: Checkpoint, options: Options) -> Imported:
    names = checkpoint.tensors
    if any(mark in names for mark in torchvision.MARKS):
        imported = torchvision.from_torchvision(checkpoint, options)
    elif any(mark in names for mark in trained.MARKS):
        imported = trained.from_trained(checkpoint, options)
    else:
        known = next((what for mark, what in OTHERS.items() if mark in names), None)
        listed = ", ".join(list(names)[:3]) or "no tensors"
        what = f"{known}: " if known else ""
        raise ImportFailed(
            f"{checkpoint.path}: {what}no GoogLeNet: there is no {torchvision.MARKS[0]}, but {listed}"
        )
    found = f"state dict in {checkpoint.entry!r}" if checkpoint.entry else ""
    prefix = f"names without their {checkpoint.prefix!r}" if checkpoint.prefix else ""
    return dataclasses.replace(imported, notes=tuple(filter(None, (found, prefix))) + imported.notes)


def _onnx(path: str | os.PathLike[str], options: Options) -> Imported:
    try:
        from inception_engine.importers.onnx import import_onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ImportFailed(f"{path}: ONNX models need onnx: pip install 'inception-engine[onnx]'") from None
    from inception_engine.importers.unfolded import onnx_source

    options.refuse(os.fspath(path), "transform_input", "head_activation", "spec")
    # Of the file's input, in front of what the file itself does to it. Other than the resizing, one value that is
    # given stands for all of them: the others have ImageNet's.
    given = any(value is not None for value in (options.mean, options.std, options.order))
    file_preprocess = options.preprocess(Preprocess()) if given else None
    size = options.input_size
    result = import_onnx(path, input_size=None if size is None else (size, size), preprocess=file_preprocess)
    network = result.network
    if options.resize is not None:
        resized = dataclasses.replace(network.preprocess, resize=options.resize)
        network = dataclasses.replace(network, preprocess=resized)
    outputs = network.shapes()[network.logits][0]
    assumed = network.metadata.get("input")
    return Imported(
        network=network,
        description=f"an ONNX model, {network.name}, {outputs} outputs",
        notes=() if assumed is None else (f"its input is {assumed}; --mean, --std and --order for others",),
        source=onnx_source(path, result, file_preprocess),
    )
