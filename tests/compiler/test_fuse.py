"""Which LRN layers and pools become part of another op, and that they compute the same bits there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding
from inception_engine.compiler import targets
from inception_engine.compiler.inspect import report
from inception_engine.compiler.plan import OpFlag, OpKind, Program
from inception_engine.network import (
    INPUT,
    LRN,
    AveragePool,
    Concat,
    Conv,
    Layer,
    MaxPool,
    Network,
    Preprocess,
)


def conv(name: str, source: str, channels: tuple[int, int], kernel: int = 3, **fields: Any) -> Conv:
    rng = np.random.default_rng(len(name))
    weight = rng.normal(size=(channels[1], channels[0], kernel, kernel)) / kernel
    bias = rng.normal(size=channels[1])
    return Conv(
        name=name,
        inputs=(source,),
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        pads=(kernel // 2,) * 4,
        **fields,
    )


def pool(name: str, source: str) -> MaxPool:
    return MaxPool(name=name, inputs=(source,), kernel=(3, 3), stride=(2, 2), pads=(0, 1, 1, 0))


def same(name: str, source: str) -> MaxPool:
    return MaxPool(name=name, inputs=(source,), kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1))


def lrn(name: str, source: str, **fields: Any) -> LRN:
    """Strong, so that dropping it, or taking other channels, shows."""
    return LRN(name=name, inputs=(source,), **({"alpha": 1.0} | fields))


def network(*layers: Layer, size: tuple[int, int, int] = (3, 21, 19)) -> Network:
    preprocess = Preprocess(mean=(0.0,) * size[0], std=(1.0,) * size[0])
    return Network(
        name="normalised", input_shape=size, layers=layers, logits=layers[-1].name, preprocess=preprocess
    )


def program(net: Network, **options: Any) -> Program:
    return ie.compile(net, **options).programs[0]


def fused(made: Program) -> list[str]:
    """Ops that have an LRN behind them."""
    assert all((op["lrn_size"] != 0) == _has_lrn(op) for op in made.ops)
    return [made.text(op) for op in made.ops if op["flags"] & OpFlag.THEN_LRN]


def pooled(made: Program) -> list[str]:
    """Convolutions that have a pool in front of them."""
    return [made.text(op) for op in made.ops if op["flags"] & OpFlag.MAX_POOL_FIRST]


def _has_lrn(op: np.void) -> bool:
    return bool(op["kind"] == OpKind.LRN or op["flags"] & OpFlag.THEN_LRN)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 2, 5, 32])
def test_googlenet(batch: int, dtype: str) -> None:
    net = ie.googlenet(width=0.5)
    made = program(net, max_batch=batch, dtype=dtype)
    assert fused(made) == ["pool1 + norm1", "conv2 + norm2"]
    assert OpKind.LRN not in made.ops["kind"]
    assert fused(program(net, max_batch=batch, dtype=dtype, keep_all=True)) == []
    assert fused(program(ie.googlenet(width=0.5, norm="none"))) == []
    modules = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    assert pooled(made) == [f"{name}/pool + {name}/pool_proj" for name in modules]
    assert (made.ops["kind"] == OpKind.MAX_POOL).sum() == 4
    assert pooled(program(net, max_batch=batch, dtype=dtype, keep_all=True)) == []


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_gpus_run_them_by_themselves(dtype: str) -> None:
    made = program(ie.googlenet(width=0.5), targets="cuda", dtype=dtype)
    assert fused(made) == pooled(made) == []
    assert (made.ops["kind"] == OpKind.LRN).sum() == 2


def test_the_budget_counts_each_layer_once() -> None:
    net = ie.googlenet()
    document = report(ie.compile(net))
    apart = report(ie.compile(net, targets=(_apart("fp32"),)))
    assert document["macs"] == apart["macs"]
    layers = {layer["name"]: layer for layer in document["layers"]}
    alone = {layer["name"]: layer for layer in apart["layers"]}
    # What is between the layers is not moved.
    assert layers["conv2 + norm2"] | {"name": "conv2"} == alone["conv2"]
    assert layers["4a/pool + 4a/pool_proj"] | {"name": "4a/pool_proj"} == alone["4a/pool_proj"]
    assert document["activation_bytes"] < apart["activation_bytes"]


def _apart(dtype: str) -> targets.Target:
    return dataclasses.replace(targets.target_for("cpu", 1, dtype), fuse_lrn=False, fuse_pools=False)


# Odd columns, padding in a slice of a concatenation, windows of even size and wider than the channels, any power.
NETWORKS = {
    "googlenet": ie.googlenet(width=0.25, input_size=64, classes=10),
    "chain": network(
        conv("stem", INPUT, (3, 21), relu=True),
        lrn("a", "stem"),
        pool("pool", "a"),
        lrn("b", "pool", size=4, beta=0.5, k=2.0),
        conv("last", "b", (21, 33), relu=False),
        lrn("c", "last", size=41),
    ),
    "pools": network(
        conv("stem", INPUT, (3, 21), relu=False),
        same("same", "stem"),
        conv("one", "same", (21, 40), kernel=1),
        lrn("normal", "one"),
        MaxPool(name="less", inputs=("normal",), kernel=(2, 3), stride=(1, 1), pads=(0, 2, 1, 0)),
        conv("two", "less", (40, 7), kernel=1, relu=True),
        MaxPool(name="wide", inputs=("two",), kernel=(5, 7), stride=(1, 1)),
        conv("three", "wide", (7, 60), kernel=1, relu=False),
        size=(3, 23, 70),
    ),
    "slices": network(
        pool("one", INPUT),
        lrn("a", "one", size=2),
        conv("two", INPUT, (3, 18), stride=(2, 2), relu=False),
        lrn("b", "two"),
        Concat(name="both", inputs=("b", "a")),
        conv("last", "both", (21, 16), kernel=1),
        size=(3, 18, 14),
    ),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits_as_two_ops(name: str, dtype: str) -> None:
    net = NETWORKS[name]
    images = np.random.default_rng(0).normal(size=(3, *net.input_shape)).astype(np.float32)
    together = ie.compile(net, max_batch=4, dtype=dtype)
    apart = ie.compile(net, max_batch=4, dtype=dtype, targets=(_apart(dtype),))
    expected_count = sum(isinstance(layer, LRN) for layer in net.layers)
    assert len(fused(together.programs[0])) == expected_count and fused(apart.programs[0]) == []
    pools = {"googlenet": 9, "pools": 3}.get(name, 0)
    assert len(pooled(together.programs[0])) == pools and pooled(apart.programs[0]) == []
    for isa in binding.machine_isas():
        results = []
        for plan in (together, apart):
            with ie.Engine(plan, isa=isa, threads=3, poison=True) as engine:
                results.append(engine.run(images))
        assert np.isfinite(results[0]).all()
        np.testing.assert_array_equal(results[0].view(np.uint32), results[1].view(np.uint32))


def test_the_comparison_notices_a_dropped_flag() -> None:
    net = NETWORKS["chain"]
    images = np.ones((1, *net.input_shape), np.float32)
    plan = ie.compile(net)
    with ie.Engine(plan) as engine:
        expected = engine.run(images)
    plan.programs[0].ops["flags"] &= ~np.uint32(OpFlag.THEN_LRN)
    with ie.Engine(plan) as engine:
        assert (engine.run(images) != expected).any()


def test_columns_that_are_cut_for_more_tasks_stay_so() -> None:
    """An image of one tile's height: its columns are shared out, and an LRN needs all of them."""
    layers = conv("wide", INPUT, (3, 160)), lrn("norm", "wide")
    small = network(*layers, size=(3, 8, 8))
    made = program(small)
    assert made.ops[1]["tile_columns"] < 160
    assert fused(made) == [] and OpKind.LRN in made.ops["kind"]
    assert fused(program(small, max_batch=32)) == ["wide + norm"]


@pytest.mark.parametrize(
    "layers",
    [
        (conv("a", INPUT, (3, 16)), lrn("b", "a"), conv("c", "a", (16, 16)), Concat(name="d", inputs=("b", "c"))),
        (conv("a", INPUT, (3, 16)), conv("b", INPUT, (3, 16)), Concat(name="c", inputs=("a", "b")), lrn("d", "c")),
        (conv("a", INPUT, (3, 16)), AveragePool(name="b", inputs=("a",), kernel=(2, 2), stride=(2, 2)), lrn("c", "b")),
        (lrn("a", INPUT),),
    ],
    ids=["read by another", "written by two", "behind an average pool", "of the image"],
)  # fmt: skip
def test_what_stays_an_op_of_its_own(layers: tuple[Layer, ...]) -> None:
    made = program(network(*layers, size=(3, 40, 40)))
    assert fused(made) == [] and (made.ops["kind"] == OpKind.LRN).sum() == 1


def test_one_lrn_behind_an_op() -> None:
    """The second one of two reads what the first has written, which is an op's."""
    layers = conv("a", INPUT, (3, 16)), lrn("b", "a"), lrn("c", "b")
    made = program(network(*layers, size=(3, 40, 40)))
    assert fused(made) == ["a + b"] and (made.ops["kind"] == OpKind.LRN).sum() == 1


def test_parts_of_k_stay_alone() -> None:
    target = dataclasses.replace(targets.CPU, part_tasks=1 << 20, most_parts=2)
    layers = conv("a", INPUT, (16, 16)), conv("b", "a", (16, 16)), lrn("c", "b")
    net = network(*layers, size=(16, 40, 40))
    made = program(net, targets=(target,))
    assert (made.ops["part_depth"] > 0).any() and fused(made) == []
    assert fused(program(net)) == ["b + c"]


@pytest.mark.parametrize(
    "layers",
    [
        (same("a", INPUT), conv("b", "a", (3, 16), kernel=1), conv("c", "a", (3, 16), kernel=1),
         Concat(name="d", inputs=("b", "c"))),
        (same("a", INPUT), conv("b", "a", (3, 16))),
        (same("a", INPUT), conv("b", "a", (3, 16), kernel=1, stride=(2, 2))),
        (pool("a", INPUT), conv("b", "a", (3, 16), kernel=1)),
        (AveragePool(name="a", inputs=(INPUT,), kernel=(2, 2), stride=(1, 1)), conv("b", "a", (3, 16), kernel=1)),
        (same("a", INPUT), lrn("b", "a"), conv("c", "b", (3, 16), kernel=1)),
        (same("a", INPUT), conv("b", INPUT, (3, 16)), Concat(name="c", inputs=("a", "b")),
         conv("d", "c", (19, 16), kernel=1)),
    ],
    ids=["read by two", "a larger window", "stride 2 of the convolution", "of the pool", "an average pool",
         "normalised", "a slice"],
)  # fmt: skip
def test_pools_that_stay_ops_of_their_own(layers: tuple[Layer, ...]) -> None:
    made = program(network(*layers, size=(3, 40, 40)))
    assert pooled(made) == []
    assert np.isin(made.ops["kind"], (OpKind.MAX_POOL, OpKind.AVERAGE_POOL)).sum() == 1


def test_pools_are_not_computed_for_each_tile_of_columns() -> None:
    layers = same("pool", INPUT), conv("wide", "pool", (3, 160), kernel=1)
    small = network(*layers, size=(3, 8, 8))
    made = program(small)
    assert made.ops[-1]["tile_columns"] < 160 and pooled(made) == []
    assert pooled(program(small, max_batch=32)) == ["pool + wide"]
