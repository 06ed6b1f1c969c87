"""What was chosen for each GPU generation: the data of tuned/, read by Python's executor and by the kernel archive.

A number with the provenance "measured" names the GPU, the date and the record of the run that it was read off.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

PROVENANCES = ("none", "assumed", "measured")


@cache
def specialise_from(capability: int) -> float:
    """Pixels of a module's input, of a program's largest batch, from which on ``module`` is taken instead of ``walk``;
    infinity: never. ``capability``: 90 for 9.0. Raises ValueError where the data are wrong."""
    path = Path(__file__).with_name("tuned") / "module.json"
    generations = json.loads(path.read_text(encoding="utf-8"))["generations"]
    chosen = generations.get(str(capability), {"from_pixels": None, "provenance": "none", "source": ""})
    pixels, provenance = chosen["from_pixels"], chosen["provenance"]
    is_count = isinstance(pixels, int) and not isinstance(pixels, bool) and pixels >= 0
    if provenance not in PROVENANCES or not (pixels is None or (is_count and provenance != "none")):
        raise ValueError(f"{path.name}: {capability}: from_pixels {pixels!r} with provenance {provenance!r}")
    return float("inf") if pixels is None else pixels
