"""SIGTERM and SIGINT end a training when its step is done and saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import torch
import torch.distributed as dist

from inception_engine.train.distributed import World


class Stopped(Exception):
    """A signal asked for the end, and all is saved. ``signal``: its number."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} behind step {step}, which is saved")
        self.signal = number


class Signals:
    """Remembers the last signal while it is entered. In a thread, which gets none, it does nothing."""

    number = 0

    def __enter__(self) -> Signals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        self.number = number

    def agreed(self, world: World) -> int:
        """The signal that any process got, or 0, the same in all of them, which must ask together."""
        kinds = (signal.SIGTERM, signal.SIGINT)
        counts = torch.tensor([self.number == kind for kind in kinds], dtype=torch.float64)
        if world.size > 1:
            dist.all_reduce(counts, group=world.cpus)
        return next((kind for kind, count in zip(kinds, counts.tolist(), strict=True) if count), 0)
