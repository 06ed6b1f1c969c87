"""Batches of images that come one by one: when they go out, that nothing is lost, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain
from typing import Any

import numpy as np
import pytest

from inception_engine.errors import EngineError
from inception_engine.serve.batching import Batcher, QueueClosed, QueueFull

HOUR = 3600.0  # no test waits for it
TIMEOUT = 30.0  # seconds after which a result that does not come fails a test


class Recorder:
    """A run that remembers its batches, and goes on only while ``gate`` is set."""

    def __init__(self, *, open_: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        if open_:
            self.gate.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(images[:, 0].tolist())
        self.begun.release()
        assert self.gate.wait(TIMEOUT)
        if (images < 0).any():
            raise ValueError("a negative image")
        return images * 10


def image(number: int) -> np.ndarray:
    return np.array([number, number + 1])


def submitted(batcher: Batcher, *numbers: int) -> list[Future[np.ndarray]]:
    found = []
    for number in numbers:
        with batcher.place() as submit:
            found.append(submit(image(number)))
    return found


def results(futures: list[Future[np.ndarray]]) -> list[int]:
    return [int(future.result(TIMEOUT)[0]) for future in futures]


def test_a_full_batch_goes_out_and_one_that_is_not_waits() -> None:
    run = Recorder()
    batcher = Batcher([run], max_batch=4, max_wait=HOUR, capacity=100)
    first = submitted(batcher, 1, 2, 3)
    assert not run.begun.acquire(timeout=0.1) and batcher.length == 3
    first += submitted(batcher, 4)
    assert results(first) == [10, 20, 30, 40]
    assert run.batches == [[1, 2, 3, 4]] and batcher.length == 0
    batcher.close()


def test_a_batch_goes_out_when_its_oldest_has_waited_its_bound() -> None:
    """By itself: nothing comes behind the last image."""
    run = Recorder()
    batcher = Batcher([run], max_batch=4, max_wait=0.05, capacity=100)
    assert results(submitted(batcher, 1, 2)) == [10, 20]
    assert list(chain(*run.batches)) == [1, 2]
    batcher.close()


def test_while_a_batch_runs_others_collect() -> None:
    run = Recorder(open_=False)
    batcher = Batcher([run], max_batch=3, max_wait=0.0, capacity=100)
    futures = submitted(batcher, 0)
    assert run.begun.acquire(timeout=TIMEOUT)
    futures += submitted(batcher, 1, 2, 3, 4, 5)
    assert batcher.length == 5
    run.gate.set()
    assert results(futures) == [0, 10, 20, 30, 40, 50]
    assert run.batches == [[0], [1, 2, 3], [4, 5]]
    batcher.close()


def test_places_are_bounded_and_come_back() -> None:
    batcher = Batcher([Recorder()], max_batch=4, max_wait=0.0, capacity=2)
    full = pytest.raises(QueueFull, match="all 2 places are taken")
    with batcher.place(), batcher.place(), full, batcher.place():
        pass
    with batcher.place() as submit:
        assert results([submit(image(5))]) == [50]
    batcher.close()


def test_what_is_cancelled_is_not_run() -> None:
    run = Recorder()
    batcher = Batcher([run], max_batch=3, max_wait=HOUR, capacity=100)
    one, two = submitted(batcher, 1, 2)
    assert one.cancel()
    (three,) = submitted(batcher, 3)
    assert not run.begun.acquire(timeout=0.1) and batcher.length == 2  # it fills no batch
    (four,) = submitted(batcher, 4)
    assert results([two, three, four]) == [20, 30, 40]
    assert run.batches == [[2, 3, 4]]
    batcher.close()


def test_what_is_cancelled_waits_no_more() -> None:
    """However many come and go before an engine that is busy, no more wait than there are places."""
    run = Recorder(open_=False)
    batcher = Batcher([run], max_batch=1, max_wait=0.0, capacity=2)
    with batcher.place() as submit:
        running = submit(image(0))
        assert run.begun.acquire(timeout=TIMEOUT)
        for number in range(1, 200):
            with batcher.place() as submit_another:
                gone = submit_another(image(number))
                assert batcher.length == 1
                assert gone.cancel()
            assert batcher.length == 0
        assert not running.cancel()
        run.gate.set()
        assert results([running]) == [0]
    batcher.close()
    assert run.batches == [[0]]


def test_an_error_of_a_run_is_that_of_its_images_alone() -> None:
    batcher = Batcher([Recorder()], max_batch=2, max_wait=HOUR, capacity=100)
    for future in submitted(batcher, -1, 1):
        with pytest.raises(ValueError, match="a negative image"):
            future.result(TIMEOUT)
    assert isinstance(batcher.error, ValueError)
    assert results(submitted(batcher, 1, 2)) == [10, 20]
    assert batcher.error is None
    batcher.close()


def test_results_that_are_not_one_for_each_image_are_an_error() -> None:
    """For all images of the batch; the next one is run."""
    wrong: list[Callable[[np.ndarray], Any]] = [
        lambda images: images[:1],
        lambda images: np.float32(0),
        lambda images: images,
    ]
    batcher = Batcher([lambda images: wrong.pop(0)(images)], max_batch=2, max_wait=HOUR, capacity=100)
    for future in submitted(batcher, 1, 2):
        with pytest.raises(EngineError, match="a run of 2 images gave 1 results"):
            future.result(TIMEOUT)
    for future in submitted(batcher, 1, 2):
        with pytest.raises(TypeError):
            future.result(TIMEOUT)
    assert isinstance(batcher.error, TypeError)
    assert results(submitted(batcher, 1, 2)) == [1, 2]
    batcher.close()


def test_an_error_of_who_observes_is_heard_by_who_waits() -> None:
    faults = [ValueError("not counted")]

    def observe(images: int, seconds: float) -> None:
        if faults:
            raise faults.pop()

    batcher = Batcher([Recorder()], max_batch=2, max_wait=HOUR, capacity=100, observe=observe)
    for future in submitted(batcher, 1, 2):
        with pytest.raises(ValueError, match="not counted"):
            future.result(TIMEOUT)
    assert isinstance(batcher.error, ValueError)
    assert results(submitted(batcher, 1, 2)) == [10, 20]
    batcher.close()


def test_closing_finishes_what_was_taken_and_takes_no_more() -> None:
    run = Recorder(open_=False)
    batcher = Batcher([run], max_batch=2, max_wait=HOUR, capacity=100)
    with batcher.place() as submit:
        futures = submitted(batcher, 0, 1, 2, 3, 4)
        assert run.begun.acquire(timeout=TIMEOUT)
        closing = threading.Thread(target=batcher.close)
        closing.start()
        run.gate.set()
        closing.join(TIMEOUT)
        assert not closing.is_alive()
        assert [future.done() for future in futures] == 5 * [True]
        assert results(futures) == [0, 10, 20, 30, 40] and run.batches == [[0, 1], [2, 3], [4]]
        with pytest.raises(QueueClosed):
            submit(image(9))
    with pytest.raises(QueueClosed), batcher.place():
        pass


def test_many_threads_and_several_runs_lose_nothing() -> None:
    runs = [Recorder(), Recorder(), Recorder()]
    seen: list[int] = []
    batcher = Batcher(
        runs, max_batch=5, max_wait=0.001, capacity=1000, observe=lambda images, _: seen.append(images)
    )
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda number: results(submitted(batcher, number))[0], range(800)))
    batcher.close()
    assert found == [10 * number for number in range(800)]
    batches = [batch for run in runs for batch in run.batches]
    assert sorted(chain(*batches)) == list(range(800))
    assert max(map(len, batches)) <= 5 and sorted(map(len, batches)) == sorted(seen)


def test_a_trial_is_run_by_those_alone_whose_last_run_failed() -> None:
    """What others make of an image says nothing of them."""
    well, run = Recorder(open_=False), Recorder(open_=False)
    broken = True

    def failing(images: np.ndarray) -> np.ndarray:
        found = run(images)
        if broken:
            raise EngineError("the device is lost")
        return found

    batcher = Batcher([well, failing], max_batch=1, max_wait=0.0, capacity=100)
    assert batcher.retry(image(1)) == []
    futures = submitted(batcher, 2, 3)
    assert well.begun.acquire(timeout=TIMEOUT) and run.begun.acquire(timeout=TIMEOUT)  # each has one of them
    run.gate.set()
    done, _ = wait(futures, TIMEOUT, FIRST_COMPLETED)
    assert [type(future.exception()) for future in done] == [EngineError]
    for _ in range(3):
        (trial,) = batcher.retry(image(4))
        assert isinstance(trial.exception(TIMEOUT), EngineError) and batcher.error is trial.exception()
    broken = False
    assert results(batcher.retry(image(5))) == [50]
    assert batcher.error is None and batcher.retry(image(6)) == []
    well.gate.set()
    batcher.close()
    assert run.batches[1:] == 3 * [[4]] + [[5]] and len(well.batches) == 1
    with pytest.raises(QueueClosed):
        batcher.retry(image(7))


def test_a_trial_that_waits_is_cancelled_by_the_next() -> None:
    run = Recorder()
    batcher = Batcher([run], max_batch=1, max_wait=0.0, capacity=100)
    with pytest.raises(ValueError, match="negative"):
        results(submitted(batcher, -1))
    run.gate.clear()
    busy = submitted(batcher, 2)
    assert run.begun.acquire(timeout=TIMEOUT) and run.begun.acquire(timeout=TIMEOUT)
    (first,) = batcher.retry(image(3))
    (second,) = batcher.retry(image(4))
    run.gate.set()
    assert first.cancelled() and results([*busy, second]) == [20, 40]
    batcher.close()
