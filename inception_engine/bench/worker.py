"""The process that holds one engine: opens it, then takes one command per line and answers each with a line of JSON.

    time NS LEAST MOST            calls one after the other for so long, at least and at most so many, in every stream
    arrivals BOUND_NS MOST FIRST NS NS ...   a call for each request, which arrive at these times from now on, until
                                  more than MOST of those behind the first FIRST took longer than BOUND_NS
    parts COUNT                   upload, compute and download, each waited for by itself; and preprocessing
    quit

The first answer comes unasked: how long imports, opening and the first call took. Times are in ns. A call that raises
is answered with ``error``, and the process goes on. ``engine.c`` speaks the same, but ends after an error.

    python -m inception_engine.bench.worker TASK-JSON DESCRIPTOR     commands on stdin, answers on the descriptor
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inception_engine.bench.runners import Runner, Task


@dataclass(frozen=True)
class Clock:
    """Where the time comes from; the self-test has its own."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


class Service:
    """Answers commands. ``streams``: a call for each caller, without arguments, that returns logits."""

    def __init__(
        self, streams: Sequence[Callable[[], Any]], parts: Callable[[int], dict[str, list[int]]], clock: Clock
    ) -> None:
        self._streams, self._parts, self._clock = streams, parts, clock

    def answer(self, command: str) -> dict[str, Any]:
        name, *numbers = command.split()
        match name:
            case "time":
                return self._time(*map(int, numbers))
            case "arrivals":
                bound, most, first, *arrivals = map(int, numbers)
                return self._arrivals(bound, most, first, arrivals)
            case "parts":
                return {"parts": self._parts(int(numbers[0]))}
        raise ValueError(f"unknown command {name!r}")

    def _time(self, duration: int, least: int, most: int) -> dict[str, Any]:
        now = self._clock.now_ns

        def repeat(call: Callable[[], Any]) -> list[int]:
            times: list[int] = []
            end = now() + duration
            while True:
                start = now()
                call()
                stop = now()
                times.append(stop - start)
                if len(times) >= most or (stop >= end and len(times) >= least):
                    return times

        begin = now()
        times = self._together([partial(repeat, call) for call in self._streams])
        return {"ns": [ns for stream in times for ns in stream], "wall_ns": now() - begin}

    def _arrivals(self, bound: int, most: int, first: int, arrivals: list[int]) -> dict[str, Any]:
        """Latencies from the arrival to the answer, in the order of the arrivals; fewer when too many were late."""
        clock, begin = self._clock, self._clock.now_ns()
        waiting, lock = iter(enumerate(arrivals)), threading.Lock()
        finished: dict[int, int] = {}
        late: set[int] = set()

        def serve(call: Callable[[], Any]) -> None:
            while len(late) <= most:
                with lock:
                    number, arrival = next(waiting, (-1, 0))
                if number < 0:
                    return
                ahead = begin + arrival - clock.now_ns()
                if ahead > 0:
                    clock.sleep(ahead / 1e9)
                call()
                finished[number] = clock.now_ns() - begin - arrival
                if number >= first and finished[number] > bound:
                    late.add(number)

        self._together([partial(serve, call) for call in self._streams])
        latencies = [finished[number] for number in sorted(finished)]
        return {"ns": latencies, "wall_ns": clock.now_ns() - begin}

    @staticmethod
    def _together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Results of calls that start at once, the first in this thread. Raises what the first of them raised."""
        if len(calls) == 1:
            return [calls[0]()]
        results: list[Any] = [None] * len(calls)
        errors: list[BaseException] = []
        barrier = threading.Barrier(len(calls))

        def run(number: int) -> None:
            barrier.wait()
            try:
                results[number] = calls[number]()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(1, len(calls))]
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results


def serve(service: Service, commands: Iterable[str], reply: Callable[[dict[str, Any]], None]) -> None:
    """Until "quit" or the end. Garbage is collected between commands, never within."""
    gc.disable()
    for command in commands:
        if command.strip() == "quit":
            return
        gc.collect()
        try:
            answer = service.answer(command)
        except Exception as error:  # the parent makes it the status of a row
            answer = {"error": one_line(error)}
        reply(answer)


def one_line(error: Exception) -> str:
    """Its type, and the first line of its message."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _normalise(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """NumPy's preprocessing of a batch of pixels, the same for every engine. Imported where it is needed alone: the
    memory of a process is to be its engine's.
    """
    from inception_engine.network import Preprocess
    from inception_engine.preprocess import normalise

    return partial(normalise, preprocess=Preprocess(mean=tuple(task.mean), std=tuple(task.std)))


def _call(
    runner: Runner, images: np.ndarray, normalise: Callable[[np.ndarray], np.ndarray] | None
) -> Callable[[], Any]:
    """The whole call: preprocessing where the images are pixels and the runner takes none, copies, compute."""
    upload, compute, download = runner.upload, runner.compute, runner.download

    def call() -> Any:
        given: Any = images if normalise is None else normalise(images)
        if upload is not None:
            given = upload(given)
        logits = compute(given)
        return logits if download is None else download(logits)

    return call


def _parts(runner: Runner, images: np.ndarray, task: Task) -> Callable[[int], dict[str, list[int]]]:
    """Times of each part, waited for."""
    pixels = images
    if images.dtype != np.uint8:
        pixels = np.full((task.batch, *task.shape[1:], task.shape[0]), 127, np.uint8)

    def timed(call: Callable[[], Any], times: list[int]) -> Any:
        start = time.perf_counter_ns()
        result = call()
        runner.wait()
        times.append(time.perf_counter_ns() - start)
        return result

    def measure(count: int) -> dict[str, list[int]]:
        steps: list[tuple[str, Callable[[Any], Any] | None]] = [
            ("h2d", runner.upload),
            ("compute", runner.compute),
            ("d2h", runner.download),
        ]
        found: dict[str, list[int]] = {}
        normalise = partial(_normalise(task), pixels)
        normalised: Any = None
        for _ in range(count):
            normalised = timed(normalise, found.setdefault("preprocess", []))
        fused = images.dtype == np.uint8 and runner.takes_pixels
        for _ in range(count + 1):
            value = images if fused or images.dtype != np.uint8 else normalised
            for name, step in steps:
                if step is not None:
                    value = timed(partial(step, value), found.setdefault(name, []))
        return {name: times[-count:] for name, times in found.items()}

    return measure


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    answers = os.fdopen(int(sys.argv[2]), "w", encoding="utf-8", buffering=1)

    def reply(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    module, _, function = task.opener.partition(":")
    shape = task.shape if task.input == "float32" else [*task.shape[1:], task.shape[0]]
    kind = np.float32 if task.input == "float32" else np.uint8
    images = np.fromfile(task.images, kind).reshape(task.batch, *shape)
    normalise = _normalise(task) if images.dtype == np.uint8 else None
    try:
        start = time.perf_counter_ns()
        for package in task.packages:
            importlib.import_module(package)
        imported = time.perf_counter_ns()
        for helper in (module, *task.helpers):
            importlib.import_module(helper)
        opener = getattr(sys.modules[module], function)
        ready = time.perf_counter_ns()
        runners = [opener(task)]
        opened = time.perf_counter_ns()
        if runners[0].takes_pixels:
            normalise = None
        calls = [_call(runners[0], images, normalise)]
        logits = [calls[0]()]
        first = time.perf_counter_ns()
        for _ in range(task.streams - 1):
            runners.append(opener(task))
            calls.append(_call(runners[-1], images, normalise))
            logits.append(calls[-1]())
        results = np.concatenate([np.asarray(result, np.float32) for result in logits])
        results.tofile(task.logits)
    except Exception as error:
        reply({"error": one_line(error)})
        return
    reply(
        {
            "import_ns": imported - start,
            "load_ns": opened - ready,
            "first_ns": first - opened,
            "shape": list(results.shape),
        }
    )
    serve(Service(calls, _parts(runners[0], images, task), Clock()), sys.stdin, reply)
    for runner in runners:
        runner.close()


if __name__ == "__main__":
    main()
