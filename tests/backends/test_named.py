"""What a command line names, and which backend takes which of its options by which name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inception_engine import googlenet
from inception_engine.backends.named import options, split
from inception_engine.backends.sources import OnnxFile, PlanFile, Source
from inception_engine.errors import BackendError

NETWORK = googlenet(width=0.1, input_size=32, classes=2)
PLAN = PlanFile(Path("a.plan"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("net.plan", (None, Path("net.plan"))),
        ("torch:net.safetensors", ("torch", Path("net.safetensors"))),
        ("torch", ("torch", None)),
        ("c:net.plan", (None, Path("c:net.plan"))),  # no backend's name: a file's
        ("engine:a:b", ("engine", Path("a:b"))),
    ],
)
def test_backend_and_file(text: str, found: tuple[str | None, Path | None]) -> None:
    assert split(text) == found


def test_a_colon_without_a_file_is_refused() -> None:
    with pytest.raises(BackendError, match="no file behind the colon"):
        split("engine:")


@pytest.mark.parametrize(
    ("backend", "source", "given", "found"),
    [
        ("engine", NETWORK, {"device": "cpu", "dtype": "fp32", "threads": 2, "max_batch": 4},
         {"device": "cpu", "dtype": "fp32", "threads": 2, "max_batch": 4}),
        ("engine", PLAN, {"threads": 0, "max_batch": 4}, {"threads": 0}),
        ("torch", NETWORK, {"device": "cuda", "threads": 2, "max_batch": 4}, {"device": "cuda", "threads": 2}),
        ("onnxruntime", OnnxFile(Path("a.onnx")), {"device": "cuda", "max_batch": 4}, {"providers": ["cuda"]}),
        ("tensorrt", NETWORK, {"device": "cuda", "dtype": "fp16", "max_batch": 16},
         {"dtype": "fp16", "batches": (1, 16, 16)}),
        ("reference", NETWORK, {"device": "cpu", "threads": 1, "max_batch": 4}, {}),
        ("torch", NETWORK, {"emulate": True}, {"emulate": True}),  # to be refused by name
        ("engine", NETWORK, {"emulate": False}, {}),
    ],
)  # fmt: skip
def test_options(backend: str, source: Source, given: dict[str, Any], found: dict[str, Any]) -> None:
    assert options(backend, source, **given) == found
