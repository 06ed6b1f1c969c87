"""Engines as calls: float32 NCHW images in device memory to float32 logits in device memory.

What an engine does to have its own layout or precision is part of its call. What can be prepared once (folding,
packing, compiling, a fixed batch) is done before.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.cases import TORCH_DTYPES, NetworkCase
from benchmarks.gpu.device import Device
from inception_engine.compiler.targets import Target
from inception_engine.engine import Engine
from inception_engine.fused import FusedInception, fuse
from inception_engine.jit import TritonExecutor


def _nothing() -> None:
    pass


class LeftOut(Exception):
    """A runner has nothing to do in a case. The message says why."""


@dataclass(frozen=True)
class Prepared:
    """``check``: raises if a run since the last check is not to be trusted."""

    call: Callable[[Tensor], Tensor]
    check: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Runner:
    """``prepare(case, device, rehearsal)``. ``graph``: whether its call is captured as a CUDA graph. ``compiles``:
    whether that takes minutes. ``packages`` must be installed for it."""

    name: str
    prepare: Callable[[NetworkCase, Device, bool], AbstractContextManager[Prepared]]
    graph: bool = True
    compiles: bool = False
    packages: tuple[str, ...] = ()

    def obstacle(self) -> str | None:
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        return f"not installed: {', '.join(missing)}" if missing else None


@contextlib.contextmanager
def jit(
    case: NetworkCase,
    device: Device,
    rehearsal: bool = False,
    *,
    poison: bool = False,
    target: Target | None = None,
    specialise: bool | None = None,
) -> Iterator[Prepared]:
    """A plan by TritonExecutor."""
    plan = case.plan(target)
    executor = TritonExecutor(plan, device.torch_device, poison=poison, specialise=specialise)

    def call(images: Tensor) -> Tensor:
        logits = executor.enqueue(images)
        assert isinstance(logits, Tensor)
        return logits

    yield Prepared(call, executor.check)


@contextlib.contextmanager
def engine(
    case: NetworkCase,
    device: Device,
    rehearsal: bool = False,
    *,
    poison: bool = False,
    target: Target | None = None,
    specialise: bool | None = None,
) -> Iterator[Prepared]:
    """A plan by the C library. ``specialise``: see Engine; True raises LeftOut where no module takes the kernel."""
    plan = case.plan(target)
    with Engine(plan, device=device.name, poison=poison, specialise=specialise) as opened:
        if specialise and not opened.specialised:
            raise LeftOut("no module of the plan has a kernel for its sizes in the archive")
        yield Prepared(opened.run, opened.check)


def specialised(
    case: NetworkCase, device: Device, rehearsal: bool = False, *, poison: bool = False
) -> AbstractContextManager[Prepared]:
    """``engine``, with the kernel `module` wherever the archive has one."""
    return engine(case, device, rehearsal, poison=poison, specialise=True)


@contextlib.contextmanager
def fused(case: NetworkCase, device: Device, rehearsal: bool = False) -> Iterator[Prepared]:
    """The PyTorch model with FusedInception for its modules."""
    model = fuse(_model(case, device, torch.channels_last))
    modules = [module for module in model.modules() if isinstance(module, FusedInception)]

    def check() -> None:
        for module in modules:
            module.check()

    yield Prepared(_call(model, case, torch.channels_last), check)


def _torch(layout: torch.memory_format) -> Callable[..., AbstractContextManager[Prepared]]:
    @contextlib.contextmanager
    def prepare(case: NetworkCase, device: Device, rehearsal: bool) -> Iterator[Prepared]:
        with _cudnn_benchmark():
            yield Prepared(_call(_model(case, device, layout), case, layout))

    return prepare


@contextlib.contextmanager
def _compiled(case: NetworkCase, device: Device, rehearsal: bool) -> Iterator[Prepared]:
    torch.compiler.reset()  # one batch is one graph
    model = _model(case, device, torch.channels_last)
    # Without graphs of its own: all calls are captured in the same way. The compiler is no part of a rehearsal.
    options: dict[str, Any] = (
        {"backend": "aot_eager"} if rehearsal else {"mode": "max-autotune-no-cudagraphs"}
    )
    with _cudnn_benchmark():
        yield Prepared(
            _call(torch.compile(model, fullgraph=True, dynamic=False, **options), case, torch.channels_last)
        )


def _onnxruntime(case: NetworkCase, device: Device, rehearsal: bool) -> AbstractContextManager[Prepared]:
    from benchmarks.gpu.onnx_runners import onnxruntime

    return onnxruntime(case, device)


def _tensorrt(case: NetworkCase, device: Device, rehearsal: bool) -> AbstractContextManager[Prepared]:
    from benchmarks.gpu.onnx_runners import tensorrt

    return tensorrt(case, device)


def _model(case: NetworkCase, device: Device, layout: torch.memory_format) -> nn.Module:
    model = case.model().to(device.torch_device, TORCH_DTYPES[case.dtype])
    return model.to(memory_format=layout)  # type: ignore[call-overload]


def _call(
    model: Callable[[Tensor], Tensor], case: NetworkCase, layout: torch.memory_format
) -> Callable[[Tensor], Tensor]:
    dtype = TORCH_DTYPES[case.dtype]

    def call(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images.to(dtype, memory_format=layout)).float()

    return call


@contextlib.contextmanager
def _cudnn_benchmark() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


OURS = (
    Runner("engine", engine),
    Runner("engine-specialised", specialised),
    Runner("jit", jit),
    Runner("fused", fused),
)
PEERS = (
    Runner("torch", _torch(torch.contiguous_format), graph=False),
    Runner("torch-channels-last-graph", _torch(torch.channels_last)),
    Runner("onnxruntime", _onnxruntime, graph=False, packages=("onnxruntime", "onnx")),
    Runner("tensorrt", _tensorrt, packages=("tensorrt", "onnx")),
    Runner("torch-compile", _compiled, compiles=True),
)
