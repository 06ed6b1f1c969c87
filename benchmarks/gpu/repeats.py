"""Stage 3: the same bits from every run, alone and beside another run on the same GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.gpu import runners
from benchmarks.gpu.cases import ModuleCase, NetworkCase
from benchmarks.gpu.compare import bound
from benchmarks.gpu.device import Call
from benchmarks.gpu.stage import Job, first_line
from inception_engine.fused import FusedInception


def run(job: Job) -> None:
    scale, device = job.scale, job.device.torch_device
    for batch in scale.repeat_batches:
        case = NetworkCase(scale.variant, scale.spec, batch, scale.speed_dtype)
        images = case.images(device)
        for engine in (runners.engine, runners.jit):
            for together in (1, 2):
                name = f"{engine.__name__} {case.variant} batch {batch}, {together} at once"
                try:
                    with contextlib.ExitStack() as stack:
                        all_ = [stack.enter_context(engine(case, job.device)) for _ in range(together)]
                        calls = [bound(each, images) for each in all_]
                        different = _different(job, calls)
                        for prepared in all_:
                            prepared.check()
                    _row(job, name, different, together)
                except Exception as error:
                    job.row(name, False, first_line(error))
        for module in (scale.modules[0], scale.modules[-1]):
            x = ModuleCase(module, scale.spec, batch, scale.speed_dtype)
            _module(job, x)


def _module(job: Job, case: ModuleCase) -> None:
    name = f"fused {case.name} batch {case.batch}"
    try:
        with torch.no_grad():
            x = case.x(job.device.torch_device)
            fused = FusedInception(case.module).to(x.device, x.dtype)
            different = _different(job, [lambda: fused(x)])
            fused.check()
        _row(job, name, different, 1)
    except Exception as error:
        job.row(name, False, first_line(error))


def _row(job: Job, name: str, different: int, together: int) -> None:
    job.row(name, different == 0, runs=job.scale.repeats * together, different=different)


def _different(job: Job, calls: Sequence[Call]) -> int:
    """How many of the runs differ from the first of the first call. Each call has its own stream; runs follow each
    other without waiting for the host."""
    on_gpu = job.device.torch_device.type == "cuda"
    streams = [torch.cuda.Stream() if on_gpu else None for _ in calls]
    expected = calls[0]().clone()
    counts = [torch.zeros((), dtype=torch.int64, device=expected.device) for _ in calls]
    job.device.synchronize()
    for _ in range(job.scale.repeats):
        for call, stream, count in zip(calls, streams, counts, strict=True):
            with torch.cuda.stream(stream):
                count += _is_different(call(), expected)
    job.device.synchronize()
    return int(sum(count.item() for count in counts))


def _is_different(result: Tensor, expected: Tensor) -> Tensor:
    bits = torch.int16 if expected.element_size() == 2 else torch.int32
    return (result.view(bits) != expected.view(bits)).any()
