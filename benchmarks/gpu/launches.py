"""Stage 2: what a run does on the device, by a trace: as many launches as the plan has, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.gpu import runners
from benchmarks.gpu.cases import ModuleCase, NetworkCase
from benchmarks.gpu.operations import Operation
from benchmarks.gpu.stage import Job, first_line
from inception_engine.compiler.targets import CUDA, CUDA_ONE_LAUNCH, Target
from inception_engine.fused import FusedInception

KERNELS = ("walk", "module")  # ours


def run(job: Job) -> None:
    scale = job.scale
    for batch in scale.repeat_batches:
        case = NetworkCase(scale.variant, scale.spec, batch, scale.speed_dtype)
        for target in (CUDA, CUDA_ONE_LAUNCH):
            _plan(job, case, target)
    _modules(job)


def _plan(job: Job, case: NetworkCase, target: Target) -> None:
    images = case.images(job.device.torch_device)
    (program,) = case.plan(target).programs
    for engine in (runners.engine, runners.jit):
        name = f"{engine.__name__} {case.variant} batch {case.batch}, one launch per {target.launch.name.lower()}"
        try:
            with engine(case, job.device, target=target) as prepared:
                prepared.call(images)
                found = job.device.operations(lambda: prepared.call(images))
                prepared.check()
        except Exception as error:
            job.row(name, False, first_line(error))
            continue
        _row(job, name, found, len(program.launches))


def _modules(job: Job) -> None:
    """All modules one after the other, each on its own input of channels last, as a fused model gives it."""
    scale, device = job.scale, job.device.torch_device
    cases = [ModuleCase(name, scale.spec, 2, scale.speed_dtype) for name in scale.modules]
    with torch.no_grad():
        inputs = [case.x(device) for case in cases]
        modules = [
            FusedInception(case.module).to(x.device, x.dtype) for case, x in zip(cases, inputs, strict=True)
        ]

        def call() -> Tensor:
            return [module(x) for module, x in zip(modules, inputs, strict=True)][-1]

        try:
            call()
            found = job.device.operations(call)
        except Exception as error:
            job.row("fused modules", False, first_line(error))
            return
    _row(job, f"fused modules {', '.join(scale.modules)}", found, len(modules))


def _row(job: Job, name: str, found: Iterable[Operation], wanted: int) -> None:
    counts = Counter(operation.name for operation in found)
    launches = sum(counts[kernel] for kernel in KERNELS)
    others = {kernel: count for kernel, count in counts.items() if kernel not in KERNELS}
    note = f"also {', '.join(f'{count} x {kernel}' for kernel, count in others.items())}" if others else ""
    seconds = sum(operation.seconds for operation in found)
    job.row(
        name,
        launches == wanted and not others,
        note,
        launches=launches,
        expected=wanted,
        device_us=seconds * 1e6,
    )
