"""`module` against the float64 reference in Triton's interpreter, and what it compiles to on GPUs with TMA.

Each case runs by one block that takes all tasks and by one block per task, which must give the same bits.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from concurrent.futures import Future
from unittest import mock

import numpy as np
import pytest

import inception_engine as ie
from inception_engine.compiler.plan import OpKind, Plan
from inception_engine.compiler.targets import CUDA
from inception_engine.spec import Spec

pytest.importorskip("triton", reason="backend triton: triton is not installed")

from inception_engine.kernels.machine_code import compile_module, read_module, unsettled
from inception_engine.kernels.sizes import Sizes
from inception_engine.kernels.walk import STRIDE

from inception_engine.specialised import find
from tests.kernels import interpreted
from tests.kernels.test_walk import (
    BOTH,
    MODULES,
    ONE_BLOCK,
    Case,
    compared,
    images_of,
    module,
    network_of,
    outputs_of,
)

pytestmark = pytest.mark.parity

CASES = {
    f"{case.name}-{case.dtype}": case
    for case in (
        *(module(name) for name in MODULES),
        module("4b", dtype="bf16"),  # reduces of 24 channels
        module("3a", "3a-5x7", size=(5, 7), batch=3, max_batch=4),
        module("5b", "5b-1x1", size=(1, 1), batch=3, max_batch=4),
        module("4d", "4d-torchvision", spec=Spec(third_branch=3, norm="batch")),
        module("5a", "5a-6x6", spec=Spec(pool_padding="none"), dtype="bf16"),
    )
}


def plan_of(case: Case) -> Plan:
    """One launch per module, for any batch."""
    batch = max(case.batch, case.max_batch)
    return ie.compile(network_of(case), targets=(CUDA,), dtype=case.dtype, max_batch=batch, keep_all=True)


# Run in the interpreter's process


def execute(
    plan: bytes, images: np.ndarray, names: Sequence[str], group: int, grids: Sequence[bool] = BOTH
) -> tuple[dict[str, np.ndarray], list[bool], int]:
    """Outputs, which launches took the kernel, and what is left in its state; ``group``: images of a group, ``grids``:
    as in ``interpreted.execute``."""
    import torch

    from inception_engine import jit

    found: dict[str, np.ndarray] = {}
    taken: list[bool] = []
    left = 0
    for one_task_per_block in grids:
        with mock.patch.object(jit, "find", functools.partial(find, group=group)):
            executor = jit.TritonExecutor(
                Plan.from_bytes(plan, proven=True),
                specialise=True,
                poison=True,
                one_task_per_block=one_task_per_block,
            )
        for name, output in executor.run(torch.from_numpy(images), outputs=names).items():
            values = output.numpy()
            before = found.setdefault(name, values)
            assert np.array_equal(values.view(np.uint32), before.view(np.uint32)), f"{name} differs"
        modules = [launch.module for program in executor._programs for launch in program.launches]
        left += sum(int(module._state.abs().sum()) for module in modules if module)
        taken = [bool(module) for module in modules]
    return found, taken, left


def walked(plan: bytes, images: np.ndarray) -> tuple[dict[str, np.ndarray], list[bool], int]:
    import torch

    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(Plan.from_bytes(plan, proven=True), specialise=False, poison=True)
    modules = [launch.module for program in executor._programs for launch in program.launches]
    result = executor.run(torch.from_numpy(images), ["logits"])
    return {name: output.numpy() for name, output in result.items()}, [bool(m) for m in modules], 0


def run_into_a_timeout(plan: bytes, images: np.ndarray) -> tuple[str, bool]:
    """The error of a run in which a counter starts too low; whether the state is clear and a second run is right."""
    import torch

    from inception_engine.errors import WaitTimeoutError
    from inception_engine.jit import TritonExecutor

    executor = TritonExecutor(Plan.from_bytes(plan, proven=True), specialise=True)
    (found,) = (m for p in executor._programs for launch in p.launches if (m := launch.module))
    expected = executor.run(torch.from_numpy(images))
    found._state[STRIDE] = -1  # the first group's counter
    try:
        executor.run(torch.from_numpy(images))
    except WaitTimeoutError as error:
        return str(error), torch.equal(executor.run(torch.from_numpy(images)), expected)
    return "", False


# Tests


@functools.cache
def started(name: str) -> Future[tuple[dict[str, np.ndarray], list[bool], int]]:
    case = CASES[name]
    group = 2 if case.batch > 1 else 1
    return interpreted.submit(
        execute,
        plan_of(case).to_bytes(),
        images_of(case),
        list(outputs_of(case)),
        group,
    )


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str) -> None:
    """All that the launch writes, also what it does not hand on; three images are in two groups."""
    case = CASES[name]
    future = started(name)
    names = list(CASES)
    started(names[(names.index(name) + 1) % len(names)])
    actual, taken, left = future.result()
    assert taken == [False, True] and left == 0
    assert compared(network_of(case), images_of(case), outputs_of(case), actual, case.dtype) == []


def test_the_whole_network() -> None:
    """Between launches of `walk`, whose counters it does not touch; twice, for both leave their state clear."""
    network = ie.googlenet(seed=1, spec=Spec(width=0.5, input_size=64, classes=11))
    plan = ie.compile(network, targets=(CUDA,), dtype="fp16", max_batch=2)
    images = np.random.default_rng(3).standard_normal((2, *network.input_shape), dtype=np.float32)
    actual, taken, left = interpreted.submit(
        execute, plan.to_bytes(), images, ["logits"], 1, ONE_BLOCK
    ).result()
    assert sum(taken) > 0 and not taken[-1] and left == 0
    expected, none, _ = interpreted.submit(walked, plan.to_bytes(), images).result()
    assert not any(none)
    scale = np.abs(expected["logits"]).max()
    assert np.abs(actual["logits"] - expected["logits"]).max() <= 2e-2 * scale


def test_a_wait_gives_up() -> None:
    case = CASES["5b-fp16"]
    plan = plan_of(case).to_bytes()
    message, right = interpreted.submit(run_into_a_timeout, plan, images_of(case)).result()
    assert message == "a wait inside a launch passed its bound; the results are void" and right


def test_other_launches_are_left_to_walk() -> None:
    """Whatever differs from an Inception module by one field."""
    (program,) = plan_of(CASES["3a-fp16"]).programs
    launch = program.launches[-1]
    assert find(program, launch) is not None
    assert find(program, program.launches[0]) is None
    used = sorted({int(i) for i in program.tasks["op"][int(launch["first_task"]) :]})
    for index in used:
        fields = (
            "stride_w",
            "pad_left",
            "pad_bottom",
            "kernel_h",
            "in_h",
            "out_w",
            "in_channel",
            "out_channel",
        )
        for field in (*fields, "in_buffer", "out_buffer"):
            other = dataclasses.replace(program, ops=program.ops.copy())
            other.ops[index][field] += 1
            assert find(other, launch) is None, (index, field)
        if program.ops[index]["kind"] == OpKind.CONV:
            other = dataclasses.replace(program, ops=program.ops.copy())
            other.ops[index]["flags"] = 0
            assert find(other, launch) is None
    # Both reduces and the pooled input are written at the same time, so a plan that has them in one place is no module.
    found = find(program, launch)
    assert found is not None
    for first, second in itertools.combinations(found.buffers, 2):
        other = dataclasses.replace(program, buffers=program.buffers.copy())
        other.buffers[first]["offset"] = other.buffers[second]["offset"]
        assert find(other, launch) is None, (first, second)


def test_a_module_that_later_launches_wait_for_is_left_to_walk() -> None:
    """The kernel signals no counters."""
    (program,) = plan_of(CASES["5b-fp16"]).programs
    before = program.launches[-1]
    assert find(program, before) is not None
    tasks = program.tasks[int(before["first_task"]) :][: int(before["task_count"])]
    wait = np.array([(tasks["signal"][0], 1)], program.waits.dtype)
    for place, waits in (
        ("an earlier launch", [wait, program.waits]),
        ("a later one", [program.waits, wait]),
    ):
        other = dataclasses.replace(program, tasks=program.tasks.copy(), waits=np.concatenate(waits))
        other.tasks["wait_begin"] += len(wait) * (place == "an earlier launch")
        assert find(other, before) is None, place


@functools.cache
def sizes_of(name: str) -> Sizes:
    plan = ie.compile(ie.googlenet(), targets=("cuda",), dtype="fp16", max_batch=256)
    (program,) = plan.programs
    (found,) = (find(program, launch) for launch in program.launches if program.text(launch) == name)
    assert found is not None
    return found.sizes


@pytest.mark.parametrize("arch", [90, 100])
@pytest.mark.parametrize("name", MODULES)
def test_machine_code(name: str, arch: int) -> None:
    """Products on tensor cores, fed by TMA; two blocks fit on an SM; what others store is never read through the
    read-only cache."""
    found = read_module("bf16" if name == "4b" else "fp16", sizes_of(name), arch)
    assert found.spills == found.stack == found.read_only_loads == found.unsettled == 0
    chosen = sizes_of(name).on(arch)
    assert found.registers * 32 * chosen.warps * chosen.blocks_per_sm <= 65536
    assert chosen.blocks_per_sm * (found.shared + 1024) <= 227 * 1024
    assert found.tensor.endswith({90: "wgmma.mma_async", 100: "tcgen05.mma"}[arch])
    assert found.bulk_copies >= 10 and found.copies == 0  # operands of five products
    assert found.wide_loads >= 1 and found.wide_stores >= 1


def test_products_are_settled() -> None:
    """Without ``settled`` the windows' operands would still be read when their registers are given away."""
    ptx: str = compile_module("fp16", sizes_of("5a"), 90).asm["ptx"]
    assert unsettled(ptx) == 0
    products = list(re.finditer(r"wgmma\.mma_async\S+ \{[^}]*\}, \{", ptx))
    assert len(products) == 8  # of 64 pixels and 16 channels: 128 and 32, in 3x3 and in 5x5
    wait = "wgmma.wait_group.sync.aligned "
    last = ptx.index(wait, products[-1].end()) + len(wait)
    assert ptx[last] == "0"
    assert unsettled(ptx[:last] + "1" + ptx[last + 1 :]) == 4
    assert unsettled(ptx[: last - len(wait)]) == 4


def test_memory_order() -> None:
    """A tile is stored, then fence, barrier, release. Its reader: acquire, barrier, fence, then TMA."""
    ptx: str = compile_module("fp16", sizes_of("4b"), 90).asm["ptx"]
    (release,) = (m.start() for m in re.finditer(r"\.release\b", ptx))
    before = ptx[ptx.rindex("fence.proxy.async;", 0, release) : release]
    assert "bar.sync" in before and "st.global" not in before
    (acquire,) = (m.start() for m in re.finditer(r"\.acquire\b", ptx))
    after = ptx[acquire : ptx.index("fence.proxy.async;", acquire)]
    assert "bar.sync" in after and "cp.async.bulk" not in after
