"""Engines for the benchmark's tests: they give the logits of a formula, or fail in one way each. Opened by workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from inception_engine.bench.runners import Runner, Task

CLASSES = 10


def logits(images: np.ndarray) -> np.ndarray:
    """(batch, CLASSES): classes differ, and so do images."""
    means = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
    return (1 + means[:, None]) * np.arange(1, CLASSES + 1)


def _altered(alter: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Task], Runner]:
    """``alter`` of the right logits and the number of the call, from 1."""

    def open_it(task: Task) -> Runner:
        calls = 0

        def compute(images: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            return alter(logits(images).astype(np.float32), calls)

        return Runner(compute)

    return open_it


def _last_image(found: np.ndarray, call: int) -> np.ndarray:
    found[-1, 0] += 0.01 * np.abs(found).max()
    return found


def _raise(text: str) -> Any:
    raise RuntimeError(text)


def _sleep(found: np.ndarray, milliseconds: float) -> np.ndarray:
    time.sleep(milliseconds / 1e3)
    return found


def _die(how: Callable[[], Any], from_call: int) -> Callable[[Task], Runner]:
    return _altered(lambda found, call: found if call < from_call else how() or found)


good = _altered(lambda found, call: found)
slow = _altered(lambda found, call: _sleep(found, 4))
slower = _altered(lambda found, call: _sleep(found, 8))
last_image_off = _altered(_last_image)
nan = _altered(lambda found, call: np.where(found == found.max(), np.nan, found))
swapped = _altered(lambda found, call: found[::-1])
another_shape = _altered(lambda found, call: found[:, :-1])
raises = _altered(lambda found, call: _raise("no such kernel\nand a second line"))
raises_when_timed = _altered(lambda found, call: found if call < 3 else _raise("out of luck"))
hangs_when_timed = _die(lambda: time.sleep(600), 3)
crashes_when_timed = _die(lambda: os.kill(os.getpid(), signal.SIGSEGV), 3)
leaves_when_timed = _die(lambda: print("no more", file=sys.stderr, flush=True) or os._exit(3), 3)
is_not_here = _altered(lambda found, call: _raise("not here: no such device"))


def prints(task: Task) -> Runner:
    """To where a library's banner goes, on both streams."""
    print("banner", flush=True)
    os.write(2, b"warning\n")
    return good(task)


def parted(task: Task) -> Runner:
    """With copies, as on a GPU."""
    return Runner(lambda images: logits(images).astype(np.float32), np.copy, np.copy)
