"""TritonExecutor's arguments, errors and programs. What the kernels compute: tests/kernels."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="backend triton: torch is not installed")
pytest.importorskip("triton", reason="backend triton: triton is not installed")

import torch

from inception_engine import reference
from inception_engine.compiler import compile
from inception_engine.compiler.plan import Plan
from inception_engine.compiler.targets import CUDA
from inception_engine.errors import (
    BatchError,
    DeviceError,
    InputShapeError,
    InputTypeError,
    NoProgramError,
    OutputNameError,
    PlanMissingWait,
    WaitTimeoutError,
)
from inception_engine.network import Conv, Linear, MaxPool, Network, Preprocess, Softmax
from inception_engine.preprocess import normalise
from tests.driver.build import build_driver
from tests.kernels.interpreted import execute, submit
from tests.operations import operations
from tests.tolerances import violations

SHAPE = (3, 8, 10)
BATCHES = (1, 2, 5)


@pytest.fixture(scope="module")
def network() -> Network:
    """Small, in three launches: the image, a module, the head."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> dict[str, Any]:
        weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)
        return {"weight": weight, "bias": rng.standard_normal(shape[0], dtype=np.float32)}

    return Network(
        name="tiny",
        input_shape=SHAPE,
        layers=(
            Conv(name="conv", inputs=("input",), module="m", pads=(1, 1, 1, 1), **weights(20, 3, 3, 3)),
            MaxPool(name="pool", inputs=("conv",), module="m", kernel=(2, 2), stride=(2, 2)),
            Linear(name="fc", inputs=("pool",), **weights(7, 20 * 4 * 5)),
            Softmax(name="softmax", inputs=("fc",)),
        ),
        logits="fc",
        preprocess=Preprocess(mean=(100, 110, 120), std=(50, 55, 60)),
    )


@pytest.fixture(scope="module")
def plan(network: Network) -> Plan:
    return compile(network, targets=("cuda", "cpu"), batches=BATCHES)


def images(batch: int = 5) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, *SHAPE), dtype=np.float32)


# Run in the interpreter's process


def run(plan: bytes, batches: Sequence[np.ndarray], outputs: Sequence[str] | None = None) -> list[Any]:
    """Results of runs of one executor, as they are."""
    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(Plan.from_bytes(plan, proven=True), poison=True)
    return [executor.run(torch.from_numpy(batch), outputs) for batch in batches]


def run_changed(plan: bytes, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Before and after the caller's Plan was changed."""
    from inception_engine.jit import TritonExecutor

    mine = Plan.from_bytes(plan)
    mine.weights = mine.weights.copy()
    executor = TritonExecutor(mine)
    before = executor.run(torch.from_numpy(batch))
    mine.weights[:] = 0
    for program in mine.programs:
        for table in (program.tasks, program.ops):
            table[:] = np.zeros_like(table)
    return before, executor.run(torch.from_numpy(batch))


def run_with_a_wait_that_never_ends(plan: bytes, batch: np.ndarray) -> tuple[str, torch.Tensor]:
    """The error; and the result after the table was mended. No proven plan has such a wait."""
    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(Plan.from_bytes(plan), poison=True)
    (program,) = (p for p in executor._programs if p.max_batch == len(batch))
    waits = program.tables[1]
    waits[1] += 1
    try:
        executor.run(torch.from_numpy(batch))
    except WaitTimeoutError as error:
        message = str(error)
    waits[1] -= 1
    return message, executor.run(torch.from_numpy(batch))


def run_watched(plan: bytes, batches: Sequence[np.ndarray], outputs: Sequence[str]) -> list[list[str]]:
    """What each run does on the device, images and outputs on it."""
    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(Plan.from_bytes(plan, proven=True))
    seen = []
    for batch in batches:
        with operations(TritonExecutor, "enqueue") as names:
            executor.run(torch.from_numpy(batch), outputs)
        seen.append(names)
    return seen


# Tests


def test_logits(network: Network, plan: Plan) -> None:
    (logits,) = submit(run, plan.to_bytes(), [images()]).result()
    assert isinstance(logits, torch.Tensor) and logits.dtype == torch.float32
    assert violations({"fc": logits.numpy()}, reference.run(network, images()), "fc") == []


def test_named_outputs(network: Network) -> None:
    kept = compile(network, targets=("cuda",), max_batch=5, keep_all=True).to_bytes()
    names = ["pool", "softmax", "pool"]
    (results,) = submit(run, kept, [images(2)], names).result()
    assert list(results) == ["pool", "softmax"]
    assert {result.dtype for result in results.values()} == {torch.float32}
    assert results["pool"].shape == (2, 20, 4, 5) and results["pool"].is_contiguous()
    expected = reference.run(network, images(2), keep=names)
    assert violations({name: r.numpy() for name, r in results.items()}, expected, "fc") == []


def test_every_batch_by_the_smallest_program(network: Network, plan: Plan) -> None:
    """One after the other, so that each leaves its counters and its memory to the next; each image as when alone."""
    batches = [images()[:count] for count in (5, 1, 2, 3, 4, 1)]
    results = submit(run, plan.to_bytes(), batches).result()
    for batch, result in zip(batches, results, strict=True):
        assert violations({"fc": result.numpy()}, reference.run(network, batch), "fc") == []
    alone = submit(run, plan.to_bytes(), [image[None] for image in images()]).result()
    # On some processors NumPy's products, which the interpreter takes, depend in the last bit on the place of a row.
    np.testing.assert_allclose(results[0].numpy(), torch.cat(alone).numpy(), rtol=0, atol=1e-6)


def test_pixels(network: Network, plan: Plan) -> None:
    channels, height, width = SHAPE
    photos = np.random.default_rng(2).integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    (logits,) = submit(run, plan.to_bytes(), [photos]).result()
    expected = reference.run(network, normalise(photos, network.preprocess))
    assert violations({"fc": logits.numpy()}, expected, "fc") == []


@pytest.mark.parametrize("tile", [(16, 32), (128, 16)])
def test_tiles_without_a_tuned_variant(network: Network, tile: tuple[int, int]) -> None:
    rows, columns = tile
    target = dataclasses.replace(CUDA, tile_pixels=rows, tile_columns=columns)
    other = compile(network, targets=(target,), max_batch=5, keep_all=True).to_bytes()
    names = [layer.name for layer in network.layers]
    results = submit(execute, other, images(), names).result()
    assert violations(results, reference.run(network, images(), keep="all"), "fc") == []


def test_tiles_that_no_kernel_has(network: Network) -> None:
    target = dataclasses.replace(CUDA, tile_pixels=40, shorter=())
    other = compile(network, targets=(target,), max_batch=5).to_bytes()
    with pytest.raises(NoProgramError, match=r"launch .*: no kernel has tiles of 40 x"):
        submit(run, other, []).result()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda x: x.astype(np.float64), InputTypeError),
        (lambda x: x[0], InputShapeError),
        (lambda x: x[:, :2], InputShapeError),
        (lambda x: x.astype(np.uint8), InputShapeError),
        (lambda x: x[:0], BatchError),
        (lambda x: np.concatenate([x, x]), BatchError),
    ],
)
def test_wrong_images(plan: Plan, change: Callable[[np.ndarray], np.ndarray], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        submit(run, plan.to_bytes(), [change(images())]).result()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("outputs", ["logits", ["logits", "conv"]])
def test_wrong_outputs(plan: Plan, outputs: Any) -> None:
    with pytest.raises(OutputNameError, match=r"'conv'|list"):
        submit(run, plan.to_bytes(), [images()], outputs).result()


def test_a_plan_for_the_cpu(network: Network) -> None:
    with pytest.raises(NoProgramError, match="no program for CUDA"):
        submit(run, compile(network).to_bytes(), []).result()


def test_a_plan_is_proven(network: Network) -> None:
    plan = compile(network, targets=("cuda",))
    program = plan.programs[0]
    program.tasks["wait_count"][-1] -= 1
    program.waits = program.waits[:-1]
    with pytest.raises(PlanMissingWait):
        submit(run, plan.to_bytes(), []).result()


def test_a_plan_may_change_afterwards(plan: Plan) -> None:
    before, after = submit(run_changed, plan.to_bytes(), images()).result()
    assert torch.equal(before, after) and before.abs().max() > 0


def test_a_wait_gives_up(network: Network, plan: Plan) -> None:
    message, logits = submit(run_with_a_wait_that_never_ends, plan.to_bytes(), images()).result()
    assert message == "a wait inside a launch passed its bound; the results are void"
    assert violations({"fc": logits.numpy()}, reference.run(network, images()), "fc") == []


def test_a_run_is_its_launches(network: Network) -> None:
    """No copy and no memset; an output that no launch stores for the caller is one launch more."""
    plan = compile(network, targets=(CUDA,), max_batch=5)
    given, launches = [images(5), images(2)], len(plan.programs[0].launches)
    assert submit(run_watched, plan.to_bytes(), given, ["logits"]).result() == [["walk"] * launches] * 2
    kept = compile(network, targets=(CUDA,), max_batch=5, keep_all=True)
    expected = ["walk"] * len(kept.programs[0].launches) + ["copy_output"] * 2
    assert submit(run_watched, kept.to_bytes(), given, ["pool", "softmax"]).result() == [expected] * 2


def test_programs_that_are_too_large(plan: Plan) -> None:
    from inception_engine.jit_program import check_sizes

    check_sizes(plan, plan.programs)
    program = dataclasses.replace(plan.programs[0], header=plan.programs[0].header.copy())
    program.header["max_batch"] = 2**31 // (3 * 8 * 10) + 1
    with pytest.raises(NoProgramError, match="too large"):
        check_sizes(plan, [program])


@pytest.mark.parametrize(
    ("device", "message"), [("cpu", "not on cpu"), ("abacus", "unknown device 'abacus'")]
)
def test_devices_that_no_kernel_runs_on(plan: Plan, device: str, message: str) -> None:
    from inception_engine.jit import TritonExecutor

    with pytest.raises(DeviceError, match=message):
        TritonExecutor(plan, device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device(plan: Plan) -> None:
    from inception_engine.jit import TritonExecutor

    with pytest.raises(DeviceError, match="there is no CUDA device"):
        TritonExecutor(plan)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="backend cuda: there is no CUDA device")
def test_a_graph_repeats_a_run(network: Network, plan: Plan) -> None:
    """Counters and tickets are cleared inside the graph, or its second replay would do nothing."""
    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(plan, poison=True)
    static = torch.from_numpy(images()).cuda()
    first = executor.run(static)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = executor.enqueue(static)
    for _ in range(100):
        assert isinstance(logits, torch.Tensor)
        logits.fill_(torch.nan)
        graph.replay()
        assert torch.equal(first, logits)
    executor.check()


def test_the_drivers_version_is_read_from_the_driver(tmp_path: Path) -> None:
    """What decides whether launches may begin early: asked of the driver's double, and of none."""
    from inception_engine.jit import _driver_cuda

    library = build_driver(tmp_path)
    for version in (12020, 12040):
        script = f"from inception_engine.jit import _driver_cuda; print(_driver_cuda({str(library)!r}))"
        environment = os.environ | {"IE_DOUBLE_VERSION": str(version)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == version
    assert _driver_cuda("libnothing.so.1") == 0
