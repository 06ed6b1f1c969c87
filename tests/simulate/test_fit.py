"""Fitting: constants that made the times come back from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine import compile, googlenet
from inception_engine.compiler.plan import LaunchMode, OpKind, Program
from inception_engine.compiler.targets import CUDA, Target
from inception_engine.network import Network
from inception_engine.simulate import Gpu, SimulationError, best_tiles, fit, simulate
from inception_engine.simulate.tiles import candidates
from tests.simulate.programs import SQUARE

TRUE: dict[str, Any] = {
    "launch_seconds": 2.3e-6,
    "poll_seconds": 0.8e-6,
    "dependency_seconds": 0.9e-6,
    "tile_seconds": 3.1e-6,
    "block_share": 0.31,
}


@pytest.fixture(scope="module")
def network() -> Network:
    return googlenet(0, width=0.25, input_size=64, classes=10)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.plan"
    compile(network, targets=(SQUARE,), dtype="fp16", batches=(1, 8)).save(path)
    return path


def measured(plan: Path, gpu: Gpu, noise: float = 0.0) -> list[dict[str, Any]]:
    from inception_engine import Plan

    rng = np.random.default_rng(0)
    measurements = []
    for number, program in enumerate(Plan.load(plan).programs, 1):
        run = simulate(program, gpu)
        launches = (run.launch_end - run.launch_begin) * (
            1 + noise * rng.standard_normal(len(run.launch_end))
        )
        entry = {"plan": str(plan), "program": number, "seconds": run.seconds}
        measurements.append({**entry, "launch_seconds": launches.tolist()})
    return json.loads(json.dumps(measurements))


def test_recovers_the_constants(plan: Path) -> None:
    assumed = Gpu.load("h200")
    # Small tiles on all multiprocessors load more than they compute; with a slower GPU both are seen.
    slow = dataclasses.replace(assumed, multiprocessors=8, tensor_flop_per_second=2e12)
    true = dataclasses.replace(slow, **TRUE)
    fitted = fit(measured(plan, true), slow, tuple(TRUE))
    assert {name: getattr(fitted.gpu, name) for name in TRUE} == pytest.approx(TRUE, rel=1e-3)
    assert max(map(abs, fitted.errors)) < 1e-4 < max(map(abs, fitted.before))
    assert {name for name in TRUE if fitted.gpu.provenance[name].kind != "fitted"} == set()
    assert set(fitted.gpu.assumed) == set(assumed.assumed) - set(TRUE)
    others = set(assumed.provenance) - set(TRUE)
    assert all(getattr(fitted.gpu, name) == getattr(slow, name) for name in others)


def test_says_what_times_do_not_tell_apart(plan: Path) -> None:
    gpu = dataclasses.replace(
        Gpu.load("h200"), ticket_seconds=5e-7, dependency_seconds=1.2e-6, tile_seconds=1.7e-6, block_share=0.5
    )
    times = measured(plan, gpu)
    with pytest.raises(SimulationError, match="tell apart ticket_seconds, dependency_seconds, tile_seconds"):
        fit(times, gpu, ("launch_seconds", "ticket_seconds", "dependency_seconds", "tile_seconds"))
    with pytest.raises(SimulationError, match="depend on dram_bytes_per_second"):
        fit(times, gpu, ("tile_seconds", "dram_bytes_per_second"))


def test_noise_stays_in_the_errors(plan: Path) -> None:
    """Errors of 5 % in the times leave errors of about 5 % behind and not less than half of that."""
    assumed = Gpu.load("h200")
    noisy = measured(plan, dataclasses.replace(assumed, tile_seconds=4e-6), noise=0.05)
    fitted = fit(noisy, assumed, ("tile_seconds",))
    assert fitted.gpu.tile_seconds == pytest.approx(4e-6, rel=0.1)
    half = f"{float(np.median(np.abs(fitted.errors))):.1%}"
    assert fitted.gpu.provenance["tile_seconds"].source.endswith(f"half of them within {half}")
    assert 0.025 < float(np.std(fitted.errors)) < 0.1


def test_what_cannot_be_fitted(plan: Path) -> None:
    gpu = Gpu.load("h200")
    whole = {"plan": str(plan), "seconds": 1e-4}
    for measurements, constants, message in (
        ([whole], ("speed",), "speed"),
        ([whole], ("multiprocessors",), "multiprocessors"),
        ([whole], (), "none given"),
        ([whole], ("tile_seconds", "launch_seconds"), "1 measured times do not tell 2"),
        ([{**whole, "program": 3}], ("tile_seconds",), "no program 3"),
        ([{**whole, "launch_seconds": [1e-5]}], ("tile_seconds",), "1 launches measured"),
        ([{"plan": str(plan)}], ("tile_seconds",), "no measured times"),
        ([{**whole, "seconds": 0.0}], ("tile_seconds",), "not positive"),
    ):
        with pytest.raises(SimulationError, match=message):
            fit(measurements, gpu, constants)


def test_best_tiles_sorts_candidates(network: Network) -> None:
    gpu = Gpu.load("h200")
    targets: list[Target] = [
        dataclasses.replace(CUDA, tile_pixels=64, tile_columns=columns, launch=launch)
        for columns in (32, 64)
        for launch in (LaunchMode.MODULE, LaunchMode.NETWORK)
    ]
    ranked = best_tiles(network, gpu, "bf16", 2, targets)
    assert {id(target) for target, _ in ranked} == {id(target) for target in targets}
    seconds = [run.seconds for _, run in ranked]
    assert seconds == sorted(seconds) and seconds[0] < seconds[-1]
    for target, run in ranked:
        program = compile(network, targets=(target,), dtype="bf16", max_batch=2).programs[0]
        assert simulate(program, gpu).seconds == run.seconds
        assert len(run.program.launches) == (1 if target.launch == LaunchMode.NETWORK else 13)


@pytest.mark.parametrize(("dtype", "batch"), [("fp16", 1), ("fp16", 9), ("fp32", 1), ("fp32", 5)])
def test_candidates_have_the_tiles_that_they_are_named_by(network: Network, dtype: str, batch: int) -> None:
    own, *forced = candidates(dtype, batch)

    def program(target: str | Target) -> Program:
        return compile(network, targets=(target,), dtype=dtype, max_batch=batch).programs[0]

    assert program(own).to_bytes() == program("cuda").to_bytes()
    shapes = [(target.tile_pixels, target.tile_columns) for target in forced]
    assert len({*shapes}) == len(shapes) == 9
    for target, shape in zip(forced, shapes, strict=True):
        compiled = program(target)
        tiled = [
            op for op in compiled.ops if op["kind"] in (OpKind.CONV, OpKind.MAX_POOL, OpKind.AVERAGE_POOL)
        ]
        assert {(int(op["tile_rows"]), int(op["tile_columns"])) for op in tiled} == {shape}
        assert len(compiled.launches) == len(program("cuda").launches)
