"""What sets a run's end: the chain of tasks behind it, and bounds that no schedule of the same tiles beats."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from inception_engine.compiler.plan import NONE, OpKind, Program
from inception_engine.simulate.events import Run, polls

COSTS = ("launch", "ticket", "poll", "dependency", "load", "compute", "tile", "parts")


@dataclass(frozen=True)
class CriticalPath:
    """``tasks``, last one first. Seconds by kind of cost (COSTS) and by op; the kinds add up to the run's latency."""

    tasks: list[int]
    by_cost: dict[str, float]
    by_op: dict[int, float]


def critical_path(run: Run) -> CriticalPath:
    """From the last task to end back to the run's begin, over the signal or the worker that each task came after.

    What an op's tasks on the path take goes to the op, with the ticket, the polls and the dependency before them.
    """
    tasks: list[int] = []
    by_cost = dict.fromkeys(COSTS, 0.0)
    by_op: dict[int, float] = defaultdict(float)
    op = run.program.tasks["op"]
    for launch, record in reversed(list(enumerate(run.program.launches))):
        first = int(record["first_task"])
        task = first + int(np.argmax(run.end[first : first + int(record["task_count"])]))
        while task >= 0:
            tasks.append(task)
            body = run.end[task] - run.start[task]
            if run.work.runs[task]:
                body -= run.gpu.tile_seconds + run.gathering[task]
                by_cost["parts"] += run.gathering[task]
                by_cost["tile"] += run.gpu.tile_seconds
                loads = run.loaded[task] - run.start[task]
                by_cost["compute" if run.compute[task] > loads else "load"] += body
            before = int(run.cause[task])
            if before >= 0:
                begin = run.end[before]
                by_cost["dependency"] += run.start[task] - begin
            else:
                before = int(run.previous[task])
                begin = run.end[before] if before >= 0 else run.launch_begin[launch]
                by_cost["ticket"] += run.taken[task] - begin
                by_cost["poll"] += run.start[task] - run.taken[task]
            by_op[int(op[task])] += float(run.end[task] - begin)
            task = before
        by_cost["launch"] += run.launch_begin[launch] - (run.launch_end[launch - 1] if launch else 0.0)
    return CriticalPath(tasks, {name: float(value) for name, value in by_cost.items()}, dict(by_op))


def bounds(run: Run) -> dict[str, float]:
    """Seconds that each resource alone would take, all else free.

    ``nominal``: the network's multiply-adds at the GPU's peak; ``executed``: those of whole tiles, and what pools and
    LRN compute; ``traffic``: all loads and stores at the rate of L2, or memory; ``memory``: weights, image and results
    once, from memory; ``dependencies``: as many workers as tasks, and no two that load share anything.
    """
    program, gpu = run.program, run.gpu
    macs = int(program.ops["nominal_macs"].sum()) * run.batch
    return {
        "nominal": 2 * macs / gpu.product_rate(run.dtype),
        "executed": float(run.work.compute.sum()),
        "traffic": float(run.work.traffic.sum()),
        "memory": compulsory_bytes(program, run.batch) / gpu.dram_bytes_per_second,
        "dependencies": _chain(run),
    }


def compulsory_bytes(program: Program, batch: int) -> int:
    """Weights once, float32 images in, float32 results out."""
    header, outputs = program.header, program.outputs
    pixels = int(header["input_channels"]) * int(header["input_height"]) * int(header["input_width"])
    results = int(sum(outputs["channels"].astype(np.int64) * outputs["height"] * outputs["width"]))
    convolutions = program.ops[program.ops["kind"] == OpKind.CONV]
    # What two ops share counts once.
    weights = dict(
        zip(convolutions["weight_offset"].tolist(), convolutions["weight_bytes"].tolist(), strict=True)
    )
    return sum(weights.values()) + 4 * batch * (pixels + results)


def _chain(run: Run) -> float:
    """Latency if each task had a worker of its own and all the bandwidth that one can draw: the longest chains."""
    program, gpu = run.program, run.gpu
    fixed = np.where(run.work.runs, gpu.tile_seconds, 0.0)
    polled = polls(program.tasks["wait_count"]) * gpu.poll_seconds
    counters, waits = program.waits["counter"].tolist(), program.tasks["wait_begin"].tolist()
    counts, signals = program.tasks["wait_count"].tolist(), program.tasks["signal"].tolist()
    tiles = run.work.tile.tolist()
    last_parts = {tile: i for i, tile in enumerate(tiles)}
    arrived: dict[int, float] = {}  # of each tile: its latest part so far
    reached = [-np.inf] * int(
        program.header["counter_count"]
    )  # the last signal so far; all are earlier tasks'
    now = 0.0
    for launch, blocks in zip(program.launches, run.launch_blocks.tolist(), strict=True):
        first, stop = int(launch["first_task"]), int(launch["first_task"]) + int(launch["task_count"])
        loads = run.work.traffic[first:stop] / gpu.load_share(blocks)
        bodies = (np.maximum(run.compute[first:stop], loads) + fixed[first:stop]).tolist()
        gathering = (
            run.work.gathering[first:stop] / gpu.load_share(blocks) + gpu.dependency_seconds
        ).tolist()
        begin = end = now + gpu.launch_seconds
        starts = (begin + gpu.ticket_seconds + polled[first:stop]).tolist()
        for i, (start, body) in enumerate(zip(starts, bodies, strict=True), first):
            for wait in range(waits[i], waits[i] + counts[i]):
                start = max(start, reached[counters[wait]] + gpu.dependency_seconds)
            done = start + body
            if tiles[i] >= 0:
                arrived[tiles[i]] = max(arrived.get(tiles[i], 0.0), done)
                if last_parts[tiles[i]] == i:
                    done = arrived[tiles[i]] + gathering[i - first]
            if signals[i] != NONE:
                reached[signals[i]] = max(reached[signals[i]], done)
            end = max(end, done)
        now = end
    return float(now)
