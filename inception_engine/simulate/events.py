"""The simulation: blocks take tasks by ticket, wait for counters, run them and signal, as the kernel ``walk`` does.

A task that runs has two ends to reach, and then its fixed part: its arithmetic, at its block's share of the
multiprocessor, and its loads. All tasks that load share the GPU's bandwidth alike, at most what one block can draw; so
their progress is one clock for all ("virtual time"), and each ends when that clock has reached its own mark. The last
of a tile's parts of K has one more thing to do: it reads them all, as far away as a dependency and at its own rate, and
adds them up. A block's share is the same throughout a launch, whether its neighbours run or wait.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from inception_engine.compiler.plan import NONE, Dtype, Program, TargetKind
from inception_engine.simulate.gpu import Gpu, SimulationError
from inception_engine.simulate.work import Work, work

_BEGINS, _ENDS, _GATHERED = 0, 1, 2
POLLED_AT_ONCE = 32  # waits: a warp's


@dataclass(frozen=True, kw_only=True)
class Run:
    """A simulated run. Times are seconds since its begin; arrays of shape (tasks,) unless said otherwise.

    ``taken``: when the worker has the task's record; ``start``: when all that it waits for is there; ``loaded``: the
    end of its loads; ``end``. ``compute``: seconds of its arithmetic. ``gathering``: seconds in which it added up
    the parts of its tile. ``worker``: who. ``cause``: the task whose signal
    came last, if that decided the start, or -1. ``previous``: the task that the worker did before in the launch, or -1.
    ``launch_begin``, ``launch_end``, ``launch_blocks``: shape (launches,).
    """

    program: Program
    gpu: Gpu
    batch: int
    work: Work
    taken: np.ndarray
    start: np.ndarray
    loaded: np.ndarray
    end: np.ndarray
    compute: np.ndarray
    gathering: np.ndarray
    worker: np.ndarray
    cause: np.ndarray
    previous: np.ndarray
    launch_begin: np.ndarray
    launch_end: np.ndarray
    launch_blocks: np.ndarray

    @property
    def seconds(self) -> float:
        """The run's latency."""
        return float(self.launch_end[-1])

    @property
    def dtype(self) -> Dtype:
        return Dtype(int(self.program.header["dtype"]))


def polls(waits: Any) -> Any:
    """Of a task with so many waits (a number or an array), when all are reached."""
    return (waits + POLLED_AT_ONCE - 1) // POLLED_AT_ONCE


def simulate(program: Program, gpu: Gpu, batch: int | None = None) -> Run:
    """Run the table of a CUDA program for ``batch`` images (default: its maximum).

    Raises SimulationError for a program of another target, a batch out of range and waits that are never reached.
    """
    most = int(program.header["max_batch"])
    if program.header["target"] != TargetKind.CUDA:
        raise SimulationError("the program is not for a GPU")
    batch = most if batch is None else batch
    if not 1 <= batch <= most:
        raise SimulationError(f"batch {batch}: the program takes 1 to {most}")
    return _Simulation(program, gpu, batch).run()


class _Simulation:
    # Lists of Python's own numbers: the loop below touches single elements, which is slow in arrays.
    def __init__(self, program: Program, gpu: Gpu, batch: int) -> None:
        self.program, self.gpu, self.batch = program, gpu, batch
        self.work = work(program, gpu, batch)
        tasks, waits = program.tasks, program.waits
        count = len(tasks)
        self.signal = tasks["signal"].tolist()
        self.wait_begin, self.wait_count = tasks["wait_begin"].tolist(), tasks["wait_count"].tolist()
        self.wait_counter, self.wait_target = waits["counter"].tolist(), waits["target"].tolist()
        self.runs = self.work.runs.tolist()
        self.traffic = self.work.traffic.tolist()
        self.tile = self.work.tile.tolist()
        self.missing = np.bincount(self.work.tile + 1).tolist()[1:]  # parts, of each tile
        self.compute = [0.0] * count  # at the share of the launch's blocks
        self.gathering = [0.0] * count
        self.taken, self.start, self.loaded, self.end = ([math.nan] * count for _ in range(4))
        self.worker, self.cause, self.previous, self.pending = ([-1] * count for _ in range(4))
        counters = int(program.header["counter_count"])
        self.signals = [0] * counters
        self.targets = [-1] * counters  # of counters that nobody waits for: never reached
        for counter, target in zip(self.wait_counter, self.wait_target, strict=True):
            self.targets[counter] = target
        self.reached = [math.nan] * counters
        self.signaller = [-1] * counters  # the last one
        self.waiters: dict[int, list[int]] = {}

    def run(self) -> Run:
        begins, ends, grids = [], [], []
        now = 0.0
        for launch in self.program.launches:
            first, count = int(launch["first_task"]), int(launch["task_count"])
            begins.append(now + self.gpu.launch_seconds)
            grids.append(min(count, self.gpu.workers))
            now = self._launch(first, first + count, begins[-1], grids[-1])
            ends.append(now)
        names = ("taken", "start", "loaded", "end", "compute", "gathering", "worker", "cause", "previous")
        return Run(
            program=self.program,
            gpu=self.gpu,
            batch=self.batch,
            work=self.work,
            launch_begin=np.array(begins),
            launch_end=np.array(ends),
            launch_blocks=np.array(grids),
            **{name: np.array(getattr(self, name)) for name in names},
        )

    def _launch(self, first: int, stop: int, begin: float, blocks: int) -> float:
        """Simulate tasks [first, stop) on ``blocks`` workers from ``begin`` on. Returns when the last is done."""
        whole = self.work.compute[first:stop] * self.gpu.multiprocessors
        self.compute[first:stop] = (whole / self.gpu.share(blocks)).tolist()
        most = self.gpu.load_share(blocks)
        events: list[tuple[float, int, int]] = []  # (time, task, what)
        loading: list[tuple[float, int]] = []  # (mark on the clock of all loads, task)
        clock, rate, now = 0.0, most, begin
        last = [-1] * blocks  # task of each worker
        ticket = first
        for worker in range(blocks):
            self._take(ticket, worker, last, begin, events)
            ticket += 1
        done = 0
        while events or loading:
            next_event = events[0][0] if events else math.inf
            next_load = now + (loading[0][0] - clock) / rate if loading else math.inf
            if next_load <= next_event:
                now = max(now, next_load)
                clock, task = heapq.heappop(loading)
                self.loaded[task] = now
                end = max(now, self.start[task] + self.compute[task]) + self.gpu.tile_seconds
                heapq.heappush(events, (end, task, _ENDS))
            else:
                time, task, what = heapq.heappop(events)
                clock, now = clock + (time - now) * rate, time
                if what == _ENDS and self._is_last_part(task):
                    self.gathering[task] = (
                        self.gpu.dependency_seconds + float(self.work.gathering[task]) / most
                    )
                    heapq.heappush(events, (now + self.gathering[task], task, _GATHERED))
                elif what != _BEGINS:
                    self._finish(task, now, events)
                    done += 1
                    if ticket < stop:
                        self._take(ticket, self.worker[task], last, now, events)
                        ticket += 1
                elif self.runs[task]:
                    self.start[task] = now
                    heapq.heappush(loading, (clock + self.traffic[task], task))
                else:
                    self.start[task] = self.loaded[task] = now
                    heapq.heappush(events, (now, task, _ENDS))
            if loading:
                rate = min(most, 1 / len(loading))
            else:
                clock = 0.0  # a small number: marks keep their digits
        if done < stop - first:
            stuck = next(task for task in range(first, stop) if math.isnan(self.end[task]))
            raise SimulationError(f"task {stuck} waits for signals that never come")
        return now

    def _take(
        self, task: int, worker: int, last: list[int], now: float, events: list[tuple[float, int, int]]
    ) -> None:
        """The worker takes a task; if all that it waits for has been signalled, it will begin."""
        self.worker[task], self.previous[task], last[worker] = worker, last[worker], task
        self.taken[task] = now + self.gpu.ticket_seconds
        pending, ready = 0, -math.inf
        begin = self.wait_begin[task]
        for i in range(begin, begin + self.wait_count[task]):
            counter = self.wait_counter[i]
            if self.signals[counter] < self.wait_target[i]:
                pending += 1
                self.waiters.setdefault(counter, []).append(task)
            elif self.reached[counter] > ready:
                ready, self.cause[task] = self.reached[counter], self.signaller[counter]
        self.pending[task] = pending
        if not pending:
            self._schedule(task, ready, events)

    def _schedule(self, task: int, ready: float, events: list[tuple[float, int, int]]) -> None:
        """The task's last counter was reached at ``ready``: it begins when its worker sees that."""
        polled = self.taken[task] + polls(self.wait_count[task]) * self.gpu.poll_seconds
        seen = ready + self.gpu.dependency_seconds
        if seen <= polled:
            self.cause[task] = -1
        heapq.heappush(events, (max(polled, seen), task, _BEGINS))

    def _is_last_part(self, task: int) -> bool:
        """Whether the task, which has ended, finds all other parts of its tile there."""
        tile = self.tile[task]
        if tile < 0:
            return False
        self.missing[tile] -= 1
        return bool(self.missing[tile] == 0)

    def _finish(self, task: int, now: float, events: list[tuple[float, int, int]]) -> None:
        self.end[task] = now
        counter = self.signal[task]
        if counter == NONE:
            return
        self.signals[counter] += 1
        if self.signals[counter] != self.targets[counter]:
            return
        self.reached[counter], self.signaller[counter] = now, task
        for waiter in self.waiters.pop(counter, ()):
            self.pending[waiter] -= 1
            if not self.pending[waiter]:
                self.cause[waiter] = task
                self._schedule(waiter, now, events)
