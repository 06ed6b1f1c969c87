"""Files that are refused: each with one line that names what, and before memory or time is spent on them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")

import onnx
from onnx import TensorProto, helper, numpy_helper

from inception_engine.importers.onnx import ImportFailed, file, from_onnx
from inception_engine.network import Network
from tests.importers.graphs import conv, image_info, model, node, weights

W = {"w": weights(4, 3, 3, 3)}
GOOD = model([conv(), node("Relu", ["conv"], "relu")], W)


def refused(content: bytes | str | Path) -> str:
    """The message: one line, and not too long to read."""
    with pytest.raises(ImportFailed) as failure:
        from_onnx(content)
    message = str(failure.value)
    assert "\n" not in message and 0 < len(message) < 700
    return message


def changed(change: Callable[[onnx.ModelProto], object], content: bytes = GOOD) -> bytes:
    proto = onnx.load_from_string(content)
    change(proto)
    return proto.SerializeToString()


def test_the_file_that_the_tests_below_break_is_good() -> None:
    assert isinstance(from_onnx(GOOD), Network)


# Not such a file


def test_every_prefix_is_refused() -> None:
    small = model([conv(weight="v")], {"v": weights(1, 3, 1, 1)})
    for end in range(len(small) - 1):
        refused(small[:end])


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"PK\x03\x04" + b"x" * 60,
                                     b"\xff" * 200, b"hello, this is text and no model at all"])  # fmt: skip
def test_not_onnx(content: bytes) -> None:
    assert "not an ONNX file" in refused(content) or "truncated" in refused(content)


def test_random_bytes_inside() -> None:
    """Whatever one byte becomes, it is a network or one line."""
    rng = np.random.default_rng(0)
    small = bytearray(model([conv(weight="v"), node("Relu", ["conv"], "relu")], {"v": weights(1, 3, 1, 1)}))
    for _ in range(1500):
        at, value = int(rng.integers(len(small))), int(rng.integers(256))
        content = bytes(small[:at]) + bytes([value]) + bytes(small[at + 1 :])
        with suppress(ImportFailed):
            assert isinstance(from_onnx(content), Network)


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "missing.onnx")
    with pytest.raises(OSError, match="directory"):
        from_onnx(tmp_path)
    good = tmp_path / "good.onnx"
    good.write_bytes(GOOD)
    assert from_onnx(good).name == from_onnx(str(good)).name == "test"
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(GOOD[:50])
    assert refused(bad).startswith(f"{bad}: truncated")
    assert "not a file" in refused("/dev/zero")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        assert "not a file" in refused(pipe)
    finally:
        os.close(writer)


# Graphs


def two(first: onnx.NodeProto, second: onnx.NodeProto) -> bytes:
    return model([first, second], W)


GRAPHS: dict[str, tuple[bytes, str]] = {
    "cycle": (
        model([node("Relu", ["b"], "a"), node("Relu", ["a"], "b")]),
        r"node [ab] \(Relu\): depends on its own output",
    ),
    "disconnected": (
        model([conv("nowhere"), conv(output="end")], W, outputs=["conv"]),
        r"node conv \(Conv\): input nowhere: there is no such value",
    ),
    "not from the image": (
        model([node("Relu", ["w"], "relu")], W),
        r"node relu \(Relu\): the op is not supported|depends on an input",
    ),
    "constant output": (model([node("Identity", ["w"], "end")], W), "no output depends on an input"),
    "output that nothing makes": (model([conv()], W, outputs=["other"]), "output other: no node makes it"),
    "no output": (model([conv()], W, outputs=[]), "the graph has no output"),
    "no nodes": (changed(lambda m: m.graph.ClearField("node")), "the graph has no nodes"),
    "the image is the output": (model([node("Identity", ["image"], "end")]), "no layer computes it"),
    "value named twice": (two(conv(), conv()), r"node conv \(Conv\): value conv: the name is given twice"),
    "value named as the input": (two(conv(), conv(output="image")), "value image: the name is given twice"),
    "tensor named twice": (
        changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "tensor w: the name is given twice",
    ),
    "tensor named as a value": (two(conv(), conv(output="w")), r"node w \(Conv\): value w: the name"),
    "output named twice": (model([conv()], W, outputs=["conv", "conv"]), "an output is named twice"),
    "two inputs": (
        changed(
            lambda m: m.graph.input.append(image_info((1, 3, 8, 8), name="more")),
            model([conv(), conv("more", "b"), node("Concat", ["conv", "b"], "end", axis=1)], W),
        ).replace(b"", b""),
        "has several inputs: image, more",
    ),
    "missing tensor": (model([conv()]), r"node conv \(Conv\): input w: there is no such value or tensor"),
    "no weight": (model([node("Conv", ["image", ""], "conv")]), "input 2 is missing"),
    "weight from the image": (model([conv(weight="image")]), "input image depends on the image"),
    "function": (
        changed(lambda m: m.functions.append(helper.make_function("mine", "f", [], [], [], []))),
        r"functions of its own \(f\)",
    ),
    "custom domain": (
        model([node("Conv", ["image", "w"], "conv", domain="com.microsoft")], W,
              opset_imports=[helper.make_opsetid("com.microsoft", 1)]),
        r"node conv \(Conv\): operators of the domain com.microsoft",
    ),
    "old opset": (model([conv()], W, opset=6), "opset 6 is not supported: 7 to"),
    "newer opset": (model([conv()], W, opset=999), "opset 999 is not supported"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), "does not say which version"),
    "loop": (
        model([helper.make_node("Loop", ["", "", "image"], ["end"], name="loop",
                                body=helper.make_graph([node("Relu", ["x"], "y")], "body", [], []))]),
        r"node loop \(Loop\): the op is not supported",
    ),
    "if": (
        model([node("Greater", ["image", "w"], "c"),
               helper.make_node("If", ["c"], ["end"], name="if",
                                then_branch=helper.make_graph([node("Relu", ["image"], "y")], "then", [], []))], W),
        r"node c \(Greater\): the op is not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str) -> None:
    content, message = GRAPHS[name]
    with pytest.raises(ImportFailed, match=message):
        from_onnx(content)
    refused(content)


# Inputs


@pytest.mark.parametrize("kind", ["INT64", "UINT8", "DOUBLE", "STRING", "COMPLEX64"])
def test_images_that_are_not_float(kind: str) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].CopyFrom(image_info((1, 3, 8, 8), TensorProto.DataType.Value(kind)))

    assert f"input image: is of type {kind}; FLOAT and FLOAT16" in refused(changed(change))


@pytest.mark.parametrize(
    "dims", [(3, 8, 8), (1, 3, 8, 8, 8), (1, 3, -8, 8), (1, 3, 2**40, 8), (1, 3, 2**20, 2**20)]
)
def test_shapes_of_the_image(dims: tuple[int, ...]) -> None:
    assert "input image: its shape is" in refused(model([conv()], W, dims=dims))


def test_a_sequence_of_images() -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].CopyFrom(
            helper.make_tensor_sequence_value_info("image", TensorProto.FLOAT, None)
        )

    assert "input image: is not a tensor" in refused(changed(change))


# Nodes


NODES: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "group": ([conv(group=3)], r"node conv \(Conv\): attribute group = 3 is not supported; grouped convolution"),
    "dilations": ([conv(dilations=[2, 2])], r"attribute dilations = \[2, 2\] is not supported"),
    "dilated pool": (
        [node("MaxPool", ["image"], "p", kernel_shape=[2, 2], dilations=[1, 2])],
        r"node p \(MaxPool\): attribute dilations"),
    "negative pads": ([conv(pads=[-1, 0, 0, 0])], r"attribute pads = \[-1, 0, 0, 0\] is not supported"),
    "huge pads": ([conv(pads=[2**40, 0, 0, 0])], "attribute pads"),
    "pads of one side": ([conv(pads=[1, 1])], "attribute pads"),
    "zero stride": ([conv(strides=[0, 1])], r"attribute strides = \[0, 1\]"),
    "huge kernel": ([node("MaxPool", ["image"], "p", kernel_shape=[2**33, 1])], "attribute kernel_shape"),
    "no kernel": ([node("MaxPool", ["image"], "p")], "attribute kernel_shape is missing"),
    "another kernel": ([conv(kernel_shape=[5, 5])], r"kernel_shape = \[5, 5\], but the weight is of \[3, 3\]"),
    "kernel beyond the image": (
        [node("MaxPool", ["image"], "p", kernel_shape=[9, 9])], "larger than its padded input, 8 x 8"),
    "windows without pixels": (
        [node("MaxPool", ["image"], "p", kernel_shape=[2, 2], pads=[2, 0, 0, 0])], "without a pixel"),
    "auto_pad": ([conv(auto_pad="SOME")], "attribute auto_pad = SOME"),
    "unknown attribute": ([conv(speed=3)], "attribute speed = 3 is not supported"),
    "attribute of another type": ([conv(group=1.5)], "attribute group is not of the type"),
    "indices": (
        [helper.make_node("MaxPool", ["image"], ["p", "i"], name="p", kernel_shape=[2, 2]), node("Relu", ["i"], "r")],
        r"node p \(MaxPool\): output i is not supported"),
    "more inputs": ([node("LRN", ["image", "w"], "l", size=3)], r"node l \(LRN\): 2 inputs and 1 outputs"),
    "fewer inputs": ([node("Add", ["image"], "a")], r"node a \(Add\): 1 inputs"),
    "no such op": ([node("Convolution", ["image", "w"], "c")], r"node c \(Convolution\): the op is not .*; opset"),
    "three axes": ([node("MaxPool", ["image"], "p", kernel_shape=[2, 2, 2])], "two numbers are: height and width"),
    "even lrn": ([node("LRN", ["image"], "l", size=4)], "attribute size = 4 is not supported"),
    "residual": ([conv(), node("Add", ["conv", "conv"], "a")], r"node a \(Add\): combines two values"),
    "training": (
        [node("BatchNormalization", ["image", *"ssss"], "b", training_mode=1)], "attribute training_mode = 1"),
    "variance": ([node("BatchNormalization", ["image", "s", "s", "s", "negative"], "b")],
                 "tensor negative holds a variance that is not positive"),
    "softmax": ([node("Softmax", ["image"], "last", axis=1)], r"node last \(Softmax\): attribute axis"),
    "softmax over the width": (
        [node("GlobalAveragePool", ["image"], "g"), node("Softmax", ["g"], "last")], "attribute axis = -1"),
    "mean of channels": ([node("ReduceMean", ["image"], "m", axes=[1])], r"attribute axes = \[1\] is not supported"),
    "reshape": ([node("Reshape", ["image", "shape"], "r")], r"reshapes \(batch, 3, 8, 8\) to \[0, 5, -1\]"),
    "concat": ([node("Concat", ["image", "image"], "c", axis=2)], "attribute axis = 2 is not supported"),
    "concat of the image without end": (
        [node("Concat", [f"c{i - 1}" if i else "image"] * 2, f"c{i}", axis=1) for i in range(40)],
        "concatenates the image to more than 1,048,576 channels",
    ),
    "concat of sizes": ([conv(), node("Relu", ["image"], "r"), node("Concat", ["conv", "r"], "c", axis=1)],
                        "different sizes or ranks: 4 x 6 x 6, 3 x 8 x 8"),
    "row": ([conv(), node("Mul", ["conv", "row"], "m")], r"constant of shape \(6,\) is not one value for each of 4"),
    "more channels": ([conv(), node("Mul", ["conv", "s"], "m")], r"constant of shape \(3, 1, 1\)"),
    "divisor": ([conv(), node("Div", ["one", "conv"], "d")], "divides a constant"),
    "by zero": ([conv(), node("Div", ["conv", "zero"], "d")], r"node d \(Div\): .* not finite"),
    "reflection": ([node("Pad", ["image", "pads"], "p", mode="reflect"), conv("p")], "attribute mode = reflect"),
    "padding with ones": ([node("Pad", ["image", "pads", "one"], "p"), conv("p")], "padded with 1.0"),
    "cropping": ([node("Pad", ["image", "crop"], "p"), conv("p")], r"attribute pads = \[0, 0, -1"),
    "padded at the end": ([conv(), node("Pad", ["conv", "pads"], "p")], "is padded, and no layer follows"),
    "flat convolution": ([node("Flatten", ["image"], "f"), conv("f")], "input f is not of shape (batch, channels"),
    "image times matrix": (
        [node("MatMul", ["image", "matrix"], "m")], r"input image is not of shape \(batch, features\)"),
    "matrix of others": ([node("Flatten", ["image"], "f"), node("MatMul", ["f", "matrix"], "m")],
                         "weight matrix takes 5 features, its input has 192"),
    "constant first": (
        [node("Flatten", ["image"], "f"), node("Gemm", ["matrix", "f"], "m")], "the first factor is a constant"),
    "cut": ([node("Slice", ["image", "start", "end", "rows"], "c"), conv("c")], "cuts pixels off the image"),
    "sigmoid": ([conv(), node("Sigmoid", ["conv"], "last")], r"node last \(Sigmoid\): the op is not supported"),
    "quantised": ([node("QuantizeLinear", ["image", "one"], "q")], r"node q \(QuantizeLinear\): the op is not"),
    "relu6": ([conv(), node("Clip", ["conv", "zero", "six"], "c")], "clips to 0.0 .. 6.0"),
    "integers": ([conv(weight="whole")], "input whole does not hold floats"),
}  # fmt: skip

TENSORS = {
    **W, "s": np.ones((3, 1, 1), np.float32), "row": np.ones(6, np.float32), "one": np.array(1, np.float32),
    "zero": np.array(0, np.float32), "six": np.array(6, np.float32), "matrix": weights(5, 4),
    "negative": np.full(3, -1, np.float32), "shape": np.array([0, 5, -1], np.int64),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "crop": np.array([0, 0, -1, 1, 0, 0, 1, 1], np.int64),
    "start": np.array([1], np.int64), "end": np.array([4], np.int64), "rows": np.array([2], np.int64),
    "whole": np.ones((4, 3, 3, 3), np.int64),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_nodes(name: str) -> None:
    nodes, message = NODES[name]
    tensors = {**TENSORS, "s": TENSORS["s"].reshape(3)} if name in ("training", "variance") else TENSORS
    content = model(nodes, tensors)
    with pytest.raises(ImportFailed, match=message.replace("(batch, channels", r"\(batch, channels")):
        from_onnx(content)
    refused(content)


def test_shape_of_weights() -> None:
    for shape in ((4, 3, 3), (4, 2, 3, 3), (4, 3, 0, 3)):
        message = refused(model([conv()], {"w": np.ones(shape, np.float32)}))
        assert "node conv (Conv)" in message
    bias = node("Conv", ["image", "w", "b"], "conv")
    assert "bias of shape (5,)" in refused(model([bias], {**W, "b": np.ones(5, np.float32)}))


# Tensors


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    w = weights(4, 3, 3, 3)
    w[1, 2, 0, 1] = value
    assert refused(model([conv()], {"w": w})) == "node conv (Conv): tensor w holds NaN or infinity"
    gain = np.array([1, 1, value, 1], np.float32)
    norm = {"s": gain, "z": np.zeros(4, np.float32), "v": np.ones(4, np.float32)}
    nodes = [conv(), node("BatchNormalization", ["conv", "s", "z", "z", "v"], "norm")]
    assert "tensor s holds NaN or infinity" in refused(model(nodes, {**W, **norm}))
    assert "tensor big holds" in refused(model([conv(weight="big")], {"big": np.full((4, 3, 1, 1), 1e300)}))


def test_folding_that_leaves_float32_is_named() -> None:
    norm = {
        "s": np.full(4, 3e38, np.float32),
        "z": np.zeros(4, np.float32),
        "v": np.full(4, 1e-5, np.float32),
    }
    nodes = [conv(), node("BatchNormalization", ["conv", "s", "z", "z", "v"], "norm")]
    assert refused(model(nodes, {**W, **norm})).startswith("layer conv: folding")


def with_tensor(change: Callable[[TensorProto], object]) -> bytes:
    return changed(lambda m: change(m.graph.initializer[0]))


def test_tensors_whose_data_does_not_fit() -> None:
    assert "tensor w: holds 4 bytes, its shape [4, 3, 3, 3] takes 432" in refused(
        with_tensor(lambda t: setattr(t, "raw_data", b"1234"))
    )

    def typed(tensor: TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.float_data.extend([1.0, 2.0])

    assert "tensor w: holds 2 values" in refused(with_tensor(typed))
    assert "tensor w: its shape is [-4, 3, 3, 3]" in refused(with_tensor(lambda t: t.dims.__setitem__(0, -4)))
    assert "takes" in refused(with_tensor(lambda t: t.dims.__setitem__(0, 2**62)))


def set_type(tensor: TensorProto, number: int) -> None:
    tensor.data_type = number


def test_types_of_tensors() -> None:
    for kind in ("STRING", "COMPLEX64", "UINT8", "FLOAT8E4M3FN", "INT4"):
        number = TensorProto.DataType.Value(kind)
        assert f"tensor w: {kind} is not supported" in refused(with_tensor(partial(set_type, number=number)))
    assert "type 99 is not supported" in refused(with_tensor(partial(set_type, number=99)))


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin", "", "C:\\x", "a\0b"])
@pytest.mark.parametrize("constant", [False, True])
def test_external_data_is_refused_and_not_opened(
    location: str, constant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if constant:
        content = model([node("Constant", [], "w", value=tensor), conv()])
    else:
        content = changed(lambda m: m.graph.initializer.append(tensor), model([conv()]))
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    opened: list[object] = []
    real = open

    def watched(name, *arguments, **options):
        opened.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr("builtins.open", watched)
    message = refused(path)
    assert "tensor w: its data lies in another file" in message
    assert opened == [path]


def test_sparse_and_segmented_tensors() -> None:
    def sparse(proto: onnx.ModelProto) -> None:
        entry = proto.graph.sparse_initializer.add()
        entry.values.name = "s"

    assert "tensor s: sparse tensors" in refused(changed(sparse))
    assert "tensor w: stored in segments" in refused(with_tensor(lambda t: setattr(t.segment, "begin", 1)))
    attribute = helper.make_node("Constant", [], ["w"], name="c",
                                 sparse_value=helper.make_sparse_tensor(numpy_helper.from_array(weights(1), "v"),
                                                                        numpy_helper.from_array(np.zeros(1, np.int64)),
                                                                        [1]))  # fmt: skip
    assert "node c (Constant): attribute sparse_value" in refused(model([attribute, conv()]))


# Bombs: refused in bounded memory


def bombs() -> dict[str, tuple[bytes, str]]:
    huge = np.array([2**20, 2**20], np.int64)
    most = 1 << 23  # elements: as many as a small file may make at once, and so few may follow
    many = [node("ConstantOfShape", ["shape"], "c0")]
    many += [node("Add", ["c0", "c0"], f"c{i}") for i in range(1, 200)]
    many += [node("Concat", [f"c{i}" for i in range(200)], "w", axis=0), conv()]
    wide = [conv(output="conv0"), *(conv(f"conv{i - 1}", f"conv{i}", "big") for i in range(1, 300))]
    shapes = {"shape": np.array([most], np.int64), "size": np.array([1, most], np.int64)}
    return {
        "constant of shape": (model([node("ConstantOfShape", ["huge"], "w"), conv()], {"huge": huge}), "a constant of"),
        "negative shape": (
            model([node("ConstantOfShape", ["n"], "w"), conv()], {"n": np.array([-1], np.int64)}), "a constant of -1"),
        "expand": (
            model([node("Expand", ["one", "huge"], "w"), conv()], {"one": weights(1), "huge": huge}), "a constant of"),
        "reshape": (
            model([node("ConstantOfShape", ["shape"], "c"), node("Reshape", ["c", "huge"], "w"), conv()],
                  {**shapes, "huge": huge}), "cannot be computed"),
        "outer sum": (
            model([node("ConstantOfShape", ["shape"], "a"), node("Reshape", ["a", "column"], "b"),
                   node("Add", ["a", "b"], "w"), conv()], {**shapes, "column": np.array([-1, 1], np.int64)}),
            "a constant of"),
        "many": (model(many, shapes), "a constant of|many times more weights"),
        "shared weights": (
            model(wide, {"w": weights(256, 3, 1, 1), "big": weights(256, 256, 1, 1)}), "many times more"),
        "identities": (
            model([node("Flatten", ["image"], "f"), node("Relu", ["f"], "r"),
                   node("BatchNormalization", ["r", *"ssss"], "e")],
                  {"s": np.ones(3 * 128 * 128, np.float32)}, dims=(1, 3, 128, 128)), "many times more"),
        "chunks": (
            model([node("Gather", ["c", "i"], "w", axis=0), conv()],
                  {"c": weights(1 << 12, 64), "i": np.zeros(1 << 20, np.int64)}), "a constant of"),
        "nodes": (
            model([node("Relu", ["image"], f"r{i}") for i in range(file.MAX_NODES + 1)]), "20,001 nodes, more than"),
        "tensors": (
            changed(lambda m: m.graph.initializer.extend(
                TensorProto(name=f"t{i}", data_type=1, dims=[0]) for i in range(file.MAX_TENSORS)), GOOD),
            "more than 40,000 tensors"),
        "fields": (
            b"\x3a\x80\x89\x7a" + b"\x0a\x00" * file.MAX_FIELDS, "more than 1,000,000 fields"),
        "depth": (_nested(40), "nested deeper than"),
    }  # fmt: skip


def _nested(depth: int) -> bytes:
    """Graphs in attributes of nodes of graphs: field 7 of a model, then 1, 5 and 6 again and again."""
    content = b""
    for number in (*(6, 5, 1) * depth, 7):
        size = len(content)
        length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
        content = bytes([number << 3 | 2]) + length + content
    return content


LIMIT = 600 << 20  # bytes of address space beyond what the imports take; every bomb asks for far more


def test_bombs_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    """In a process whose memory is limited: a bomb that goes off is a MemoryError and no line of its own."""
    cases = bombs()
    for name, (content, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    script = textwrap.dedent(
        f"""
        import resource, sys
        from pathlib import Path
        from inception_engine.importers.onnx import ImportFailed, from_onnx
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + {LIMIT},) * 2)
        for path in sys.argv[1:]:
            try:
                from_onnx(path)
                print("accepted")
            except ImportFailed as error:
                print(error)
        """
    )
    paths = [str(tmp_path / name) for name in cases]
    result = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    assert len(lines) == len(cases)
    for (name, (_, message)), line in zip(cases.items(), lines, strict=True):
        assert any(part in line for part in message.split("|")), f"{name}: {line}"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with open(path, "wb") as large:
        large.truncate(file.MAX_BYTES + 1)  # sparse: it takes no room on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"more than {file.MAX_BYTES:,}" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
