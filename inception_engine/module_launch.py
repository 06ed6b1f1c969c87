"""One Inception module run by one launch on torch tensors: what ``fused`` does on a GPU."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, MutableMapping, Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from inception_engine.compiler import compile as compile_network
from inception_engine.compiler.plan import Plan
from inception_engine.compiler.targets import CUDA
from inception_engine.fused import DTYPES, empty_result, output_widths, unpacked
from inception_engine.jit import INTERPRETED, TritonExecutor
from inception_engine.kernels.variants import KINDS
from inception_engine.module_network import arrange, network, padded, planned

ALIGNMENT = 16  # bytes, of what walk reads and writes
PLANS_KEPT = 16  # per module: for so many sizes and dtypes of x, those used last


class Launcher(TritonExecutor):
    """A module for one size and dtype of x, and batches up to the plan's.

    The plan's first launch, which would bring an image in, is left out: ``walk`` reads x where it is, and writes the
    result where it stays. ``captured``: whether a CUDA graph may hold the addresses of its tables and weights.
    """

    def __init__(self, plan: Plan, device: torch.device, widths: Sequence[int]) -> None:
        """Raises what TritonExecutor raises."""
        self._source, size = arrange(plan)
        super().__init__(plan, device, specialise=False)
        (loaded,) = self._programs
        # The kernel of a module stores no float32.
        module = dataclasses.replace(loaded.launches[1], kinds=KINDS["module"])
        self._module = dataclasses.replace(loaded, launches=(module,))
        self._output = loaded.outputs["logits"]
        self._in_channels = int(plan.programs[0].buffers[self._source]["pitch"])
        self._elements = size // self.dtype.itemsize
        self._arena = self._arena.new_empty(0)  # each call has its own
        self._widths = widths
        self._lock = threading.Lock()
        self._streams: set[torch.cuda.Stream] = set()
        self.captured = False

    def __call__(self, x: Tensor) -> Tensor:
        """x (batch, in_channels, height, width) -> (batch, channels, height, width), channels last."""
        x = _whole_panels(x, self._in_channels)
        result = empty_result(x, (self._output.pitch,))
        with self._lock, torch.cuda.device_of(x):
            if x.is_cuda:
                self._used_by(torch.cuda.current_stream())
            self._arena = x.new_empty(self._elements)
            self._walk(self._module, x, len(x), result=result, output=self._output, source=self._source)
            self._arena = x.new_empty(0)
            if INTERPRETED:  # on a GPU that would wait for it
                self.check()
        if self._output.pitch == sum(self._widths):
            return result
        branches = result.split([padded(width) for width in self._widths], dim=1)
        used = [branch[:, :width] for branch, width in zip(branches, self._widths, strict=True)]
        return torch.cat(used, dim=1, out=empty_result(x, self._widths))

    def share(self, others: Iterable[Launcher]) -> None:
        """Take the weights of one of ``others`` if they are the same."""
        mine = self._weights.view(torch.uint8)  # as bytes: what they are as floats may be NaN
        for other in others:
            theirs = other._weights.view(torch.uint8)
            if theirs.device == mine.device and self.dtype == other.dtype and torch.equal(theirs, mine):
                self._weights = other._weights
                return

    def _used_by(self, stream: torch.cuda.Stream) -> None:
        """Freed memory waits for the streams that used it, of which torch knows only the one that made it."""
        self.captured |= torch.cuda.is_current_stream_capturing()
        if stream not in self._streams:
            for tensor in (*self._module.tables, self._weights, self._state):
                tensor.record_stream(stream)
            self._streams.add(stream)


def _whole_panels(x: Tensor, channels: int) -> Tensor:
    """``x`` with so many channels, dense, channels last and aligned as ``walk`` reads it; itself where it is that."""
    dense = x.is_contiguous(memory_format=torch.channels_last)
    if dense and x.shape[1] == channels and x.data_ptr() % ALIGNMENT == 0:
        return x
    copy = empty_result(x, (channels,))
    copy[:, : x.shape[1]].copy_(x)
    if x.shape[1] < channels:
        copy[:, x.shape[1] :].zero_()  # a weight of zero does not undo a NaN
    return copy


class _Compiled:
    """Launchers of one module's weights, and the version of the weights that they hold."""

    def __init__(self) -> None:
        self.version = -1
        self.launchers: dict[object, Launcher] = {}
        self.captured: list[Launcher] = []  # until the weights go: nothing says when a graph is gone

    def drop(self, keys: Iterable[object]) -> None:
        """Waits for those that are not captured. Raises WaitTimeoutError: nobody could ask them later."""
        dropped = [self.launchers.pop(key) for key in list(keys)]
        self.captured += [each for each in dropped if each.captured]
        for each in dropped:
            if not each.captured:
                each.check()


_lock = threading.Lock()
_compiled: MutableMapping[Tensor, _Compiled] = WeakTensorKeyDictionary()


def launcher(x: Tensor, weights: Tensor, widths: tuple[int, ...], third_kernel: int) -> Launcher:
    """What runs ``fused.inception`` for tensors like ``x``. Raises CompileError, PlanError and NoProgramError, and
    WaitTimeoutError for an earlier call whose launcher has to go."""
    batch = planned(len(x))
    key = x.device, x.dtype, batch, x.shape[1:], widths, third_kernel
    version = 0 if weights.is_inference() else weights._version  # inference tensors have none
    with _lock:
        compiled = _compiled.setdefault(weights, _Compiled())
        launchers = compiled.launchers
        if compiled.version != version:
            compiled.version = version
            compiled.drop(launchers)
        found = launchers.pop(key, None)
        if found is None:
            parts = unpacked(weights.float().cpu(), x.shape[1], widths, third_kernel)
            plan = compile_network(network(x, parts), targets=(CUDA,), max_batch=batch, dtype=DTYPES[x.dtype])
            found = Launcher(plan, x.device, output_widths(widths))
            found.share(launchers.values())
        launchers[key] = found  # the last: those that were not used for longest come first
        compiled.drop(list(launchers)[:-PLANS_KEPT])
        return found


def check(weights: Tensor) -> None:
    """Wait for all launches of a module. Raises WaitTimeoutError if a wait inside one gave up."""
    with _lock:
        compiled = _compiled.get(weights, _Compiled())
        launchers = [*compiled.launchers.values(), *compiled.captured]
    for each in launchers:
        each.check()


def refresh(weights: Tensor) -> None:
    """Drop what was compiled. Raises WaitTimeoutError."""
    with _lock:
        if compiled := _compiled.get(weights):
            compiled.drop(compiled.launchers)
