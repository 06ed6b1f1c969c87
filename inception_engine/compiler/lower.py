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
from dataclasses import dataclass, field

import numpy as np

from inception_engine.compiler.plan import PANEL, OpFlag, OpKind
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
    Pads,
    Pair,
    Softmax,
)


class CompileError(ValueError):
    """The network, or what was asked for, is outside what the compiler can do; the message says what."""


@dataclass(eq=False)
class Buffer:
    """An activation in memory: ``height * width`` rows per image of ``pitch`` elements.

    ``is_parts``: not an activation, but the float32 sums of an op whose K is cut into parts.
    """

    name: str
    height: int
    width: int
    pitch: int = 0
    is_parts: bool = False

    @property
    def rows(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class View:
    """Channels of a buffer. ``segments`` are (channels, channels with padding): the padding holds zeros."""

    buffer: Buffer
    channel: int
    segments: tuple[Pair, ...]

    @property
    def channels(self) -> int:
        return sum(used for used, _ in self.segments)

    @property
    def extent(self) -> int:
        """Physical channels from the first to the last that is used."""
        return sum(padded for _, padded in self.segments[:-1]) + self.segments[-1][0]

    @property
    def padded(self) -> int:
        return sum(padded for _, padded in self.segments)

    def positions(self) -> np.ndarray:
        """Physical position of each channel, counted from ``channel``; shape (channels,), int64."""
        starts = np.cumsum([0, *(padded for _, padded in self.segments[:-1])])
        parts = [start + np.arange(used) for start, (used, _) in zip(starts, self.segments, strict=True)]
        return np.concatenate(parts)


@dataclass(eq=False, kw_only=True)
class Op:
    """One row of the plan's op table, before packing: ``weight`` is (columns, kh, kw, physical channels)."""

    kind: OpKind
    name: str
    module: str
    source: View | None  # None: the caller's image
    target: View
    in_size: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    flags: OpFlag = OpFlag(0)
    in_channels: int
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    lrn: LRN | None = None
    macs: int = 0
    tile: Pair = (0, 0)  # rows, columns; chosen by the target
    part_depth: int = 0  # of K, where that is cut into parts; chosen by the target
    parts: Buffer | None = None
    first_arrival: int = 0

    @property
    def out_size(self) -> Pair:
        return self.target.buffer.height, self.target.buffer.width

    @property
    def taps(self) -> int:
        """Pixels of a convolution's window, or the one that a pool makes of them."""
        return 1 if self.flags & OpFlag.MAX_POOL_FIRST else self.kernel[0] * self.kernel[1]

    @property
    def taps_across(self) -> int:
        """Those side by side."""
        return 1 if self.flags & OpFlag.MAX_POOL_FIRST else self.kernel[1]

    @property
    def depth(self) -> int:
        """K of a convolution: elements of a window, or of what a pool makes of it."""
        return self.taps * self.in_channels

    @property
    def part_count(self) -> int:
        return -(-self.depth // self.part_depth) if self.part_depth else 1

    def tile_count(self, batch: int) -> int:
        """Tiles of a whole batch."""
        return -(-batch * self.target.buffer.rows // self.tile[0]) * -(-self.target.padded // self.tile[1])


@dataclass(eq=False)
class Lowered:
    """Ops in an order in which inputs come before uses; outputs by name.

    Of the layers that are kept for comparison, those are left out whose channels have padding inside: concatenations
    of slices that the target pads. Their branches are all there.
    """

    buffers: list[Buffer] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outputs: dict[str, View] = field(default_factory=dict)


def lower(network: Network, target: Target, *, keep_all: bool) -> Lowered:
    """Choose buffers and views for every layer that an output needs, and make the ops. Raises CompileError."""
    return _Lowering(network, target).run(keep_all=keep_all)


class _Lowering:
    def __init__(self, network: Network, target: Target) -> None:
        self.network = network
        self.target = target
        self.shapes = network.shapes()
        self.macs = network.layer_macs()
        self.by_name = {layer.name: layer for layer in network.layers}
        self.lowered = Lowered()
        self.views: dict[str, View] = {}
        self.order = {layer.name: i for i, layer in enumerate(network.layers)}
        self.users: dict[str, list[Layer]] = {name: [] for name in self.shapes}
        for layer in network.layers:
            for source in layer.inputs:
                self.users[source].append(layer)
        self.folded: Conv | None = None
        self.segments: dict[str, tuple[Pair, ...]] = {}

    def run(self, *, keep_all: bool) -> Lowered:
        outputs = {"logits": self.network.logits}
        for layer in self.network.layers:
            if isinstance(layer, Softmax) and layer.inputs[0] == self.network.logits:
                outputs.setdefault("probabilities", layer.name)
        if keep_all:
            outputs |= {layer.name: layer.name for layer in self.network.layers}
        layers = self._needed(set(outputs.values()))
        self.folded = self._foldable(layers)
        self.segments = self._layout()
        merged = self._merge(layers)
        copies = self._place(layers, merged)
        self._input()
        for layer in layers:
            if isinstance(layer, Concat):
                for name, slice_view in copies.get(layer.name, ()):
                    self._copy(name, slice_view, layer.module)
            elif layer.name in merged:
                if layer is min(merged[layer.name], key=lambda conv: self.order[conv.name]):
                    self._conv(merged[layer.name])
            else:
                self._layer(layer)
        for name, layer_name in outputs.items():
            view = self.views[layer_name]
            if view.extent == view.channels:
                self.lowered.outputs[name] = view
            elif name in ("logits", "probabilities"):
                raise CompileError(
                    f"layer {layer_name}: an output of the network, and its channels have padding inside"
                )
        return self.lowered

    def _needed(self, outputs: set[str]) -> list[Layer]:
        needed = set(outputs)
        for layer in reversed(self.network.layers):
            if layer.name in needed:
                needed.update(layer.inputs)
        return [layer for layer in self.network.layers if layer.name in needed]

    def _merge(self, layers: Sequence[Layer]) -> dict[str, list[Conv]]:
        """Convolutions, by name, that run as one op with others: same input, window and ReLU, and no concatenation."""
        placed = {name for layer in layers if isinstance(layer, Concat) for name in layer.inputs}
        groups: dict[object, list[Conv]] = {}
        for layer in layers:
            if isinstance(layer, Conv) and layer.name not in placed:
                window = layer.weight.shape[2:], layer.stride, layer.pads
                groups.setdefault((layer.inputs, window, layer.relu, layer.module), []).append(layer)
        merged: dict[str, list[Conv]] = {}
        for group in groups.values():
            # A slice that is padded must be the last: the columns behind it are stored as zeros, but columns between
            # two slices are computed like any other, and an infinite pixel times a zero weight is NaN.
            ragged = [conv for conv in group if len(conv.bias) % self.target.channel_align]
            together = [conv for conv in group if conv not in ragged] + ragged[:1]
            if len(together) > 1:
                merged |= {conv.name: together for conv in together}
        return merged

    def _buffer(self, name: str, size: Pair) -> Buffer:
        buffer = Buffer(name, *size)
        self.lowered.buffers.append(buffer)
        return buffer

    def _layout(self) -> dict[str, tuple[Pair, ...]]:
        """Segments of every layer's channels: convolutions make one, what works per channel keeps its input's."""
        segments: dict[str, tuple[Pair, ...]] = {}
        for name, shape in self.shapes.items():
            layer = self.by_name.get(name)
            # Padding between the pixels of a folded convolution's runs is multiplied by zeros.
            folded = name == INPUT and self.folded is not None
            align = self.target.fold_align if folded else self.target.channel_align
            if isinstance(layer, Concat):
                segments[name] = tuple(s for source in layer.inputs for s in segments[source])
            elif isinstance(layer, MaxPool | AveragePool | LRN | Softmax):
                segments[name] = segments[layer.inputs[0]]
            else:
                segments[name] = ((shape[0], -(-shape[0] // align) * align),)
        return segments

    def _slice(self, buffer: Buffer, name: str) -> View:
        """The next free channels of a buffer that is being laid out, as many as layer ``name`` has."""
        view = View(buffer, buffer.pitch, self.segments[name])
        buffer.pitch += view.padded
        return view

    def _place(
        self, layers: Sequence[Layer], merged: dict[str, list[Conv]]
    ) -> dict[str, list[tuple[str, View]]]:
        """Give every layer its view. Returns, per concatenation, the inputs that must be copied into it."""
        copies: dict[str, list[tuple[str, View]]] = {}
        # From the last concatenation to the first: a concatenation that feeds another one is a slice of it.
        for layer in reversed(layers):
            if isinstance(layer, Concat) and layer.name not in self.views:
                buffer = self._buffer(layer.name, self.shapes[layer.name][1:])
                self._place_concat(layer, layer, buffer, copies)
        for layer in layers:
            if layer.name in self.views:
                continue
            group = merged.get(layer.name, [layer])
            buffer = self._buffer(" + ".join(x.name for x in group), self.shapes[layer.name][1:])
            for member in group:
                self.views[member.name] = self._slice(buffer, member.name)
        return copies

    def _place_concat(
        self, concat: Concat, root: Concat, buffer: Buffer, copies: dict[str, list[tuple[str, View]]]
    ) -> None:
        """Lay out ``concat`` in the buffer of ``root``, the outermost concatenation that it is a slice of."""
        begin = buffer.pitch
        segments: list[Pair] = []
        for name in concat.inputs:
            source = self.by_name.get(name)
            # Another user up to the root may feed the root: something would read and write one buffer.
            others = [user for user in self.users[name] if user is not concat]
            feeds = any(self.order[user.name] <= self.order[root.name] for user in others)
            if source is None or name in self.views or feeds or concat.inputs.count(name) > 1:
                view = self._slice(buffer, name)
                copies.setdefault(concat.name, []).append((name, view))
            elif isinstance(source, Concat):
                self._place_concat(source, root, buffer, copies)
                view = self.views[name]
            else:
                view = self.views[name] = self._slice(buffer, name)
            segments += view.segments
        self.views[concat.name] = View(buffer, begin, tuple(segments))

    def _foldable(self, layers: Sequence[Layer]) -> Conv | None:
        """The one convolution that reads the image, if the rows of its window are short.

        Where pixels are padded, runs of whole panels are left alone: kernels would take them for other channels.
        """
        users = [layer for layer in layers if INPUT in layer.inputs]
        if len(users) != 1 or not isinstance(users[0], Conv):
            return None
        width = users[0].weight.shape[3]
        run = self.network.input_shape[0] * width
        align = self.target.fold_align
        padded = -(-self.network.input_shape[0] // align) * align * width
        whole = align > 1 and padded % PANEL == 0
        return users[0] if width > 1 and run <= self.target.fold_up_to and not whole else None

    def _input(self) -> None:
        channels, height, width = self.network.input_shape
        pads = (0, 0, 0, 0)
        if self.folded is not None:
            pads = (0, self.folded.pads[1], 0, self.folded.pads[3])
        buffer = self._buffer(INPUT, (height, width + pads[1] + pads[3]))
        view = self._slice(buffer, INPUT)
        mean, std = self.network.preprocess.constants(channels)
        self.lowered.ops.append(
            Op(
                kind=OpKind.INPUT,
                name=INPUT,
                module="",
                source=None,
                target=view,
                in_size=(height, width),
                in_channels=channels,
                pads=pads,
                weight=np.stack([1 / std, -mean / std]),
            )
        )
        self.views[INPUT] = view

    def _copy(self, name: str, view: View, module: str) -> None:
        """A concatenation's input that lives elsewhere too: a 1x1 max-pool is a copy."""
        source = self.views[name]
        self.lowered.ops.append(
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
                self.lowered.ops.append(
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
                self.lowered.ops.append(
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
        depth = source.buffer.pitch if first is self.folded else source.padded
        weight = np.zeros((target.extent, *kernel, depth), np.float32)
        bias = np.zeros(target.extent, np.float32)
        for conv, view in zip(group, views, strict=True):
            begin = view.channel - target.channel
            rows = slice(begin, begin + view.channels)
            weight[rows, :, :, source.positions()] = conv.weight.transpose(0, 2, 3, 1)
            bias[rows] = conv.bias
        in_size = (source.buffer.height, source.buffer.width)
        pads = first.pads
        if first is self.folded:
            depth *= kernel[1]
            weight = weight.reshape(target.extent, kernel[0], 1, depth)
            kernel, pads = (kernel[0], 1), (pads[0], 0, pads[2], 0)
        self.lowered.ops.append(
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
