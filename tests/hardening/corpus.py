"""The corpus of the fuzz targets: small plans of every kind of op, target and dtype, and what fuzzing has found.

``python -m tests.hardening corpus`` writes the first part anew; files that a long run found to reach new code stay.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import inception_engine as ie
from inception_engine.compiler.errors import CompileError
from inception_engine.network import INPUT, LRN, AveragePool, Concat, Conv, Linear, MaxPool, Network
from tests.loader import verdict
from tests.plans import plan_file, small_program
from tests.random_networks import random_network
from tests.random_plans import random_program

CORPUS = Path(__file__).parent / "corpus.zip"
_MOST_BYTES = 8192  # of one plan
_TARGETS = (("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "fp32"), ("cuda", "fp16"), ("cuda", "bf16"))
_FOUND = "found-"


def tiny() -> bytes:
    """Each kind of op, at batch 1."""
    return plan_file(small_program(1))


def small_network() -> Network:
    """Every kind of layer but softmax, a module of two branches, and windows that the CPU takes to patches, to large
    ones at 14 x 15 pixels and to small ones at 7 x 7."""
    rng = np.random.default_rng(0)

    def conv(name: str, source: str, inputs: int, outputs: int, kernel: int) -> Conv:
        weight = rng.standard_normal((outputs, inputs, kernel, kernel), np.float32)
        side = kernel // 2
        bias = rng.standard_normal(outputs, np.float32)
        return Conv(name=name, inputs=(source,), weight=weight, bias=bias, pads=(side, side, side, side))

    weight = rng.standard_normal((5, 36), np.float32)
    layers = (
        conv("stem", INPUT, 3, 16, 3),
        LRN(name="norm", inputs=("stem",)),
        conv("wide", "norm", 16, 16, 3),
        MaxPool(name="pool", inputs=("wide",), kernel=(2, 2), stride=(2, 2)),
        conv("left", "pool", 16, 20, 1),
        conv("right", "pool", 16, 16, 3),
        Concat(name="joined", inputs=("left", "right")),
        AveragePool(name="mean", inputs=("joined",), kernel=(7, 7), stride=(1, 1)),
        Linear(name="logits", inputs=("mean",), weight=weight, bias=np.zeros(5, np.float32)),
    )
    return Network(name="small", input_shape=(3, 14, 15), layers=layers, logits="logits")


def compiled(max_batch: int, dtype: str = "fp32") -> bytes:
    """``small_network`` for the CPU: programs for batch 1 and ``max_batch``. Of its weights a CPU makes others."""
    return ie.compile(small_network(), batches=sorted({1, max_batch}), dtype=dtype).to_bytes()


def seeds() -> dict[str, bytes]:
    """Plans by name, all of which the loader accepts."""
    plans = {
        "tiny": tiny(),
        "batch-2": plan_file(small_program(2)),
        "parts": plan_file(small_program(1, part_depth=16)),
        "two-programs": plan_file(small_program(1), small_program(2)),
    }
    number = 0
    while len(plans) < 40:  # of windows, slices and orders that no compiler makes
        plan = plan_file(random_program(random.Random(number)))
        if len(plan) <= _MOST_BYTES and verdict(plan) == "IE_OK":
            plans[f"random-{number}"] = plan
        number += 1
    for target, dtype in _TARGETS:
        made = number = 0
        while made < 4:
            network = random_network(np.random.default_rng(number))
            number += 1
            try:
                plan = ie.compile(network, targets=target, dtype=dtype, max_batch=2).to_bytes()
            except CompileError:
                continue
            if len(plan) <= 2 * _MOST_BYTES:
                plans[f"{target}-{dtype}-{number}"] = plan
                made += 1
    return plans


def stored() -> dict[str, bytes]:
    """The corpus as it is kept."""
    with zipfile.ZipFile(CORPUS) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def store(plans: Mapping[str, bytes]) -> None:
    """The same plans make the same file."""
    with zipfile.ZipFile(CORPUS, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(plans):
            archive.writestr(zipfile.ZipInfo(name), plans[name], zipfile.ZIP_DEFLATED)


def renew() -> None:
    """Writes the seeds anew, beside what was found."""
    found = (
        {name: plan for name, plan in stored().items() if name.startswith(_FOUND)} if CORPUS.exists() else {}
    )
    store(seeds() | found)


def add_found(folder: Path) -> None:
    """Takes the files of a fuzzer's corpus into ours, by content."""
    plans = seeds()
    known = set(plans.values())
    for path in sorted(folder.iterdir()):
        if path.read_bytes() not in known:
            plans[f"{_FOUND}{path.name}"] = path.read_bytes()
    store(plans)


def unpack(folder: Path) -> list[Path]:
    """Writes the stored corpus into a folder."""
    folder.mkdir(exist_ok=True)
    for name, plan in stored().items():
        (folder / name).write_bytes(plan)
    return sorted(folder.iterdir())
