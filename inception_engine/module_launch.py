"""One Inception module as a plan of its own, run by one launch on torch tensors: what ``fused`` does on a GPU."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import MutableMapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from inception_engine.compiler import compile as compile_network
from inception_engine.compiler.plan import PANEL, OpKind, Plan
from inception_engine.fused import DTYPES, OUTPUTS, empty_result, output_widths, unpacked
from inception_engine.jit import INTERPRETED, TritonExecutor
from inception_engine.network import INPUT, Concat, Conv, Layer, MaxPool, Network, Preprocess

PLANS_KEPT = 8  # per module: for so many shapes and dtypes of x, the newest
MODULE = "inception"


class Launcher(TritonExecutor):
    """A module for one shape and dtype of x. The plan's first launch would bring an image in; a copy of x does so."""

    def __init__(self, plan: Plan, device: torch.device, widths: Sequence[int]) -> None:
        """Raises what TritonExecutor raises."""
        super().__init__(plan, device)
        (program,) = plan.programs
        (image,) = program.ops[program.ops["kind"] == OpKind.INPUT]
        source = program.buffers[image["out_buffer"]]
        self._source = int(source["offset"]) // self.dtype.itemsize, int(source["pitch"])
        (loaded,) = self._programs
        _, module = loaded.launches
        self._module = dataclasses.replace(loaded, launches=(module,))
        self._widths = widths
        self._elements = len(self._arena)
        self._arena = self._arena.new_empty(0)  # each call has its own
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        """x (batch, in_channels, height, width) -> (batch, channels, height, width), channels last."""
        # Memory of its own for each call, so that the result can stay where it is; the next module's takes its place
        # when it is done.
        arena = x.new_empty(self._elements)
        source = _channels_last(arena, *self._source, x)
        with self._lock, torch.cuda.device_of(x):
            source[:, : x.shape[1]].copy_(x)
            source[:, x.shape[1] :].zero_()  # a weight of zero does not undo a NaN
            self._arena = arena
            self._walk(self._module, arena, len(x))
            self._arena = arena.new_empty(0)
            if INTERPRETED:  # on a GPU that would wait for it
                self.check()
            elif torch.cuda.is_current_stream_capturing():
                _captured.add(self)
        offset, (_, _, pitch), _ = self._module.outputs["logits"]
        result = _channels_last(arena, offset, pitch, x)
        if pitch == sum(self._widths):
            return result
        branches = result.split([_padded(width) for width in self._widths], dim=1)
        used = [branch[:, :width] for branch, width in zip(branches, self._widths, strict=True)]
        return torch.cat(used, dim=1, out=empty_result(x, self._widths))


def _channels_last(arena: Tensor, offset: int, channels: int, x: Tensor) -> Tensor:
    """A buffer of the arena as (batch, channels, height, width), of x's batch and size."""
    batch, _, height, width = x.shape
    strides = height * width * channels, 1, width * channels, channels
    return arena.as_strided((batch, channels, height, width), strides, offset)


# A CUDA graph keeps the addresses of a launcher's tables and weights, and nothing says when it is gone.
_captured: set[Launcher] = set()
_lock = threading.Lock()
# By weights: their version, and launchers. They go with the weights, and when those are changed in place.
_compiled: MutableMapping[Tensor, tuple[int, dict[object, Launcher]]] = WeakTensorKeyDictionary()


def launcher(x: Tensor, weights: Tensor, widths: tuple[int, ...], third_kernel: int) -> Launcher:
    """What runs ``fused.inception`` for tensors like ``x``. Raises CompileError, PlanError and NoProgramError."""
    version = 0 if weights.is_inference() else weights._version  # inference tensors have none
    key = x.device, x.dtype, x.shape, widths, third_kernel
    with _lock:
        compiled = _compiled.get(weights)
        if compiled is None or compiled[0] != version:
            compiled = _compiled[weights] = version, {}
        launchers = compiled[1]
        if key not in launchers:
            network = _network(x, unpacked(weights.float().cpu(), x.shape[1], widths, third_kernel))
            plan = compile_network(network, targets=("cuda",), max_batch=len(x), dtype=DTYPES[x.dtype])
            launchers[key] = Launcher(plan, x.device, output_widths(widths))
            if len(launchers) > PLANS_KEPT:
                del launchers[next(iter(launchers))]
        return launchers[key]


def check(weights: Tensor) -> None:
    """Wait for all launches of a module. Raises WaitTimeoutError if a wait inside one gave up."""
    _, launchers = _compiled.get(weights, (0, {}))
    for each in list(launchers.values()):
        each.check()


def _network(x: Tensor, convolutions: dict[str, tuple[Tensor, Tensor]]) -> Network:
    """The module alone, on images like ``x``. Its branches are filled up to whole panels, by channels of zeros."""
    sources = {"3x3": "3x3_reduce", "5x5": "5x5_reduce", "pool_proj": "pool"}
    layers: list[Layer] = [
        MaxPool(name="pool", inputs=(INPUT,), module=MODULE, kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1))
    ]
    for name, (weight, bias) in convolutions.items():
        more = _padded(len(bias)) - len(bias) if name in OUTPUTS else 0
        layers.append(
            Conv(
                name=name,
                inputs=(sources.get(name, INPUT),),
                module=MODULE,
                weight=np.pad(weight.numpy(), ((0, more), (0, 0), (0, 0), (0, 0))),
                bias=np.pad(bias.numpy(), (0, more)),
                pads=(weight.shape[-1] // 2,) * 4,
            )
        )
    layers.append(Concat(name=MODULE, inputs=OUTPUTS, module=MODULE))
    return Network(
        name=MODULE,
        input_shape=(x.shape[1], x.shape[2], x.shape[3]),
        layers=tuple(layers),
        logits=MODULE,
        preprocess=Preprocess(mean=(0.0,), std=(1.0,)),
    )


def _padded(channels: int) -> int:
    return -(-channels // PANEL) * PANEL
