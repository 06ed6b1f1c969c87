"""Which device an Engine takes, and what it says where there is no GPU; tensors of a GPU are left to torch's stream."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inception_engine as ie
from inception_engine import Plan, binding, errors
from inception_engine.engine import Engine
from inception_engine.network import MaxPool, Network, Preprocess

SHAPE = (3, 32, 32)
CLASSES = 10


def compiled(*targets: str, dtype: str = "fp32") -> Plan:
    network = ie.googlenet(width=0.1, input_size=SHAPE[1], classes=CLASSES)
    return ie.compile(network, targets=targets, dtype=dtype, batches=(1, 3))


@pytest.fixture(scope="module")
def plan() -> Plan:
    """For both devices."""
    return compiled("cpu", "cuda")


@pytest.fixture
def no_driver() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    pytest.skip("backend none: this machine has a CUDA driver")


def images(batch: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, *SHAPE), dtype=np.float32)


@pytest.mark.usefixtures("no_driver")
def test_cuda_without_a_driver(plan: Plan) -> None:
    for device in ("cuda", "cuda:1"):
        with pytest.raises(errors.NoDriverError, match=r"^there is no CUDA driver.*libcuda\.so\.1") as caught:
            Engine(plan, device=device)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_driver")
def test_auto_falls_back_and_says_why(plan: Plan) -> None:
    with Engine(plan) as engine, Engine(plan, device="cpu") as cpu:
        assert engine.device == "cpu" and engine.isa != "cuda" and engine.programs == 2
        assert "no CUDA driver" in engine.note and "\n" not in engine.note
        assert cpu.note == ""
        np.testing.assert_array_equal(engine.run(images()), cpu.run(images()))
        engine.check()  # nothing to wait for


@pytest.mark.usefixtures("no_driver")
def test_auto_without_a_program_for_the_cpu() -> None:
    with pytest.raises(errors.NoProgramError, match=r"no program for this machine's CPU.*no CUDA driver"):
        Engine(compiled("cuda", dtype="fp16"))


def test_a_plan_for_the_cpu_alone() -> None:
    plan = compiled("cpu")
    with Engine(plan) as engine:
        assert (engine.device, engine.note) == ("cpu", "")
    with pytest.raises(errors.NoProgramError, match="no program for CUDA"):
        Engine(plan, device="cuda")


def test_emulation_stays_on_the_cpu() -> None:
    plan = compiled("cuda", dtype="fp16")
    for device in ("auto", "cpu"):
        with Engine(plan, device=device, emulate=True) as engine:
            assert (engine.device, engine.note, engine.programs) == ("cpu", "", 2)
    with pytest.raises(errors.ArgumentError, match="emulation"):
        Engine(plan, device="cuda", emulate=True)


@pytest.mark.parametrize(
    "device", ["tpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:1234567", "cpu:0", ":1", "", 3]
)
def test_devices_that_do_not_exist(plan: Plan, device: Any) -> None:
    with pytest.raises(errors.DeviceError, match="unknown device"):
        Engine(plan, device=device)


def joined(first: Plan, second: Plan) -> Plan:
    """The programs of both."""
    size = len(first.weights) + -len(first.weights) % 64
    weights = np.zeros(size + len(second.weights), np.uint8)
    weights[: len(first.weights)] = first.weights
    weights[size:] = second.weights
    for program in second.programs:
        used = program.ops["packing"] != 0
        program.ops["weight_offset"][used] += size
        program.ops["bias_offset"][used] += size
        scaled = program.ops["kind"] == 1  # INPUT has its scales and shifts there
        program.ops["weight_offset"][scaled & ~used] += size
    return replace(first, weights=weights, programs=first.programs + second.programs)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_programs_of_several_dtypes_are_refused(device: str) -> None:
    plan = joined(compiled("cuda", dtype="fp16"), compiled("cuda", dtype="bf16"))
    with pytest.raises(errors.PlanGeometry, match="differ in their dtype"):
        Engine(plan, device=device)


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_program_too_large_for_the_kernels(device: str) -> None:
    pool = MaxPool(name="pool", inputs=("input",), kernel=(1, 1), stride=(512, 512))
    channels = 1 << 13  # of 512 x 512 pixels: 2^31 elements
    preprocess = Preprocess(mean=(0,) * channels, std=(1,) * channels)
    network = Network(
        name="large", input_shape=(channels, 512, 512), layers=(pool,), logits="pool", preprocess=preprocess
    )
    plan = ie.compile(network, targets=("cuda",), dtype="fp16")
    with pytest.raises(errors.NoProgramError, match="1 images is too large"):
        Engine(plan, device=device)


@pytest.mark.usefixtures("no_driver")
def test_classify_says_that_it_runs_on_the_cpu(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "both.plan")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    command = [
        sys.executable,
        "-c",
        "import sys; from inception_engine.cli import main; sys.exit(main())",
        "classify",
    ]
    paths = [str(tmp_path / "both.plan"), str(tmp_path / "a.png")]

    def run(*options: str) -> tuple[int, str]:
        done = subprocess.run([*command, *paths, *options], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    status, err = run()
    assert status == 0 and err.startswith("inception: note: running on the CPU: there is no CUDA driver")
    assert err.count("\n") == 1
    assert run("--device", "cpu") == (0, "")
    status, err = run("--device", "cuda")
    assert status == 2 and err.startswith("inception: error: ") and err.count("\n") == 1


class _Library:
    """The C library, but ie_enqueue notes its stream and runs on the CPU."""

    def __init__(self) -> None:
        self.streams: list[int] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(binding.library(), name)

    def ie_enqueue(self, context: Any, given: Any, wanted: Any, count: int, stream: int) -> int:
        self.streams.append(stream)
        status: int = binding.library().ie_run(context, given, wanted, count)
        return status


def test_tensors_of_the_gpu_are_left_to_torchs_stream(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    class OnGpu(torch.Tensor):  # type: ignore[name-defined, misc]
        is_cuda = True
        index = 1

        @property
        def device(self) -> Any:
            return torch.device("cuda", self.index)

        def detach(self) -> Any:
            return super().detach().as_subclass(OnGpu)

    made: list[Any] = []
    empty = torch.empty
    streams = {torch.device("cuda", 1): type("Stream", (), {"cuda_stream": 77})}

    def make(*size: Any, device: Any, **options: Any) -> Any:
        made.append(device)
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", make)
    monkeypatch.setattr(torch.cuda, "current_stream", streams.__getitem__)
    with Engine(plan, device="cpu") as engine:
        expected = {name: engine.run(images(), outputs=[name])[name] for name in engine.outputs}
        library = _Library()
        engine._library, engine.device, engine.ordinal = library, "cuda", 1  # type: ignore[assignment]
        tensor = torch.from_numpy(images())
        for variant in (
            tensor,
            tensor.to(memory_format=torch.channels_last),
            tensor.clone().requires_grad_(),
        ):
            result = engine.run(variant.as_subclass(OnGpu))
            np.testing.assert_array_equal(result.numpy(), expected["logits"])
        several = engine.run(tensor.as_subclass(OnGpu), outputs=list(expected))
        for name, value in expected.items():
            np.testing.assert_array_equal(several[name].numpy(), value)
        assert library.streams == [77] * 4 and set(made) == {torch.device("cuda", 1)}
        engine.run(tensor)  # of the host: not enqueued
        assert len(library.streams) == 4
        with pytest.raises(errors.BatchError):
            engine.run(torch.zeros(4, *SHAPE).as_subclass(OnGpu))
        with pytest.raises(errors.InputTypeError, match="images are float64"):
            engine.run(tensor.double().as_subclass(OnGpu))
        with pytest.raises(errors.InputShapeError):
            engine.run(tensor[0].as_subclass(OnGpu))
        OnGpu.index = 0
        with pytest.raises(errors.InputTypeError, match=r"on cuda:0; the engine is on cuda:1"):
            engine.run(tensor.as_subclass(OnGpu))


def test_the_archive_is_named_when_it_is_missing(plan: Plan, tmp_path: Path) -> None:
    """Whatever stops first: one line."""
    with pytest.raises(errors.EngineError) as caught:
        Engine(plan, device="cuda", kernels=tmp_path / os.urandom(4).hex())
    assert "\n" not in str(caught.value)
