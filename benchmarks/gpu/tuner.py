"""Stage 10: tile shapes and how the kernel is compiled for them, timed on whole networks.

Writes FILE-tuning.json beside the records: for each batch the candidates that are right, the fastest first. A developer
may take them over into kernels/variants.py and compiler/tuned/cuda.json. And, from what the stage ``modules``
measured, FILE-module.json, to take the place of kernels/tuned/module.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from inception_engine.kernels import variants
from inception_engine.kernels.sizes import GROUP, Sizes
from inception_engine.kernels.variants import Variant

from benchmarks.gpu import records
from benchmarks.gpu.cases import NetworkCase
from benchmarks.gpu.compare import bound, checked
from benchmarks.gpu.device import Device, open_device
from benchmarks.gpu.module_kernels import proposal
from benchmarks.gpu.runners import Prepared, jit
from benchmarks.gpu.stage import Job, first_line
from inception_engine import specialised
from inception_engine.bench.timing import Samples, statistics
from inception_engine.compiler.targets import CUDA, CUDA_ONE_LAUNCH, Target
from inception_engine.errors import WaitTimeoutError
from inception_engine.files import write_atomically

_NEEDED = 6.0  # seconds that must be left to begin with a candidate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """``target``: None for what the compiler takes for the batch. ``variant``: None for what kernels/variants.py has.
    ``specialise``: whether modules take the kernel ``module``, which ``sizes`` replaces fields of Sizes for."""

    name: str
    target: Target | None = None
    variant: Variant | None = None
    specialise: bool = False
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def figures(self) -> dict[str, Any]:
        """For a row."""
        parts = {"target": self.target, "variant": self.variant}
        return {"candidate": self.name, "specialise": self.specialise, "sizes": dict(self.sizes)} | {
            name: dataclasses.asdict(part) for name, part in parts.items() if part is not None
        }


_SIDES = (32, 64)


def candidates(batch: int) -> Iterator[Candidate]:
    """The likely ones first, for time may end."""
    yield Candidate(name="default")
    yield Candidate(name="default, kernel module", specialise=True)
    if batch <= 8:
        one = CUDA_ONE_LAUNCH
        for depth, stages, warps, blocks, registers in (
            (64, 3, 4, 1, 0), (64, 3, 4, 2, 0), (64, 3, 4, 3, 168), (64, 3, 8, 1, 0), (64, 3, 8, 2, 128),
            (64, 4, 4, 2, 0), (128, 3, 4, 2, 0),
        ):  # fmt: skip
            yield _tiles("one launch", one, depth, stages, warps, blocks, registers)
        few = dataclasses.replace(one, tasks_per_op=128)
        yield _tiles("at least 128 tasks, one launch", few, 64, 3, 4, 2)
        for depth, parts in ((1400, 4), (1400, 2), (1024, 2), (512, 2)):
            cut = dataclasses.replace(one, part_tasks=264, least_depth=depth, most_parts=parts)
            yield _tiles(f"K from {depth} on in up to {parts} parts, one launch", cut, 64, 3, 4, 2)
        return
    full = dataclasses.replace(CUDA, image_lines=4, tile_pixels=256, shorter=(128, 64), narrower=(), bands=96)
    for name, target, rows, warps, blocks, registers in (
        ("tiles of 256", full, (64,), 4, 2, 0), ("tiles of 256", full, (128,), 4, 2, 0),
        ("tiles of 256", full, (128,), 8, 2, 128),
        ("tiles of 512", dataclasses.replace(full, tile_pixels=512, shorter=(256, 128, 64)), (64,), 4, 3, 168),
        ("tiles of 128", dataclasses.replace(full, tile_pixels=128, shorter=(64,)), (64,), 4, 3, 168),
        ("8 lines", dataclasses.replace(full, image_lines=8), (64,), 4, 3, 168),
        ("2 lines", dataclasses.replace(full, image_lines=2), (64,), 4, 3, 168),
    ):  # fmt: skip
        shorter = tuple(side for side in target.shorter if side >= rows[0])
        target = dataclasses.replace(target, shorter=shorter)
        yield _tiles(name, target, 64, 3, warps, blocks, registers, rows, (64,), specialise=True)


def _tiles(
    name: str,
    target: Target,
    depth: int,
    stages: int,
    warps: int,
    blocks: int,
    registers: int = 0,
    rows: tuple[int, ...] = _SIDES,
    columns: tuple[int, ...] = _SIDES,
    specialise: bool = False,
) -> Candidate:
    sides = "x".join("/".join(map(str, side)) for side in (rows, columns))
    name = f"{name}, {sides}x{depth}, {stages} stages, {warps} warps, {blocks} blocks"
    if registers:
        name += f", {registers} registers"
    variant = Variant(
        rows=rows,
        columns=columns,
        block_depth=depth,
        stages=stages,
        warps=warps,
        blocks_per_sm=blocks,
        registers={kinds: {80: registers} for kinds in variants.KINDS if registers},
    )
    return Candidate(name=name, target=target, variant=variant, specialise=specialise)


def run(job: Job) -> None:
    scale = job.scale
    begin = 12 if job.rehearsal else 0  # the first of other tiles than the default's
    cases = {
        NetworkCase(scale.variant, scale.spec, batch, scale.speed_dtype): list(
            itertools.islice(candidates(batch), begin, begin + scale.candidates)
        )
        for batch in scale.tuner_batches
    }
    if not job.rehearsal:
        _compile(
            [(case, candidate) for case, chosen in cases.items() for candidate in chosen], job.left() / 2
        )
    results: dict[str, list[dict[str, Any]]] = {}
    for case, chosen in cases.items():
        batch, found = case.batch, []
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


def _compile(chosen: Sequence[tuple[NetworkCase, Candidate]], seconds: float) -> None:
    """By many processes at once, which leave the kernels in Triton's cache; timed they are by this one alone."""
    pool = ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn"))
    wait([pool.submit(compile_and_run, case, candidate) for case, candidate in chosen], seconds)
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
    sizes = dict(candidate.sizes)
    names = vars(specialised)  # what the executor finds sizes with
    names["GROUP"] = sizes.pop("group", GROUP)
    names["Sizes"] = functools.partial(Sizes, **sizes)
    try:
        with jit(case, device, target=candidate.target, specialise=candidate.specialise) as prepared:
            yield prepared
    finally:
        variants.VARIANTS[case.dtype] = kept
        names |= {"GROUP": GROUP, "Sizes": Sizes}


def _timed(job: Job, case: NetworkCase, candidate: Candidate) -> dict[str, Any] | None:
    """Writes a row; its figures where the candidate is right. One that does not compile is no failure."""
    name = f"{candidate.name}, batch {case.batch}"
    try:
        with _prepared(case, candidate, job.device) as prepared:
            call = bound(prepared, case.images(job.device.torch_device))
            call()
            launches = [each.seconds * 1e6 for each in job.device.operations(call)]
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
    figures["launch_us"] = launches
    figures |= candidate.figures
    job.row(name, batch=case.batch, **figures)
    return figures
