"""A simulated run as a document for JSON and as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from inception_engine.compiler.plan import NONE, LaunchMode
from inception_engine.simulate.events import Run
from inception_engine.simulate.path import bounds, critical_path

_OPS_SHOWN = 12  # of the critical path, in the text


def report(run: Run) -> dict[str, Any]:
    """Everything that ``render`` shows, in seconds.

    ``fitted`` is false as long as constants are assumed, which ``assumed`` lists. ``workers``: blocks that are resident
    at once. ``utilisation``: shares of their time in which they run a task (``busy``), take one, poll or wait
    (``waiting``), or have none (``idle``). ``bounds_seconds``: see ``path.bounds``. ``critical_path``: what sets the
    latency, by kind of cost, which add up to it, and by op. ``launches``: ``seconds`` from the first ticket to the end
    of the last task, and the same shares, of the launch's own blocks. ``modules``: modules, and ops outside of any;
    ``seconds`` from their first task's start to their last one's end, ``worker_seconds`` of all their tasks.
    """
    program, gpu = run.program, run.gpu
    path = critical_path(run)
    busy = run.end - run.start
    waiting = run.start - _free(run)
    total = gpu.workers * run.seconds
    on_path = np.bincount(program.tasks["op"][[t for t in path.tasks if program.tasks["op"][t] != NONE]])
    return {
        "gpu": gpu.name,
        "fitted": not gpu.assumed,
        "assumed": gpu.assumed,
        "dtype": run.dtype.name.lower(),
        "max_batch": int(program.header["max_batch"]),
        "batch": run.batch,
        "tasks": len(program.tasks),
        "workers": gpu.workers,
        "latency_seconds": run.seconds,
        "images_per_second": run.batch / run.seconds,
        "utilisation": _shares(float(busy.sum()), float(waiting.sum()), total),
        "bounds_seconds": bounds(run),
        "critical_path": {
            "tasks": len(path.tasks),
            "seconds": path.by_cost,
            "ops": [
                {
                    "name": "join" if op == NONE else program.text(program.ops[op]),
                    "tasks": len(path.tasks) - int(on_path.sum()) if op == NONE else int(on_path[op]),
                    "seconds": seconds,
                }
                for op, seconds in sorted(path.by_op.items(), key=lambda item: -item[1])
            ],
        },
        "launches": [_launch(run, i, busy, waiting) for i in range(len(program.launches))],
        "modules": _modules(run, busy),
    }


def _free(run: Run) -> np.ndarray:
    """When each task's worker asked for it."""
    return run.taken - run.gpu.ticket_seconds


def _shares(busy: float, waiting: float, total: float) -> dict[str, float]:
    return {"busy": busy / total, "waiting": waiting / total, "idle": 1 - (busy + waiting) / total}


def _launch(run: Run, index: int, busy: np.ndarray, waiting: np.ndarray) -> dict[str, Any]:
    launch = run.program.launches[index]
    first, count = int(launch["first_task"]), int(launch["task_count"])
    blocks = int(run.launch_blocks[index])
    seconds = float(run.launch_end[index] - run.launch_begin[index])
    own = slice(first, first + count)
    return {
        "name": run.program.text(launch),
        "mode": LaunchMode(int(launch["mode"])).name.lower(),
        "tasks": count,
        "blocks": blocks,
        "seconds": seconds,
        "utilisation": _shares(float(busy[own].sum()), float(waiting[own].sum()), blocks * seconds),
    }


def _modules(run: Run, busy: np.ndarray) -> list[dict[str, Any]]:
    program = run.program
    names = [program.text(op, "module") or program.text(op) for op in program.ops]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    real = np.flatnonzero(program.tasks["op"] != NONE)
    module = np.array([number[name] for name in names])[program.tasks["op"][real]]
    begin, end = np.full(len(number), np.inf), np.zeros(len(number))
    np.minimum.at(begin, module, run.start[real])
    np.maximum.at(end, module, run.end[real])
    work = np.bincount(module, busy[real], len(number))
    tasks = np.bincount(module, minlength=len(number))
    return [
        {
            "name": name,
            "tasks": int(tasks[i]),
            "seconds": float(end[i] - begin[i]),
            "worker_seconds": float(work[i]),
        }
        for name, i in number.items()
    ]


def render(document: dict[str, Any]) -> str:
    """``report`` as text, without a newline at the end."""
    latency = document["latency_seconds"]
    lines = [
        f"{document['gpu']}, {document['dtype']}, {document['batch']} of up to {document['max_batch']} images, "
        f"{document['tasks']} tasks on {document['workers']} workers",
        calibration(document["assumed"]),
        "",
        f"latency      {_us(latency)}, {document['images_per_second']:,.0f} images/s",
        f"workers      {_percents(document['utilisation'])}",
        "",
        "bounds       (each alone, all else free)",
        *(
            f"  {name:14} {_us(value)} {value / latency:7.1%}"
            for name, value in document["bounds_seconds"].items()
        ),
        "",
        f"critical path, {document['critical_path']['tasks']} tasks",
    ]
    path = document["critical_path"]
    lines += [f"  {name:14} {_us(value)} {value / latency:7.1%}" for name, value in path["seconds"].items()]
    for op in path["ops"][:_OPS_SHOWN]:
        lines.append(f"  {op['name'][:40]:40} {_us(op['seconds'])}  tasks {op['tasks']}")
    more = path["ops"][_OPS_SHOWN:]
    if more:
        lines.append(f"  {f'{len(more)} more ops':40} {_us(sum(op['seconds'] for op in more))}")
    lines += ["", "launches"]
    for launch in document["launches"]:
        lines.append(
            f"  {launch['name'][:28]:28} {_us(launch['seconds'])}  tasks {launch['tasks']:6}  "
            f"blocks {launch['blocks']:4}  {_percents(launch['utilisation'])}"
        )
    lines += ["", "modules"]
    for module in document["modules"]:
        lines.append(
            f"  {module['name'][:28]:28} {_us(module['seconds'])}  tasks {module['tasks']:6}  "
            f"of workers {_us(module['worker_seconds'])}"
        )
    return "\n".join(lines)


def calibration(assumed: list[str]) -> str:
    """One line that says how far the constants can be trusted."""
    if not assumed:
        return "fitted: no constant is assumed"
    return f"not fitted: constants are assumed ({', '.join(assumed)})"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:12,.1f} us"


def _percents(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
