"""The judge of the random programs can fail: brute force finds what it is there to find."""

from __future__ import annotations

import re

import pytest

from tests import happens_before
from tests.plans import CLASSIFIER, CONV_1X1, CONV_3X3, MEAN, NORM, PROBABILITIES, buffer_bytes, small_program
from tests.runtime.proof.changes import (
    HUGE,
    Change,
    broken,
    drop_a_tile,
    forget_waits,
    parts_task,
    place_of_parts,
    reuse_an_output,
    set_buffer,
    set_header,
    set_op,
    signal_an_arrival,
    skip_a_tile,
    stack,
    wait_for_itself,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forget_waits(NORM), r"not ordered"),
        (stack(NORM), r"not ordered"),
        (reuse_an_output, r"output 0 reads what task 26 wrote into another buffer"),
        (skip_a_tile, r"nothing has written"),
        (wait_for_itself, r"waits for task"),
        (drop_a_tile, r"nothing has written"),
        (set_op(CONV_1X1, in_channel=1), r"outside buffer"),
        (set_op(CLASSIFIER, out_channel=1), r"outside buffer"),
        (set_header(arena_bytes=64), r"leaves the arena"),
        (set_op(CONV_3X3, weight_offset=64), r"weights"),
        (lambda p: vars(p.waits[-1]).update(target=0), r"waits for 0 of"),
        (set_op(CONV_1X1, out_channel=19), r"not ordered"),
    ],
)
def test_brute_force_finds(change: Change, message: str) -> None:
    program = broken(change)
    with pytest.raises(happens_before.Hazard, match=message):
        happens_before.check(program)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (parts_task(1, part=0), r"lacks parts"),
        (signal_an_arrival, r"counted with something else"),
        (place_of_parts(MEAN), r"overwrites what it reads"),
        (set_op(CLASSIFIER, first_arrival=HUGE), r"counted with something else"),
        (lambda p: set_buffer(p.ops[CLASSIFIER].part_buffer, rows=2)(p), r"lie outside buffer"),
    ],
)
def test_brute_force_finds_in_parts(change: Change, message: str) -> None:
    program = small_program(1, part_depth=16)
    change(program)
    with pytest.raises(happens_before.Hazard, match=message):
        happens_before.check(program)


def test_brute_force_looks_at_smaller_batches() -> None:
    """The output's second image is the first image's memory: right for one image, wrong for two."""
    program = small_program(2)
    output = program.outputs[0]
    other = program.buffers[program.ops[PROBABILITIES].out_buffer]
    other.offset = program.buffers[output.buffer].offset + buffer_bytes(program, output.buffer) // 2
    with pytest.raises(happens_before.Hazard, match=re.escape("batch 2")):
        happens_before.check(program)
