"""`walk` against the float64 reference, layer by layer: on any machine by Triton's interpreter, on a GPU as compiled.

Every module of the paper at full size in float16, by one block that takes all tasks and by one block per task, which
must give the same bits; so do a module of each dtype and odd cases. The arena is full of NaN when a run begins, so what
is read before it was written, or never, shows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import reference
from inception_engine.compiler.plan import LaunchMode, Plan, Program
from inception_engine.compiler.targets import CUDA, Target
from inception_engine.errors import PlanMissingWait
from inception_engine.network import INPUT, LRN, Concat, Layer, MaxPool, Network, Preprocess
from inception_engine.spec import GOOGLENET, TABLE, InceptionRow, Spec
from tests.kernels import interpreted
from tests.random_networks import random_network
from tests.runtime.test_emulation import CUT
from tests.tolerances import violations

pytestmark = pytest.mark.parity
pytest.importorskip("triton", reason="backend triton: triton is not installed")


ONE_BLOCK, TASK_PER_BLOCK, BOTH = (False,), (True,), (False, True)


@dataclass(frozen=True)
class Case:
    """Layers ``first`` to ``last`` of a variant of GoogLeNet, on images of ``size`` if that is not the network's own.

    ``max_batch``: of the plan, if larger than ``batch``. ``grids``: see ``interpreted.execute``. ``alone``: outputs
    that the kernel stores as well, or all. ``every``: whether all layers are compared, or what a plan that reuses
    memory leaves: its outputs.
    """

    name: str
    first: str = "conv1"
    last: str = "softmax"
    size: tuple[int, int] = (0, 0)
    spec: Spec = GOOGLENET
    batch: int = 1
    max_batch: int = 1
    dtype: str = "fp16"
    target: str | Target = CUDA
    grids: tuple[bool, ...] = BOTH
    alone: tuple[str, ...] | None = ()
    every: bool = True


def module(name: str, title: str = "", **fields: Any) -> Case:
    return Case(title or name, first=f"{name}/1x1", last=name, **fields)


MODULES = tuple(row.name for row in TABLE if isinstance(row, InceptionRow))
NARROW = Spec(width=0.25)
UNPADDED = Spec(width=0.25, pool_padding="none")
SMALL = Spec(width=0.25, input_size=64, classes=11)
SMALLER = Spec(width=0.25, input_size=32, classes=11)
REUSED = dataclasses.replace(CUDA, launch=LaunchMode.NETWORK, delay=1)  # JOINs, memory that is written again
CASES = {
    f"{case.name}-{case.dtype}": case
    for case in (
        *(module(name) for name in MODULES),
        module("4d", dtype="fp32", grids=TASK_PER_BLOCK),
        module("5b", dtype="fp32"),
        module("4b", dtype="bf16", grids=ONE_BLOCK),  # reduces of 24 channels
        module("5b", dtype="bf16"),
        # Sizes that no tile fits, and images that are smaller than the windows.
        module("3a", "3a-5x7", size=(5, 7), batch=3, max_batch=4, alone=None),
        module("3a", "3a-5x7", size=(5, 7), batch=3, max_batch=4, dtype="fp32"),
        module("4b", "4b-1x1", size=(1, 1), batch=3, max_batch=4, alone=None),
        module("5b", "5b-batch", batch=3, max_batch=4, spec=NARROW),
        module("4e", "4e-narrow", spec=NARROW, dtype="fp32"),
        module("4d", "4d-torchvision", spec=Spec(third_branch=3, norm="batch", width=0.5)),
        # Without padding pools leave 55, 27, 13 and 6.
        Case("stem-unpadded", last="pool2", spec=UNPADDED, grids=ONE_BLOCK),
        module("3a", "3a-27x27", spec=UNPADDED, dtype="fp32", grids=ONE_BLOCK),
        module("4a", "4a-13x13", spec=UNPADDED, dtype="fp32"),
        module("5a", "5a-6x6", spec=UNPADDED, dtype="bf16"),
        Case("stem", last="pool2", spec=Spec(input_size=56), dtype="fp32"),
        Case("stem", last="pool2", spec=Spec(input_size=56), dtype="bf16", grids=ONE_BLOCK),
        Case("head", first="avgpool", spec=Spec(classes=70), dtype="fp32", alone=None),
        Case("head", first="avgpool", batch=3, max_batch=4),
        Case("network", spec=SMALL, batch=2, max_batch=3, alone=("3a/3x3", "logits")),
        Case("network", spec=SMALLER, dtype="bf16", grids=ONE_BLOCK),
        Case("network", spec=SMALLER, dtype="fp32", grids=TASK_PER_BLOCK),
        # As a plan for small batches is: one launch, with its head and its outputs.
        Case("launch", spec=SMALL, target="cuda", batch=2, max_batch=3, alone=("logits",)),
        Case("launch-outputs", spec=SMALLER, target="cuda", alone=("logits", "probabilities"), every=False),
        Case("network-reuse", spec=SMALLER, batch=2, max_batch=3, every=False),
        Case("network-reuse", spec=SMALLER, dtype="fp32", every=False, grids=TASK_PER_BLOCK),
        Case("launch-reuse", spec=SMALLER, target=REUSED, every=False),
        # K in parts, by one block and by one for each; in memory that others use, too.
        module("5a", "5a-parts", target=CUT, spec=NARROW, batch=2, max_batch=3),
        Case(
            "parts", spec=SMALLER, target=CUT, batch=2, max_batch=3, alone=("5b/3x3", "logits"), dtype="bf16"
        ),
        Case(
            "parts-reuse",
            spec=SMALLER,
            target=dataclasses.replace(CUT, reuse=True, delay=1, most_parts=5),
            every=False,
            dtype="fp32",
        ),
    )
}
RANDOM_NETWORKS = 8


def part(network: Network, first: str, last: str, size: tuple[int, int]) -> Network:
    """Layers ``first`` to ``last``, on images in place of the one layer that they read."""
    names = [layer.name for layer in network.layers]
    layers = network.layers[names.index(first) : names.index(last) + 1]
    inside = {layer.name for layer in layers}
    (source,) = {name for layer in layers for name in layer.inputs} - inside
    channels, height, width = network.shapes()[source]
    if size != (0, 0):
        height, width = size
    # A concatenation of padded slices cannot be the logits; all layers are kept and compared in any case.
    end = layers[-1].inputs[0] if isinstance(layers[-1], Concat) else last
    return Network(
        name=network.name,
        input_shape=(channels, height, width),
        layers=tuple(
            dataclasses.replace(layer, inputs=tuple(i if i in inside else INPUT for i in layer.inputs))
            for layer in layers
        ),
        logits="fc" if "fc" in inside else end,
        preprocess=Preprocess(mean=(0.0,), std=(1.0,)),
    )


@functools.cache
def network_of(case: Case) -> Network:
    return part(ie.googlenet(seed=1, spec=case.spec), case.first, case.last, case.size)


def images_of(case: Case) -> np.ndarray:
    shape = case.batch, *network_of(case).input_shape
    return np.random.default_rng(2).standard_normal(shape, dtype=np.float32)


def plan_of(case: Case) -> Plan:
    return ie.compile(
        network_of(case),
        targets=(case.target,),
        dtype=case.dtype,
        max_batch=max(case.batch, case.max_batch),
        keep_all=case.every,
    )


def outputs_of(case: Case) -> dict[str, str]:
    """Output -> layer."""
    network = network_of(case)
    if not case.every:
        return {"logits": network.logits, "probabilities": "softmax"}
    # What a concatenation merged with others, or nothing wrote as one slice, is no output.
    return {name: name for name in plan_outputs(plan_of(case)) if name in network.shapes()}


def plan_outputs(plan: Plan) -> list[str]:
    (program,) = plan.programs
    return [program.text(record) for record in program.outputs]


@functools.cache
def started(name: str) -> Future[dict[str, np.ndarray]]:
    case = CASES[name]
    names = list(outputs_of(case))
    arguments = plan_of(case).to_bytes(), images_of(case), names
    return interpreted.submit(
        interpreted.execute, *arguments, grids=case.grids, alone=names if case.alone is None else case.alone
    )


def compared(network: Network, images: np.ndarray, layers: Mapping[str, str],
             actual: Mapping[str, np.ndarray], dtype: str) -> list[str]:  # fmt: skip
    """Violations of the outputs ``actual``, whose layers are ``layers``."""
    expected = reference.run(network, images, keep=set(layers.values()))
    by_layer = {layers[output]: values for output, values in actual.items()}
    shaped = {layer: values.reshape(expected[layer].shape) for layer, values in by_layer.items()}
    return violations(shaped, expected, "fc", dtype)


@pytest.mark.parametrize("name", CASES)
def test_interpreted(name: str) -> None:
    future = started(name)
    names = list(CASES)
    if name != names[-1]:  # the second processor works on the next case
        started(names[names.index(name) + 1])
    case = CASES[name]
    layers = outputs_of(case)
    assert len(layers) >= (6 if case.every and case.last in MODULES else 2)
    assert compared(network_of(case), images_of(case), layers, future.result(), case.dtype) == []


@pytest.mark.parametrize("name", CASES)
def test_walked_by_threads(name: str) -> None:
    """The same programs by the C++ runtime's portable kernels: many threads, so that a missing wait can show."""
    case = CASES[name]
    layers = outputs_of(case)
    with ie.Engine(plan_of(case), threads=4, isa="portable", poison=True, emulate=True) as engine:
        actual = engine.run(images_of(case), outputs=list(layers))
    assert compared(network_of(case), images_of(case), layers, actual, case.dtype) == []


@pytest.fixture
def cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("backend cuda: there is no CUDA device")
    return "cuda"


@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name: str, cuda: str) -> None:
    case = CASES[name]
    layers = outputs_of(case)
    actual = interpreted.execute(
        plan_of(case).to_bytes(),
        images_of(case),
        list(layers),
        cuda,
        grids=case.grids,
        alone=list(layers) if case.alone is None else case.alone,
    )
    assert compared(network_of(case), images_of(case), layers, actual, case.dtype) == []


@functools.cache
def random_started(seed: int) -> tuple[Network, np.ndarray, Future[dict[str, np.ndarray]]]:
    """A network whose LRN layers the compiler takes: those that work on channels without gaps."""
    for attempt in range(seed, 10_000, RANDOM_NETWORKS):
        rng = np.random.default_rng(attempt)
        network = random_network(rng)
        images = rng.standard_normal((2, *network.input_shape), dtype=np.float32)
        try:
            target = (CUDA, "cuda", CUT)[seed % 3]  # a launch for each module; one; one with K in parts
            plan = ie.compile(network, targets=(target,), dtype="fp32", max_batch=3, keep_all=True)
        except ie.compiler.CompileError:
            continue
        names = [name for name in plan_outputs(plan) if name in network.shapes()]
        future = interpreted.submit(
            interpreted.execute, plan.to_bytes(), images, names, grids=BOTH, alone=names[-1:]
        )
        return network, images, future
    raise AssertionError("no network compiled")


@pytest.mark.parametrize("seed", range(RANDOM_NETWORKS))
def test_random_network(seed: int) -> None:
    network, images, future = random_started(seed)
    random_started((seed + 1) % RANDOM_NETWORKS)
    actual = future.result()
    expected = reference.run(network, images, keep=set(actual))
    shaped = {name: values.reshape(expected[name].shape) for name, values in actual.items()}
    assert violations(shaped, expected, network.logits) == []


# Negative controls


CONTROL = module("5a", "control")


def test_every_wait_is_needed() -> None:
    """The proof refuses the program without any one of its waits."""
    plan = plan_of(CASES["3a-fp16"])
    (program,) = plan.programs
    assert len(program.waits) > 100
    for index in range(len(program.waits)):
        tasks = program.tasks.copy()
        task = np.argmax(tasks["wait_begin"] + tasks["wait_count"] > index)
        tasks["wait_count"][task] -= 1
        tasks["wait_begin"][task + 1 :] -= 1
        without = dataclasses.replace(program, tasks=tasks, waits=np.delete(program.waits, index))
        with pytest.raises(PlanMissingWait):
            Plan.from_bytes(dataclasses.replace(plan, programs=[without]).to_bytes())


def shifted(program: Program, layer: str, **fields: int) -> Program:
    """With other values in the record of the op that computes ``layer``."""
    changed = dataclasses.replace(program, ops=program.ops.copy())
    (index,) = [i for i, op in enumerate(program.ops) if program.text(op) == layer]
    for name, value in fields.items():
        changed.ops[index][name] = value
    return changed


WRONG_HALOS = (
    ("5a/3x3", {"pad_top": 0, "pad_bottom": 2}),
    ("5a/5x5", {"pad_left": 1, "pad_right": 3}),
    ("5a/pool", {"pad_top": 2, "pad_bottom": 0}),
    ("5a/pool", {"kernel_h": 1, "pad_top": 0, "pad_bottom": 0}),
)


@functools.cache
def wrong_halo_started(index: int) -> Future[dict[str, np.ndarray]]:
    plan = plan_of(CONTROL)
    (program,) = plan.programs
    layer, fields = WRONG_HALOS[index]
    wrong = dataclasses.replace(plan, programs=[shifted(program, layer, **fields)]).to_bytes()
    Plan.from_bytes(wrong)  # as safe as before
    return interpreted.submit(interpreted.execute, wrong, images_of(CONTROL), list(outputs_of(CONTROL)))


@pytest.mark.parametrize("index", range(len(WRONG_HALOS)))
def test_a_wrong_halo_is_reported(index: int) -> None:
    """The proof does not know the network, so the program runs; parity reports the branch and the concatenation."""
    future = wrong_halo_started(index)
    wrong_halo_started((index + 1) % len(WRONG_HALOS))
    layers = outputs_of(CONTROL)
    found = compared(network_of(CONTROL), images_of(CONTROL), layers, future.result(), CONTROL.dtype)
    layer, _ = WRONG_HALOS[index]
    affected = {layer, "5a"} | ({"5a/pool_proj"} if layer == "5a/pool" else set())
    assert {line.partition(":")[0] for line in found} == affected


def drop_lrn(layer: Layer) -> Layer:
    """A pool of one pixel passes everything on."""
    if not isinstance(layer, LRN):
        return layer
    return MaxPool(name=layer.name, inputs=layer.inputs, kernel=(1, 1), stride=(1, 1))


def test_a_missing_lrn_is_reported() -> None:
    case = CASES["stem-fp32"]
    network = network_of(case)
    without = dataclasses.replace(network, layers=tuple(map(drop_lrn, network.layers)))
    plan = ie.compile(without, targets=("cuda",), dtype=case.dtype, keep_all=True)
    layers = outputs_of(case)
    future = interpreted.submit(interpreted.execute, plan.to_bytes(), images_of(case), list(layers))
    found = compared(network, images_of(case), layers, future.result(), case.dtype)
    assert {"norm1", "norm2"} <= {line.partition(":")[0] for line in found}
