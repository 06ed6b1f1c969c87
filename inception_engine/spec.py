"""GoogLeNet as one table: Table 1 of Szegedy et al., "Going Deeper with Convolutions" (arXiv 1409.4842).

``TABLE`` holds the paper's rows with the paper's names and the figures that it prints. A ``Spec`` is a variant of the
network as data; the layers, their shapes, parameters and multiply-adds are derived from it, and model, seeded
weights and summary iterate them. A channel count stands in one other place, kernels/shipped.py, tied to this by a test.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["convolution", "max pool", "average pool", "lrn", "concat", "linear", "softmax"]
Shape = tuple[int, int, int]
Pads = tuple[int, int, int, int]


class SpecError(ValueError):
    """The variant cannot exist; the message says which field is wrong."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of Table 1. ``output``: printed (height, width, channels). ``params`` and ``ops`` as printed, or ""."""

    name: str
    output: Shape
    params: str = ""
    ops: str = ""


@dataclass(frozen=True, kw_only=True)
class ConvolutionRow(Row):
    """``reduce``: channels of the 1x1 convolution before it, or 0."""

    patch: int
    stride: int
    channels: int
    reduce: int = 0


@dataclass(frozen=True, kw_only=True)
class MaxPoolRow(Row):
    patch: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class InceptionRow(Row):
    """Channels of the convolutions in Fig. 2b: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool_proj: int

    @property
    def channels(self) -> int:
        return self.one + self.three + self.five + self.pool_proj


@dataclass(frozen=True, kw_only=True)
class AveragePoolRow(Row):
    """Over the whole image, whatever its size."""


@dataclass(frozen=True, kw_only=True)
class DropoutRow(Row):
    """Training only."""

    rate: float


@dataclass(frozen=True, kw_only=True)
class LinearRow(Row):
    pass


@dataclass(frozen=True, kw_only=True)
class SoftmaxRow(Row):
    pass


def _module(
    name: str, size: int, channels: int, widths: tuple[int, int, int, int, int, int], params: str, ops: str
) -> InceptionRow:
    one, three_reduce, three, five_reduce, five, pool_proj = widths
    return InceptionRow(name=name, output=(size, size, channels), one=one, three_reduce=three_reduce, three=three,
                        five_reduce=five_reduce, five=five, pool_proj=pool_proj, params=params, ops=ops)  # fmt: skip


DROPOUT = 0.4

# Section 5: side branches for training, after these modules; removed at inference.
AUXILIARY_AFTER = ("4a", "4d")
AUXILIARY_CONVOLUTION = 128
AUXILIARY_HIDDEN = 1024
AUXILIARY_DROPOUT = 0.7

# Table 1. The paper's K of parameters are 1024 weights, without biases; its M of ops are 10^6 multiply-adds.
# fmt: off
TABLE: tuple[Row, ...] = (
    ConvolutionRow(name="conv1", output=(112, 112, 64), patch=7, stride=2, channels=64, params="2.7K", ops="34M"),
    MaxPoolRow(name="pool1", output=(56, 56, 64), patch=3, stride=2),
    ConvolutionRow(name="conv2", output=(56, 56, 192), patch=3, stride=1, channels=192, reduce=64,
                   params="112K", ops="360M"),
    MaxPoolRow(name="pool2", output=(28, 28, 192), patch=3, stride=2),
    #                        #1x1  3x3r  #3x3 5x5r #5x5 proj
    _module("3a", 28, 256,  ( 64,  96,  128,  16,   32,  32), "159K", "128M"),
    _module("3b", 28, 480,  (128, 128,  192,  32,   96,  64), "380K", "304M"),
    MaxPoolRow(name="pool3", output=(14, 14, 480), patch=3, stride=2),
    _module("4a", 14, 512,  (192,  96,  208,  16,   48,  64), "364K", "73M"),
    _module("4b", 14, 512,  (160, 112,  224,  24,   64,  64), "437K", "88M"),
    _module("4c", 14, 512,  (128, 128,  256,  24,   64,  64), "463K", "100M"),
    _module("4d", 14, 528,  (112, 144,  288,  32,   64,  64), "580K", "119M"),
    _module("4e", 14, 832,  (256, 160,  320,  32,  128, 128), "840K", "170M"),
    MaxPoolRow(name="pool4", output=(7, 7, 832), patch=3, stride=2),
    _module("5a",  7, 832,  (256, 160,  320,  32,  128, 128), "1072K", "54M"),
    _module("5b",  7, 1024, (384, 192,  384,  48,  128, 128), "1388K", "71M"),
    AveragePoolRow(name="avgpool", output=(1, 1, 1024)),
    DropoutRow(name="dropout", output=(1, 1, 1024), rate=DROPOUT),
    LinearRow(name="fc", output=(1, 1, 1000), params="1000K", ops="1M"),
    SoftmaxRow(name="softmax", output=(1, 1, 1000)),
)
# fmt: on


def params_text(weights: int) -> str:
    """As the paper prints them: in units of 1024."""
    return _rounded(weights / 1024) + "K"


def ops_text(macs: int) -> str:
    """As the paper prints them: millions of multiply-adds."""
    return _rounded(macs / 1e6) + "M"


def _rounded(value: float) -> str:
    """To whole numbers, halves up; to one digit below 10."""
    return f"{math.floor(value + 0.5)}" if value >= 10 else f"{math.floor(10 * value + 0.5) / 10:g}"


@dataclass(frozen=True)
class Slip:
    """A figure that the paper prints and that its own shapes contradict. ``derived``: as it would be printed."""

    row: str
    column: Literal["params", "ops"]
    printed: str
    derived: str


SLIPS: tuple[Slip, ...] = (
    # 7 * 7 * 3 * 64 = 9,408. 2.7K and 34M are 7 * 7 * 3 * 8 + 24 * 64 = 2,712: a separable convolution, as the
    # Inception v2 in TensorFlow's slim has it.
    Slip("conv1", "params", "2.7K", "9.2K"),
    Slip("conv1", "ops", "34M", "118M"),
    Slip("4a", "params", "364K", "367K"),
    Slip("4c", "params", "463K", "498K"),
    Slip("4d", "params", "580K", "591K"),
    Slip("4e", "params", "840K", "847K"),
    Slip("5a", "params", "1072K", "1018K"),
    Slip("5a", "ops", "54M", "51M"),
    Slip("5b", "params", "1388K", "1409K"),
)

# The paper says "local response normalization" and no more; these are the BVLC model's numbers.
LRN_SIZE = 5
LRN_ALPHA = 1e-4
LRN_BETA = 0.75
LRN_K = 1.0

INPUT = "input"  # the name by which layers refer to the image


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One layer with derived shapes (channels, height, width) per image. Pads are (top, left, bottom, right).

    ``row``: the row of the table that it belongs to. ``module``: its Inception module, or "".
    """

    name: str
    kind: Kind
    row: str
    inputs: tuple[str, ...]
    input: Shape
    output: Shape
    module: str = ""
    kernel: int = 1
    stride: int = 1
    pads: Pads = (0, 0, 0, 0)

    @property
    def weights(self) -> int:
        """Weights without biases, as the paper counts."""
        if self.kind == "convolution":
            return self.output[0] * self.input[0] * self.kernel**2
        return self.output[0] * math.prod(self.input) if self.kind == "linear" else 0

    @property
    def parameters(self) -> int:
        """Weights and one bias per output; batch norm counts as folded."""
        return self.weights + self.output[0] if self.weights else 0

    @property
    def macs(self) -> int:
        """Multiply-adds per image; biases are not counted."""
        return self.weights * self.output[1] * self.output[2]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """``weights``: without biases. ``macs``: multiply-adds per image."""

    channels: int
    weights: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A variant of GoogLeNet as data. Raises SpecError for one that cannot exist.

    ``norm``: "lrn" after pool1 and after conv2 as in the paper, "batch" after every convolution, or "none".
    ``third_branch``: kernel of the branch that the paper calls 5x5; torchvision's is 3x3, a slip kept for its weights.
    ``pool_kernels``: of pool1 to pool4, all of stride 2.
    ``pool_padding``: "ceil" pads at the bottom and right where a window would stand out, so 224 gives 56/28/14/7 as in
    the paper; "none" drops those windows, so 55/27/13/6, as some conversions of the BVLC model do.
    ``width``: multiplies every channel count but the input's and the classes', rounded to a multiple of 8.
    ``input_size``: height and width in pixels.
    ``batch_norm_epsilon``: torchvision's; torch's own default is 1e-5.
    """

    name: str = "googlenet"
    norm: Literal["lrn", "batch", "none"] = "lrn"
    third_branch: Literal[3, 5] = 5
    pool_kernels: tuple[int, int, int, int] = (3, 3, 3, 3)
    pool_padding: Literal["ceil", "none"] = "ceil"
    width: float = 1.0
    classes: int = 1000
    input_size: int = 224
    input_channels: int = 3
    batch_norm_epsilon: float = 1e-3

    def __post_init__(self) -> None:
        for name, choices in (
            ("norm", ("lrn", "batch", "none")),
            ("third_branch", (3, 5)),
            ("pool_padding", ("ceil", "none")),
        ):
            if getattr(self, name) not in choices:
                raise SpecError(
                    f"{name} is {getattr(self, name)!r}, not one of {', '.join(map(str, choices))}"
                )
        for name in ("classes", "input_size", "input_channels"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)!r}, not a positive whole number")
        if len(self.pool_kernels) != 4 or not all(kernel in (2, 3) for kernel in self.pool_kernels):
            raise SpecError(f"pool_kernels is {self.pool_kernels}, not four of 2 and 3")
        if not (math.isfinite(self.width) and 0 < self.width <= 16):
            raise SpecError(f"width is {self.width}, not above 0 and at most 16")
        _ = self.layers  # an input too small for its pools raises here

    @classmethod
    def parsed(cls, text: str) -> Spec | None:
        """A Spec from its repr, which holds literals alone; None for any other text, whoever wrote it."""
        try:
            call = ast.parse(text, mode="eval").body
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                return None
            if call.func.id != cls.__name__ or call.args:
                return None
            return cls(**{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords})
        # SpecError is a ValueError; the last three are of numbers and of nesting without end.
        except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
            return None

    def channels(self, count: int) -> int:
        """The paper's channel count times the width, to the nearest multiple of 8, and at least 8."""
        return max(8, 8 * math.floor(count * self.width / 8 + 0.5))

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """All layers without auxiliary heads and dropout, in an order in which inputs come before uses."""
        return tuple(_Layers(self).walk())

    def layer(self, name: str) -> LayerSpec:
        """Raises KeyError."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, LayerSpec]:
        return {layer.name: layer for layer in self.layers}

    @property
    def parameters(self) -> int:
        """Weights and biases without auxiliary heads, batch norm folded."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds per image without auxiliary heads."""
        return sum(layer.macs for layer in self.layers)

    def cost(self, row: str) -> Cost:
        """What a row of the table costs. Raises KeyError."""
        layers = [layer for layer in self.layers if layer.row == row]
        if not layers:
            raise KeyError(row)
        return Cost(
            channels=layers[-1].output[0],
            weights=sum(layer.weights for layer in layers),
            macs=sum(layer.macs for layer in layers),
        )

    def naive_cost(self, module: str) -> Cost:
        """The same module as in Fig. 2a: 1x1, 3x3 and 5x5 straight on its input, which is pooled and passed on.

        Raises KeyError.
        """
        channels, height, width = self.layer(f"{module}/1x1").input
        branches = [self.layer(f"{module}/{branch}") for branch in ("1x1", "3x3", "5x5")]
        weights = sum(branch.output[0] * channels * branch.kernel**2 for branch in branches)
        return Cost(
            channels=channels + sum(branch.output[0] for branch in branches),
            weights=weights,
            macs=weights * height * width,
        )


class _Layers:
    """Walks the table once; ``top`` is the layer that the next one reads."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.shapes: dict[str, Shape] = {INPUT: (spec.input_channels, spec.input_size, spec.input_size)}
        self.top = INPUT
        self.row = ""
        self.pool_kernels = iter(spec.pool_kernels)

    def walk(self) -> Iterator[LayerSpec]:
        spec = self.spec
        for row in TABLE:
            self.row = row.name
            match row:
                case ConvolutionRow():
                    if row.reduce:
                        yield self.convolution(f"{row.name}_reduce", row.reduce)
                    yield self.convolution(row.name, row.channels, row.patch, row.stride)
                    if row.name == "conv2" and spec.norm == "lrn":
                        yield self.layer("norm2", "lrn", self.shape)
                case MaxPoolRow():
                    yield self.max_pool(row)
                    if row.name == "pool1" and spec.norm == "lrn":
                        yield self.layer("norm1", "lrn", self.shape)
                case InceptionRow():
                    yield from self.inception(row)
                case AveragePoolRow():
                    yield self.layer(row.name, "average pool", (self.shape[0], 1, 1), kernel=self.shape[1])
                case LinearRow():
                    yield self.layer(row.name, "linear", (spec.classes, 1, 1))
                case SoftmaxRow():
                    yield self.layer(row.name, "softmax", self.shape)

    @property
    def shape(self) -> Shape:
        return self.shapes[self.top]

    def layer(
        self,
        name: str,
        kind: Kind,
        output: Shape,
        *,
        inputs: tuple[str, ...] = (),
        module: str = "",
        kernel: int = 1,
        stride: int = 1,
        pads: Pads = (0, 0, 0, 0),
    ) -> LayerSpec:
        """A layer on ``inputs``, or on the top; it becomes the top."""
        inputs = inputs or (self.top,)
        layer = LayerSpec(name=name, kind=kind, row=self.row, inputs=inputs, input=self.shapes[inputs[0]],
                          output=output, module=module, kernel=kernel, stride=stride, pads=pads)  # fmt: skip
        self.shapes[name] = output
        self.top = name
        return layer

    def convolution(
        self, name: str, channels: int, kernel: int = 1, stride: int = 1, source: str = "", module: str = ""
    ) -> LayerSpec:
        self.top = source or self.top
        pad = kernel // 2
        size = (self.shape[1] + 2 * pad - kernel) // stride + 1
        return self.layer(
            name,
            "convolution",
            (self.spec.channels(channels), size, size),
            module=module,
            kernel=kernel,
            stride=stride,
            pads=(pad, pad, pad, pad),
        )

    def max_pool(self, row: MaxPoolRow) -> LayerSpec:
        kernel, size = next(self.pool_kernels), self.shape[1]
        rest = size - kernel
        out = (-(-rest // row.stride) if self.spec.pool_padding == "ceil" else rest // row.stride) + 1
        if out < 1:
            raise SpecError(
                f"input_size {self.spec.input_size} leaves {size} x {size} pixels to {row.name}: too small"
            )
        pad = max(0, (out - 1) * row.stride + kernel - size)
        return self.layer(
            row.name,
            "max pool",
            (self.shape[0], out, out),
            kernel=kernel,
            stride=row.stride,
            pads=(0, 0, pad, pad),
        )

    def inception(self, row: InceptionRow) -> Iterator[LayerSpec]:
        module, source, size = row.name, self.top, self.shape[1]
        third = self.spec.third_branch

        def convolution(branch: str, channels: int, kernel: int = 1, source: str = source) -> LayerSpec:
            return self.convolution(f"{module}/{branch}", channels, kernel, 1, source, module)

        yield convolution("1x1", row.one)
        yield convolution("3x3_reduce", row.three_reduce)
        yield convolution("3x3", row.three, 3, f"{module}/3x3_reduce")
        yield convolution("5x5_reduce", row.five_reduce)
        yield convolution("5x5", row.five, third, f"{module}/5x5_reduce")
        yield self.layer(
            f"{module}/pool",
            "max pool",
            self.shapes[source],
            inputs=(source,),
            module=module,
            kernel=3,
            pads=(1, 1, 1, 1),
        )
        yield convolution("pool_proj", row.pool_proj, 1, f"{module}/pool")
        branches = tuple(f"{module}/{branch}" for branch in ("1x1", "3x3", "5x5", "pool_proj"))
        channels = sum(self.shapes[branch][0] for branch in branches)
        yield self.layer(module, "concat", (channels, size, size), inputs=branches, module=module)


GOOGLENET = Spec()

# "lrn": the paper's network. "plain": without local response normalisation. "torchvision": its checkpoint's layout.
PRESETS: dict[str, Spec] = {
    "lrn": GOOGLENET,
    "plain": Spec(norm="none"),
    "torchvision": Spec(norm="batch", third_branch=3, pool_kernels=(3, 3, 3, 2)),
}
