"""The results of a large collection of images as parts in a folder, so that work that was cut short can go on.

The images, in the order in which one run would take them, are cut into parts of one size. The results of a part are one
JSON file, `part-000012.json`, written whole or not at all: what `inception classify --json` prints for its images. The
file `collection.json` says what they are results of. A folder that holds results of anything else is refused, never
mixed with the new or overwritten.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xxhash

from inception_engine.classification import Classification, Prediction
from inception_engine.errors import CollectionError, ImageError
from inception_engine.files import write_atomically

DESCRIPTION = "collection.json"
_SAID = {
    "plan": "another plan",
    "paths": "other images",
    "top_k": "another --top-k",
    "part_size": "another --part-size",
}


class Collection:
    """Paths of images, and the folder of their results. ``parts``: how many there are."""

    def __init__(
        self, folder: str | os.PathLike[str], paths: Sequence[str], plan: bytes, top_k: int, part_size: int
    ) -> None:
        """Make the folder, or find what is in it. ``plan``: the content of its file.

        Raises CollectionError for a folder that holds something else, and OSError.
        """
        if part_size < 1:
            raise CollectionError(f"parts of {part_size} images; give 1 or more")
        self.folder, self.paths, self.top_k, self.part_size = Path(folder), paths, top_k, part_size
        self.parts = math.ceil(len(paths) / part_size)
        # Names may hold anything but a zero byte.
        names = b"\0".join(map(os.fsencode, paths))
        self._described = {
            "plan": xxhash.xxh3_128_hexdigest(plan),
            "paths": xxhash.xxh3_128_hexdigest(names),
            "top_k": top_k,
            "part_size": part_size,
        }
        self.folder.mkdir(exist_ok=True)
        self._claim()

    def _claim(self) -> None:
        path = self.folder / DESCRIPTION
        if not path.exists():
            if any(self.folder.iterdir()):
                raise CollectionError(
                    f"{self.folder}: holds other files than results; give an empty or a new folder"
                )
            write_atomically(path, [json.dumps(self._described).encode()])
            return
        found = _read(path)
        for key, what in _SAID.items():
            if not isinstance(found, dict) or found.get(key) != self._described[key]:
                raise CollectionError(f"{self.folder}: holds results of {what}; give another folder")

    def part(self, number: int) -> Sequence[str]:
        """The paths of its images."""
        return self.paths[number * self.part_size : (number + 1) * self.part_size]

    def missing(self) -> list[int]:
        """The parts that have no results yet."""
        return [number for number in range(self.parts) if not self._file(number).exists()]

    def write(self, number: int, results: Sequence[dict[str, Any]]) -> None:
        """The ``Classification.document`` of each image of a part. Raises OSError."""
        assert [result["path"] for result in results] == list(self.part(number))
        write_atomically(self._file(number), [json.dumps(results).encode()])

    def results(self) -> Iterator[Classification]:
        """Of all images, in order. Errors have lost their type: they are ImageErrors of the same text.

        Raises CollectionError for a part that is damaged, and OSError for one that is missing.
        """
        for number in range(self.parts):
            path = self._file(number)
            found = _read(path)
            try:
                part = [_classification(document) for document in found]
            except (KeyError, TypeError, ValueError):
                part = []
            if [result.path for result in part] != list(self.part(number)):
                raise CollectionError(f"{path}: damaged; without it, its images are classified again")
            yield from part

    def _file(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise CollectionError(f"{path}: damaged; without it, its images are classified again") from None


def _classification(document: dict[str, Any]) -> Classification:
    error = document["error"]
    return Classification(
        document["path"],
        tuple(Prediction(**prediction) for prediction in document["top"]),
        document["nan"],
        None if error is None else ImageError(error),
    )
