"""Where the layers of a network write: which channels of which buffer.

The branches of a concatenation write into their slice of one buffer, so that no concatenation runs; convolutions that
become one op write side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inception_engine.compiler.errors import CompileError
from inception_engine.compiler.ops import Buffer, View
from inception_engine.compiler.plan import PANEL
from inception_engine.compiler.targets import Target
from inception_engine.network import (
    INPUT,
    LRN,
    AveragePool,
    Concat,
    Conv,
    Layer,
    MaxPool,
    Network,
    Pads,
    Pair,
    Softmax,
)


@dataclass(frozen=True, eq=False)
class Layout:
    """``views``: of every layer, and of the image. ``merged``: convolutions, by name, that are one op with others.
    ``copies``: of concatenations, by name, the inputs that must be copied into them, and where to. ``folded``: the
    convolution that reads the image in whole runs of its window's row."""

    buffers: list[Buffer]
    views: dict[str, View]
    merged: dict[str, list[Conv]]
    copies: dict[str, list[tuple[str, View]]]
    folded: Conv | None

    @property
    def input_pads(self) -> Pads:
        """Pixels of padding that lie in the buffer of the image: above, left, below, right."""
        return (0, self.folded.pads[1], 0, self.folded.pads[3]) if self.folded is not None else (0, 0, 0, 0)


def lay_out(network: Network, target: Target, layers: Sequence[Layer]) -> Layout:
    """Give each of ``layers``, those of the network that are needed, its place. Raises CompileError."""
    try:
        return _LayingOut(network, target, layers).run()
    except RecursionError:
        raise CompileError("concatenations in concatenations, too deep") from None


class _LayingOut:
    def __init__(self, network: Network, target: Target, layers: Sequence[Layer]) -> None:
        self.network = network
        self.target = target
        self.layers = layers
        self.shapes = network.shapes()
        self.by_name = {layer.name: layer for layer in network.layers}
        self.order = {layer.name: i for i, layer in enumerate(network.layers)}
        self.users: dict[str, list[Layer]] = {name: [] for name in self.shapes}
        for layer in network.layers:
            for source in layer.inputs:
                self.users[source].append(layer)
        self.folded = self._foldable()
        self.segments = self._segments()
        self.merged = self._merge()
        self.buffers: list[Buffer] = []
        self.views: dict[str, View] = {}
        self.copies: dict[str, list[tuple[str, View]]] = {}

    def run(self) -> Layout:
        self._place()
        layout = Layout(self.buffers, self.views, self.merged, self.copies, self.folded)
        _, height, width = self.network.input_shape
        _, left, _, right = layout.input_pads
        self.views[INPUT] = self._slice(self._buffer(INPUT, (height, width + left + right)), INPUT)
        return layout

    def _foldable(self) -> Conv | None:
        """The one convolution that reads the image, if the rows of its window are short.

        Where pixels are padded, runs of whole panels are left alone: kernels would take them for other channels.
        """
        users = [layer for layer in self.layers if INPUT in layer.inputs]
        if len(users) != 1 or not isinstance(users[0], Conv):
            return None
        width = users[0].weight.shape[3]
        run = self.network.input_shape[0] * width
        align = self.target.fold_align
        padded = -(-self.network.input_shape[0] // align) * align * width
        whole = align > 1 and padded % PANEL == 0
        return users[0] if width > 1 and run <= self.target.fold_up_to and not whole else None

    def _segments(self) -> dict[str, tuple[Pair, ...]]:
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

    def _merge(self) -> dict[str, list[Conv]]:
        """Convolutions, by name, that run as one op with others: same input, window and ReLU, and no concatenation."""
        placed = {name for layer in self.layers if isinstance(layer, Concat) for name in layer.inputs}
        groups: dict[object, list[Conv]] = {}
        for layer in self.layers:
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
        self.buffers.append(buffer)
        return buffer

    def _slice(self, buffer: Buffer, name: str) -> View:
        """The next free channels of a buffer that is being laid out, as many as layer ``name`` has."""
        view = View(buffer, buffer.pitch, self.segments[name])
        buffer.pitch += view.padded
        return view

    def _place(self) -> None:
        # From the last concatenation to the first: a concatenation that feeds another one is a slice of it.
        for layer in reversed(self.layers):
            if isinstance(layer, Concat) and layer.name not in self.views:
                self._place_concat(layer, layer, self._buffer(layer.name, self.shapes[layer.name][1:]))
        for layer in self.layers:
            if layer.name in self.views:
                continue
            group = self.merged.get(layer.name, [layer])
            buffer = self._buffer(" + ".join(x.name for x in group), self.shapes[layer.name][1:])
            for member in group:
                self.views[member.name] = self._slice(buffer, member.name)

    def _place_concat(self, concat: Concat, root: Concat, buffer: Buffer) -> None:
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
                self.copies.setdefault(concat.name, []).append((name, view))
            elif isinstance(source, Concat):
                self._place_concat(source, root, buffer)
                view = self.views[name]
            else:
                view = self.views[name] = self._slice(buffer, name)
            segments += view.segments
        self.views[concat.name] = View(buffer, begin, tuple(segments))
