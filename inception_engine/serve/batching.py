"""Images that come one by one, run in batches: a bounded queue, and threads of which each has an engine of its own.

A batch goes out when it is full, or when its oldest image has waited for as long as it may. While all threads are at
work, images collect, so batches grow with the load. Of HTTP nothing is known here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from inception_engine.errors import EngineError

Run = Callable[[np.ndarray], np.ndarray]  # a batch to its results, (batch, ...) to (batch, ...)
Submit = Callable[[np.ndarray], "Future[np.ndarray]"]


class QueueFull(EngineError, RuntimeError):
    """All places are taken: come back later."""


class QueueClosed(EngineError, RuntimeError):
    """No more images are taken."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    image: np.ndarray
    result: Future[np.ndarray] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """``length``: images that wait for a batch. Safe to share between threads."""

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """``runs``: one for each thread, called by that one alone. ``max_wait``: seconds. ``capacity``: places, see
        ``place``. ``observe`` is told of each run: its images and its seconds."""
        self.max_batch, self.max_wait, self.capacity = max_batch, max_wait, capacity
        self._observe = observe
        self._waiting: OrderedDict[Future[np.ndarray], _Waiting] = OrderedDict()  # by their results
        self._trials: list[_Waiting | None] = [None for _ in runs]  # each for one thread alone
        self._errors: list[Exception | None] = [None for _ in runs]  # of each thread's last run, if it failed
        self._held = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, args=(number, run), daemon=True)
            for number, run in enumerate(runs)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def length(self) -> int:
        return len(self._waiting)

    @property
    def error(self) -> Exception | None:
        """Of a thread whose last run failed; None where all are well."""
        return next((error for error in self._errors if error is not None), None)

    @contextlib.contextmanager
    def place(self) -> Iterator[Submit]:
        """Room for one image, held from before it is read to when its result is there, so that what waits anywhere is
        bounded. Gives the function that takes the image. Raises QueueFull and QueueClosed."""
        with self._changed:
            if self._closed:
                raise QueueClosed("no more images are taken")
            if self._held >= self.capacity:
                raise QueueFull(f"all {self.capacity} places are taken")
            self._held += 1
        try:
            yield self._submit
        finally:
            with self._changed:
                self._held -= 1

    def close(self) -> None:
        """Take no more images, finish those that were taken, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def retry(self, image: np.ndarray) -> list[Future[np.ndarray]]:
        """Have each thread whose last run failed run this image, alone and before all that waits; others could not say
        whether it works again. The results, or the errors, of those runs; one that still waits for its thread when the
        next is asked for is cancelled. Raises QueueClosed."""
        with self._changed:
            if self._closed:
                raise QueueClosed("no more images are taken")
            found = []
            for number, error in enumerate(self._errors):
                if error is not None:
                    if (before := self._trials[number]) is not None:
                        before.result.cancel()
                    trial = self._trials[number] = _Waiting(image)
                    found.append(trial.result)
            self._changed.notify_all()
        return found

    def _submit(self, image: np.ndarray) -> Future[np.ndarray]:
        """The result is that of the image, or the error of its run. To cancel it keeps the image from being run, if it
        still waits. Raises QueueClosed."""
        waiting = _Waiting(image)
        with self._changed:
            if self._closed:
                raise QueueClosed("no more images are taken")
            self._waiting[waiting.result] = waiting
            self._changed.notify_all()
        waiting.result.add_done_callback(self._forget)
        return waiting.result

    def _forget(self, result: Future[np.ndarray]) -> None:
        """A cancelled image waits no more."""
        if result.cancelled():
            with self._changed:
                self._waiting.pop(result, None)  # None: it is in a batch that is about to run without it

    def _work(self, number: int, run: Run) -> None:
        while batch := self._next(number):
            wanted = [one for one in batch if one.result.set_running_or_notify_cancel()]
            if not wanted:
                continue
            begin = time.perf_counter()
            try:
                results = run(np.stack([one.image for one in wanted]))
                if len(results) != len(wanted):
                    raise EngineError(f"a run of {len(wanted)} images gave {len(results)} results")
                self._observe(len(wanted), time.perf_counter() - begin)
            except Exception as error:  # of any kind: whoever waits must hear of it, and the thread goes on
                self._errors[number] = error
                for one in wanted:
                    one.result.set_exception(error)
            else:
                self._errors[number] = None
                for one, result in zip(wanted, results, strict=True):
                    one.result.set_result(result)

    def _next(self, number: int) -> list[_Waiting]:
        """A thread's next batch, when it is time for it; an empty one when all is done and closed."""
        with self._changed:
            while True:
                if (trial := self._trials[number]) is not None:
                    self._trials[number] = None
                    return [trial]
                if self._closed and not self._waiting:
                    return []
                oldest = next(iter(self._waiting.values()), None)
                left = oldest.since + self.max_wait - time.monotonic() if oldest is not None else None
                if left is not None and (len(self._waiting) >= self.max_batch or left <= 0 or self._closed):
                    size = min(self.max_batch, len(self._waiting))
                    return [self._waiting.popitem(last=False)[1] for _ in range(size)]
                self._changed.wait(left)
