"""A plan's file, and the loader's limits as the compiler has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import inception_engine as ie
from inception_engine import compiler
from inception_engine.compiler import plan
from inception_engine.errors import PlanError, PlanForeign

RUNTIME = Path(compiler.__file__).parents[1] / "runtime"
LIMITS = {
    "kMaxTasks": plan.MAX_TASKS,
    "kMaxRows": plan.MAX_ROWS,
    "kMaxSize": plan.MAX_PITCH,
    "kMaxArena": plan.MAX_ARENA_BYTES,
    "kMaxParts": plan.MAX_PARTS,
    "kMaxBatch": compiler.MAX_BATCH,
    "kMaxFileBytes": plan.MAX_FILE_BYTES,
}


def test_limits_are_the_loaders() -> None:
    sources = "".join((RUNTIME / name).read_text() for name in ("plan.cpp", "proof/limits.h"))
    found = dict(re.findall(r"(k\w+) = ([^,;]+)[,;]", sources))
    numbers = {}
    for name in LIMITS:
        base, shift = re.fullmatch(r"(?:uint64_t\{)?(\d+)u?\}?(?: << (\d+))?", found[name]).groups()  # type: ignore[union-attr]
        numbers[name] = int(base) << int(shift or 0)
    assert numbers == LIMITS


def test_a_file_that_is_refused_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.plan").write_text("not a plan")
    with pytest.raises(PlanForeign) as raised:
        plan.Plan.load(tmp_path / "text.plan")
    assert str(raised.value) == f"{tmp_path}/text.plan: not a plan file"
    content = bytearray(ie.compile(ie.googlenet(width=0.1, input_size=32, classes=10)).to_bytes())
    content[-1] ^= 1
    (tmp_path / "changed.plan").write_bytes(content)
    with pytest.raises(PlanError) as refused:
        plan.Plan.load(str(tmp_path / "changed.plan"))
    with pytest.raises(type(refused.value)) as alone:
        plan.Plan.from_bytes(bytes(content))
    assert str(refused.value) == f"{tmp_path}/changed.plan: {alone.value}"
