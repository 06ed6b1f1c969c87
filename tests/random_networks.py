"""Random small networks of the shapes that break engines: odd sizes, few channels, asymmetric pads, shared inputs.

Not random GoogLeNets: concatenations are nested, repeated and fed by layers that live elsewhere, windows are
rectangular, layers exist that nothing reads. Deterministic in the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

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
    Preprocess,
    Shape,
    Softmax,
)

T = TypeVar("T")
SIZES = ((1, 1), (1, 6), (3, 1), (5, 7), (7, 5), (9, 9), (13, 11), (16, 16), (17, 23))
CHANNELS = (1, 2, 3, 5, 7, 8, 11, 13, 16, 17, 19, 24, 33)


def random_network(rng: np.random.Generator) -> Network:
    """2 to 6 random blocks behind an image of odd size, and one of several heads."""
    return _Builder(rng).build()


def random_images(rng: np.random.Generator, network: Network, batch: int) -> np.ndarray:
    """(batch, channels, height, width) float32, mean 0, deviation 1."""
    return rng.standard_normal((batch, *network.input_shape), dtype=np.float32)


class _Builder:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = {}
        self.module = ""

    def build(self) -> Network:
        height, width = self.one_of(SIZES)
        input_shape = self.one_of((1, 2, 3, 3, 3, 4, 5)), height, width
        self.shapes[INPUT] = input_shape
        top = INPUT
        if self.chance(0.8):
            top = self.conv(top, self.windows(max_kernel=7), stride=self.pair(1, 2, 2, 3))
        blocks = (
            self.any_conv,
            self.max_pool,
            self.average_pool,
            self.lrn,
            self.inception,
            self.inception,
            self.maze,
        )
        for _ in range(self.rng.integers(2, 7)):
            top = self.one_of(blocks)(top)
        logits = self.head(top)
        labels = tuple(f"class {i}" for i in range(self.shapes[logits][0])) if self.chance(0.3) else ()
        channels = input_shape[0]
        preprocess = Preprocess(mean=(120.0,) * channels, std=(60.0,) * channels)
        return Network(
            name="random",
            input_shape=input_shape,
            layers=tuple(self.layers),
            logits=logits,
            labels=labels,
            preprocess=preprocess,
        )

    # Choices

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pair(self, *choices: int) -> Pair:
        return self.one_of(choices), self.one_of(choices)

    def windows(self, max_kernel: int = 5) -> Pair:
        sizes = [k for k in (1, 2, 3, 5, 7) if k <= max_kernel]
        return self.pair(*sizes) if self.chance(0.4) else (self.one_of(sizes),) * 2

    def pads(self, source: str, kernel: Pair) -> Pads:
        """Each smaller than the kernel, together large enough that one window fits."""
        _, height, width = self.shapes[source]
        pads = []
        for size, k in ((height, kernel[0]), (width, kernel[1])):
            before = int(self.rng.integers(k))
            after = int(self.rng.integers(k))
            if size + before + after < k:
                before, after = k // 2, k - 1
            pads.append((before, after))
        return pads[0][0], pads[1][0], pads[0][1], pads[1][1]

    # Layers; each adds one and returns its name

    def add(self, layer: Layer) -> str:
        self.layers.append(layer)
        shape = self.shapes[layer.inputs[0]]
        match layer:
            case Conv() | MaxPool() | AveragePool():
                kernel = layer.weight.shape[2:] if isinstance(layer, Conv) else layer.kernel
                top, left, bottom, right = layer.pads
                height = (shape[1] + top + bottom - kernel[0]) // layer.stride[0] + 1
                width = (shape[2] + left + right - kernel[1]) // layer.stride[1] + 1
                shape = layer.weight.shape[0] if isinstance(layer, Conv) else shape[0], height, width
            case Concat():
                shape = sum(self.shapes[name][0] for name in layer.inputs), *shape[1:]
            case Linear():
                shape = layer.weight.shape[0], 1, 1
        self.shapes[layer.name] = shape
        return layer.name

    def name(self, kind: str) -> str:
        return f"{self.module or 'net'}/{kind}_{len(self.layers)}"

    def weights(self, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        """He-scaled, so that values keep their size through the layers, and biases that matter."""
        weight = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        bias = self.rng.uniform(-0.2, 0.5, shape[0])
        return weight.astype(np.float32), bias.astype(np.float32)

    def conv(
        self, source: str, kernel: Pair, stride: Pair = (1, 1), channels: int = 0, *, same: bool = False
    ) -> str:
        weight, bias = self.weights(channels or self.one_of(CHANNELS), self.shapes[source][0], *kernel)
        pads = _same(kernel) if same else self.pads(source, kernel)
        return self.add(Conv(name=self.name("conv"), inputs=(source,), module=self.module, weight=weight, bias=bias,
                             stride=stride, pads=pads, relu=self.chance(0.8)))  # fmt: skip

    def any_conv(self, source: str) -> str:
        return self.conv(source, self.windows(), self.pair(1, 1, 1, 2))

    def max_pool(self, source: str) -> str:
        kernel = self.pair(2, 3, 3)
        return self.add(MaxPool(name=self.name("max"), inputs=(source,), module=self.module, kernel=kernel,
                                stride=self.pair(1, 2, 2), pads=self.pads(source, kernel)))  # fmt: skip

    def average_pool(self, source: str) -> str:
        kernel = self.pair(2, 3, 5)
        return self.add(AveragePool(name=self.name("average"), inputs=(source,), module=self.module, kernel=kernel,
                                    stride=self.pair(1, 2, 3), pads=self.pads(source, kernel),
                                    count_include_pad=self.chance(0.5)))  # fmt: skip

    def lrn(self, source: str) -> str:
        # alpha of 1 makes the denominator matter; the paper's 1e-4 would hide most mistakes.
        return self.add(
            LRN(
                name=self.name("lrn"),
                inputs=(source,),
                module=self.module,
                size=self.one_of((1, 3, 5, 5, 7)),
                alpha=self.one_of((1e-4, 0.1, 1.0)),
                beta=self.one_of((0.75, 0.75, 0.5, 1.0)),
                k=self.one_of((1.0, 2.0)),
            )
        )

    def concat(self, *sources: str) -> str:
        return self.add(Concat(name=self.name("concat"), inputs=sources, module=self.module))

    # Blocks

    def inception(self, source: str) -> str:
        """Fig. 2b with random widths and windows: 1x1, two reduced branches, pool and projection."""
        self.module = f"module_{len(self.layers)}"
        reduces = [self.conv(source, (1, 1)), self.conv(source, (1, 1))]
        branches = [self.conv(source, (1, 1))]
        branches += [
            self.conv(reduce, self.one_of(((3, 3), (5, 5), (1, 3))), same=True) for reduce in reduces
        ]
        pool = MaxPool if self.chance(0.7) else AveragePool
        pooled = self.add(pool(name=self.name("pool"), inputs=(source,), module=self.module, kernel=(3, 3),
                               stride=(1, 1), pads=(1, 1, 1, 1)))  # fmt: skip
        branches.append(self.conv(pooled, (1, 1)) if self.chance(0.7) else pooled)
        top = self.concat(*branches)
        self.module = ""
        return top

    def maze(self, source: str) -> str:
        """Concatenations as no Inception module has them."""
        left = self.conv(source, (3, 3), same=True)
        right = self.conv(source, (1, 1))
        if self.chance(0.3):
            self.conv(right, (1, 1))  # nothing reads it
        match self.rng.integers(5):
            case 0:  # passes its input through, as DenseNet does
                return self.concat(source, left, right)
            case 1:  # nested; the inner one is read by itself too
                inner = self.concat(left, right)
                return self.concat(self.conv(inner, (1, 1)), inner)
            case 2:  # one layer twice
                return self.concat(left, right, left)
            case 3:  # two concatenations share a layer
                return self.concat(self.lrn(self.concat(left, right)), left)
            case _:  # only one input
                return self.concat(self.concat(left), right)

    def head(self, source: str) -> str:
        """A linear layer on all pixels, on averages or on a hidden layer; or none. Softmax or not."""
        if self.chance(0.15):
            return self.conv(source, self.windows(max_kernel=3))
        if self.chance(0.5):
            size = self.shapes[source][1:]
            average = AveragePool(name="average", inputs=(source,), kernel=size, stride=(1, 1))
            source = self.add(average)
        if self.chance(0.3):
            source = self.linear("hidden", source, relu=True)
        logits = self.linear("fc", source, relu=False)
        if self.chance(0.6):
            self.add(Softmax(name="softmax", inputs=(logits,)))
        return logits

    def linear(self, name: str, source: str, *, relu: bool) -> str:
        # Not fewer: all of them may be near zero by cancellation, and errors are relative to the largest.
        outputs = int(self.rng.integers(6, 22))
        weight, bias = self.weights(outputs, int(np.prod(self.shapes[source])))
        return self.add(Linear(name=name, inputs=(source,), weight=weight, bias=bias, relu=relu))


def _same(kernel: Pair) -> Pads:
    """Pads that keep the size at stride 1."""
    return (kernel[0] - 1) // 2, (kernel[1] - 1) // 2, kernel[0] // 2, kernel[1] // 2
