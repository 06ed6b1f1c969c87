"""The interpreter that the tests use, quickened and with its front end recorded, beside Triton's own: the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("triton", reason="backend triton: triton is not installed")

import triton
import triton.language as tl

from inception_engine.spec import Spec
from tests.kernels import interpreted
from tests.kernels import test_module as modules
from tests.kernels.test_walk import (
    NARROW,
    Case,
    images_of,
    module,
    outputs_of,
    plan_of,
)
from tests.runtime.test_emulation import CUT

SIZE, LINES = 16, 8
SUBMITS = {"quick": interpreted.submit, "plain": interpreted.submit_plain}
# Tiles of every kind, in each dtype; K in parts; a batch that is not the plan's.
WALKED = {
    case.dtype: case
    for case in (
        Case("stem", last="pool2", size=(12, 12), spec=NARROW, dtype="fp16"),
        module("5a", "5a-parts", size=(3, 2), spec=NARROW, target=CUT, dtype="bf16"),
        Case("head", first="avgpool", spec=Spec(width=0.125, classes=7), batch=2, max_batch=3, dtype="fp32"),
    )
}


@triton.jit  # type: ignore[untyped-decorator]
def odd(x, numbers, out, SIZE: tl.constexpr):
    """What a recording could get wrong, each in a line of ``out``."""
    o = tl.arange(0, SIZE)
    a, b = tl.load(x + o), tl.load(x + SIZE + o)
    # An argument twice, then two of the same type.
    tl.store(out + o, a + a)
    tl.store(out + SIZE + o, a + b)
    # Constants that are equal and not the same.
    tl.store(out + 2 * SIZE + o, (o + 1).to(tl.float32, bitcast=True))
    tl.store(out + 3 * SIZE + o, (o + 1.0).to(tl.float32, bitcast=True))
    for i in range(SIZE):
        # Of a number, the front end of `load` asks whether it is 0.
        number = tl.load(numbers + i)
        tl.store(out + 4 * SIZE + i, tl.load(numbers + i, number < 0, number).to(tl.float32))
        # Numbers of a loop, in lists and without.
        tl.store(out + 5 * SIZE + i, tl.sum(tl.where(o == i, a, 0.0)))
        tl.store(out + (6 + i % 2) * SIZE + i, tl.max(tl.full((SIZE,), i, tl.float32)))


def run_odd(x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    import torch

    out = torch.zeros(LINES * SIZE)
    odd[(1,)](torch.from_numpy(x), torch.from_numpy(numbers), out, SIZE=SIZE)
    return out.numpy().reshape(LINES, SIZE)


def questions(plan: bytes, images: np.ndarray, names: Sequence[str]) -> int:
    """How often the second run of a plan asks the front end for the types of an operation's two sides."""
    from triton.language.semantic import TritonSemantic

    interpreted.execute(plan, images, names)
    asked = TritonSemantic.binary_op_type_checking_impl
    with mock.patch.object(TritonSemantic, asked.__name__, autospec=True, side_effect=asked) as counted:
        interpreted.execute(plan, images, names)
    return counted.call_count


# Tests


def bits(result: np.ndarray) -> np.ndarray:
    return result.view(np.uint32)


def test_what_a_recording_could_get_wrong() -> None:
    x = np.random.default_rng(0).standard_normal(2 * SIZE, dtype=np.float32)
    numbers = np.arange(SIZE, dtype=np.int32)
    a, b, o = x[:SIZE], x[SIZE:], numbers
    expected = np.stack([
        a + a, a + b, (o + 1).view(np.float32), o + np.float32(1),
        o, a, np.where(o % 2, 0, o), np.where(o % 2, o, 0),
    ]).astype(np.float32)  # fmt: skip
    for name, submit in SUBMITS.items():
        found = submit(run_odd, x, numbers).result()
        assert [
            line for line in range(LINES) if not np.array_equal(bits(found[line]), bits(expected[line]))
        ] == [], name


@pytest.mark.parametrize("dtype", WALKED)
def test_walk_is_the_same(dtype: str) -> None:
    case = WALKED[dtype]
    arguments = plan_of(case).to_bytes(), images_of(case), list(outputs_of(case))
    quick, plain = (submit(interpreted.execute, *arguments) for submit in SUBMITS.values())
    expected = plain.result()
    for name, values in quick.result().items():
        assert np.array_equal(bits(values), bits(expected[name])), name


def test_module_is_the_same() -> None:
    case = module("5b", "5b-1x1", size=(1, 1), batch=3, max_batch=4, spec=NARROW)
    arguments = modules.plan_of(case).to_bytes(), images_of(case), list(outputs_of(case)), 2
    quick, plain = (submit(modules.execute, *arguments) for submit in SUBMITS.values())
    expected, taken, _ = plain.result()
    assert taken[-1]
    for name, values in quick.result()[0].items():
        assert np.array_equal(bits(values), bits(expected[name])), name


def test_nothing_is_found_out_twice() -> None:
    case = WALKED["fp16"]
    arguments = plan_of(case).to_bytes(), images_of(case), list(outputs_of(case))
    quick, plain = (submit(questions, *arguments) for submit in SUBMITS.values())
    assert quick.result() == 0 and plain.result() > 1000
