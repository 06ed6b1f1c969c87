"""Kernels that do one thing each, to be timed."""

from __future__ import annotations

import triton
import triton.language as tl
from inception_engine.kernels.record import fence
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit  # type: ignore[untyped-decorator]
def small(p, DEPENDENT: tl.constexpr):
    """Adds one to a number. ``DEPENDENT``: may be launched before the kernel in front of it is done, and waits for it
    itself."""
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    tl.store(p, tl.load(p) + 1)


@triton.jit  # type: ignore[untyped-decorator]
def ping_pong(flag, status, rounds, SPINS: tl.constexpr):
    """Two blocks: each waits for the other's signal, as a task waits for a counter, and signals. Bounded: a block that
    gives up writes 1 to ``status``."""
    me = tl.program_id(0)
    spins = 0  # of all rounds together
    for i in range(rounds):
        target = 2 * i + me
        seen = tl.load(flag, volatile=True)
        while (seen < target) & (spins < SPINS):
            seen = tl.load(flag, volatile=True)
            spins += 1
        if seen < target:
            tl.store(status, 1)
        fence("fence.acq_rel.gpu")
        tl.debug_barrier()
        tl.atomic_add(flag, 1, sem="release")
