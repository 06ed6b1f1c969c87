"""The model that comes with the package, on digits that it has not seen: every runtime names torch's classes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inception_engine as ie
from inception_engine import datasets, models
from inception_engine.backends.base import Backend
from inception_engine.datasets import Dataset
from inception_engine.evaluate.ensemble import Ensemble, evaluate
from inception_engine.evaluate.metrics import Tally, agreement

pytest.importorskip("sklearn", reason="backend digits: scikit-learn is not installed")
pytest.importorskip("torch", reason="backend torch: torch is not installed")

ROOT = Path(__file__).parents[2]
ACCURACY = 98.5  # percent of the held-out fifth


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return datasets.opened("digits", "held-out")


def tally(backend: Backend, data: Dataset) -> Tally:
    (row,) = evaluate(Ensemble([backend]), data)
    return row.tally


@pytest.fixture(scope="module")
def by_torch(held_out: Dataset) -> Iterator[Tally]:
    with ie.load(models.DIGITS, "torch") as backend:
        yield tally(backend, held_out)


def test_torch_is_right(by_torch: Tally, held_out: Dataset) -> None:
    assert by_torch.images == len(held_out) == 359
    assert by_torch.top1 >= ACCURACY


@pytest.mark.parity
@pytest.mark.parametrize(
    ("backend", "options", "allowed"),
    [
        ("engine", {}, 0),
        ("engine", {"dtype": "bf16"}, 3),  # 1 %
        ("engine", {"emulate": True}, 0),
        ("engine", {"emulate": True, "dtype": "fp16"}, 1),
        ("onnxruntime", {}, 0),
    ],
    ids=["engine", "engine-bf16", "engine-gpu-fp32", "engine-gpu-fp16", "onnxruntime"],
)
def test_first_classes_are_torchs(
    backend: str, options: dict[str, Any], allowed: int, by_torch: Tally, held_out: Dataset
) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")
        pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
    with ie.load(models.DIGITS, backend, **options) as opened:
        found = tally(opened, held_out)
    agreed = agreement(backend, found.first, "torch", by_torch.first)
    assert len(agreed.differing) <= allowed, str(agreed)


@pytest.mark.parametrize(
    "arguments", [("--seeds", "0"), ("--seeds", "-1"), ("--seeds", "1", "--epochs", "0")]
)
def test_a_table_of_no_training_is_refused(
    arguments: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    digits = importlib.import_module("benchmarks.digits")
    monkeypatch.setattr(sys, "argv", ["digits", *arguments, "--output", str(tmp_path / "table")])
    assert digits.main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"benchmarks.digits: error: {' '.join(arguments[-2:])}: give 1 or more\n"
    assert not (tmp_path / "table").exists()
