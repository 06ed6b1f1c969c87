"""The tiles and launches that a GPU's target chooses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import reference
from inception_engine.compiler.plan import NONE, LaunchMode, OpKind
from inception_engine.compiler.targets import CUDA, TARGETS, Tuned, target_for, tuned
from inception_engine.network import INPUT, Conv, Network, Preprocess


@pytest.mark.parametrize(
    ("columns", "rows", "wanted"),
    [
        (64, 6272, 64),
        (96, 6272, 32),  # 2 x 64 would compute a third more
        (208, 6272, 64),  # 4 x 64 compute a seventh more than 7 x 32
        (16, 6272, 32),
        (160, 64 * 13, 32),  # 39 tiles of 64 columns are too few
        (192, 64 * 24, 64),
    ],
)
def test_columns_of_a_gpus_tile(columns: int, rows: int, wanted: int) -> None:
    assert CUDA.tile(OpKind.CONV, columns, 64, rows) == (64, wanted)
    assert CUDA.tile(OpKind.SOFTMAX, columns, 64, rows) == (64, columns)


@pytest.mark.parametrize(("height", "batch", "wanted"), [(28, 1, 64), (14, 1, 32), (14, 3, 64), (1, 1, 32)])
def test_rows_of_a_gpus_tile(height: int, batch: int, wanted: int) -> None:
    assert CUDA.tile_rows(height, height, batch) == wanted


def test_small_batches_are_one_launch_without_reuse() -> None:
    network = ie.googlenet(width=0.25, input_size=64, classes=5)
    plan = ie.compile(network, targets="cuda", dtype="fp16", batches=(1, 8, 9))
    for program in plan.programs:
        small = program.header["max_batch"] <= 8
        modes = program.launches["mode"].tolist()
        assert modes == [LaunchMode.NETWORK] if small else len(modes) == 13
        assert NONE not in program.tasks["op"]  # no JOIN
        assert (program.header["arena_bytes"] < program.header["activation_bytes"]) != small


@pytest.mark.parametrize(
    ("depth", "tiles", "wanted"),
    [
        (1400, 64, 384),  # 4 parts of 350, in steps of 64
        (1399, 64, 0),  # short
        (1440, 132, 768),
        (1440, 133, 0),  # two parts each would be too many tasks
        (4096, 1, 1024),  # no more parts than four
    ],
)
def test_parts_of_k(depth: int, tiles: int, wanted: int) -> None:
    target = dataclasses.replace(CUDA, part_tasks=264, least_depth=1400, most_parts=4)
    assert target.part_depth(depth, tiles) == wanted
    assert CUDA.part_depth(depth, tiles) == 0


def test_choices_come_from_the_tuned_file() -> None:
    """By batch and dtype, the first that fits; where they come from is said."""
    for name in TARGETS:
        assert (
            tuned(name).provenance["kind"] in ("predicted", "measured") and tuned(name).provenance["source"]
        )
    with pytest.raises(KeyError):
        target_for("tpu", 1, "fp32")
    document = {
        "provenance": {"kind": "measured"},
        "choices": [
            {"up_to_batch": 2, "dtypes": ["fp16"], "fields": {"launch": "NETWORK", "part_tasks": 7}},
            {"up_to_batch": 8, "fields": {"tile_pixels": 32}},
            {"fields": {}},
        ],
    }
    chosen = Tuned(document)
    assert chosen.target(2, "fp16") == dataclasses.replace(CUDA, launch=LaunchMode.NETWORK, part_tasks=7)
    assert chosen.target(2, "fp32") == chosen.target(8, "fp16") == dataclasses.replace(CUDA, tile_pixels=32)
    assert chosen.target(9, "bf16") == CUDA


def test_large_batches_have_tiles_of_several_blocks_in_half_precision_alone() -> None:
    network = ie.googlenet()
    for dtype, rows, columns in (("fp16", {64, 128, 256}, {64}), ("fp32", {32, 64}, {32, 64})):
        (program,) = ie.compile(network, targets="cuda", dtype=dtype, max_batch=32).programs
        products = program.ops[program.ops["kind"] == OpKind.CONV]
        assert {*products["tile_columns"].tolist()} == columns
        assert {*products["tile_rows"].tolist()} <= rows and max(products["tile_rows"]) == max(rows)
        assert not products["part_depth"].any()  # it was measured not to pay


@pytest.mark.parametrize(
    ("channels", "width", "run"), [(3, 7, 28), (1, 7, 28), (5, 3, 24), (3, 4, 0), (2, 8, 0)]
)
def test_pixels_of_a_folded_image_are_padded_on_a_gpu(channels: int, width: int, run: int) -> None:
    """Runs of whole panels would be taken for the channels of a pixel: those are not folded."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, channels, width, width), dtype=np.float32)
    conv = Conv(name="conv", inputs=(INPUT,), weight=weight, bias=np.zeros(8, np.float32))
    plain = Preprocess(mean=(0.0,), std=(1.0,))
    network = Network(
        name="first", input_shape=(channels, 12, 12), layers=(conv,), logits="conv", preprocess=plain
    )
    plan = ie.compile(network, targets="cuda")
    (op,) = (op for op in plan.programs[0].ops if op["kind"] == OpKind.CONV)
    assert (int(op["kernel_w"]), int(op["in_channels"])) == ((1, run) if run else (width, 16))
    images = rng.standard_normal((1, channels, 12, 12), dtype=np.float32)
    with ie.Engine(plan, emulate=True) as engine:
        found = engine.run(images, outputs=["logits"])["logits"]
    expected = reference.run(network, images)["conv"].reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
