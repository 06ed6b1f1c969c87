"""What the compiler makes of a network: which ops, where they write, what they wait for, and that it is proven."""

from __future__ import annotations

import contextlib
import dataclasses
import re

import numpy as np
import pytest

import inception_engine as ie
from inception_engine.binding import check_plan
from inception_engine.compiler import CompileError, targets
from inception_engine.compiler.plan import NONE, LaunchMode, OpFlag, OpKind, Plan, Program
from inception_engine.network import INPUT, Concat, Conv, Network, NetworkError
from tests.random_networks import random_network

VARIANTS = ("lrn", "none")
# Tile sizes and alignments that no machine would choose, so that every edge of a tile is met on small images.
ODD_TARGETS = (
    targets.CPU,
    targets.target_for("cpu", 1, "fp32"),
    dataclasses.replace(
        targets.target_for("cpu", 1, "fp32"), tile_pixels=64, winograd_patches=0, small_patches=0
    ),
    dataclasses.replace(targets.CPU, tile_pixels=5, tasks_per_op=3, tile_columns=16, delay=0),
    dataclasses.replace(targets.CPU, tile_pixels=64, tile_columns=32, delay=3),
    dataclasses.replace(targets.CPU, tile_pixels=1, tile_columns=16),
)


@pytest.fixture(scope="module", params=VARIANTS)
def googlenet(request: pytest.FixtureRequest) -> Network:
    return ie.googlenet(seed=0, norm=request.param)


def names(program: Program, kind: OpKind) -> list[str]:
    return [program.text(op) for op in program.ops if op["kind"] == kind]


def conv(name: str, source: str, channels: tuple[int, int], kernel: int = 1) -> Conv:
    weight = np.ones((channels[1], channels[0], kernel, kernel), np.float32)
    pads = (kernel // 2,) * 4
    bias = np.zeros(channels[1], np.float32)
    return Conv(name=name, inputs=(source,), weight=weight, bias=bias, pads=pads)


def proven(plan: Plan) -> Program:
    status, message = check_plan(plan.to_bytes())
    assert status == 0, message
    return plan.programs[0]


def test_reduces_are_merged_and_concatenation_is_free(googlenet: Network) -> None:
    program = proven(ie.compile(googlenet))
    convs = names(program, OpKind.CONV)
    assert "3a/3x3_reduce + 3a/5x5_reduce" in convs
    modules = [layer for layer in googlenet.layers if isinstance(layer, Concat)]
    assert len(modules) == 9
    # 57 convolutions and one linear layer, two reduces of each module in one op, and no op for a concatenation.
    assert len(convs) == 58 - len(modules)
    assert {op["kind"] for op in program.ops} <= {kind.value for kind in OpKind}
    module = [op for op in program.ops if program.text(op, "module") == "3a"]
    slices = {
        (int(op["out_channel"]), int(op["out_channels"]))
        for op in module
        if program.text(op) in ("3a/1x1", "3a/3x3", "3a/5x5", "3a/pool + 3a/pool_proj")
    }
    assert slices == {(0, 64), (64, 128), (192, 32), (224, 32)}
    assert len({int(op["out_buffer"]) for op in module}) == 2  # reduces, output


def test_the_stem_reads_runs_of_its_window(googlenet: Network) -> None:
    program = proven(ie.compile(googlenet))
    stem = next(op for op in program.ops if program.text(op) == "conv1")
    assert (stem["kernel_h"], stem["kernel_w"], stem["in_channels"], stem["in_w"]) == (7, 1, 21, 230)


@pytest.mark.parametrize("batch", [1, 8])
def test_arena_is_a_third_of_the_activations(googlenet: Network, batch: int) -> None:
    header = proven(ie.compile(googlenet, max_batch=batch)).header
    assert header["arena_bytes"] <= 0.35 * header["activation_bytes"]


def test_memory_that_rests_makes_no_larger_arena(googlenet: Network) -> None:
    """And spares waiting."""
    at_once, resting = (
        proven(ie.compile(googlenet, targets=(dataclasses.replace(targets.CPU, delay=delay),), max_batch=8))
        for delay in (0, 1)
    )
    assert resting.header["arena_bytes"] == at_once.header["arena_bytes"]
    assert len(resting.waits) < len(at_once.waits)


def test_programs_share_their_weights(googlenet: Network) -> None:
    one = ie.compile(googlenet, batches=(1,))
    two = ie.compile(googlenet, batches=(1, 8))
    assert [int(p.header["max_batch"]) for p in two.programs] == [1, 8]
    assert two.weights.nbytes == one.weights.nbytes
    assert one.weights.nbytes < 1.01 * 4 * googlenet.parameters()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_equal_weights_that_others_are_made_of_in_several_ways(dtype: str) -> None:
    """Zeroed layers: of equal bytes a CPU makes patches for 16 channels and for 64, and in bfloat16 windows as well."""
    layers = (
        conv("stem", INPUT, (16, 16)),
        conv("wide", "stem", (16, 64), 3),
        conv("narrow", "wide", (64, 16), 3),
        dataclasses.replace(conv("strided", "narrow", (16, 64), 3), stride=(2, 2)),
        conv("last", "strided", (64, 16), 3),
    )
    zeroed = tuple(dataclasses.replace(layer, weight=np.zeros_like(layer.weight)) for layer in layers)
    network = Network(
        name="zeroed",
        input_shape=(16, 28, 28),
        layers=zeroed,
        logits="last",
        preprocess=ie.Preprocess(mean=(0.0,), std=(1.0,)),
    )
    plan = ie.compile(network, dtype=dtype, batches=(1, 4))
    for program in plan.programs:
        ways: dict[int, set[tuple[int, ...]]] = {}
        for op in program.ops[program.ops["kind"] == OpKind.CONV]:
            patches = bool(op["flags"] & OpFlag.WINOGRAD)
            way = (int(op["kernel_h"]), int(op["in_channels"])) if patches else (0, 0)
            ways.setdefault(int(op["weight_offset"]), set()).add(way)
        assert {way for found in ways.values() for way in found} >= {(3, 16), (3, 64), (0, 0)}
        assert all(len(found - ({(0, 0)} if dtype == "fp32" else set())) <= 1 for found in ways.values())
    assert ie.compile(network, dtype=dtype).weights.nbytes == plan.weights.nbytes
    with ie.Engine(plan, device="cpu") as engine:
        assert not engine.run(np.ones((1, 16, 28, 28), np.float32)).any()


def test_equal_input_makes_equal_plans(googlenet: Network) -> None:
    assert ie.compile(googlenet).to_bytes() == ie.compile(googlenet).to_bytes()


def test_parsing_gives_back_what_was_written(googlenet: Network) -> None:
    data = ie.compile(googlenet, batches=(1, 2)).to_bytes()
    assert Plan.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("target", ODD_TARGETS, ids=lambda t: f"{t.tile_pixels}x{t.tile_columns}")
@pytest.mark.parametrize("keep_all", [False, True], ids=("reuse", "keep_all"))
def test_random_networks_are_proven(target: targets.Target, keep_all: bool) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        batch = int(rng.integers(1, 6))
        proven(ie.compile(network, targets=(target,), max_batch=batch, keep_all=keep_all))


@pytest.mark.parametrize("seed", range(40))
def test_padded_slices_are_proven(seed: int) -> None:
    """Slices of whole panels leave zeros between branches; what works across channels refuses them by name."""
    target = dataclasses.replace(targets.CPU, channel_align=16)
    network = random_network(np.random.default_rng(seed))
    compiled = None
    with contextlib.suppress(CompileError):
        compiled = ie.compile(network, targets=(target,), max_batch=2)
    if compiled is None:
        with pytest.raises(CompileError, match=r"layer \S+: works across channels"):
            ie.compile(network, targets=(target,), max_batch=2)
    else:
        proven(compiled)


def test_memory_is_reused_only_behind_a_join(googlenet: Network) -> None:
    program = proven(ie.compile(googlenet))
    assert (program.tasks["op"] == NONE).any()
    kept = proven(ie.compile(googlenet, keep_all=True))
    assert not (kept.tasks["op"] == NONE).any()
    assert kept.header["arena_bytes"] >= kept.header["activation_bytes"]


@pytest.mark.parametrize(
    "branches",
    [("a", "a"), ("a", "b"), ("inner", "a"), ("inner", "b"), (INPUT, "b"), ("inner", "inner")],
    ids="-".join,
)
def test_layers_with_several_uses_are_copied_into_a_concatenation(branches: tuple[str, ...]) -> None:
    """Layer b reads a, so a cannot live in a buffer that b writes; nested and repeated inputs need a copy as well."""
    layers = (
        conv("a", INPUT, (3, 5)),
        conv("b", "a", (5, 7), kernel=3),
        Concat(name="inner", inputs=("a", "b")),
        Concat(name="outer", inputs=branches),
    )
    network = Network(name="several", input_shape=(3, 6, 6), layers=layers, logits="outer")
    for keep_all in (False, True):
        proven(ie.compile(network, keep_all=keep_all))


def test_layers_that_no_output_needs_are_left_out() -> None:
    layers = (conv("a", INPUT, (3, 5)), conv("unused", "a", (5, 9)), conv("b", "a", (5, 7)))
    network = Network(name="dead", input_shape=(3, 4, 4), layers=layers, logits="b")
    assert names(proven(ie.compile(network)), OpKind.CONV) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ("tpu",)}, "unknown target 'tpu'"),
        ({"targets": ()}, "no target"),
        ({"dtype": "fp8"}, "no kernels for dtype 'fp8'"),
        ({"targets": "tpu"}, "unknown target 'tpu'"),
        ({"batches": "1,8"}, "give whole numbers"),
        ({"batches": (1.5,)}, "give whole numbers"),
        ({"max_batch": "8"}, "give whole numbers"),
        ({"max_batch": 0}, "between 1 and 4096"),
        ({"batches": ()}, "between 1 and 4096"),
        ({"batches": (1, 5000)}, "between 1 and 4096"),
    ],
)
def test_what_cannot_be_compiled_is_said(arguments: dict[str, object], message: str) -> None:
    network = Network(name="n", input_shape=(3, 4, 4), layers=(conv("a", INPUT, (3, 5)),), logits="a")
    with pytest.raises(CompileError, match=re.escape(message)):
        ie.compile(network, **arguments)  # type: ignore[arg-type]


def test_a_launch_per_module(googlenet: Network) -> None:
    """Launches order what they hold, so nothing waits across them and memory is reused without a JOIN."""
    target = dataclasses.replace(targets.CPU, launch=LaunchMode.MODULE, delay=0)
    program = proven(ie.compile(googlenet, targets=(target,)))
    modules = [program.text(launch) for launch in program.launches if launch["mode"] == LaunchMode.MODULE]
    assert modules == ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    between = [program.text(launch) for launch in program.launches if launch["mode"] == LaunchMode.LAYER]
    assert between == ["input to pool2", "pool3", "pool4", "avgpool to softmax"]
    assert not (program.tasks["op"] == NONE).any()
    # The launch of the stem keeps all that it makes, which is most of the network's activations.
    stem = {int(op["out_buffer"]) for op in program.ops if not program.text(op, "module")}
    kept = sum(int(program.buffers[b]["rows"]) * int(program.buffers[b]["pitch"]) * 4 for b in stem)
    assert program.header["arena_bytes"] <= 1.05 * kept < program.header["activation_bytes"]
    for seed in range(40):
        proven(ie.compile(random_network(np.random.default_rng(seed)), targets=(target,), max_batch=3))


def test_an_output_with_padding_inside_is_refused() -> None:
    """Its channels do not lie side by side, so no slice of the buffer is the output."""
    layers = (conv("a", INPUT, (3, 20)), conv("b", INPUT, (3, 21)), Concat(name="cat", inputs=("a", "b")))
    network = Network(name="padded", input_shape=(3, 4, 4), layers=layers, logits="cat")
    proven(ie.compile(network))
    for keep_all in (False, True):
        with pytest.raises(CompileError, match="layer cat: an output of the network"):
            ie.compile(network, targets="cuda", keep_all=keep_all)


@pytest.mark.parametrize(("size", "batch"), [(100_000, 1), (30_000, 1), (2_000, 4096)])
def test_what_no_program_can_hold_is_refused_before_the_work(size: int, batch: int) -> None:
    layer = conv("a", INPUT, (3, 64))
    with pytest.raises((CompileError, NetworkError), match=r"numbers, more than|too large|smaller batch"):
        ie.compile(
            Network(name="large", input_shape=(3, size, size), layers=(layer,), logits="a"), max_batch=batch
        )


def test_concatenations_that_are_nested_without_end_are_refused() -> None:
    layers = [Concat(name="0", inputs=(INPUT,))]
    layers += [Concat(name=str(i), inputs=(str(i - 1),)) for i in range(1, 1024)]
    network = Network(name="nested", input_shape=(3, 1, 1), layers=tuple(layers), logits="1023")
    with pytest.raises(CompileError, match="too deep"):
        ie.compile(network)


def test_only_networks_are_compiled() -> None:
    with pytest.raises(CompileError, match="not NoneType"):
        ie.compile(None)  # type: ignore[arg-type]
