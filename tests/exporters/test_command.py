"""`inception export onnx`: from a checkpoint to a checked ONNX model."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_engine import cli, googlenet, load_network
from inception_engine.exporters import onnx_parity

onnx = pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")
torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")

from tests.importers.torchvision_model import trained_googlenet  # noqa: E402 - needs torch

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("export") / "a.safetensors"
    googlenet(width=0.1, input_size=32, classes=4).save(path)
    return str(path)


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["export", "onnx", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_checkpoint_becomes_onnx(capsys: Captured, tmp_path: Path) -> None:
    torch.save(trained_googlenet(3, width=8).state_dict(), tmp_path / "a.pth")
    (tmp_path / "labels").write_text("a\nb\nc")
    options = "--input-size", "64", "--labels", str(tmp_path / "labels"), "--opset", "18"
    status, out, err = run(capsys, str(tmp_path / "a.pth"), "-o", str(tmp_path / "a.onnx"), *options)
    assert (status, err) == (0, "")
    assert (
        "parity with PyTorch" in out and "ONNX Runtime, fp32   max|d|/max|ref|" in out and "opset 18" in out
    )
    network = load_network(tmp_path / "a.pth", input_size=64, labels=tmp_path / "labels")
    returned = load_network(tmp_path / "a.onnx", input_size=64, check=True)
    assert returned.labels == network.labels == ("a", "b", "c")
    assert returned.preprocess == network.preprocess


@pytest.mark.parametrize(
    "options",
    [("--dtype", "fp16"), ("--dtype", "fp16", "--io", "fp16"), ("--preprocess", "--classes", "softmax")],
    ids=" ".join,
)
def test_options(options: tuple[str, ...], network: str, capsys: Captured, tmp_path: Path) -> None:
    target = tmp_path / "a.onnx"
    status, out, err = run(capsys, network, "-o", str(target), *options)
    assert (status, err) == (0, "")
    assert "top-1 the same on" in out and "random" in out
    output = onnx.load(target).graph.output[0]
    assert output.name == ("probabilities" if "softmax" in options else "logits")
    half = output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert half == ("--io" in options)


def test_failed_parity_writes_nothing(
    network: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_parity.TOLERANCES, "fp32", 1e-12)
    target = tmp_path / "a.onnx"
    target.write_bytes(b"old")
    status, out, err = run(capsys, network, "-o", str(target))
    assert status == 1 and "FAILED" in out and err.endswith(f"{target} is not written\n")
    assert target.read_bytes() == b"old"
    status, out, _ = run(capsys, network, "-o", str(target), "--no-check")
    assert status == 0 and "not checked" in out and target.read_bytes() != b"old"


MISTAKES = [
    (),
    ("{network}",),
    ("{network}", "-o", "{tmp}"),
    ("{network}", "-o", "{network}"),
    ("{network}", "-o", "{tmp}/no/folder/a.onnx"),
    ("{network}", "-o", "{tmp}/a", "--opset", "9"),
    ("{network}", "-o", "{tmp}/a", "--opset", "1000"),
    ("{network}", "-o", "{tmp}/a", "--dtype", "bf16"),
    ("{network}", "-o", "{tmp}/a", "--io", "fp16"),
    ("{network}", "-o", "{tmp}/a", "--classes", "best"),
    ("{tmp}/missing.pth", "-o", "{tmp}/a"),
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_mistakes_are_one_line_and_status_2(
    arguments: tuple[str, ...], network: str, capsys: Captured, tmp_path: Path
) -> None:
    status, _, err = run(capsys, *(part.format(network=network, tmp=tmp_path) for part in arguments))
    assert status == 2
    assert err.startswith("inception: error: ") and err.count("\n") == 1 and len(err) < 400
    assert list(tmp_path.iterdir()) == []
