"""A simulated run as a trace for Perfetto and chrome://tracing (the Trace Event Format, in microseconds)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import numpy as np

from inception_engine.compiler.plan import NONE
from inception_engine.files import write_atomically
from inception_engine.simulate.events import Run

_WORKERS, _GPU = 0, 1  # process numbers: tracks of workers; launches and the counter
_COUNTER_POINTS = 2000


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the trace: a track per worker with its waits and tasks, one of launches, a counter of busy workers.

    Tiles of images that the batch does not have, and JOINs, are waits alone. Raises OSError.
    """
    write_atomically(path, (line.encode() for line in _lines(run)))


def _lines(run: Run) -> Iterator[str]:
    yield '{"displayTimeUnit": "ns", "traceEvents": [\n'
    yield json.dumps({"ph": "M", "name": "process_name", "pid": _WORKERS, "args": {"name": "workers"}})
    for event in _events(run):
        yield ",\n" + json.dumps(event)
    yield "\n]}\n"


def _events(run: Run) -> Iterator[dict[str, object]]:
    program = run.program
    yield {"ph": "M", "name": "process_name", "pid": _GPU, "args": {"name": run.gpu.name}}
    for worker in range(int(run.launch_blocks.max())):
        yield _named_track(worker)
    names = [program.text(op) for op in program.ops]
    free = run.taken - run.gpu.ticket_seconds
    for launch, begin, end in zip(program.launches, run.launch_begin, run.launch_end, strict=True):
        name = program.text(launch)
        yield _slice(name, "launch", _GPU, 0, begin, end)
        first = int(launch["first_task"])
        for task in range(first, first + int(launch["task_count"])):
            record, worker = program.tasks[task], int(run.worker[task])
            op = "join" if record["op"] == NONE else names[record["op"]]
            tile = {"task": task, "row": int(record["row"]), "column": int(record["column"]), "launch": name}
            yield _slice(f"wait {op}", "wait", _WORKERS, worker, free[task], run.start[task], tile)
            if run.work.runs[task]:
                yield _slice(op, "run", _WORKERS, worker, run.start[task], run.end[task], tile)
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


def _named_track(worker: int) -> dict[str, object]:
    name = {"name": f"worker {worker}"}
    return {"ph": "M", "name": "thread_name", "pid": _WORKERS, "tid": worker, "args": name}


def _slice(
    name: str,
    kind: str,
    process: int,
    track: int,
    begin: float,
    end: float,
    tile: dict[str, object] | None = None,
) -> dict[str, object]:
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": process,
        "tid": track,
        "ts": float(begin) * 1e6,
        "dur": float(end - begin) * 1e6,
        "args": tile or {},
    }
