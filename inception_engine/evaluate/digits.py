"""What `inception classify digits` shows without images: the built-in model on digits that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from inception_engine.datasets import digits

if TYPE_CHECKING:
    from inception_engine.engine import Engine

SHOWN = 10


def lines(engine: Engine, top_k: int, as_json: bool) -> Iterator[str]:
    """The first ten pictures of the held-out fifth with their classes, and how many of all are right; or everything as
    JSON: {"results": [{"image", "digit", "top"}], "right", "images"}. Raises PackageError without scikit-learn."""
    held_out = digits("held-out")
    pictures = (held_out.image(index) for index in range(len(held_out)))
    right, results = 0, []
    for index, found in enumerate(engine.classify_each(pictures, top_k)):
        digit = held_out.classes[held_out.label(index)]
        right += found.top[0].label == digit
        if as_json:
            top = found.document()["top"]
            results.append({"image": held_out.name(index), "digit": digit, "top": top})
        elif index < SHOWN:
            first = found.top[0]
            yield f"{held_out.name(index)}, a {digit}: {first.label}, {first.probability:.2%}"
    count = len(held_out)
    if as_json:
        yield json.dumps({"results": results, "right": right, "images": count}, indent=2)
    else:
        yield f"{right} of the {count} digits held out of training are right: {right / count:.2%}"
