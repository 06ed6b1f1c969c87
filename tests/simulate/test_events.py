"""The simulation: schedules worked out by hand, and what holds for every schedule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from inception_engine import Network, compile, googlenet
from inception_engine.compiler.plan import NONE, LaunchMode, Program
from inception_engine.compiler.targets import CUDA, Target
from inception_engine.simulate import Gpu, Run, SimulationError, simulate
from inception_engine.simulate.path import COSTS, bounds, critical_path
from tests.runtime.test_emulation import CUT
from tests.simulate.programs import (
    COMPUTE,
    DEPENDENCY,
    FREE,
    LAUNCH,
    POLL,
    SIDE,
    TICKET,
    TILE,
    TILE_BYTES,
    toy_gpu,
    toy_program,
)

BODY = COMPUTE + TILE


@pytest.fixture(scope="module")
def network() -> Network:
    return googlenet(0, width=0.25, input_size=64, classes=10)


@pytest.fixture(
    scope="module",
    params=[CUDA, dataclasses.replace(CUDA, launch=LaunchMode.NETWORK), CUT],
    ids=["modules", "network", "parts"],
)
def program(request: pytest.FixtureRequest, network: Network) -> Program:
    target: Target = request.param
    return compile(network, targets=(target,), dtype="fp16", max_batch=4).programs[0]


def test_one_task() -> None:
    run = simulate(toy_program([((), NONE)]), toy_gpu())
    assert run.seconds == LAUNCH + TICKET + BODY
    assert (run.taken[0], run.start[0], run.worker[0]) == (LAUNCH + TICKET, LAUNCH + TICKET, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_begins_a_dependency_after_the_signal(workers: int) -> None:
    """With one worker the second ticket takes longer than the dependency; with two the dependency is what counts."""
    run = simulate(toy_program([((), 0), ((0,), NONE)]), toy_gpu(multiprocessors=workers))
    first = LAUNCH + TICKET + BODY
    assert run.end[0] == first
    assert run.start[1] == (first + TICKET + POLL if workers == 1 else first + DEPENDENCY)
    assert run.seconds == run.start[1] + BODY
    path = critical_path(run)
    assert path.tasks == [1, 0]
    expected = dict.fromkeys(COSTS, 0.0) | {
        "launch": LAUNCH,
        "compute": 2 * COMPUTE,
        "tile": 2 * TILE,
        "ticket": TICKET * (2 if workers == 1 else 1),
        "poll": POLL if workers == 1 else 0.0,
        "dependency": 0.0 if workers == 1 else DEPENDENCY,
    }
    assert path.by_cost == pytest.approx(expected)


def test_a_wait_needs_all_signals() -> None:
    """Three tasks signal one counter; the third of them is itself late."""
    table = [((), 0), ((), 1), ((1,), 0), ((), 0), ((0,), NONE)]
    run = simulate(toy_program(table), toy_gpu(multiprocessors=5))
    late = LAUNCH + TICKET + BODY + DEPENDENCY + BODY
    assert run.end[2] == late
    assert run.start[4] == late + DEPENDENCY and run.cause[4] == 2
    assert critical_path(run).tasks == [4, 2, 1]


def test_the_last_part_adds_up() -> None:
    """Three parts of one tile on two workers: the third, which begins when a worker is free again, comes last and
    gathers; then the counter is signalled."""
    table = toy_program([((), 0), ((), 0), ((), 0), ((0,), NONE)])
    ops = np.concatenate([table.ops, table.ops])
    ops[0]["part_depth"], ops[0]["in_channels"] = SIDE, 3 * SIDE
    ops[0]["out_h"] = ops[0]["in_h"] = 1
    table.tasks["row"], table.tasks["part"], table.tasks["op"] = 0, [0, 1, 2, 0], [0, 0, 0, 1]
    run = simulate(dataclasses.replace(table, ops=ops), toy_gpu(multiprocessors=2))
    first = LAUNCH + TICKET + BODY
    third = first + TICKET + BODY
    assert run.end.tolist()[:3] == [first, first, third + DEPENDENCY]  # the parts lie a dependency away
    assert run.gathering.tolist() == [0, 0, DEPENDENCY, 0]
    assert run.start[3] == third + 2 * DEPENDENCY and run.cause[3] == 2
    assert critical_path(run).by_cost["parts"] == DEPENDENCY


def test_launches_follow_each_other() -> None:
    """Five tasks on four workers take two rounds; the second launch begins when the first has ended."""
    run = simulate(toy_program([((), NONE)] * 6, launches=[5, 1]), toy_gpu())
    two_rounds = 2 * (TICKET + BODY)
    assert run.launch_begin.tolist() == [LAUNCH, LAUNCH + two_rounds + LAUNCH]
    assert run.seconds == LAUNCH + two_rounds + LAUNCH + TICKET + BODY
    assert run.launch_blocks.tolist() == [4, 1]
    assert run.worker.tolist() == [0, 1, 2, 3, 0, 0]
    assert run.previous.tolist() == [-1, -1, -1, -1, 0, -1]


def test_blocks_share_their_multiprocessor() -> None:
    """Two blocks on each: half of the rate. One that is alone has what block_share gives it."""
    gpu = toy_gpu(resident_blocks=2, block_share=0.75)
    full = simulate(toy_program([((), NONE)] * 8), gpu)
    alone = simulate(toy_program([((), NONE)] * 4), gpu)
    assert full.seconds == pytest.approx(LAUNCH + TICKET + COMPUTE * 2 + TILE)
    assert alone.seconds == pytest.approx(LAUNCH + TICKET + COMPUTE / 0.75 + TILE)


@pytest.mark.parametrize(("most", "seconds"), [(1.0, 2.0), (0.5, 2.0), (0.25, 4.0)])
def test_loads_share_the_bandwidth(most: float, seconds: float) -> None:
    """One tile is a second of the GPU's bandwidth. A block draws ``most`` of it, two together no more than all."""
    gpu = toy_gpu(
        tensor_flop_per_second=FREE,
        l2_bytes_per_second=TILE_BYTES,
        multiprocessor_bytes_per_second=most * TILE_BYTES,
    )
    run = simulate(toy_program([((), NONE)] * 2), gpu)
    assert run.seconds == pytest.approx(LAUNCH + TICKET + seconds + TILE)
    assert critical_path(run).by_cost["load"] == pytest.approx(seconds)


def test_a_short_load_leaves_its_bandwidth_to_the_others() -> None:
    """Tiles of 16 and 64 rows. Together they go at half speed; when the short one is done, the other one has all."""
    program = toy_program([((), NONE)] * 2)
    program.ops["out_w"], program.ops["in_w"] = 40, 40  # 80 rows: 64, and 16 in the second tile
    pixels, weights = 2 * SIDE * 2, SIDE * SIDE * 2  # of a row read and stored; of the tile
    long, short = (rows * pixels + weights for rows in (64, 16))
    gpu = toy_gpu(
        tensor_flop_per_second=FREE,
        l2_bytes_per_second=1.0,
        multiprocessor_bytes_per_second=1.0,
    )
    run = simulate(program, gpu)
    begin = LAUNCH + TICKET
    assert (run.loaded - begin).tolist() == pytest.approx([long + short, 2 * short])


def test_arithmetic_and_loads_overlap() -> None:
    rates = {"l2_bytes_per_second": TILE_BYTES / 7, "multiprocessor_bytes_per_second": TILE_BYTES / 7}
    table = toy_program([((), NONE)])
    assert simulate(table, toy_gpu(**rates)).seconds == pytest.approx(LAUNCH + TICKET + 7 + TILE)


def test_ops_larger_than_the_cache_load_from_memory() -> None:
    """Pixels in and out and the weights, each once for the whole op, at the rate of memory."""
    footprint = 2 * 2 * SIDE * SIDE * 2 + SIDE * SIDE * 2
    table = toy_program([((), NONE)] * 2)
    for cache, seconds in ((footprint, 0.0), (footprint - 1, 10.0)):
        gpu = toy_gpu(tensor_flop_per_second=FREE, l2_bytes=cache, dram_bytes_per_second=footprint / 10)
        assert bounds(simulate(table, gpu))["traffic"] == pytest.approx(seconds)


def test_tiles_beyond_the_batch_are_taken_and_not_run() -> None:
    table = toy_program([((), 0), ((), 0), ((0,), NONE), ((), NONE)], max_batch=4)
    run = simulate(table, toy_gpu(multiprocessors=4), 1)
    assert run.work.runs.tolist() == [True, False, False, False]
    assert run.end[1] == LAUNCH + TICKET
    assert run.seconds == LAUNCH + TICKET + BODY + DEPENDENCY


def test_one_worker_takes_the_sum(program: Program) -> None:
    gpu = dataclasses.replace(Gpu.load("h200"), multiprocessors=1, resident_blocks=1, dependency_seconds=0.0)
    run = simulate(program, gpu)
    alone = np.maximum(run.compute, run.work.traffic / gpu.load_share(1)) + gpu.tile_seconds * run.work.runs
    fixed = (
        len(program.tasks) * gpu.ticket_seconds
        + sum(-(-int(count) // 32) for count in program.tasks["wait_count"]) * gpu.poll_seconds
    )
    fixed += run.gathering.sum() + len(program.launches) * gpu.launch_seconds
    assert run.seconds == pytest.approx(alone.sum() + fixed)


def longest_path(run: Run) -> float:
    """By recursion over the signallers of each task: what the run takes with a worker for every task."""
    program, gpu = run.program, run.gpu
    signallers: dict[int, list[int]] = {}
    for i, signal in enumerate(program.tasks["signal"]):
        signallers.setdefault(int(signal), []).append(i)
    ends: list[float] = []
    begin = 0.0
    for launch in program.launches:
        begin += gpu.launch_seconds
        first = int(launch["first_task"])
        for i in range(first, first + int(launch["task_count"])):
            task = program.tasks[i]
            waits = program.waits[task["wait_begin"] : task["wait_begin"] + task["wait_count"]]
            start = begin + gpu.ticket_seconds + -(-len(waits) // 32) * gpu.poll_seconds
            before = [j for counter in waits["counter"] for j in signallers[int(counter)]]
            start = max([start, *(ends[j] + gpu.dependency_seconds for j in before)])
            ends.append(start + run.compute[i] + gpu.tile_seconds * bool(run.work.runs[i]))
            parts = np.flatnonzero(run.work.tile == run.work.tile[i])
            if run.work.tile[i] >= 0 and i == parts[-1]:
                ends[-1] = max(ends[j] for j in parts) + gpu.dependency_seconds
        begin = max(ends)
    return begin


def test_enough_workers_take_the_longest_path(program: Program) -> None:
    free: dict[str, Any] = {
        "l2_bytes_per_second": FREE,
        "multiprocessor_bytes_per_second": FREE,
        "dram_bytes_per_second": FREE,
    }
    gpu = dataclasses.replace(Gpu.load("h200"), resident_blocks=1, multiprocessors=len(program.tasks), **free)
    run = simulate(program, gpu)
    assert run.seconds == pytest.approx(longest_path(run))
    assert bounds(run)["dependencies"] == pytest.approx(run.seconds)


@pytest.mark.parametrize("workers", [1, 3, 264])
@pytest.mark.parametrize("batch", [1, 4])
def test_what_holds_for_every_schedule(program: Program, workers: int, batch: int) -> None:
    gpu = dataclasses.replace(Gpu.load("h200"), multiprocessors=workers, resident_blocks=1)
    check(simulate(program, gpu, batch))


def check(run: Run) -> None:
    """No task begins before its waits, tickets are taken in order, a worker does one task at a time."""
    program, gpu = run.program, run.gpu
    for times in (run.taken, run.start, run.loaded, run.end):
        assert np.isfinite(times).all()
    assert (
        (run.taken <= run.start).all() and (run.start <= run.loaded).all() and (run.loaded <= run.end).all()
    )
    last_signal = np.zeros(int(program.header["counter_count"]))
    count = np.zeros(len(last_signal), int)
    for task, end in zip(program.tasks, run.end, strict=True):
        if task["signal"] != NONE:
            count[task["signal"]] += 1
            last_signal[task["signal"]] = max(last_signal[task["signal"]], end)
    before = 0.0
    for index, launch in enumerate(program.launches):
        assert run.launch_begin[index] == pytest.approx(before + gpu.launch_seconds)
        first, stop = int(launch["first_task"]), int(launch["first_task"] + launch["task_count"])
        assert (np.diff(run.taken[first:stop]) >= 0).all()
        free = dict.fromkeys(range(gpu.workers), run.launch_begin[index])
        for i in range(first, stop):
            worker = int(run.worker[i])
            assert run.taken[i] == free[worker] + gpu.ticket_seconds
            free[worker] = run.end[i]
            task = program.tasks[i]
            waits = program.waits[task["wait_begin"] : task["wait_begin"] + task["wait_count"]]
            for wait in waits:
                assert count[wait["counter"]] == wait["target"]
                assert run.start[i] >= last_signal[wait["counter"]] + gpu.dependency_seconds
        before = run.launch_end[index]
        assert before == run.end[first:stop].max()


def test_the_check_sees_an_early_start(program: Program) -> None:
    run = simulate(program, Gpu.load("h200"))
    late = int(np.argmax(run.cause >= 0))
    run.start[late] -= run.gpu.dependency_seconds / 2
    with pytest.raises(AssertionError):
        check(run)


def test_path_adds_up_and_bounds_hold(program: Program) -> None:
    for workers in (1, 2, 132):
        run = simulate(program, dataclasses.replace(Gpu.load("h200"), multiprocessors=workers))
        path = critical_path(run)
        assert math.fsum(path.by_cost.values()) == pytest.approx(run.seconds)
        launches = len(program.launches) * run.gpu.launch_seconds
        assert math.fsum(path.by_op.values()) + launches == pytest.approx(run.seconds)
        lower = bounds(run)
        assert all(0 < value <= run.seconds for value in lower.values())
        assert lower["nominal"] <= lower["executed"]


def test_all_times_twice_is_twice_the_latency(program: Program) -> None:
    gpu = Gpu.load("h200")
    rates = [name for name in gpu.provenance if name.endswith("_per_second")]
    times = [name for name in gpu.provenance if name.endswith("_seconds")]
    assert len(rates) == 5 and len(times) == 5
    slower = {name: getattr(gpu, name) / 2 for name in rates} | {
        name: getattr(gpu, name) * 2 for name in times
    }
    doubled = simulate(program, dataclasses.replace(gpu, **slower))
    assert doubled.seconds == pytest.approx(2 * simulate(program, gpu).seconds)


def test_waiting_for_ever_is_an_error() -> None:
    with pytest.raises(SimulationError, match="task 1 waits for signals that never come"):
        simulate(toy_program([((), NONE), ((0,), NONE)]), toy_gpu())


def test_what_cannot_be_simulated(network: Network) -> None:
    table = toy_program([((), NONE)])
    for batch in (0, 2):
        with pytest.raises(SimulationError, match=f"batch {batch}"):
            simulate(table, toy_gpu(), batch)
    with pytest.raises(SimulationError, match="not for a GPU"):
        simulate(compile(network).programs[0], toy_gpu())
