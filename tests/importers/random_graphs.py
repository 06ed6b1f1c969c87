"""Random ONNX graphs as exporters write them, and worse: every way to say padding, affine steps and heads.

Deterministic in the generator that is passed in. Shapes are tracked by the specification's formulas, apart from the
importer's. ``oddity`` names what was put in that Network has no layer for, if anything was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

T = TypeVar("T")
Shape = tuple[int, int, int]
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 22)
SIZES = ((5, 7), (7, 5), (9, 9), (13, 11), (16, 16), (17, 23))
CHANNELS = (1, 2, 3, 5, 8, 11, 16)


class RandomGraph:
    """``model``; ``oddity``: "" if everything in it is supported."""

    def __init__(self, rng: np.random.Generator, *, odd: bool = False) -> None:
        self.rng = rng
        self.opset = self.one_of(OPSETS)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.count = 0
        self.oddity = ""
        channels = self.one_of((1, 3, 3, 3, 4))
        height, width = self.one_of(SIZES)
        self.shapes: dict[str, Shape] = {"image": (channels, height, width)}
        self.last = self.chance(0.15)  # channels
        top = self.front("image")
        blocks = [self.convolution, self.convolution, self.max_pool, self.average_pool, self.lrn, self.inception,
                  self.inception, self.padded, self.affine, self.relu, self.shared]  # fmt: skip
        length = int(self.rng.integers(2, 6))
        odd_at = int(self.rng.integers(length)) if odd else -1
        if self.chance(0.7):
            top = self.convolution(top)
        for i in range(length):
            top = self.one_of(blocks)(top)
            if i == odd_at:
                top = self.odd(top)
        output = self.head(top)
        batch: str | int = "batch" if self.chance(0.5) else 2
        given: list[str | int | None] = [batch, channels, height, width]
        if self.last:
            given = [batch, height, width, channels]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, given)
        out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "random", [image], [out], self.initializers)
        self.model: ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )

    # Choices

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pair(self, *choices: int) -> tuple[int, int]:
        return self.one_of(choices), self.one_of(choices)

    # Nodes and constants

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind.lower()}_{self.count}"

    def node(
        self, kind: str, inputs: Sequence[str], shape: Shape, outputs: int = 1, **attributes: Any
    ) -> str:
        output = self.name(kind)
        given = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(kind, list(inputs), [output], name=self.one_of((output, "")), **given)
        self.nodes.append(node)
        self.shapes[output] = shape
        return output

    def constant(self, values: np.ndarray) -> str:
        """An initializer, a Constant, one behind an Identity or a Cast from float16, or by shape if all are equal."""
        values = values.copy(order="C")
        name = self.name("constant")
        way = self.rng.integers(6)
        if way == 0 and values.dtype == np.float32 and values.size > 1:
            values[:] = values.flat[0]
            shape = self.constant(np.array(values.shape, np.int64))
            value = numpy_helper.from_array(values.reshape(-1)[:1])
            if self.opset >= 9:
                self.nodes.append(helper.make_node("ConstantOfShape", [shape], [name], value=value))
                return name
        if way == 1:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values)))
        elif way == 2 and values.dtype == np.float32 and self.opset >= 9:
            half = self.name("half")
            self.initializers.append(numpy_helper.from_array(values.astype(np.float16), half))
            self.nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
        elif way == 3:
            self.initializers.append(numpy_helper.from_array(values, f"{name}_stored"))
            self.nodes.append(helper.make_node("Identity", [f"{name}_stored"], [name]))
        else:
            self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def numbers(self, *shape: int, low: float = -0.5, high: float = 0.5) -> np.ndarray:
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def weight(self, *shape: int) -> np.ndarray:
        return (self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    # The front

    def front(self, x: str) -> str:
        channels = self.shapes[x][0]
        axis = -1 if self.last else 1
        wide = (1, 1, channels) if self.last else (channels, 1, 1)
        for _ in range(int(self.rng.integers(3))):
            kind = self.one_of(("Add", "Sub", "Mul", "Div"))
            values = self.numbers(*(wide if self.chance(0.7) else ()), low=0.3, high=2.0)
            x = self.node(kind, [x, self.constant(values)], self.shapes[x])
        if self.chance(0.2) and self.opset >= 11 and channels == 3 and not self.last:
            order = self.one_of(([2, 1, 0], [0, 1, 2]))
            x = self.node("Gather", [x, self.constant(np.array(order, np.int64))], self.shapes[x], axis=axis)
        if self.last:
            x = self.node("Transpose", [x], self.shapes[x], perm=[0, 3, 1, 2])
        elif self.chance(0.15):
            x = self.batch_norm(x)
        elif self.chance(0.25) and channels == 3:
            x = self.transformed(x)
        return x

    def transformed(self, x: str) -> str:
        """torchvision's transform_input."""
        _, height, width = self.shapes[x]
        channels = []
        for i in range(3):
            if self.chance(0.5):
                one = self.node("Gather", [x, self.index(i)], (1, height, width), axis=1)
                one = self.unsqueeze(one, 1)
            else:
                one = self.slice(x, i, i + 1)
            one = self.node("Mul", [one, self.constant(self.numbers(low=0.4, high=0.5))], (1, height, width))
            channels.append(self.node("Add", [one, self.constant(self.numbers())], (1, height, width)))
        return self.node("Concat", channels, self.shapes[x], axis=1)

    def index(self, i: int) -> str:
        return self.constant(np.array(i, np.int64))

    def unsqueeze(self, x: str, *axes: int) -> str:
        if self.opset < 13:
            return self.node("Unsqueeze", [x], self.shapes[x], axes=list(axes))
        return self.node("Unsqueeze", [x, self.constant(np.array(axes, np.int64))], self.shapes[x])

    def slice(self, x: str, start: int, end: int) -> str:
        shape = (end - start, *self.shapes[x][1:])
        if self.opset < 10:
            return self.node("Slice", [x], shape, starts=[start], ends=[end], axes=[1])
        return self.node(
            "Slice", [x, *(self.constant(np.array([v], np.int64)) for v in (start, end, 1))], shape
        )

    # Windows

    def window(
        self, x: str, kernel: tuple[int, int], stride: tuple[int, int], *, pool: bool
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """Output size and attributes of a random padding; never one that is refused."""
        size = self.shapes[x][1:]
        ceil = int(pool and self.opset >= 10 and self.chance(0.4))
        modes = ["explicit", "explicit", "none"]
        if all(k >= s for k, s in zip(kernel, stride, strict=True)):
            modes += ["SAME_UPPER", "SAME_LOWER"]
        if all(s >= k for s, k in zip(size, kernel, strict=True)) and not ceil:
            modes.append("VALID")
        mode = self.one_of(modes)
        if mode.startswith("SAME"):
            output = tuple(-(-s // t) for s, t in zip(size, stride, strict=True))
            return (output[0], output[1]), {"auto_pad": mode, "ceil_mode": ceil or None}
        if mode == "VALID":
            output = tuple((s - k) // t + 1 for s, k, t in zip(size, kernel, stride, strict=True))
            return (output[0], output[1]), {"auto_pad": mode}
        sides = []
        for s, k in zip(size, kernel, strict=True):
            before, after = (
                (int(self.rng.integers(k)), int(self.rng.integers(k))) if mode == "explicit" else (0, 0)
            )
            if s + before + after < k:
                before, after = k // 2, k - 1
            sides.append((before, after))
        counts: list[int] = []
        for s, k, t, (before, after) in zip(size, kernel, stride, sides, strict=True):
            count = -(-(s + before + after - k) // t) + 1
            # ONNX Runtime drops a window that would start in the padding, but counts it when it infers shapes.
            ceil = int(ceil and (count - 1) * t < s + before)
            counts.append(count)
        if not ceil:
            counts = [
                (s + sum(p) - k) // t + 1 for s, k, t, p in zip(size, kernel, stride, sides, strict=True)
            ]
        pads = [sides[0][0], sides[1][0], sides[0][1], sides[1][1]]
        given = pads if any(pads) or self.chance(0.5) else None
        return (counts[0], counts[1]), {"pads": given, "ceil_mode": ceil or None}

    # Blocks; each takes a value and gives one

    def convolution(
        self, x: str, kernel: tuple[int, int] = (0, 0), channels: int = 0, *, same: bool = False
    ) -> str:
        kernel = kernel if any(kernel) else self.pair(1, 2, 3, 5)
        stride = (1, 1) if same else self.pair(1, 1, 2)
        inputs, height, width = self.shapes[x]
        if same:
            size = height, width
            attributes: dict[str, Any] = {
                "pads": [(kernel[0] - 1) // 2, (kernel[1] - 1) // 2, kernel[0] // 2, kernel[1] // 2]
            }
        else:
            size, attributes = self.window(x, kernel, stride, pool=False)
        outputs = channels or self.one_of(CHANNELS)
        tensors = [self.constant(self.weight(outputs, inputs, *kernel))]
        if self.chance(0.5):
            tensors.append(self.constant(self.numbers(outputs)))
        if self.chance(0.5):
            attributes["kernel_shape"] = list(kernel)
        top = self.node("Conv", [x, *tensors], (outputs, *size), strides=list(stride), **attributes)
        return self.behind(top)

    def behind(self, x: str) -> str:
        """Normalisation, Caffe's scale, ReLU and what does nothing, in an order of their own."""
        steps: list[Callable[[str], str]] = []
        if self.chance(0.5):
            steps.append(self.batch_norm)
        if self.chance(0.3):
            steps.append(self.affine)
        if self.chance(0.7):
            steps.append(self.relu)
        if self.chance(0.2):
            steps.append(self.nothing)
        if self.chance(0.2):
            self.rng.shuffle(steps)
        for step in steps:
            x = step(x)
        return x

    def batch_norm(self, x: str) -> str:
        channels = self.shapes[x][0]
        values = [self.numbers(channels, low=0.5, high=1.5), self.numbers(channels), self.numbers(channels),
                  self.numbers(channels, low=0.2, high=2.0)]  # fmt: skip
        return self.node("BatchNormalization", [x, *map(self.constant, values)], self.shapes[x],
                         epsilon=self.one_of((None, 0.001, 0.1)))  # fmt: skip

    def affine(self, x: str) -> str:
        channels = self.shapes[x][0]
        for kind in self.one_of((("Mul", "Add"), ("Mul",), ("Add",), ("Sub", "Div"))):
            shape = self.one_of(((1, channels, 1, 1), (channels, 1, 1), (1, 1, 1), (1,), ()))
            values = self.constant(self.numbers(*shape, low=0.4, high=1.6))
            swapped = kind in ("Mul", "Add") and self.chance(0.3)
            x = self.node(kind, [values, x] if swapped else [x, values], self.shapes[x])
        return x

    def relu(self, x: str) -> str:
        if self.chance(0.1) and self.opset >= 11:
            return self.node("Clip", [x, self.constant(np.array(0, np.float32))], self.shapes[x])
        return self.node("Relu", [x], self.shapes[x])

    def nothing(self, x: str) -> str:
        return self.node(self.one_of(("Identity", "Dropout")), [x], self.shapes[x])

    def max_pool(self, x: str) -> str:
        kernel, stride = self.pair(1, 2, 3), self.pair(1, 2, 3)
        size, attributes = self.window(x, kernel, stride, pool=True)
        shape = (self.shapes[x][0], *size)
        return self.node("MaxPool", [x], shape, kernel_shape=list(kernel), strides=list(stride), **attributes)

    def average_pool(self, x: str) -> str:
        kernel, stride = self.pair(1, 2, 3), self.pair(1, 2, 3)
        size, attributes = self.window(x, kernel, stride, pool=True)
        include = self.one_of((None, 0, 1))
        if attributes.get("ceil_mode") and any(attributes.get("pads") or ()):
            include = None  # refused: see windows.py
        if attributes.get("ceil_mode") and "auto_pad" in attributes:
            attributes["ceil_mode"] = None
        return self.node("AveragePool", [x], (self.shapes[x][0], *size), kernel_shape=list(kernel),
                         strides=list(stride), count_include_pad=include, **attributes)  # fmt: skip

    def lrn(self, x: str) -> str:
        return self.node("LRN", [x], self.shapes[x], size=self.one_of((1, 3, 5)), alpha=self.one_of((None, 1e-4, 0.5)),
                         beta=self.one_of((None, 0.5)), bias=self.one_of((None, 2.0)))  # fmt: skip

    def padded(self, x: str) -> str:
        """A Pad of its own, before any kind of layer."""
        channels, height, width = self.shapes[x]
        top, left, bottom, right = (int(v) for v in self.rng.integers(3, size=4))
        pads = [0, 0, top, left, 0, 0, bottom, right]
        shape = (channels, height + top + bottom, width + left + right)
        if self.opset < 11:
            x = self.node("Pad", [x], shape, pads=pads, mode=self.one_of((None, "constant")))
        else:
            x = self.node("Pad", [x, self.constant(np.array(pads, np.int64))], shape)
        return self.one_of(
            (self.convolution, self.max_pool, self.average_pool, self.lrn, self.relu, self.affine)
        )(x)

    def shared(self, x: str) -> str:
        """A convolution whose output is read before and behind what follows it."""
        conv = self.convolution(x, (1, 1), same=True)
        behind = self.behind(conv)
        return self.node("Concat", [conv, behind], (2 * self.shapes[conv][0], *self.shapes[conv][1:]), axis=1)

    def inception(self, x: str) -> str:
        one = self.convolution(x, (1, 1), same=True)
        three = self.convolution(
            self.convolution(x, (1, 1), same=True), self.one_of(((3, 3), (1, 3), (2, 4))), same=True
        )
        pool = self.node(self.one_of(("MaxPool", "AveragePool")), [x], self.shapes[x], kernel_shape=[3, 3],
                         pads=[1, 1, 1, 1], strides=self.one_of((None, [1, 1])))  # fmt: skip
        branches = [one, three, self.convolution(pool, (1, 1), same=True) if self.chance(0.7) else pool]
        channels = sum(self.shapes[branch][0] for branch in branches)
        top = self.node("Concat", branches, (channels, *self.shapes[x][1:]), axis=self.one_of((1, 1, -3)))
        return self.behind(top) if self.chance(0.3) else top

    def odd(self, x: str) -> str:
        """One thing that Network has no layer for."""
        channels, _, width = same = self.shapes[x]
        self.oddity = self.one_of(
            ("sigmoid", "leaky", "group", "dilation", "residual", "even lrn", "clip", "row", "outer")
        )
        if self.oddity in ("group", "dilation") and channels == 1:
            self.oddity = "sigmoid"
        if self.oddity == "row" and width in (1, channels):
            self.oddity = "leaky"
        match self.oddity:
            case "sigmoid":
                return self.node("Sigmoid", [x], same)
            case "leaky":
                return self.node("LeakyRelu", [x], same, alpha=0.1)
            case "group":
                return self.node(
                    "Conv", [x, self.constant(self.weight(channels, 1, 1, 1))], same, group=channels
                )
            case "dilation":
                weight = self.constant(self.weight(channels, channels, 3, 3))
                return self.node("Conv", [x, weight], same, dilations=[2, 2], pads=[2, 2, 2, 2])
            case "residual":
                return self.node("Add", [x, self.convolution(x, (1, 1), channels, same=True)], same)
            case "even lrn":
                return self.node("LRN", [x], same, size=4, alpha=0.5)
            case "clip":
                if self.opset < 11:
                    return self.node("Clip", [x], same, min=0.0, max=0.5)
                bounds = [self.constant(np.array(v, np.float32)) for v in (0.0, 0.5)]
                return self.node("Clip", [x, *bounds], same)
            case "row":  # broadcasts along the width
                return self.node("Mul", [x, self.constant(self.numbers(width))], same)
            case _:
                return self.node("Sub", [x, self.node("AveragePool", [x], same, kernel_shape=[1, 1])], same)

    # Heads

    def head(self, x: str) -> str:
        channels, height, width = self.shapes[x]
        if self.chance(0.1):
            return x if self.nodes else self.relu(x)
        flat = channels, 1, 1
        match int(self.rng.integers(5)):
            case 0:
                x = self.flat(self.node("GlobalAveragePool", [x], flat))
            case 1 if self.opset < 18:
                x = self.node("ReduceMean", [x], flat, axes=self.one_of(([2, 3], [-1, -2])), keepdims=0)
            case 1:
                x = self.node("ReduceMean", [x, self.constant(np.array([2, 3], np.int64))], flat, keepdims=0)
            case 2:
                x = self.flat(self.node("AveragePool", [x], flat, kernel_shape=[height, width]))
            case _:
                x = self.flat(x)
        for _ in range(int(self.rng.integers(3))):
            x = self.linear(x)
            if self.chance(0.4) and self.opset >= 9:
                x = self.batch_norm(x)
            x = self.node("Relu", [x], self.shapes[x]) if self.chance(0.7) else x
        x = self.linear(x)
        if self.chance(0.5):
            x = self.node(
                "Softmax", [x], self.shapes[x], axis=self.one_of((1, -1)) if self.opset >= 11 else 1
            )
        return x

    def flat(self, x: str) -> str:
        shape = int(np.prod(self.shapes[x])), 1, 1
        ways = ["Flatten", "Reshape", "Reshape", "Shape"]
        if self.shapes[x][1:] == (1, 1):
            ways.append("Squeeze")
        match self.one_of(ways):
            case "Flatten":
                return self.node("Flatten", [x], shape)
            case "Squeeze" if self.opset < 13:
                return self.node("Squeeze", [x], shape, axes=[2, 3])
            case "Squeeze":
                return self.node("Squeeze", [x, self.constant(np.array([2, 3], np.int64))], shape)
            case "Shape":  # as exporters without folding write x.view(x.size(0), -1)
                size = self.node("Gather", [self.node("Shape", [x], shape), self.index(0)], shape, axis=0)
                one = self.unsqueeze(size, 0)
                rest = self.constant(np.array([-1], np.int64))
                return self.node("Reshape", [x, self.node("Concat", [one, rest], shape, axis=0)], shape)
        target = self.one_of(([0, -1], [-1, shape[0]], [0, shape[0]]))
        return self.node("Reshape", [x, self.constant(np.array(target, np.int64))], shape)

    def linear(self, x: str) -> str:
        inputs, outputs = self.shapes[x][0], int(self.rng.integers(6, 22))
        weight = self.weight(outputs, inputs)
        shape = outputs, 1, 1
        if self.chance(0.4):
            x = self.node("MatMul", [x, self.constant(weight.T)], shape)
            return (
                self.node("Add", [x, self.constant(self.numbers(outputs))], shape) if self.chance(0.7) else x
            )
        turned = self.one_of((0, 1))
        bias = self.one_of((self.numbers(outputs), self.numbers(1, outputs), self.numbers(1)))
        return self.node("Gemm", [x, self.constant(weight if turned else weight.T), self.constant(bias)], shape,
                         transB=turned, alpha=self.one_of((None, 0.5)), beta=self.one_of((None, 2.0)))  # fmt: skip
