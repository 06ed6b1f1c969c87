"""Files of weights and images, damaged at random: tools/hardening importers does more of them."""

from __future__ import annotations

import re

import pytest

from tests.hardening import importers


@pytest.mark.parametrize("kind", importers.KINDS)
def test_only_the_projects_errors_come_out(kind: str) -> None:
    for name in {"onnx": ("onnx",), "image": ()}.get(kind, ("torch",)):
        pytest.importorskip(name, reason=f"backend {name}: {name} is not installed")
    said = importers.fuzz(kind, 100, seed=0)
    assert re.match(r"100 files, \d+ MiB more$", said)
