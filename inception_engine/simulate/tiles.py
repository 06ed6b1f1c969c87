"""Tile shapes chosen offline: compile a network for each candidate, simulate, compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from inception_engine.compiler import compile
from inception_engine.compiler.targets import CUDA, Target, target_for
from inception_engine.network import Network
from inception_engine.simulate.events import Run, simulate
from inception_engine.simulate.gpu import Gpu

SIDES = (32, 64, 128)


def candidates(dtype: str, batch: int) -> list[Target]:
    """What compile takes for ``batch`` images, and that target with one shape of tile for all ops, for each shape."""
    own = target_for(CUDA.name, batch, dtype)
    # Without smaller sides to fall back to, no rule has a say.
    shapes = [
        dataclasses.replace(own, tile_pixels=rows, tile_columns=columns, shorter=(), narrower=())
        for rows in SIDES
        for columns in SIDES
    ]
    return [own, *shapes]


def best_tiles(
    network: Network,
    gpu: Gpu,
    dtype: str,
    batch: int,
    targets: Sequence[Target] | None = None,
) -> list[tuple[Target, Run]]:
    """Each target (default: ``candidates``) with its simulated run of ``batch`` images, the fastest first. Raises
    CompileError.

    Ties keep the order of the targets. Whether a kernel exists for a target's tiles is not asked.
    """
    runs = [
        (target, simulate(compile(network, targets=(target,), max_batch=batch, dtype=dtype).programs[0], gpu))
        for target in (candidates(dtype, batch) if targets is None else targets)
    ]
    return sorted(runs, key=lambda pair: pair[1].seconds)
