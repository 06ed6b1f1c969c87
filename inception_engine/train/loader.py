"""Batches for training, prepared by processes of their own while the network learns.

The order of an epoch is a function of (seed, epoch), the augmentation of an image one of (seed, epoch, index): batches
are the same, bit for bit, with any number of processes, and an epoch can be taken up at any batch.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import numpy as np

from inception_engine import packages
from inception_engine.datasets import Dataset
from inception_engine.errors import ArgumentError, LoaderError
from inception_engine.train.augment import Augmentation
from inception_engine.train.samples import Prepared, Recipe, Task, order

if TYPE_CHECKING:
    import torch

AHEAD = 2  # batches that each process may be ahead of the network: what bounds the memory
MOST_WORKERS = 1024  # processes: more would be a slip of the keyboard
PATIENCE = 600.0  # seconds for one batch, after which storage that gives no answer is an error


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """``images``: uint8 (batch, height, width, channels), in the channel order of the network; ``labels`` and
    ``indices`` (in the data set): int64 (batch,). ``waited``: seconds from asking for it to having it. ``skipped``:
    what was wrong with images that were left out, one line each.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    waited: float
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Of the loader alone: ``images`` in ``seconds``."""

    images: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.images / self.seconds


class Loader:
    """A data set in batches. Its processes live until ``close``, through all epochs; without any, the caller works.

    ``batch``: images of all ranks together, of which this one takes every ``world``-th. ``skip_unreadable``: an
    unreadable image's place is taken by another, drawn by its own random numbers; else it is an error. ``batches``: of
    an epoch; the images that do not fill one are left out, others in each epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        augmentation: Augmentation,
        *,
        batch: int,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        skip_unreadable: bool = False,
    ) -> None:
        """Raises ArgumentError."""
        if batch < 1 or not 0 <= workers <= MOST_WORKERS or not 0 <= rank < world:
            raise ArgumentError(f"a batch of {batch}, {workers} processes, rank {rank} of {world}")
        if not 0 <= seed < 2**64:
            raise ArgumentError(f"seed is {seed}, not within 0 and 2**64 - 1")
        if batch % world:
            raise ArgumentError(f"a batch of {batch} images cannot be shared evenly by {world} processes")
        if len(dataset) < batch:
            raise ArgumentError(f"a batch of {batch} images, of a data set that has {len(dataset)}")
        self.dataset, self.augmentation = dataset, augmentation
        self.batch, self.rank, self.world, self.workers = batch, rank, world, workers
        self.batches = len(dataset) // batch
        self._recipe = Recipe(
            dataset=dataset, augmentation=augmentation, seed=seed, skip_unreadable=skip_unreadable
        )
        self._pool: ProcessPoolExecutor | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on. Raises ImageError (see ``skip_unreadable``),
        LoaderError.
        """
        indices = order(self._recipe.seed, epoch, len(self.dataset))[: self.batches * self.batch]
        return self._run(Task(indices=share, epoch=epoch) for share in self._shares(indices, start))

    def in_order(self) -> Iterator[Batch]:
        """Every image once, in order, as validation sees it; the last batch is smaller, and unreadable images to be
        skipped are missing in theirs. A rank that has no part in the last batch does not get it. Raises as ``epoch``.
        """
        indices = np.arange(len(self.dataset))
        return self._run(Task(indices=share, epoch=None) for share in self._shares(indices, 0) if len(share))

    def _shares(self, indices: np.ndarray, start: int) -> Iterator[np.ndarray]:
        for begin in range(start * self.batch, len(indices), self.batch):
            yield indices[begin : begin + self.batch][self.rank :: self.world]

    def _run(self, tasks: Iterator[Task]) -> Iterator[Batch]:
        prepared = map(self._recipe.prepare, tasks) if not self.workers else self._ahead(tasks)
        while True:
            begin = time.perf_counter()
            made = next(prepared, None)
            if made is None:
                return
            yield _batch(made, time.perf_counter() - begin)

    def _ahead(self, tasks: Iterator[Task]) -> Iterator[Prepared]:
        """What the processes make of tasks, in order; never more than ``AHEAD`` of each wait to be taken."""
        waiting: deque[Future[Prepared]] = deque()
        try:
            pool = self._started()
            for task in tasks:
                waiting.append(pool.submit(_prepare, task))
                if len(waiting) == AHEAD * self.workers:
                    yield waiting.popleft().result(PATIENCE)
            while waiting:
                yield waiting.popleft().result(PATIENCE)
        except BrokenProcessPool:
            self._fail("a process that prepares images died; was it killed, or out of memory?")
        except TimeoutError:
            self._fail(f"a batch of images took more than {PATIENCE:.0f} seconds; does the storage answer?")
        finally:
            for future in waiting:
                future.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Forked: they share the data set's memory, and import nothing. They use neither torch nor what other
            # threads of this process may hold.
            self._pool = ProcessPoolExecutor(
                self.workers, get_context("fork"), initializer=_begin, initargs=(self._recipe,)
            )
        return self._pool

    def _fail(self, message: str) -> NoReturn:
        pool, self._pool = self._pool, None
        if pool is not None:  # those that hang would keep this process from ending
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
        raise LoaderError(message) from None

    def close(self) -> None:
        """End the processes, as soon as each has done the batch that it is at. They start again if needed."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def measure(loader: Loader, images: int) -> Throughput:
    """How fast the loader is by itself, over ``images`` or a few more, from when all its processes are at work."""
    counted, begin, epoch = 0, 0.0, 0
    warm_up = max(1, AHEAD * loader.workers)
    while True:
        for batch in loader.epoch(epoch):
            if warm_up > 0:
                warm_up, begin = warm_up - 1, time.perf_counter()
                continue
            counted += len(batch.indices)
            if counted >= images:
                return Throughput(images=counted, seconds=time.perf_counter() - begin)
        epoch += 1


def _batch(made: Prepared, waited: float) -> Batch:
    torch = packages.load("torch")
    images, labels, indices = map(torch.from_numpy, (made.images, made.labels, made.indices))
    return Batch(images=images, labels=labels, indices=indices, waited=waited, skipped=made.skipped)


_recipe: Recipe  # of a process that prepares images


def _begin(recipe: Recipe) -> None:
    """Called once in each process."""
    global _recipe
    _recipe = recipe
    # Signals to the group, as a terminal and schedulers send them, are for the one that trains: it still wants its
    # batches while it saves. What it has set up for itself must not go on here.
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed closes nothing; without this its processes would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _prepare(task: Task) -> Prepared:
    return _recipe.prepare(task)
