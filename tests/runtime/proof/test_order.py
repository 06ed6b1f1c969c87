"""Every wait ends, and tasks that touch the same memory wait for each other (order.cpp, arena.cpp)."""

from __future__ import annotations

from inception_engine.binding import check_plan
from tests import plans
from tests.happens_before import is_safe
from tests.loader import STATUS
from tests.plans import (
    ALIGNMENT,
    CLASSIFIER,
    CONV,
    CONV_3X3,
    INPUT,
    MEAN,
    NONE,
    NORM,
    POOL,
    TASK,
    WAIT,
    Builder,
    Program,
    plan_file,
)
from tests.runtime.proof.changes import (
    Change,
    edit_waits,
    forget_waits,
    insert_task,
    reuse_an_output,
    stack,
    tasks_of,
    wait_for_itself,
)

OPS = range(8)


def wait_for_a_later_task(program: Program) -> None:
    """Every task of the average pool now runs before the branches that it waits for."""
    lists = program.wait_lists()
    late, early = tasks_of(program, MEAN)[0], tasks_of(program, POOL)[0]
    program.tasks.insert(early, program.tasks.pop(late))
    lists.insert(early, lists.pop(late))
    program.set_wait_lists(lists)


def split_a_row(program: Program) -> None:
    """The two column tiles of a line of the convolution signal different counters, and readers know of one."""
    number = tasks_of(program, CONV_3X3)[-1]
    program.tasks[number].signal = program.header.counter_count - 1
    program.retarget()


def crowd_a_counter(program: Program) -> None:
    """Seventeen ops signal one counter."""
    counter = program.header.counter_count
    program.header.counter_count += 1
    for _ in range(17):
        buffer = plans.BUFFER.new(rows=1, pitch=1, dtype=plans.FP32, offset=program.header.arena_bytes)
        program.header.arena_bytes += ALIGNMENT
        program.buffers.append(buffer)
        op = plans.Record(**vars(program.ops[CLASSIFIER]))
        op.out_buffer, op.out_channels, op.out_padded = len(program.buffers) - 1, 1, 1
        program.ops.append(op)
        waits = program.wait_lists()[tasks_of(program, CLASSIFIER)[0]]
        task = TASK.new(op=len(program.ops) - 1, signal=counter)
        insert_task(program, len(program.tasks), task, waits)


def endless_proof() -> Program:
    """A thousand tasks that each read what four hundred ops write, known to be complete through one JOIN each."""
    build = Builder((1, 1, 1), 1)
    image, wide = build.buffer(1, 1), build.buffer(1, 400)
    build.op(INPUT, NONE, image)
    for channel in range(400):
        build.op(CONV, image, wide, in_h=1, in_w=1, out_channel=channel, out_channels=1)
    tall = build.buffer(1000, 1)
    pads = {"pad_bottom": 999}
    build.op(CONV, wide, tall, in_h=1, in_w=1, tile_rows=1, **pads)
    build.output(tall, 1000, 1)
    program = build.finish()
    join, counters = (
        program.header.counter_count,
        sorted({t.signal for t in program.tasks if 0 < t.op <= 400}),
    )
    program.header.counter_count += 1
    lists = program.wait_lists()
    first = tasks_of(program, 401)[0]
    for number in range(first, len(lists)):
        lists[number] = [WAIT.new(counter=join)]
    program.set_wait_lists(lists)
    joining = [WAIT.new(counter=counter) for counter in counters]
    insert_task(program, first, TASK.new(op=NONE, signal=join), joining)
    return program.count()


# (name, status, what is done to small_program): nothing else is wrong with the plan. Refused in test_statuses.py.
BROKEN: list[tuple[str, str, Change]] = [
    ("no such counter", "IE_PLAN_VALUE", lambda p: vars(p.waits[0]).update(counter=p.header.counter_count)),
    ("target too high", "IE_PLAN_COUNTER", lambda p: vars(p.waits[-1]).update(target=p.waits[-1].target + 1)),
    ("target too low", "IE_PLAN_COUNTER", lambda p: vars(p.waits[-1]).update(target=p.waits[-1].target - 1)),
    (
        "a counter without signals",
        "IE_PLAN_COUNTER",
        edit_waits(lambda p, w: w[0].append(WAIT.new(counter=p.header.counter_count - 1))),
    ),
    ("waits for itself", "IE_PLAN_ORDER", wait_for_itself),
    ("waits for a later task", "IE_PLAN_ORDER", wait_for_a_later_task),
    ("a row of tiles with two counters", "IE_PLAN_MISSING_WAIT", split_a_row),
    *((f"op {op} does not wait", "IE_PLAN_MISSING_WAIT", forget_waits(op)) for op in OPS[1:]),
    ("memory used again too early", "IE_PLAN_REUSE", stack(NORM)),
    ("an output's memory used again", "IE_PLAN_REUSE", reuse_an_output),
    ("a crowd on one counter", "IE_PLAN_WORK", crowd_a_counter),
]


def test_a_proof_that_takes_too_long() -> None:
    program = endless_proof()
    assert is_safe(program)
    status, message = check_plan(plan_file(program))
    assert STATUS[status] == "IE_PLAN_WORK"
    assert "proof" in message
