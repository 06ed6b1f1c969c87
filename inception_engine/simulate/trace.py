"""A simulated run as a trace for Perfetto and chrome://tracing (the Trace Event Format, in microseconds)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from inception_engine import trace_events
from inception_engine.compiler.plan import NONE
from inception_engine.simulate.events import Run
from inception_engine.trace_events import Event, named_process, named_track, piece

_WORKERS, _GPU = 0, 1  # process numbers: tracks of workers; launches and the counter
_COUNTER_POINTS = 2000


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the trace: a track per worker with its waits and tasks, one of launches, a counter of busy workers.

    Tiles of images that the batch does not have, and JOINs, are waits alone. Raises OSError.
    """
    trace_events.save(_events(run), path)


def _events(run: Run) -> Iterator[Event]:
    program = run.program
    yield named_process(_WORKERS, "workers")
    yield named_process(_GPU, run.gpu.name)
    for worker in range(int(run.launch_blocks.max())):
        yield named_track(_WORKERS, worker, f"worker {worker}")
    names = [program.text(op) for op in program.ops]
    free = run.taken - run.gpu.ticket_seconds
    for launch, begin, end in zip(program.launches, run.launch_begin, run.launch_end, strict=True):
        name = program.text(launch)
        yield piece(name, "launch", _GPU, 0, begin, end)
        first = int(launch["first_task"])
        for task in range(first, first + int(launch["task_count"])):
            record, worker = program.tasks[task], int(run.worker[task])
            op = "join" if record["op"] == NONE else names[record["op"]]
            tile = {"task": task, "row": int(record["row"]), "column": int(record["column"]), "launch": name}
            yield piece(f"wait {op}", "wait", _WORKERS, worker, free[task], run.start[task], tile)
            if run.work.runs[task]:
                yield piece(op, "run", _WORKERS, worker, run.start[task], run.end[task], tile)
    for time, share in zip(*busy_share(run, _COUNTER_POINTS), strict=True):
        yield {"ph": "C", "name": "busy workers", "pid": _GPU, "ts": time * 1e6, "args": {"share": share}}


def busy_share(run: Run, points: int) -> tuple[list[float], list[float]]:
    """Begins of ``points`` equal intervals of the run, and the share of workers that run a task, averaged over each."""
    edges = np.linspace(0.0, run.seconds, points + 1)
    # Worker-seconds up to each edge: what each task has run until then.
    starts, ends = np.sort(run.start), np.sort(run.end)
    until = np.zeros(points + 1)
    for times, sign in ((starts, 1.0), (ends, -1.0)):
        before = np.searchsorted(times, edges)
        sums = np.concatenate([[0.0], np.cumsum(times)])
        until += sign * (before * edges - sums[before])
    share = np.diff(until) / (np.diff(edges) * run.gpu.workers)
    return edges[:-1].tolist(), share.tolist()
