"""The order of tasks: images in groups."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import inception_engine as ie
from inception_engine.compiler.plan import NONE, Plan, Program
from inception_engine.compiler.targets import CUDA
from inception_engine.spec import Spec

BATCH = 5
NETWORK = ie.googlenet(seed=1, spec=Spec(width=0.25, input_size=64, classes=11))


def compiled(group: int) -> Plan:
    target = dataclasses.replace(CUDA, group_images=group)
    return ie.compile(NETWORK, targets=(target,), dtype="fp16", max_batch=BATCH)


def launches(program: Program) -> list[np.ndarray]:
    """The tasks of each."""
    return [program.tasks[int(r["first_task"]) :][: int(r["task_count"])] for r in program.launches]


def images_of(program: Program, tasks: np.ndarray) -> np.ndarray:
    """The first image of each tile."""
    ops = program.ops[tasks["op"]]
    return tasks["row"] // (ops["out_h"] * ops["out_w"])


@pytest.mark.parametrize("group", [1, 2, 4])
def test_groups_hold_the_same_tiles_in_another_order(group: int) -> None:
    """Proven, as every plan; what differs is the order alone."""
    (whole,), (grouped,) = compiled(0).programs, compiled(group).programs
    Plan.from_bytes(compiled(group).to_bytes())
    changed = 0
    for before, after in zip(launches(whole), launches(grouped), strict=True):
        assert (before["op"] != NONE).all()
        fields = ["op", "row", "column", "signal", "wait_count"]
        changed += not np.array_equal(before[fields], after[fields])
        assert sorted(before[fields].tolist()) == sorted(after[fields].tolist())
    assert changed >= 7  # at 2 x 2 pixels a tile holds all images


@pytest.mark.parametrize("group", [1, 2])
def test_a_group_is_done_before_the_next_begins(group: int) -> None:
    """But for tiles whose pixels, or whose windows, belong to two groups."""
    (program,) = compiled(group).programs
    for record, tasks in zip(program.launches, launches(program), strict=True):
        if program.text(record) not in ("3a", "3b"):  # 8 x 8 pixels: a tile holds one image
            continue
        groups = images_of(program, tasks) // group
        assert (np.diff(groups) >= 0).all() and groups[-1] == (BATCH - 1) // group
        for number in range(groups[-1] + 1):
            assert {*tasks["op"][groups == number]} == {*tasks["op"]}


def test_results_are_the_same() -> None:
    images = np.random.default_rng(0).standard_normal((BATCH, 3, 64, 64), dtype=np.float32)
    results = []
    for group in (0, 2):
        with ie.Engine(compiled(group), emulate=True, threads=3, poison=True) as engine:
            results.append(engine.run(images))
    np.testing.assert_array_equal(results[0], results[1])
