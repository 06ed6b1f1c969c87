"""Tile shapes chosen offline: compile a network for each candidate, simulate, compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from inception_engine.compiler import compile
from inception_engine.compiler.targets import CUDA, Target
from inception_engine.network import Network
from inception_engine.simulate.events import Run, simulate
from inception_engine.simulate.gpu import Gpu

SIDES = (32, 64, 128)
CANDIDATES = tuple(
    dataclasses.replace(CUDA, tile_pixels=rows, tile_columns=columns) for rows in SIDES for columns in SIDES
)


def best_tiles(
    network: Network,
    gpu: Gpu,
    dtype: str,
    batch: int,
    candidates: Sequence[Target] = CANDIDATES,
) -> list[tuple[Target, Run]]:
    """Each candidate with its simulated run of ``batch`` images, the fastest first. Raises CompileError.

    Ties keep the order of the candidates. Whether a kernel exists for a candidate's tiles is not asked.
    """
    runs = [
        (target, simulate(compile(network, targets=(target,), max_batch=batch, dtype=dtype).programs[0], gpu))
        for target in candidates
    ]
    return sorted(runs, key=lambda pair: pair[1].seconds)
