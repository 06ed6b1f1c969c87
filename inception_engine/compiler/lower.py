"""Network -> ops on buffers.

What other engines call fusion is here a choice of where each layer writes:

- bias and ReLU belong to the convolution's epilogue;
- the branches of a concatenation write into their slice of one buffer, so that no concatenation runs;
- convolutions that read the same pixels in the same way and feed no concatenation (the 3x3 and 5x5 reduces of
  an Inception module) become one op whose columns lie side by side;
- a linear layer is a convolution as large as its input;
- a first convolution of few channels reads whole runs of its window's row (*folded*): the INPUT op writes the
  padding to the left and right into the buffer, so 7x7x3 is 7 taps of 21 instead of 49 of 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inception_engine.compiler.errors import CompileError
from inception_engine.compiler.layout import Layout, lay_out
from inception_engine.compiler.ops import Lowered, Op, View
from inception_engine.compiler.plan import OpFlag, OpKind
from inception_engine.compiler.targets import Target
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
    Softmax,
)


def lower(network: Network, target: Target, *, keep_all: bool) -> Lowered:
    """Choose buffers and views for every layer that an output needs, and make the ops. Raises CompileError."""
    outputs = _outputs(network, keep_all=keep_all)
    layers = _needed(network, set(outputs.values()))
    layout = lay_out(network, target, layers)
    lowered = Lowered(layout.buffers, _Ops(network, layout).of(layers))
    for name, layer_name in outputs.items():
        view = layout.views[layer_name]
        if view.extent == view.channels:
            lowered.outputs[name] = view
        elif name in ("logits", "probabilities"):
            raise CompileError(
                f"layer {layer_name}: an output of the network, and its channels have padding inside"
            )
    return lowered


def _outputs(network: Network, *, keep_all: bool) -> dict[str, str]:
    """Layers by the names of the outputs that they are."""
    outputs = {"logits": network.logits}
    for layer in network.layers:
        if isinstance(layer, Softmax) and layer.inputs[0] == network.logits:
            outputs.setdefault("probabilities", layer.name)
    return outputs | ({layer.name: layer.name for layer in network.layers} if keep_all else {})


def _needed(network: Network, outputs: set[str]) -> list[Layer]:
    needed = set(outputs)
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    return [layer for layer in network.layers if layer.name in needed]


class _Ops:
    def __init__(self, network: Network, layout: Layout) -> None:
        self.network = network
        self.layout = layout
        self.views = layout.views
        self.shapes = network.shapes()
        self.macs = network.layer_macs()
        self.ops: list[Op] = []

    def of(self, layers: Sequence[Layer]) -> list[Op]:
        self._input()
        done: set[str] = set()
        for layer in layers:
            if layer.name in done:
                continue
            if isinstance(layer, Concat):
                for name, view in self.layout.copies.get(layer.name, ()):
                    self._copy(name, view, layer.module)
            elif group := self.layout.merged.get(layer.name):
                self._conv(group)
                done.update(conv.name for conv in group)
            else:
                self._layer(layer)
        return self.ops

    def _input(self) -> None:
        channels, height, width = self.network.input_shape
        mean, std = self.network.preprocess.constants(channels)
        self.ops.append(
            Op(
                kind=OpKind.INPUT,
                name=INPUT,
                module="",
                source=None,
                target=self.views[INPUT],
                in_size=(height, width),
                in_channels=channels,
                pads=self.layout.input_pads,
                weight=np.stack([1 / std, -mean / std]),
            )
        )

    def _copy(self, name: str, view: View, module: str) -> None:
        """A concatenation's input that lives elsewhere too: a 1x1 max-pool is a copy."""
        source = self.views[name]
        self.ops.append(
            Op(
                kind=OpKind.MAX_POOL,
                name=f"copy of {name}",
                module=module,
                source=source,
                target=view,
                in_size=(source.buffer.height, source.buffer.width),
                in_channels=source.extent,
            )
        )

    def _layer(self, layer: Layer) -> None:
        source, target = self.views[layer.inputs[0]], self.views[layer.name]
        size = (source.buffer.height, source.buffer.width)
        match layer:
            case Conv():
                self._conv([layer])
            case Linear():
                channels, height, width = self.shapes[layer.inputs[0]]
                weight = layer.weight.reshape(-1, channels, height, width)
                self._conv([Conv(name=layer.name, inputs=layer.inputs, module=layer.module, weight=weight,
                                 bias=layer.bias, relu=layer.relu)])  # fmt: skip
            case MaxPool() | AveragePool():
                include = isinstance(layer, AveragePool) and layer.count_include_pad
                kind = OpKind.AVERAGE_POOL if isinstance(layer, AveragePool) else OpKind.MAX_POOL
                self.ops.append(
                    Op(
                        kind=kind,
                        name=layer.name,
                        module=layer.module,
                        source=source,
                        target=target,
                        in_size=size,
                        in_channels=source.extent,
                        kernel=layer.kernel,
                        stride=layer.stride,
                        pads=layer.pads,
                        flags=OpFlag.COUNT_INCLUDE_PAD if include else OpFlag(0),
                    )
                )
            case LRN() | Softmax():
                if source.extent != source.channels:
                    raise CompileError(
                        f"layer {layer.name}: works across channels, and its input has padding inside"
                    )
                self.ops.append(
                    Op(
                        kind=OpKind.LRN if isinstance(layer, LRN) else OpKind.SOFTMAX,
                        name=layer.name,
                        module=layer.module,
                        source=source,
                        target=target,
                        in_size=size,
                        in_channels=source.channels,
                        lrn=layer if isinstance(layer, LRN) else None,
                    )
                )

    def _conv(self, group: Sequence[Conv]) -> None:
        """One op for convolutions that share input and window; their views lie side by side in one buffer."""
        first = group[0]
        source = self.views[first.inputs[0]]
        views = [self.views[conv.name] for conv in group]
        target = View(views[0].buffer, views[0].channel, tuple(s for view in views for s in view.segments))
        kernel = first.weight.shape[2], first.weight.shape[3]
        depth = source.buffer.pitch if first is self.layout.folded else source.padded
        weight = np.zeros((target.extent, *kernel, depth), np.float32)
        bias = np.zeros(target.extent, np.float32)
        for conv, view in zip(group, views, strict=True):
            begin = view.channel - target.channel
            rows = slice(begin, begin + view.channels)
            weight[rows, :, :, source.positions()] = conv.weight.transpose(0, 2, 3, 1)
            bias[rows] = conv.bias
        in_size = (source.buffer.height, source.buffer.width)
        pads = first.pads
        if first is self.layout.folded:
            depth *= kernel[1]
            weight = weight.reshape(target.extent, kernel[0], 1, depth)
            kernel, pads = (kernel[0], 1), (pads[0], 0, pads[2], 0)
        self.ops.append(
            Op(
                kind=OpKind.CONV,
                name=target.buffer.name if len(group) > 1 else first.name,
                module=first.module,
                source=source,
                target=target,
                in_size=in_size,
                kernel=kernel,
                stride=first.stride,
                pads=pads,
                flags=OpFlag.RELU if first.relu else OpFlag(0),
                in_channels=depth,
                weight=weight,
                bias=bias,
                macs=sum(self.macs[conv.name] for conv in group),
            )
        )
