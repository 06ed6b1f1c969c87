"""Convolutions by Winograd's algorithm: which windows may have it, and tiles of whole patches (tiling.cpp)."""

from __future__ import annotations

import pytest

from tests import happens_before, plans, proof_rules
from tests.happens_before import is_safe
from tests.loader import verdict
from tests.plans import CONV, CUDA, INPUT, NONE, Builder, Program, plan_file
from tests.runtime.proof.changes import Change, set_header, set_op


def patches(
    window: int = 3, side: int = 4, tile_rows: int = 16, stride: int = 1, *, small: bool = False
) -> Program:
    """Two images of side * stride pixels square, and a convolution of them by Winograd's algorithm."""
    size = side * stride
    build = Builder((3, size, size), 2)
    image, out = build.buffer(size * size, 3), build.buffer(side * side, 20)
    build.op(INPUT, NONE, image, tile_rows=size)
    pads = dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), window // 2)
    fields = {"kernel_h": window, "kernel_w": window, "stride_h": stride, "stride_w": stride, **pads}
    flags = plans.WINOGRAD | (plans.SMALL_PATCHES if small else 0)
    fields |= {"in_h": size, "in_w": size, "flags": flags, "tile_rows": tile_rows}
    build.op(CONV, image, out, **fields)
    build.output(out, side, side)
    return build.finish()


@pytest.mark.parametrize(
    ("window", "side", "tile_rows"),
    [(3, 4, 16), (3, 8, 32), (3, 8, 128), (3, 7, 49), (5, 4, 8), (5, 6, 24), (5, 3, 9), (3, 12, 96)],
)
def test_tiles_of_whole_patches(window: int, side: int, tile_rows: int) -> None:
    program = patches(window, side, tile_rows)
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    happens_before.check(program)


@pytest.mark.parametrize(("side", "tile_rows"), [(4, 8), (8, 16), (7, 49), (6, 12), (2, 8)])
def test_tiles_of_whole_small_patches(side: int, tile_rows: int) -> None:
    program = patches(3, side, tile_rows, small=True)
    assert verdict(plan_file(program)) == "IE_OK"
    assert proof_rules.violations(program) == set()
    happens_before.check(program)


@pytest.mark.parametrize(("side", "tile_rows"), [(4, 4), (8, 24), (7, 14), (6, 18)])
def test_tiles_that_cut_small_patches_are_refused(side: int, tile_rows: int) -> None:
    program = patches(3, side, tile_rows, small=True)
    assert verdict(plan_file(program)) == "IE_PLAN_ALIGNMENT"
    assert proof_rules.violations(program) == {"IE_PLAN_ALIGNMENT"}
    assert not is_safe(program)


@pytest.mark.parametrize(
    ("window", "side", "tile_rows"), [(3, 8, 16), (3, 7, 28), (5, 4, 4), (5, 7, 14), (3, 4, 8)]
)
def test_tiles_that_cut_patches_are_refused(window: int, side: int, tile_rows: int) -> None:
    """They would read lines that no wait stands for."""
    program = patches(window, side, tile_rows)
    assert verdict(plan_file(program)) == "IE_PLAN_ALIGNMENT"
    assert proof_rules.violations(program) == {"IE_PLAN_ALIGNMENT"}
    assert not is_safe(program)


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("IE_PLAN_VALUE", set_op(1, kernel_h=2, pad_top=0)),
        ("IE_PLAN_VALUE", set_op(1, kernel_w=1, pad_left=0, pad_right=0)),
        ("IE_PLAN_VALUE", set_op(1, part_depth=16)),
        ("IE_PLAN_VALUE", set_op(0, flags=plans.WINOGRAD)),
        ("IE_PLAN_VALUE", set_op(1, flags=plans.SMALL_PATCHES)),
        ("IE_PLAN_VALUE", set_op(0, flags=plans.SMALL_PATCHES)),
        ("IE_PLAN_VALUE", set_header(target=CUDA)),
        ("IE_PLAN_WEIGHTS", set_op(1, weight_bytes=36 * 3 * 32 * 4)),
        ("IE_PLAN_WEIGHTS", lambda p: set_op(1, weight_offset=p.weight_bytes)(p)),
    ],
)
def test_each_rule_of_patches_refuses(status: str, change: Change) -> None:
    program = patches()
    change(program)
    assert verdict(plan_file(program.count())) == status
    assert status in proof_rules.violations(program)


def test_small_patches_are_not_for_windows_of_5() -> None:
    program = patches(5)
    program.ops[1].flags |= plans.SMALL_PATCHES
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert proof_rules.violations(program) == {"IE_PLAN_VALUE"}


def test_patches_are_not_for_float16_or_stride_2() -> None:
    assert verdict(plan_file(patches(stride=2))) == "IE_PLAN_VALUE"
    assert proof_rules.violations(patches(stride=2)) == {"IE_PLAN_VALUE"}
    program = patches()
    program.ops[1].weight_bytes //= 2
    program.header.dtype = plans.BF16
    assert verdict(plan_file(program)) == "IE_OK"
    program.header.dtype = plans.FP16
    assert verdict(plan_file(program)) == "IE_PLAN_VALUE"
    assert "IE_PLAN_VALUE" in proof_rules.violations(program)
