"""Stage 7: each Inception module as one launch, beside cuDNN's four branches, both as CUDA graphs, channels last; then
by each of the C library's two kernels (module_kernels.py)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from benchmarks.gpu.cases import ModuleCase
from benchmarks.gpu.device import Call, interleaved
from benchmarks.gpu.micro import peak_multiply_adds
from benchmarks.gpu.module_kernels import compare_kernels
from benchmarks.gpu.stage import Job, first_line
from inception_engine.bench.timing import ratio, statistics
from inception_engine.fused import FusedInception

OURS, CUDNN = "fused", "cudnn"


def run(job: Job) -> None:
    scale = job.scale
    peak = peak_multiply_adds(job)
    for batch in scale.module_batches:
        for name in scale.modules:
            case = ModuleCase(name, scale.spec, batch, scale.speed_dtype)
            title = f"{name} batch {batch}"
            try:
                _module(job, case, title, peak)
            except Exception as error:
                job.row(title, False, first_line(error), module=name, batch=batch)
    compare_kernels(job)


def _module(job: Job, case: ModuleCase, title: str, peak: float) -> None:
    with torch.no_grad():
        x = case.x(job.device.torch_device)
        original = _branches(case, x)
        fused = FusedInception(case.module).to(x.device, x.dtype)
        calls: dict[str, Call] = {}
        errors = {}
        for name, call in ((OURS, lambda: fused(x)), (CUDNN, lambda: original(x))):
            call()
            calls[name] = job.device.captured(call)
            errors[name] = case.error(calls[name]())
        if not errors[OURS] <= case.bound:
            job.row(title, False, "parity; not timed", module=case.name, batch=case.batch, error=errors[OURS])
            return
        samples = interleaved(job.device, calls, job.scale.rounds, job.scale.seconds / 2)
        fused.check()
    for each in samples.values():
        if each.error is not None:
            raise each.error
    ours, theirs = (statistics(samples[name]) for name in (OURS, CUDNN))
    job.row(
        title,
        module=case.name,
        batch=case.batch,
        dtype=case.dtype,
        error=errors[OURS],
        p50_us=ours.p50_ms * 1e3,
        spread=[1.0, *ours.spread],
        cudnn_us=theirs.p50_ms * 1e3,
        ratio=list(ratio(samples[OURS], samples[CUDNN])),
        share_of_peak=case.macs / (ours.p50_ms * 1e-3 * peak),
    )


def _branches(case: ModuleCase, x: Tensor) -> torch.nn.Module:
    torch.backends.cudnn.benchmark = True
    module = copy.deepcopy(case.module).to(x.device, x.dtype)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
