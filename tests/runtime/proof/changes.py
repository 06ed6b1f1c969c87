"""Changes of programs that break a rule or keep it, and the program that most of them are made to."""

from __future__ import annotations

from collections.abc import Callable

from tests import plans
from tests.plans import (
    CLASSIFIER,
    IMAGE,
    LAUNCH,
    MEAN,
    NONE,
    NORM,
    POOL,
    PROBABILITIES,
    WAIT,
    Program,
    small_program,
)

Change = Callable[[Program], object]
HUGE = 0xFFFFFFFF


def broken(change: Change) -> Program:
    """`small_program` after the change."""
    program = small_program()
    program.header.counter_count += 1  # one more than is used, for a wait that nobody signals
    change(program)
    return program.count()


def set_op(index: int, **fields: int | float) -> Change:
    return lambda p: vars(p.ops[index]).update(fields)


def set_header(**fields: int) -> Change:
    return lambda p: vars(p.header).update(fields)


def set_buffer(index: int, **fields: int) -> Change:
    return lambda p: vars(p.buffers[index]).update(fields)


def set_output(**fields: int) -> Change:
    return lambda p: vars(p.outputs[0]).update(fields)


def set_task(number: int, **fields: int) -> Change:
    return lambda p: vars(p.tasks[number]).update(fields)


def set_launch(**fields: int) -> Change:
    return lambda p: vars(p.launches[0]).update(fields)


def tasks_of(program: Program, op: int) -> list[int]:
    return [number for number, task in enumerate(program.tasks) if task.op == op]


def edit_waits(change: Callable[[Program, list[list[plans.Record]]], object]) -> Change:
    """A change of the waits of tasks, after which the table is in order again."""

    def apply(program: Program) -> None:
        lists = program.wait_lists()
        change(program, lists)
        program.set_wait_lists(lists)

    return apply


def forget_waits(op: int) -> Change:
    """The last task of the op waits for nothing."""
    return edit_waits(lambda p, lists: lists[tasks_of(p, op)[-1]].clear())


def insert_task(program: Program, number: int, task: plans.Record, waits: list[plans.Record]) -> None:
    lists = program.wait_lists()
    program.tasks.insert(number, task)
    lists.insert(number, waits)
    program.set_wait_lists(lists)
    for launch in program.launches:
        if launch.first_task > number:
            launch.first_task += 1
        elif number <= launch.first_task + launch.task_count:
            launch.task_count += 1
    program.retarget()


def cut_launch(op: int, tiles: int) -> Change:
    """The launch ends behind the first ``tiles`` tasks of the op."""

    def apply(program: Program) -> None:
        first = tasks_of(program, op)[0] + tiles
        rest = LAUNCH.new(first_task=first, task_count=len(program.tasks) - first, mode=plans.MODULE)
        program.launches[0].task_count = first
        program.launches.append(rest)

    return apply


def stack(op: int) -> Change:
    """The image lies where the op's output will lie."""

    def apply(program: Program) -> None:
        image, later = program.ops[IMAGE].out_buffer, program.ops[op].out_buffer
        program.buffers[image].offset = program.buffers[later].offset

    return apply


def drop_a_tile(program: Program) -> None:
    lists = program.wait_lists()
    number = tasks_of(program, POOL)[-1]
    del program.tasks[number], lists[number]
    program.launches[0].task_count -= 1
    program.set_wait_lists(lists)
    program.retarget()


def skip_a_tile(program: Program) -> None:
    """A JOIN stands where a tile was."""
    vars(program.tasks[tasks_of(program, POOL)[-1]]).update(op=NONE, row=0, column=0)


def wait_for_itself(program: Program) -> None:
    number = tasks_of(program, NORM)[0]
    lists = program.wait_lists()
    lists[number].append(WAIT.new(counter=program.tasks[number].signal))
    program.set_wait_lists(lists)
    program.retarget()


def reuse_an_output(program: Program) -> None:
    """The means, which the caller reads in the end, make room for the probabilities, after their last use inside."""
    means, softmax = (program.ops[op].out_buffer for op in (MEAN, PROBABILITIES))
    program.outputs[0].buffer = means
    program.buffers[softmax].offset = program.buffers[means].offset
    plans.fit_arena(program)


def parts_task(number: int, **fields: int) -> Change:
    """Of the classifier's tasks, which are its parts."""
    return lambda p: vars(p.tasks[tasks_of(p, CLASSIFIER)[number]]).update(fields)


def place_of_parts(offset_of: int) -> Change:
    """The classifier's sums lie over a buffer of another op."""

    def apply(program: Program) -> None:
        sums = program.buffers[program.ops[CLASSIFIER].part_buffer]
        sums.offset = program.buffers[program.ops[offset_of].out_buffer].offset
        plans.fit_arena(program)

    return apply


def signal_an_arrival(program: Program) -> None:
    program.tasks[tasks_of(program, PROBABILITIES)[0]].signal = program.ops[CLASSIFIER].first_arrival
