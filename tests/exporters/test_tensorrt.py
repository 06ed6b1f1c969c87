"""What TensorRT is asked to build, by a stand-in that records it; the file and its record; the command."""

from __future__ import annotations

import ctypes
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from inception_engine import cli, googlenet, load
from inception_engine.errors import BackendError
from inception_engine.exporters import nvidia, tensorrt_file
from inception_engine.exporters.errors import ExportError
from inception_engine.exporters.nvidia import Gpu
from inception_engine.exporters.tensorrt_file import Machine
from inception_engine.network import Network
from tests.exporters.recording_tensorrt import Builds, install

onnx = pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
pytest.importorskip("polygraphy", reason="backend tensorrt: polygraphy is not installed")

from inception_engine.exporters import tensorrt as exporter  # noqa: E402 - needs onnx
from inception_engine.exporters.onnx import to_onnx  # noqa: E402
from inception_engine.exporters.tensorrt import Batches, prepare, to_tensorrt  # noqa: E402

GPU = Gpu("NVIDIA H100 80GB HBM3", "9.0", "570.86.15")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def network() -> Network:
    return googlenet(width=0.1, input_size=32, classes=10)


@pytest.fixture
def saved(network: Network, tmp_path: Path) -> Path:
    network.save(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.fixture(params=["10.13.3.9", "11.1.0.106"])
def builds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Builds:
    monkeypatch.setattr(tensorrt_file, "current_gpu", lambda: GPU)
    return install(monkeypatch, request.param)


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["export", "tensorrt", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_what_is_built(builds: Builds, network: Network, dtype: str) -> None:
    import tensorrt

    build = prepare(network, dtype=dtype, batches=Batches(2, 4, 16), workspace=256)
    exporter.engine_bytes(build)
    strongly_typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert builds.network_flags == [strongly_typed]
    assert builds.profiles == [{"input": ((2, 3, 32, 32), (4, 3, 32, 32), (16, 3, 32, 32))}]
    assert builds.flags == []  # no precision but the model's
    assert builds.cleared == ["TF32"]
    assert builds.limits == {"WORKSPACE": 256 << 20}
    graph = onnx.load_model_from_string(builds.models[0]).graph
    wanted = onnx.TensorProto.FLOAT16 if dtype == "fp16" else onnx.TensorProto.FLOAT
    assert {tensor.data_type for tensor in graph.initializer} == {wanted}
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_without_a_limit_none_is_set(builds: Builds, network: Network) -> None:
    exporter.engine_bytes(prepare(network))
    assert builds.limits == {}
    assert builds.profiles[0]["input"][0][0] == 1


def test_the_timing_cache_is_read_added_to_and_replaced_whole(
    builds: Builds, network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "cache"
    exporter.engine_bytes(prepare(network, timing_cache=path))
    assert path.read_bytes() == b"measured;"
    exporter.engine_bytes(prepare(network, timing_cache=path))
    assert b"measured;" in builds.caches_read
    assert path.read_bytes() == b"measured;measured;"
    builds.builds = False
    with pytest.raises(ExportError):
        exporter.engine_bytes(prepare(network, timing_cache=path))
    assert path.read_bytes() == b"measured;measured;"
    assert list(tmp_path.iterdir()) == [path]
    builds.builds = True
    path.write_bytes(b"older and longer than the new one")
    exporter.engine_bytes(prepare(network, timing_cache=path))
    assert path.read_bytes() == b"older andmeasured;"


def test_command_writes_engine_record_and_model(
    builds: Builds, saved: Path, network: Network, capsys: Captured
) -> None:
    path = saved.with_name("small.engine")
    status, out, err = run(capsys, saved, "-o", path, "--dtype", "fp16", "--batches", "1,2,3")
    assert (status, err) == (0, "")
    record, engine = tensorrt_file.read(path)
    model = path.with_name("small.engine.onnx").read_bytes()
    assert engine.endswith(model)
    assert record.machine.gpu == GPU.name
    assert record.machine.compute_capability == "9.0"
    assert record.machine.driver == GPU.driver
    assert record.machine.tensorrt.startswith(("10.", "11."))
    assert (record.dtype, record.batches, record.input_shape) == ("fp16", (1, 2, 3), (3, 32, 32))
    assert record.outputs == {"logits": (10, 1, 1)}
    assert record.random_weights and "random" in out
    assert shlex.split(out.splitlines()[-1]) == shlex.split(record.trtexec)
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    with load(path) as backend, load(network, "reference") as reference:
        assert backend.name == "tensorrt" and GPU.name in backend.description
        expected = reference.run(images)
        logits = backend.run(images)
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 2e-2
    assert builds.deserialised[-1] == engine


def test_json_is_the_record(builds: Builds, saved: Path, capsys: Captured) -> None:
    status, out, _ = run(capsys, saved, "-o", saved.with_name("e"), "--json", "--no-check")
    assert status == 0
    assert json.loads(out)["machine"]["gpu"] == GPU.name
    assert builds.deserialised == []


def test_an_engine_that_computes_something_else_is_not_written(
    builds: Builds, saved: Path, capsys: Captured
) -> None:
    builds.spoil = True
    path = saved.with_name("small.engine")
    path.write_text("an older one")
    status, out, err = run(capsys, saved, "-o", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "differ from ONNX Runtime" in err
    assert path.read_text() == "an older one"
    assert run(capsys, saved, "-o", path, "--no-check")[0] == 0


def test_what_tensorrt_reports_is_one_line(builds: Builds, saved: Path, capsys: Captured) -> None:
    builds.error = "In node 3: unsupported\n operator"
    status, out, err = run(capsys, saved, "-o", saved.with_name("e"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "In node 3: unsupported operator" in err
    builds.error, builds.builds = None, False
    status, out, err = run(capsys, saved, "-o", saved.with_name("e"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "built no engine" in err


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gpu": "NVIDIA A100"}, "GPU NVIDIA A100"),
        ({"compute_capability": "8.0"}, "compute capability 8.0"),
        ({"tensorrt": "10.0.1"}, "TensorRT 10.0.1"),
        ({"driver": "570.124.6"}, "older"),
    ],
)
def test_an_engine_of_another_machine_is_refused_before_tensorrt_sees_it(
    builds: Builds, network: Network, tmp_path: Path, change: dict[str, str], word: str
) -> None:
    path = tmp_path / "small.engine"
    record = to_tensorrt(prepare(network), path, check=False)
    _, engine = tensorrt_file.read(path)
    machine = Machine(**{**vars(record.machine), **change})
    tensorrt_file.write(path, _with(record, machine=machine), engine)
    with pytest.raises(BackendError, match=word) as refused:
        load(path)
    assert "\n" not in str(refused.value)
    assert builds.deserialised == []
    tensorrt_file.write(path, record, engine)
    load(path).close()
    assert builds.deserialised == [engine]


def test_a_newer_driver_runs_what_an_older_one_ran() -> None:
    built = Machine("10.0", "gpu", "9.0", "570.86.15")
    assert built.refusal(Machine("10.0", "gpu", "9.0", "580.1")) is None
    assert built.refusal(Machine("10.0", "gpu", "9.0", "570.86.15")) is None
    assert built.refusal(Machine("10.0", "gpu", "9.0", "570.86.9")) is not None


def _with(record: tensorrt_file.Record, **changes: object) -> tensorrt_file.Record:
    return tensorrt_file.Record(**{**vars(record), **changes})


@pytest.fixture
def engine_file(network: Network, tmp_path: Path) -> Path:
    record = exporter.record(prepare(network), Machine("10.0", "gpu", "9.0", "570"))
    tensorrt_file.write(tmp_path / "small.engine", record, b"engine")
    assert tensorrt_file.read(tmp_path / "small.engine") == (record, b"engine")
    return tmp_path / "small.engine"


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda content: b"raw engine of trtexec, say", "no record"),
        (lambda content: content[:20], "shorter"),
        (lambda content: content[:-1], "shorter"),
        (lambda content: content + b"x", "longer"),
        (lambda content: content[:-1] + b"x", "changed"),
        (lambda content: content[:8] + b"\2" + content[9:], "version 2"),
        (lambda content: content.replace(b'"gpu"', b'"gpt"'), "changed"),
    ],
)
def test_damaged_files_are_refused(engine_file: Path, damage, word: str) -> None:
    engine_file.write_bytes(damage(engine_file.read_bytes()))
    with pytest.raises(BackendError, match=word):
        tensorrt_file.read(engine_file)


def test_a_damaged_record_with_a_right_hash_is_refused(engine_file: Path) -> None:
    record, engine = tensorrt_file.read(engine_file)
    tensorrt_file.write(engine_file, _with(record, input_shape=(3, 4)), engine)
    with pytest.raises(BackendError, match="record is damaged"):
        tensorrt_file.read(engine_file)


def test_trtexec_command(network: Network, saved: Path, capsys: Captured) -> None:
    """Needs no TensorRT; the model that it names is there."""
    path = saved.with_name("an engine")
    options = ["--trtexec", "--workspace", 64, "--timing-cache", "t c", "--batches", "1,2,3"]
    status, out, _ = run(capsys, saved, "-o", path, *options)
    assert status == 0
    command = shlex.split(out)
    assert command[0] == "trtexec"
    assert set(command[1:]) == {
        f"--onnx={path}.onnx",
        f"--saveEngine={path}.trt",
        "--stronglyTyped",
        "--noTF32",
        "--skipInference",
        "--minShapes=input:1x3x32x32",
        "--optShapes=input:2x3x32x32",
        "--maxShapes=input:3x3x32x32",
        "--memPoolSize=workspace:64M",
        "--timingCacheFile=t c",
    }
    assert onnx.load(f"{path}.onnx") == to_onnx(network)


def test_what_is_exported_is_not_written_over(saved: Path, capsys: Captured) -> None:
    """Neither by the engine nor by the model beside it."""
    before = saved.read_bytes()
    status, out, err = run(capsys, saved, "-o", saved, "--trtexec")
    assert (status, out) == (2, "") and "is the file that is read" in err and err.count("\n") == 1
    source = saved.with_name("s.engine.onnx")
    source.write_bytes(to_onnx(Network.load(saved)).SerializeToString())
    model = source.read_bytes()
    status, out, err = run(capsys, source, "-o", saved.with_name("s.engine"), "--trtexec")
    assert (status, out) == (2, "") and "is the file that is read" in err
    assert saved.read_bytes() == before and source.read_bytes() == model


def test_no_name_in_a_model_forges_a_line(network: Network, tmp_path: Path, capsys: Captured) -> None:
    model = to_onnx(network)
    for name in (*(node.input for node in model.graph.node), *(node.output for node in model.graph.node)):
        name[:] = ["in\nput" if one == "input" else one for one in name]
    model.graph.input[0].name = "in\nput"
    onnx.save(model, tmp_path / "a.onnx")
    status, out, _ = run(capsys, tmp_path / "a.onnx", "-o", tmp_path / "e", "--trtexec")
    assert status == 0 and out.count("\n") == 1 and "in?put:1x3x32x32" in out


def test_a_model_of_one_batch(network: Network, tmp_path: Path, capsys: Captured) -> None:
    model = to_onnx(network)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    arguments = tmp_path / "four.onnx", "-o", tmp_path / "e", "--trtexec"
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and "Shapes" not in out
    status, _, err = run(capsys, *arguments, "--batches", "1,2,4")
    assert status == 2 and "batch 4" in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--batches", "3,2,1"], "smallest"),
        (["--batches", "0,1,2"], "from 1"),
        (["--batches", "1,2"], "three"),
        (["--workspace", "0"], "workspace"),
        (["--dtype", "int8"], "int8"),
        (["--output", "/nonexistent/e"], "/nonexistent"),
        (["--output", "/"], "not a file"),
    ],
)
def test_mistakes_are_one_line(saved: Path, arguments: list[str], word: str, capsys: Captured) -> None:
    status, out, err = run(capsys, saved, "-o", saved.with_name("e"), "--trtexec", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert word in err


def test_a_plan_is_not_exported(saved: Path, capsys: Captured) -> None:
    plan = saved.with_name("small.plan")
    assert cli.main(["build", "-o", str(plan), "--network", str(saved)]) == 0
    status, _, err = run(capsys, plan, "-o", saved.with_name("e"), "--trtexec")
    assert status == 2 and "a plan" in err
    model = saved.with_name("half.onnx")
    to_onnx(Network.load(saved), model, dtype="fp16")
    status, _, err = run(capsys, model, "-o", saved.with_name("e"), "--trtexec", "--dtype", "fp32")
    assert status == 0
    to_onnx(Network.load(saved), model)
    status, _, err = run(capsys, model, "-o", saved.with_name("e"), "--trtexec", "--dtype", "fp16")
    assert status == 2 and "its own" in err


def test_without_tensorrt_one_line_says_how_to_get_it(
    saved: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    status, out, err = run(capsys, saved, "-o", saved.with_name("e"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'inception-engine[tensorrt]'" in err
    assert sorted(path.name for path in saved.parent.iterdir()) == ["small.safetensors"]


class Driver:
    """libcuda.so.1 and libnvidia-ml.so.1 in one, as far as they are asked."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, function: str):
        def call(*arguments):
            if function == self.failing:
                return 100
            if function == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA A10"
            elif function == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 6}[arguments[1]]
            elif function == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"550.1"
            return 0

        return call


def test_the_gpu_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert nvidia.current_gpu() == Gpu("NVIDIA A10", "8.6", "550.1")
    for function in ("cuInit", "cuDeviceGetName", "nvmlInit_v2"):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, function=function: Driver(function))
        with pytest.raises(BackendError, match=function.removesuffix("_v2")):
            nvidia.current_gpu()


def test_without_a_driver_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        nvidia.current_gpu()
