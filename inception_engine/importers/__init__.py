"""Importers: a file of weights -> Network. What a file is, is read from its content, not from its name.

formats              which importer a file is for
pickled, checkpoint  files to tensors by name, without trusting them
tensors, layers      a spec's layers with those tensors, batch norm folded
torchvision          torchvision's GoogLeNet;  trained  the project's own;  onnx  ONNX models
labels               names of the classes
unfolded, parity     the file run as it is, and the Network and the engine held against it
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inception_engine.importers.errors import ImportFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inception_engine.network import Network
    from inception_engine.spec import Spec

__all__ = ["ImportFailed", "load_network"]


def load_network(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    transform_input: bool | None = None,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    order: str | None = None,
    head_activation: str | None = None,
    spec: Spec | None = None,
    check: bool = False,
) -> Network:
    """A network from a file of weights: a Network that was saved, a torchvision checkpoint, an ONNX model, or a state
    dict of ``inception_engine.model.GoogLeNet``; .pth and .pt files and safetensors, told apart by their content.

    ``labels``: a file with the names of the classes: a line each, or JSON.
    ``transform_input``: of torchvision's network alone; True (default) is right for pretrained weights and models
    fine-tuned from them, False for models trained from scratch, where torchvision's own default is False.
    ``input_size``: height and width in pixels (default: 224, or what the file says).
    ``mean``, ``std``: of the pixels, 0..255, per channel or one for all, as training normalised them (default:
    ImageNet's); ``resize``: the shorter side before the centre crop; ``order``: "RGB" or "BGR".
    ``head_activation``: between the linear layers of a classifier that is an nn.Sequential: "relu" (default) or "none".
    ``spec``: of a state dict of ours, what its tensors do not say: LRN or none, and the pools.
    ``check``: hold the network, and the engine compiled from it, against the file (needs torch; for ONNX, ONNX
    Runtime); False by default, and the commands do it always.

    float32 images for the network are normalised as its ``preprocess`` says, and with ``transform_input`` that is
    (pixel - 127.5) / 127.5. Raises ImportFailed, ParityFailed, NetworkError and SpecError for what the file and the
    arguments cannot give, and OSError.
    """
    from inception_engine.importers.formats import import_file
    from inception_engine.importers.imported import Options

    options = Options(
        transform_input=transform_input,
        input_size=input_size,
        mean=None if mean is None else tuple(map(float, mean)),
        std=None if std is None else tuple(map(float, std)),
        resize=resize,
        order=order,
        head_activation=head_activation,
        spec=spec,
    )
    imported = import_file(path, options, labels)
    if check:
        from inception_engine.importers.parity import assert_parity

        assert_parity(imported)
    return imported.network
