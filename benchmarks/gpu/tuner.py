"""Stage 10: tile shapes and how the kernel is compiled for them, timed on whole networks.

Writes FILE-tuning.json beside the records: for each batch the candidates that are right, the fastest first. A developer
may take them over into kernels/variants.py and compiler/tuned/cuda.json. And, from what the stage ``modules``
measured, FILE-module.json, to take the place of kernels/tuned/module.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from inception_engine.kernels import variants
from inception_engine.kernels.variants import Variant

from benchmarks.gpu import records
from benchmarks.gpu.cases import NetworkCase
from benchmarks.gpu.compare import bound, checked
from benchmarks.gpu.device import Device, open_device
from benchmarks.gpu.module_kernels import proposal
from benchmarks.gpu.runners import Prepared, jit
from benchmarks.gpu.stage import Job, first_line
from inception_engine.bench.timing import Samples, statistics
from inception_engine.compiler.targets import CUDA, CUDA_ONE_LAUNCH, Target
from inception_engine.errors import WaitTimeoutError
from inception_engine.files import write_atomically

_NEEDED = 20.0  # seconds that must be left to begin with a candidate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """``target``: None for what the compiler takes for the batch. ``variant``: None for what kernels/variants.py has.
    ``specialise``: whether modules take the kernel ``module``."""

    name: str
    target: Target | None = None
    variant: Variant | None = None
    specialise: bool = False

    @property
    def figures(self) -> dict[str, Any]:
        """For a row."""
        parts = {"target": self.target, "variant": self.variant}
        return {"candidate": self.name, "specialise": self.specialise} | {
            name: dataclasses.asdict(part) for name, part in parts.items() if part is not None
        }


def candidates() -> Iterator[Candidate]:
    """First what chooses between launches and kernels, then sides of tiles: the likely ones first, for time may end."""
    yield Candidate(name="default")
    yield Candidate(name="launches of modules", target=CUDA)
    yield Candidate(name="one launch", target=CUDA_ONE_LAUNCH)
    yield Candidate(name="kernel module", target=CUDA, specialise=True)
    for depth, parts in ((1400, 4), (1024, 2), (512, 2), (512, 4), (256, 4)):
        cut = dataclasses.replace(CUDA_ONE_LAUNCH, part_tasks=264, least_depth=depth, most_parts=parts)
        yield Candidate(name=f"one launch, K from {depth} on in up to {parts} parts", target=cut)
    tiles = ((64, 64), (128, 64), (64, 32), (32, 64), (64, 128), (32, 32), (128, 128))
    options = (
        (32, 4, 8, 2),
        (32, 4, 4, 2),
        (64, 3, 4, 2),
        (64, 3, 8, 2),
        (32, 3, 4, 3),
        (32, 4, 4, 4),
        (64, 4, 8, 1),
    )
    for (depth, stages, warps, blocks), (rows, columns) in itertools.product(options, tiles):
        yield Candidate(
            name=f"{rows}x{columns}x{depth}, {stages} stages, {warps} warps, {blocks} blocks",
            target=dataclasses.replace(CUDA, tile_pixels=rows, tile_columns=columns, shorter=(), narrower=()),
            variant=Variant(
                rows=(rows,),
                columns=(columns,),
                block_depth=depth,
                stages=stages,
                warps=warps,
                blocks_per_sm=blocks,
            ),
        )


def run(job: Job) -> None:
    scale = job.scale
    begin = 9 if job.rehearsal else 0  # the first of other tiles than the default's
    chosen = list(itertools.islice(candidates(), begin, begin + scale.candidates))
    results: dict[str, list[dict[str, Any]]] = {}
    for batch in scale.tuner_batches:
        case = NetworkCase(scale.variant, scale.spec, batch, scale.speed_dtype)
        if not job.rehearsal:
            _compile(case, chosen, job.left() / 3)
        found = []
        for candidate in chosen:
            if not job.rehearsal and job.left() < _NEEDED:
                job.row(f"{candidate.name}, batch {batch}", None, "no time left")
            elif (row := _timed(job, case, candidate)) is not None:
                found.append(row)
        results[str(batch)] = sorted(found, key=lambda row: row["p50_us"])
    environment = records.read(job.path).environments[-1]
    if (chosen_kernel := proposal(job.earlier("modules"), environment, job.path.name)) is not None:
        _write(job, "module", chosen_kernel)
    if any(results.values()):
        document = {
            "environment": environment,
            "dtype": scale.speed_dtype,
            "network": scale.spec.name,
            "batches": results,
        }
        _write(job, "tuning", document)


def _write(job: Job, name: str, document: dict[str, Any]) -> None:
    path = job.path.with_name(f"{job.path.stem}-{name}.json")
    write_atomically(path, [(json.dumps(document, indent=2) + "\n").encode()])


def _compile(case: NetworkCase, chosen: Sequence[Candidate], seconds: float) -> None:
    """By many processes at once, which leave the kernels in Triton's cache; timed they are by this one alone."""
    pool = ProcessPoolExecutor(min(8, len(os.sched_getaffinity(0))), get_context("spawn"))
    wait([pool.submit(compile_and_run, case, candidate) for candidate in chosen], seconds)
    pool.shutdown(cancel_futures=True)


def compile_and_run(case: NetworkCase, candidate: Candidate) -> None:
    device = open_device(rehearsal=False)
    with _prepared(case, candidate, device) as prepared:
        prepared.call(case.images(device.torch_device))
        prepared.check()


@contextlib.contextmanager
def _prepared(case: NetworkCase, candidate: Candidate, device: Device) -> Iterator[Prepared]:
    kept = variants.VARIANTS[case.dtype]
    variants.VARIANTS[case.dtype] = kept if candidate.variant is None else (candidate.variant,)
    try:
        with jit(case, device, target=candidate.target, specialise=candidate.specialise) as prepared:
            yield prepared
    finally:
        variants.VARIANTS[case.dtype] = kept


def _timed(job: Job, case: NetworkCase, candidate: Candidate) -> dict[str, Any] | None:
    """Writes a row; its figures where the candidate is right. One that does not compile is no failure."""
    name = f"{candidate.name}, batch {case.batch}"
    try:
        with _prepared(case, candidate, job.device) as prepared:
            call = bound(prepared, case.images(job.device.torch_device))
            call()
            call = job.device.captured(call)
            error = checked(prepared, call, case, job.device)
            if not error <= case.bound:
                note = f"parity: above {case.bound:g}"
                job.row(name, False, note, error=error, batch=case.batch, **candidate.figures)
                return None
            rounds = [job.device.sample(call, job.scale.seconds / 4) for _ in range(job.scale.rounds)]
            prepared.check()
    except WaitTimeoutError as problem:
        job.row(name, False, first_line(problem), batch=case.batch, **candidate.figures)
        return None
    except Exception as problem:
        job.row(name, None, first_line(problem), batch=case.batch, **candidate.figures)
        return None
    found = statistics(Samples(rounds))
    figures: dict[str, Any] = {"error": error, "p50_us": found.p50_ms * 1e3, "spread": [1.0, *found.spread]}
    figures |= candidate.figures
    job.row(name, batch=case.batch, **figures)
    return figures
