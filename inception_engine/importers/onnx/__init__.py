"""ONNX -> Network: any graph of the layers that Network knows, opset 7 and newer, whoever exported it.

file         bytes, counted before they are parsed; nothing outside the file is opened
graph        nodes in order, attributes, tensors
constants    what can be computed before the network runs
translate    nodes -> layers, by the rules in layers, folds and views; windows and front have the delicate parts
modules      Inception modules, by the shape of the graph and not by names

An op, attribute or shape that Network cannot hold is refused with its node; nothing is approximated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.onnx import file, metadata, modules, names
from inception_engine.importers.onnx.file import shown
from inception_engine.importers.onnx.front import Front
from inception_engine.importers.onnx.graph import Graph
from inception_engine.importers.onnx.translate import Translation
from inception_engine.importers.onnx.windows import MAX_SIZE
from inception_engine.network import INPUT, Network, NetworkError, Pair, Preprocess, Shape, Softmax

__all__ = ["ImportFailed", "OnnxImport", "from_onnx", "import_onnx"]

_COMPARED = 16  # outputs, of which the one is looked for that is computed from all others


def from_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    input_size: Pair | None = None,
    preprocess: Preprocess | None = None,
    output: str = "",
) -> Network:
    """The network in an ONNX file, or in the content of one.

    ``input_size``: (height, width), where the file leaves them open. ``output``: the value that is the classifier's
    output, where the file has several that do not lead to each other; a final softmax is kept as a layer, and logits
    are what it reads.

    **The network's input** is what the file's first layer reads. Where the file normalises its own input (a factor
    and a term per channel, as torchvision's ``transform_input``, or RGB to BGR), that becomes part of the network's
    ``preprocess``: its input is the value *behind* it. ``preprocess`` here says how pixels become the *file's* input,
    which the file itself does not say; without it: 0..255 or 0..1 if the normalisation in the file subtracts means or
    scales like that, else ImageNet's mean and deviation. What was assumed of the file's input stands in the network's
    metadata, "input".

    Weights become float32. Layers are named after the file's nodes. Raises ImportFailed, and OSError for the file.
    """
    return import_onnx(source, input_size=input_size, preprocess=preprocess, output=output).network


@dataclass(frozen=True)
class OnnxImport:
    """A network beside the file that it came from, for comparing the two layer by layer.

    ``values``: the file's name for what each layer computes, by the layer's name; the file may see it flattened, and
    layers that pad or that stand where the file has no value are left out. ``input_name``, ``input_shape``,
    ``input_dtype``: of the file's input, without the batch; ``batch``: the one that the file fixes, or None.
    """

    network: Network
    values: dict[str, str]
    input_name: str
    input_shape: Shape
    input_dtype: str
    batch: int | None
    front: Front
    channels_last: bool

    def network_input(self, images: np.ndarray) -> np.ndarray:
        """What the network takes, float32 (batch, channels, height, width), for an input of the file."""
        images = images.astype(np.float64)
        if self.channels_last:
            images = images.transpose(0, 3, 1, 2)
        scale, shift = (np.array(values)[:, None, None] for values in (self.front.scale, self.front.shift))
        return np.ascontiguousarray(images[:, list(self.front.source)] * scale + shift, np.float32)


def import_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    input_size: Pair | None = None,
    preprocess: Preprocess | None = None,
    output: str = "",
) -> OnnxImport:
    """As ``from_onnx``, with what a comparison with the file needs."""
    try:
        return _import(file.read(source), source, input_size, preprocess, output)
    except ImportFailed as error:
        if isinstance(source, bytes):
            raise
        raise ImportFailed(f"{os.fspath(source)}: {error}") from None


def _import(
    model: ModelProto,
    source: str | os.PathLike[str] | bytes,
    input_size: Pair | None,
    preprocess: Preprocess | None,
    output: str,
) -> OnnxImport:
    opset = file.opset(model)
    outputs = _outputs(model.graph, output)
    graph = Graph(model.graph, outputs)
    image = _image(graph)
    batch, shape, channels_last = _image_shape(graph, image, input_size)
    translation = Translation(graph, opset, image.name, shape, channels_last, batch, model.ByteSize())
    logits = translation.output(outputs[0]).draft
    for name in outputs[1:]:
        translation.output(name)
    if logits.kind is Softmax:
        logits = logits.inputs[0]
    front = translation.front
    if front is None or logits is translation.image:
        raise ImportFailed(f"output {shown(outputs[0])}: no layer computes it from the image")
    drafts = translation.drafts
    called = names.layer_names([(draft.name, draft.op) for draft in drafts])
    name_of = {id(draft): name for draft, name in zip(drafts, called, strict=True)}
    values = {name_of[id(draft)]: draft.value for draft in drafts if draft.value}
    chosen = name_of[id(logits)]
    name_of[id(translation.image)] = INPUT
    layers = [
        draft.layer(name_of[id(draft)], tuple(name_of[id(source)] for source in draft.inputs))
        for draft in drafts
    ]
    own = metadata.read(model)
    meant = preprocess or own.preprocess
    entries = dict(own.entries) if meant else {**own.entries, "input": f"assumed to be {front.guess()[1]}"}
    fallback = "network" if isinstance(source, bytes) else Path(source).stem
    try:
        network = Network(
            name=shown(model.graph.name) if model.graph.name else fallback,
            input_shape=shape,
            layers=tuple(modules.group(layers, chosen)),
            logits=chosen,
            labels=own.labels,
            preprocess=front.preprocess(meant),
            metadata=entries,
        )
    except NetworkError as error:
        raise ImportFailed(str(error)) from None
    return OnnxImport(
        network=network,
        values=values,
        input_name=image.name,
        input_shape=(shape[1], shape[2], shape[0]) if channels_last else shape,
        input_dtype=TensorProto.DataType.Name(image.type.tensor_type.elem_type).lower(),
        batch=batch,
        front=front,
        channels_last=channels_last,
    )


def _outputs(graph: GraphProto, wanted: str) -> list[str]:
    """The classifier's output, then others of the graph. Raises ImportFailed if it is not clear which one it is."""
    given = [value.name for value in graph.output]
    if len(set(given)) != len(given):
        raise ImportFailed("an output is named twice")
    if wanted:
        return [wanted]
    if not given:
        raise ImportFailed("the graph has no output")
    if len(given) == 1:
        return given
    if "logits" in given:
        return sorted(given, key=lambda name: name != "logits")
    if len(given) <= _COMPARED:
        # The one that is computed from all others: probabilities from logits, logits from features.
        reads = {name: set(Graph(graph, [name]).uses) for name in given}
        last = [name for name, values in reads.items() if values.issuperset(given)]
        if len(last) == 1:
            return [last[0], *(name for name in given if name != last[0])]
    raise ImportFailed(
        f"has several outputs: {', '.join(map(shown, given[:8]))}; say which one is the classifier's"
    )


def _image(graph: Graph) -> ValueInfoProto:
    """The graph's one input that is read. Raises ImportFailed for others, and for types that are not float."""
    inputs = [value for value in graph.inputs if value.name in graph.uses]
    if not inputs:
        raise ImportFailed("no output depends on an input of the graph")
    if len(inputs) > 1:
        raise ImportFailed(f"has several inputs: {', '.join(shown(value.name) for value in inputs[:8])}")
    value = inputs[0]
    if not value.type.HasField("tensor_type"):
        raise ImportFailed(f"input {shown(value.name)}: is not a tensor")
    kind = value.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else kind
        raise ImportFailed(f"input {shown(value.name)}: is of type {name}; FLOAT and FLOAT16 are supported")
    return value


def _image_shape(graph: Graph, image: ValueInfoProto, wanted: Pair | None) -> tuple[int | None, Shape, bool]:
    """(batch if it is fixed, (channels, height, width), whether the file has channels last). Raises ImportFailed."""
    what = f"input {shown(image.name)}"
    if wanted is not None and (len(wanted) != 2 or not all(1 <= size <= MAX_SIZE for size in wanted)):
        raise ImportFailed(f"input_size {wanted}: give height and width")
    tensor = image.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
    if not tensor.HasField("shape"):
        dims = [0] * 4
    if len(dims) != 4 or min(dims) < 0 or max(dims) > MAX_SIZE:
        raise ImportFailed(f"{what}: its shape is {dims}; (batch, channels, height, width) is supported")
    channels_last = graph.channels_last(image.name)
    batch, channels, height, width = (dims[i] for i in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3)))
    channels = channels or graph.first_convolution_channels()
    if not channels:
        raise ImportFailed(f"{what}: the number of its channels is left open")
    if (not height or not width) and wanted is None:
        raise ImportFailed(f"{what}: the file leaves the image's size open; give input_size (height, width)")
    if wanted is not None:
        if any(fixed and fixed != size for fixed, size in zip((height, width), wanted, strict=True)):
            raise ImportFailed(f"{what}: the file fixes the image's size, {height} x {width}, "
                               f"and input_size is {wanted[0]} x {wanted[1]}")  # fmt: skip
        height, width = wanted
    return batch or None, (channels, height, width), channels_last
