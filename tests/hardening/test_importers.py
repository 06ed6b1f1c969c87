"""Files of weights and images, damaged at random: tools/hardening importers does more of them."""

from __future__ import annotations

import io
import random
import re
import zipfile

import pytest

from tests.hardening import importers


@pytest.mark.parametrize("kind", importers.KINDS)
def test_only_the_projects_errors_come_out(kind: str) -> None:
    for name in {"onnx": ("onnx",), "image": ()}.get(kind, ("torch",)):
        pytest.importorskip(name, reason=f"backend {name}: {name} is not installed")
    said = importers.fuzz(kind, 100, seed=0)
    assert re.match(r"100 files, \d+ MiB more$", said)


def test_damaged_archives_are_changed_further() -> None:
    """A guided fuzzer goes on from what mutations have made: cut, without a pickle, without members, not an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", bytes(100))
        archive.writestr("a/data/0", bytes(100))
    whole = buffer.getvalue()
    pickleless = whole.replace(b"data.pkl", b"data.pkx")
    empty = b"PK\x03\x04" + bytes(200)
    rng = random.Random(0)
    for data in (whole, whole[: len(whole) // 2], pickleless, empty, b"PK\x03\x04"):
        assert any(importers.mutate(data, [whole], rng) != data for _ in range(20))
