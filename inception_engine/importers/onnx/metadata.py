"""What an ONNX file says beside its graph: key-value pairs, and what our own exporter leaves in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from inception_engine.exporters.onnx import DESCRIPTION
from inception_engine.importers.errors import ImportFailed
from inception_engine.network import Preprocess

MAX_CHARACTERS = 1 << 16  # of a foreign file's pairs; what is beyond is left out
_OURS = "inception_engine"  # producer_name


@dataclass(frozen=True)
class Metadata:
    labels: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    entries: Mapping[str, str] = field(default_factory=dict)


def read(model: ModelProto) -> Metadata:
    """Raises ImportFailed for a description by our exporter that is damaged."""
    entries = {}
    room = MAX_CHARACTERS
    description = ""
    for pair in model.metadata_props:
        if pair.key == DESCRIPTION:
            description = pair.value
            continue
        room -= len(pair.key) + len(pair.value)
        if room >= 0:
            entries[pair.key] = pair.value
    if model.producer_name != _OURS:
        producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
        entries.setdefault("source", f"onnx, {producer}"[:200] if producer else "onnx")
    if not description:
        return Metadata(entries=entries)
    try:
        document = json.loads(description)
        return Metadata(_labels(document), _preprocess(document["preprocess"]), entries)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ImportFailed(f"the description in its metadata is damaged: {error!r}") from None


def _labels(document: dict[str, Any]) -> tuple[str, ...]:
    labels = document["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels are no list of names")
    return tuple(labels)


def _preprocess(entry: dict[str, Any]) -> Preprocess:
    fields: dict[str, Any] = dict(entry)
    for name in ("mean", "std"):
        fields[name] = tuple(map(float, fields[name]))
    preprocess = Preprocess(**fields)
    if (
        preprocess.order not in ("RGB", "BGR")
        or not isinstance(preprocess.resize, int)
        or preprocess.resize < 1
    ):
        raise ValueError(f"channel order {preprocess.order!r}, resize to {preprocess.resize!r}")
    return preprocess
