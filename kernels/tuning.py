"""What was chosen for each GPU generation: the data of tuned/, read by Python's executor and by the kernel archive.

A number with the provenance "measured" names the GPU, the date and the record of the run that it was read off.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

PROVENANCES = ("none", "assumed", "measured")


def document() -> dict[str, Any]:
    """tuned/module.json."""
    content: dict[str, Any] = json.loads(_path().read_text(encoding="utf-8"))
    return content


def _path() -> Path:
    return Path(__file__).with_name("tuned") / "module.json"


@cache
def specialise_from(capability: int) -> float:
    """Pixels of a module's input, of a program's largest batch, from which on ``module`` is taken instead of ``walk``;
    infinity: never. ``capability``: 90 for 9.0. Raises ValueError where the data are wrong."""
    never = {"from_pixels": None, "provenance": "none", "source": ""}
    chosen = document()["generations"].get(str(capability), never)
    pixels, provenance = chosen["from_pixels"], chosen["provenance"]
    is_count = isinstance(pixels, int) and not isinstance(pixels, bool) and pixels >= 0
    if provenance not in PROVENANCES or not (pixels is None or (is_count and provenance != "none")):
        raise ValueError(
            f"{_path().name}: {capability}: from_pixels {pixels!r} with provenance {provenance!r}"
        )
    return float("inf") if pixels is None else pixels
