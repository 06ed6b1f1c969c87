"""The names of the classes, from a file that somebody has."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from inception_engine.importers.errors import ImportFailed

MAX_BYTES = 1 << 24


def read_labels(path: str | os.PathLike[str], classes: int) -> tuple[str, ...]:
    """One name for each of ``classes``, in their order.

    A text file has one on each line; empty lines at its end do not count. JSON is a list of names, or a dictionary:
    index to name ({"0": "tench"}), index to [identifier, name] (Keras's file), or name to index (an ImageFolder's
    ``class_to_idx``). Raises ImportFailed and OSError.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImportFailed(f"{path}: not a file")
    if status.st_size > MAX_BYTES:
        raise ImportFailed(f"{path}: {status.st_size:,} bytes, too many for labels")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportFailed(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from None
    if text.lstrip().startswith(("[", "{")):
        try:
            labels = _from_json(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ImportFailed(f"{path}: no labels: {error}") from None
    else:
        labels = [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
    if len(labels) != classes:
        raise ImportFailed(f"{path}: {len(labels)} labels for {classes} classes")
    return tuple(labels)


def _from_json(document: Any) -> list[str]:
    if isinstance(document, dict):
        if document and all(type(value) is int for value in document.values()):
            document = {index: name for name, index in document.items()}
        pairs = sorted(((int(index), name) for index, name in document.items()), key=lambda pair: pair[0])
        if [index for index, _ in pairs] != list(range(len(pairs))):
            raise ValueError(f"its indices are not 0 to {len(pairs) - 1}")
        document = [name[-1] if isinstance(name, list) and name else name for _, name in pairs]
    if foreign := [name for name in document if not isinstance(name, str)]:
        raise ValueError(f"{foreign[0]!r} is not a name")
    return list(document)
