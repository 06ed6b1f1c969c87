"""A GPU: tensors, times by events, graphs, traces; and the CPU, which takes its place in a rehearsal.

Times are nanoseconds of one call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.gpu.operations import Operation, host_operations, traced
from inception_engine.bench.timing import Samples

Call = Callable[[], Tensor]
_GROUP_NS = 2e6  # of calls between two events: far more than an event costs
_LARGEST_GROUP = 1000


class Device(Protocol):
    """``torch_device``: where tensors lie. ``name``: for ie.Engine."""

    torch_device: torch.device
    name: str

    def synchronize(self) -> None: ...

    def captured(self, call: Call) -> Call:
        """``call`` as a CUDA graph; its result is the same memory each time."""
        ...

    def sample(self, call: Call, seconds: float) -> list[int]:
        """Times of one call, measured for so long, after one that is not counted."""
        ...

    def operations(self, call: Call) -> list[Operation]:
        """What one call does on the device, in order."""
        ...


class Gpu:
    """The current CUDA device. Nothing of its settings is changed."""

    name = "cuda"

    def __init__(self) -> None:
        self.torch_device = torch.device("cuda", torch.cuda.current_device())

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def captured(self, call: Call) -> Call:
        # Warmed up in a stream of its own, as torch asks: libraries make their workspaces there.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    def sample(self, call: Call, seconds: float) -> list[int]:
        """Means of groups of calls, back to back: the time that each adds to the device's."""
        group = min(_LARGEST_GROUP, max(1, round(_GROUP_NS / self._group(call, 3))))
        samples: list[int] = []
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            samples.append(round(self._group(call, group)))
        return samples

    @staticmethod
    def _group(call: Call, count: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        call()  # while it runs the next ones are launched, so that the device does not wait for the host in between
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e6 / count

    def operations(self, call: Call) -> list[Operation]:
        return traced(call)


class Host:
    """The CPU, with its clock. For rehearsals: its times say nothing."""

    name = "cuda"  # the driver is a stand-in, too
    torch_device = torch.device("cpu")

    def synchronize(self) -> None:
        pass

    def captured(self, call: Call) -> Call:
        return call

    def sample(self, call: Call, seconds: float) -> list[int]:
        samples: list[int] = []
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            start = time.perf_counter_ns()
            call()
            samples.append(time.perf_counter_ns() - start)
        return samples

    def operations(self, call: Call) -> list[Operation]:
        return host_operations(call)


def open_device(rehearsal: bool) -> Device:
    """Raises RuntimeError where torch sees no GPU."""
    if rehearsal:
        return Host()
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device")
    return Gpu()


def interleaved(device: Device, calls: Mapping[str, Call], rounds: int, seconds: float) -> dict[str, Samples]:
    """A B C, A B C, and so on: what slows the device for a while slows all. ``seconds``: of each call in all."""
    samples = {name: Samples() for name in calls}
    for name in list(calls) * rounds:
        if samples[name].error is None:
            try:
                samples[name].rounds.append(device.sample(calls[name], seconds / rounds))
            except Exception as error:  # the other calls are still measured
                samples[name].error = error
    return samples


def median_seconds(device: Device, call: Call, seconds: float) -> float:
    """Of a single call, where nothing is compared."""
    return statistics.median(device.sample(call, seconds)) * 1e-9
