"""Our engine by itself: where a run's time goes, layer by layer and task by task, beside what the machine can do.

On the CPU every task is timed by the runtime (``Engine.trace``) in many runs, and its median counts. The tasks of a
GPU are not timed one by one: there the simulator says when they run, and the profile says that it is predicted. A
profile is a document for JSON:

``variant``, ``batch``, ``dtype``, ``device``, ``threads``; ``source``: "measured" or "predicted"; ``runs``;
``run_ms``: median of a whole run, without tracing where measured; ``busy``, ``waiting``: shares of the workers' time
in tasks, and in waits for others' tasks; ``peak``: ``macs_per_s`` and ``bytes_per_s`` of all workers, ``source`` in
words; or None, and ``no_peak`` says why; ``layers``: ``name``, ``module``, ``tasks``, ``share`` of the time of all
tasks, ``ms`` as if all workers had shared it, ``nominal`` and ``executed`` multiply-adds and ``bytes`` of the batch,
``macs_per_byte`` and ``macs_per_s`` of executed ones, and ``of_peak`` of these, ``nominal_of_peak`` and ``of_memory``
(None without a peak); ``slowest``: the tasks that took longest. In older documents ``macs_per_byte``, ``macs_per_s``
and ``of_peak`` are of nominal multiply-adds: what is printed and drawn is made of ``executed``, ``bytes`` and ``ms``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inception_engine import trace_events
from inception_engine.bench import peak
from inception_engine.bench.artefacts import compiled
from inception_engine.bench.cases import Workload
from inception_engine.bench.native import CompilerError
from inception_engine.compiler.budget import traffic
from inception_engine.compiler.inspect import executed_macs
from inception_engine.compiler.plan import NONE, Dtype, Plan, Program
from inception_engine.terminal import printable_line
from inception_engine.trace_events import Event, named_process, named_track, piece

GPU = "h200"  # whose costs the simulator takes
SLOWEST = 10
LEAST_RUNS, MOST_RUNS = 5, 1000


Save = Callable[[Path], None]


def profile(
    workload: Workload, device: str, threads: int, folder: Path, seconds: float
) -> tuple[dict[str, Any], Save]:
    """And what writes the trace, which raises OSError: by then the profile can be kept. ``seconds``: of traced runs.
    ``folder``: for what is compiled. Raises CompileError, EngineErrors and OSError."""
    plan = compiled(workload, device)
    who = {
        "variant": workload.variant,
        "batch": workload.batch,
        "dtype": workload.dtype,
        "device": device,
        "threads": threads,
    }
    if device == "cuda":
        found, save = _predicted(plan, workload.batch)
    else:
        found, save = measured(plan, plan.programs[0], workload.images(), threads, folder, seconds)
    return who | found, save


def measured(
    plan: Plan, program: Program, images: np.ndarray, threads: int, folder: Path, seconds: float
) -> tuple[dict[str, Any], Save]:
    """On this machine's CPU: what of a profile does not say whose it is. ``program``: the plan's that takes so many
    ``images``. The rest as of ``profile``. Raises EngineErrors and OSError."""
    import inception_engine as ie

    try:
        limits: dict[str, Any] | None = {**peak.measure(threads, folder), "source": "measured in this run"}
        why = None
    except CompilerError as error:
        limits, why = None, str(error)
    with ie.Engine(plan, device="cpu", threads=threads) as engine:
        engine.run(images)
        plain: list[float] = []
        traces: list[np.ndarray] = []
        end = time.perf_counter() + seconds
        while len(traces) < LEAST_RUNS or (time.perf_counter() < end and len(traces) < MOST_RUNS):
            begin = time.perf_counter()
            engine.run(images)
            plain.append(time.perf_counter() - begin)
            traces.append(engine.trace(images, len(program.tasks)))
    taken, started, ended = (
        np.stack([each[name] for each in traces]) for name in ("taken_ns", "begin_ns", "end_ns")
    )
    spans = (ended.max(axis=1) - taken.min(axis=1)) * threads  # what the workers had, in ns
    middle = traces[int(np.argsort(spans)[len(spans) // 2])]
    found = {
        "source": "measured",
        "runs": len(traces),
        "run_ms": statistics.median(plain) * 1e3,
        "busy": float(np.median((ended - started).sum(axis=1) / spans)),
        "waiting": float(np.median((started - taken).sum(axis=1) / spans)),
        "peak": limits,
        "no_peak": why,
        **_layers(program, len(images), np.median(ended - started, axis=0) / 1e9, threads, limits),
    }
    return found, lambda path: trace_events.save(_events(program, middle), path)


def _predicted(plan: Plan, batch: int) -> tuple[dict[str, Any], Save]:
    from inception_engine.simulate import trace as simulated_trace
    from inception_engine.simulate.events import simulate
    from inception_engine.simulate.gpu import Gpu

    gpu, program = Gpu.load(GPU), plan.programs[0]
    run = simulate(program, gpu, batch)
    seconds = np.where(run.work.runs, run.end - run.start, 0.0)
    limits = {
        "macs_per_s": gpu.product_rate(Dtype(int(program.header["dtype"]))) / 2,
        "bytes_per_s": gpu.dram_bytes_per_second,
        "source": f"constants of {gpu.name}",
    }
    span = run.seconds * gpu.workers
    found = {
        "source": "predicted",
        "runs": 1,
        "run_ms": run.seconds * 1e3,
        "busy": float(seconds.sum() / span),
        "waiting": float((run.start - run.taken).sum() / span),
        "peak": limits,
        "no_peak": None,
        **_layers(program, batch, seconds, gpu.workers, limits),
    }
    return found, lambda path: simulated_trace.save(run, path)


def _layers(
    program: Program, batch: int, seconds: np.ndarray, workers: int, limits: dict[str, Any] | None
) -> dict[str, Any]:
    """``seconds``: of each task, shape (tasks,)."""
    op = program.tasks["op"]
    total = float(seconds[op != NONE].sum())  # joins compute nothing, and are no layer's
    layers = []
    for number, record in enumerate(program.ops):
        own = op == number
        spent = float(seconds[own].sum())
        nominal = int(record["nominal_macs"]) * batch
        executed = executed_macs(program, record) * batch
        moved = traffic(program, record, batch).total
        # As if all workers had shared the layer evenly, which is what the peak is of.
        shared = spent / workers
        layers.append(
            {
                "name": program.text(record),
                "module": program.text(record, "module"),
                "tasks": int(own.sum()),
                "share": spent / total if total else 0.0,
                "ms": shared * 1e3,
                "nominal": nominal,
                "executed": executed,
                "bytes": moved,
                "macs_per_byte": executed / moved,
                "macs_per_s": executed / shared if shared else None,
                "of_peak": _share(executed, shared, limits, "macs_per_s"),
                "nominal_of_peak": _share(nominal, shared, limits, "macs_per_s"),
                "of_memory": _share(moved, shared, limits, "bytes_per_s"),
            }
        )
    return {"layers": layers, "slowest": _slowest(program, seconds)}


def _share(amount: float, seconds: float, limits: dict[str, Any] | None, rate: str) -> float | None:
    return amount / seconds / float(limits[rate]) if limits is not None and seconds else None


def _slowest(program: Program, seconds: np.ndarray) -> list[dict[str, Any]]:
    tasks = program.tasks
    return [
        {
            "task": int(number),
            "layer": _name(program, int(number)),
            "row": int(tasks[number]["row"]),
            "column": int(tasks[number]["column"]),
            "ms": float(seconds[number]) * 1e3,
        }
        for number in np.argsort(-seconds, kind="stable")[:SLOWEST]
    ]


def _name(program: Program, task: int) -> str:
    op = program.tasks[task]["op"]
    return "join" if op == NONE else program.text(program.ops[op])


def _events(program: Program, times: np.ndarray) -> list[Event]:
    """A track for each worker, with waits and tasks as in the simulator's trace."""
    origin = int(times["taken_ns"].min())
    taken, begin, end = ((times[name] - origin) / 1e9 for name in ("taken_ns", "begin_ns", "end_ns"))
    events = [named_process(0, "workers")]
    events += [named_track(0, int(worker), f"worker {worker}") for worker in np.unique(times["worker"])]
    for number, task in enumerate(program.tasks):
        worker, name = int(times[number]["worker"]), _name(program, number)
        more = {"task": number, "row": int(task["row"]), "column": int(task["column"])}
        events.append(piece(f"wait {name}", "wait", 0, worker, taken[number], begin[number], more))
        events.append(piece(name, "run", 0, worker, begin[number], end[number], more))
    return events


def render(found: dict[str, Any]) -> str:
    """A profile as text, layers in the plan's order."""
    what = f"{found['variant']}, batch {found['batch']}, {found['dtype']} on {found['device']}"
    workers = f", {in_words(found['threads'])}" if found["device"] == "cpu" else ""
    return render_run(f"{what}{workers}", found)


def in_words(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"


def render_run(what: str, found: dict[str, Any]) -> str:
    """What ``measured`` finds, as text. ``what``: was run."""
    runs = (
        f"median of {found['runs']} runs" if found["source"] == "measured" else "predicted by the simulator"
    )
    limits = found["peak"]
    if limits is None:
        machine = f"peak: not known ({found['no_peak']})"
    else:
        machine = (
            f"peak: {limits['macs_per_s'] / 1e9:,.1f} G multiply-adds/s, {limits['bytes_per_s'] / 1e9:,.1f} GB/s from "
            f"memory, {limits['source']}"
        )
    lines = [
        f"{what}: {found['run_ms']:.3f} ms a run, {runs}; workers run tasks for {found['busy']:.0%} of their "
        f"time and wait for others' for {found['waiting']:.0%}",
        machine,
        "",
        *_table(found["layers"], limits),
        "",
        "of peak: executed multiply-adds, the share of the machine that is used; nominal: those of the layer over the "
        "same peak, more where Winograd's algorithm needs fewer",
        "",
        "slowest tasks: "
        + ", ".join(
            f"{task['layer']} at {task['row']}, {task['column']}: {task['ms']:.3f} ms"
            for task in found["slowest"][:5]
        ),
    ]
    return "".join(f"{printable_line(line)}\n" for line in lines)


def _table(layers: Sequence[dict[str, Any]], limits: dict[str, Any] | None) -> list[str]:
    """Executed over nominal multiply-adds is above 1 by padding, and below it where Winograd's algorithm needs
    fewer."""
    wide = max(len("layer"), *(len(layer["name"]) for layer in layers))

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    lines = [
        f"{'layer':<{wide}}{'tasks':>7}{'share':>8}{'ms':>9}{'nominal M':>11}{'executed':>10}{'moved MB':>10}"
        f"{'of peak':>9}{'nominal':>9}{'of memory':>11}"
    ]
    for layer in layers:
        executed = f"{layer['executed'] / layer['nominal']:.2f}" if layer["nominal"] else "-"
        used, nominal = (
            _share(layer[which], layer["ms"] / 1e3, limits, "macs_per_s") if layer["nominal"] else None
            for which in ("executed", "nominal")
        )
        lines.append(
            f"{layer['name']:<{wide}}{layer['tasks']:>7}{percent(layer['share']):>8}{layer['ms']:>9.3f}"
            f"{layer['nominal'] / 1e6:>11.2f}{executed:>10}{layer['bytes'] / 1e6:>10.2f}"
            f"{percent(used):>9}{percent(nominal):>9}{percent(layer['of_memory']):>11}"
        )
    return lines
