"""ONNX models through ``load_network`` and the parity check: the file's own normalisation, channels last, float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inception_engine import ImportFailed, Preprocess, cli, googlenet, load_network

onnx = pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")

from onnx import ModelProto, helper, numpy_helper  # noqa: E402 - needs onnx

from inception_engine.exporters.onnx import to_onnx  # noqa: E402
from inception_engine.importers import unfolded  # noqa: E402
from inception_engine.importers.formats import import_file  # noqa: E402
from inception_engine.importers.imported import Options  # noqa: E402
from inception_engine.importers.onnx import import_onnx  # noqa: E402
from inception_engine.importers.parity import ParityFailed, check  # noqa: E402

NETWORK = googlenet(width=0.1, classes=4, input_size=32, third_branch=3)


def model(front: bool = False, batch: int | None = None) -> ModelProto:
    """Our own export; with ``front``, 2 x - 0.1 before its first layer."""
    made = to_onnx(NETWORK)
    del made.metadata_props[:]
    if front:
        for name, value in (("scale", 2.0), ("shift", -0.1)):
            made.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        for node in made.graph.node:
            node.input[:] = ["normalised" if name == "input" else name for name in node.input]
        made.graph.node.insert(0, helper.make_node("Mul", ["input", "scale"], ["scaled"]))
        made.graph.node.insert(1, helper.make_node("Add", ["scaled", "shift"], ["normalised"]))
    if batch is not None:
        for value in (made.graph.input[0], made.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return made


@pytest.mark.parity
@pytest.mark.parametrize(
    ("options", "batch"), [({}, None), ({"mean": (1.0, 2.0, 3.0), "std": (60.0,)}, 1), ({"order": "BGR"}, 3)]
)
@pytest.mark.parametrize("front", [False, True], ids=["plain", "normalises"])
def test_check_passes(front: bool, options, batch: int | None, tmp_path: Path) -> None:
    onnx.save(model(front, batch), tmp_path / "a.bin")
    imported = import_file(tmp_path / "a.bin", Options(**options))
    report = check(imported)
    assert report.passed, "\n".join(report.lines())
    assert report.spread > 1e-3 and "graph optimisations off" in report.against
    if not front:
        assert imported.network.preprocess == Preprocess(**options)


@pytest.mark.parity
@pytest.mark.parametrize("io", ["fp32", "fp16"])
def test_weights_in_float16(io: str, tmp_path: Path) -> None:
    to_onnx(NETWORK, tmp_path / "a.onnx", dtype="fp16", io=io)
    report = check(import_file(tmp_path / "a.onnx", Options()))
    assert report.passed and "float16" in report.against
    assert report.rows[0].error > unfolded.ONNX_TOLERANCE  # so the wider tolerance is needed


@pytest.mark.parity
def test_check_fails_for_another_network(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "a.onnx")
    result = import_onnx(tmp_path / "a.onnx")
    other = to_onnx(googlenet(seed=1, width=0.1, classes=4, input_size=32, third_branch=3))
    onnx.save(other, tmp_path / "b.onnx")
    from inception_engine.importers.imported import Imported

    source = unfolded.onnx_source(tmp_path / "b.onnx", result, None)
    assert not check(Imported(network=result.network, description="", source=source)).passed


@pytest.mark.parity
def test_a_wrong_front_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(model(front=True), tmp_path / "a.onnx")
    from inception_engine.importers.onnx.front import Front

    monkeypatch.setattr(Front, "preprocess", lambda self, file: file)
    with pytest.raises(ParityFailed):
        load_network(tmp_path / "a.onnx", mean=[1], std=[60], check=True)


def test_command_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model(), tmp_path / "a.onnx")
    (tmp_path / "labels").write_text("a\nb\nc\nd")
    arguments = "--network", str(tmp_path / "a.onnx"), "--labels", str(tmp_path / "labels"), "--resize", "40"
    assert cli.main(["build", "-o", str(tmp_path / "a.plan"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "an ONNX model" in out and "parity with ONNX Runtime, float32" in out
    network = load_network(tmp_path / "a.onnx", labels=tmp_path / "labels")
    assert network.labels == ("a", "b", "c", "d")
    with pytest.raises(ImportFailed, match="transform_input is given"):
        load_network(tmp_path / "a.onnx", transform_input=True)
    (tmp_path / "a.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:-100])
    assert cli.main(["build", "-o", str(tmp_path / "b.plan"), "--network", str(tmp_path / "a.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
