"""What a call does on the device: kernels, copies and memsets, by the profiler's trace.

In a rehearsal: kernels that the interpreter runs, those that the driver's stand-in runs, and torch's operations that
compute something.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DRIVER_LOG = "IE_DOUBLE_LOG"  # a file in which the driver's stand-in says what it ran
_CATEGORIES = {"kernel", "gpu_memcpy", "gpu_memset"}
# What gives memory or another view of it, and what only the host asks for.
_FREE = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "view", "_unsafe_view", "as_strided",
    "reshape", "_reshape_alias", "slice", "select", "split", "split_with_sizes", "narrow", "detach", "alias", "permute",
    "transpose", "t", "expand", "unsqueeze", "squeeze", "lift_fresh", "_local_scalar_dense", "record_stream",
}  # fmt: skip


class Operation(NamedTuple):
    """``seconds``: on the device."""

    name: str
    seconds: float


def traced(call: Callable[[], object]) -> list[Operation]:
    """From a profiler's trace of one call; a first one is thrown away, for it may lack the beginning."""
    from torch.profiler import ProfilerActivity, profile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        for _ in range(2):
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                call()
                torch.cuda.synchronize()
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    found = sorted(
        (event for event in events if event.get("cat") in _CATEGORIES), key=lambda event: event["ts"]
    )
    return [Operation(event["name"], event["dur"] * 1e-6) for event in found]


def host_operations(call: Callable[[], object]) -> list[Operation]:
    """What the call would do on a device. ``seconds``: of the host, 0 where they are not known."""
    log = Path(os.environ.get(DRIVER_LOG, os.devnull))
    before = len(_executed(log))
    found: list[Operation] = []
    with _interpreted(found), _Torch(found):
        call()
    return found + _executed(log)[before:]


def _executed(log: Path) -> list[Operation]:
    if not log.is_file():
        return []
    lines = map(json.loads, log.read_text().splitlines())
    return [Operation(line["execute"], 0.0) for line in lines if "execute" in line]


@contextmanager
def _interpreted(found: list[Operation]) -> Iterator[None]:
    from triton.runtime.interpreter import GridExecutor

    run = GridExecutor.__call__

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        with torch.utils._python_dispatch._disable_current_modes():
            result = run(self, *arguments, **options)
        found.append(Operation(self.fn.__name__, time.perf_counter() - start))
        return result

    GridExecutor.__call__ = noted
    try:
        yield
    finally:
        GridExecutor.__call__ = run


class _Torch(TorchDispatchMode):
    def __init__(self, found: list[Operation]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in _FREE and func.namespace == "aten":
            self._found.append(Operation(name, 0.0))
        return func(*args, **(kwargs or {}))
