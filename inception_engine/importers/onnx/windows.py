"""Sliding windows: ONNX's four ways to say padding -> Network's one, pads whose window positions are all inside.

Where ONNX Runtime or versions of the specification differ from each other, a window is refused:

- ``ceil_mode``: a last window that would start behind the image and its padding at the front is dropped, as opset 22
  says and as ONNX Runtime and PyTorch do in every opset. What hangs over at the end is no padding: it never counts
  for an average. With ``count_include_pad`` and pads an average would need two kinds of padding: refused.
- ``auto_pad = VALID`` with ``ceil_mode``: the formula rounds down, ONNX Runtime rounds up. Refused where it matters.
- ``SAME_UPPER`` and ``SAME_LOWER``: ceil(size / stride) in every opset, with or without ``ceil_mode``. A stride beyond
  the kernel would need negative pads (ONNX Runtime fails, or moves the window): refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from inception_engine.importers.onnx.graph import Node
from inception_engine.network import Pads, Pair

MAX_SIZE = 1 << 16  # of a kernel, stride or pad: more than any image has pixels in a line


@dataclass(frozen=True)
class Window:
    """``pads`` with what ``ceil_mode`` adds; ``declared``: without. ``overhang``: ``ceil_mode`` added something."""

    kernel: Pair
    stride: Pair
    pads: Pads
    declared: Pads
    overhang: bool


def window_of(node: Node, size: Pair, kernel: Pair | None = None) -> Window:
    """The window of a convolution (``kernel`` is that of its weight) or pool over an image of ``size``."""
    given = node.integers("kernel_shape")
    if kernel is None and given is None:
        raise node.failed("attribute kernel_shape is missing")
    if kernel is not None and given is not None and given != kernel:
        raise node.failed(f"attribute kernel_shape = {list(given)}, but the weight is of {list(kernel)}")
    height, width = _two(node, "kernel_shape", kernel or given)
    stride = _two(node, "strides", node.integers("strides") or (1, 1))
    dilations = node.integers("dilations")
    if dilations is not None and set(dilations) != {1}:
        raise node.unsupported("dilations", list(dilations))
    ceil = node.integer("ceil_mode", 0) if kernel is None else 0
    mode = node.text("auto_pad", "NOTSET")
    pads = node.integers("pads") or (0, 0, 0, 0)
    if len(pads) != 4 or min(pads) < 0 or max(pads) > MAX_SIZE:
        raise node.unsupported("pads", list(pads), "four numbers that are not negative are")
    if mode not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise node.unsupported("auto_pad", mode)
    if mode != "NOTSET" and any(pads):
        raise node.failed(f"attribute auto_pad = {mode} together with pads")
    sides = []
    for axis, (k, s) in enumerate(zip((height, width), stride, strict=True)):
        before, after = pads[axis], pads[axis + 2]
        if mode.startswith("SAME"):
            total = (-(-size[axis] // s) - 1) * s + k - size[axis]
            if total < 0:
                raise node.unsupported(
                    "auto_pad", mode, f"with stride {s} beyond the kernel, {k}, on {size[axis]}"
                )
            before = total // 2 if mode == "SAME_UPPER" else total - total // 2
            after = total - before
        sides.append((before, after, _hanging(size[axis], k, s, before, after) if ceil else 0))
    (top, bottom, below), (left, right, beside) = sides
    if mode == "VALID" and (below or beside):
        raise node.unsupported("ceil_mode", ceil, "with auto_pad = VALID it is not clear how to round")
    declared = (top, left, bottom, right)
    padded = (top, left, bottom + below, right + beside)
    return Window((height, width), stride, padded, declared, bool(below or beside))


def _hanging(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """How far a last window that ceil_mode adds reaches beyond the padding."""
    outputs = -(-(size + before + after - kernel) // stride) + 1
    if (outputs - 1) * stride >= size + before:
        outputs -= 1
    reached = (outputs - 1) * stride + kernel - size - before
    return max(reached - after, 0)


def _two(node: Node, name: str, values: tuple[int, ...] | None) -> Pair:
    if values is None or len(values) != 2:
        raise node.unsupported(name, list(values or ()), "two numbers are: height and width")
    if not all(1 <= value <= MAX_SIZE for value in values):
        raise node.unsupported(name, list(values))
    return values[0], values[1]


def output_size(node: Node, size: Pair, kernel: Pair, stride: Pair, pads: Pads) -> Pair:
    """Raises ImportFailed where no window fits."""
    height = (size[0] + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    width = (size[1] + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
    if height < 1 or width < 1:
        raise node.failed(f"kernel {list(kernel)} is larger than its padded input, {size[0]} x {size[1]}")
    return height, width


def sum_pads(a: Pads, b: Pads) -> Pads:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]
