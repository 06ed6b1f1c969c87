"""Stage 8: what this GPU can do, measured: the rates and costs that other figures are compared with."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.cases import TORCH_DTYPES
from benchmarks.gpu.device import median_seconds
from benchmarks.gpu.stage import Job, first_line

NODES = 100
ROUND_TRIPS = 2000
SPINS = 1 << 22


def run(job: Job) -> None:
    for name, unit, measure in (
        ("peak_flop_per_second", "FLOP/s", lambda: 2 * peak_multiply_adds(job)),
        ("copy_bytes_per_second", "B/s, read and written", lambda: _copy_rate(job)),
        (
            "graph_node_seconds",
            "s, a small kernel after another in a graph",
            lambda: _node(job, dependent=False),
        ),
        (
            "dependent_node_seconds",
            "s, the same with programmatic dependent launch",
            lambda: _node(job, dependent=True),
        ),
        ("signal_seconds", "s, from one block's release to the other's acquire", lambda: _signal(job)),
    ):
        if name.startswith("dependent") and not _has_dependent_launch(job):
            job.row(name, None, "needs compute capability 9.0")
            continue
        try:
            job.row(name, value=measure(), unit=unit)
        except Exception as error:
            job.row(name, False, first_line(error))


def peak_multiply_adds(job: Job) -> float:
    """Multiply-adds per second of a large matrix product of random numbers in the dtype that is timed."""
    side = 64 if job.rehearsal else 8192
    a, b = (torch.randn(side, side, device=job.device.torch_device).to(TORCH_DTYPES[job.scale.speed_dtype])
            for _ in range(2))  # fmt: skip
    return side**3 / median_seconds(job.device, lambda: a @ b, min(1.0, job.scale.seconds))


def _copy_rate(job: Job) -> float:
    count = 1 << (10 if job.rehearsal else 30)  # 4 GiB: far more than any cache
    source = torch.randn(count, device=job.device.torch_device)
    target = torch.empty_like(source)
    return (
        2 * 4 * count / median_seconds(job.device, lambda: target.copy_(source), min(1.0, job.scale.seconds))
    )


def _has_dependent_launch(job: Job) -> bool:
    return job.device.torch_device.type == "cuda" and torch.cuda.get_device_capability()[0] >= 9


def _node(job: Job, *, dependent: bool) -> float:
    """What one more kernel costs: a graph of 1 + NODES against a graph of one."""
    from benchmarks.gpu.micro_kernels import small

    number = torch.zeros(1, dtype=torch.int32, device=job.device.torch_device)
    options = {"launch_pdl": True} if dependent else {}

    def chain(length: int) -> Tensor:
        for _ in range(length):
            small[(1,)](number, DEPENDENT=dependent, **options)
        return number

    one, many = (
        median_seconds(job.device, job.device.captured(partial(chain, length)), job.scale.seconds)
        for length in (1, 1 + NODES)
    )
    return (many - one) / NODES


def _signal(job: Job) -> float:
    """One way of a round trip between two blocks. Raises RuntimeError if a block gave up."""
    from benchmarks.gpu.micro_kernels import ping_pong

    trips = 1 if job.rehearsal else ROUND_TRIPS  # interpreted blocks follow each other
    flags = torch.zeros(64, dtype=torch.int32, device=job.device.torch_device)

    def play(rounds: int) -> Tensor:
        flags[0].zero_()
        ping_pong[(2,)](flags, flags[32:], rounds, SPINS=1 if job.rehearsal else SPINS, num_warps=4)
        return flags

    play(trips)
    job.device.synchronize()
    # The smallest run has what both share: the launch and the clearing of the flag.
    short, long = (
        median_seconds(job.device, partial(play, rounds), job.scale.seconds) for rounds in (1, trips)
    )
    if int(flags[32]):
        raise RuntimeError("a block gave up waiting for the other one")
    return (long - short) / (2 * max(trips - 1, 1))
