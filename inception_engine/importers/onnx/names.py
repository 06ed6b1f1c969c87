"""Names of layers: those of the file's nodes, without what exporters add, each once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from inception_engine.network import INPUT

_LONGEST = 100


def layer_names(given: Sequence[tuple[str, str]]) -> list[str]:
    """One name for each (node's name, op). An exporter's ``/branch1/conv/Conv`` is branch1/conv if that is unique."""
    cleaned = [_clean(name) or op for name, op in given]
    short = [_without_op(name, op) for name, (_, op) in zip(cleaned, given, strict=True)]
    counts = Counter(short)
    names = [brief if counts[brief] == 1 else full for brief, full in zip(short, cleaned, strict=True)]
    taken = {INPUT}
    unique = []
    for name in names:
        number, candidate = 2, name
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        unique.append(candidate)
    return unique


def module_names(concats: Sequence[str]) -> list[str]:
    """For Inception modules, from the names of their concatenations: ``inception_3a/output`` is inception_3a."""
    short = [re.sub(r"[/.](output|concat|Concat)(_\d+)?$", "", name) for name in concats]
    counts = Counter(short)
    return [brief if counts[brief] == 1 else full for brief, full in zip(short, concats, strict=True)]


def _clean(name: str) -> str:
    name = "".join(c if c.isprintable() and not c.isspace() else "_" for c in name[:_LONGEST])
    # PyTorch's values are called /path/Op_output_0; ours have a value before the ReLU of a layer.
    name = re.sub(r"_output_0$", "", name)
    name = re.sub(r"/before_relu$", "", name)
    # PyTorch repeats a sequence's name before that of each of its layers: branch2/branch2.0/conv.
    name = re.sub(r"(?:(?<=/)|^)([^/]+)/(?=\1\.)", "", name)
    return name.strip("/")


def _without_op(name: str, op: str) -> str:
    return re.sub(rf"/{re.escape(op)}(_\d+)?$", "", name)
