"""What a run leaves behind: JSON lines, each written as soon as it is known.

{"kind": "environment", ...}                               once for each command: the machine and the versions
{"kind": "begin", "stage": ...}                            what this stage wrote before no longer counts
{"kind": "row", "stage": ..., "name": ..., "ok": ..., ...} one figure or check; ok: true, false, or null where it was
                                                           left out; "note" says why
{"kind": "end", "stage": ..., "status": ..., ...}          "done", "failed" or "timed out"; seconds; "message"
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inception_engine.files import append_line

DONE, FAILED, TIMED_OUT = "done", "failed", "timed out"


class RecordsError(ValueError):
    """The file holds no records; the message says where."""


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line, in one write, so that a process that is killed leaves whole lines."""
    append_line(path, json.dumps(_finite(record), allow_nan=False))


def _finite(value: Any) -> Any:
    """NaN and infinities as text: JSON has none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass
class StageRecords:
    """The latest attempt at a stage. ``end``: its last record, empty while it runs or when it was cut off."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.end.get("status", FAILED))


@dataclass
class Records:
    """``stages``: by name, in the order in which they were first begun."""

    environments: list[dict[str, Any]]
    stages: dict[str, StageRecords]

    def rows(self, stage: str) -> list[dict[str, Any]]:
        return self.stages[stage].rows if stage in self.stages else []


def read(path: Path) -> Records:
    """Raises RecordsError, and OSError. A last line that was not written to its end is left out."""
    environments: list[dict[str, Any]] = []
    stages: dict[str, StageRecords] = {}
    for number, record in _lines(path):
        try:
            match record["kind"]:
                case "environment":
                    environments.append(record)
                case "begin":
                    stages[record["stage"]] = StageRecords()
                case "row":
                    stages[record["stage"]].rows.append(record)
                case "end":
                    stages[record["stage"]].end = record
        except (KeyError, TypeError):
            raise RecordsError(f"{path}, line {number}: not a record") from None
    if not environments:
        raise RecordsError(f"{path}: holds no records of tools/gpu")
    return Records(environments, stages)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        raise RecordsError(f"{path}: holds no records of tools/gpu") from None
    for number, line in enumerate(lines, 1):
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                return
            raise RecordsError(f"{path}, line {number}: not JSON") from None


def remove_cut_off_line(path: Path) -> None:
    """Before more is added to a file whose last line was not written to its end."""
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)


def new_file(folder: Path, date: str, name: str) -> Path:
    """A path that does not exist, for a run on the GPU called ``name``."""
    words = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    stem = f"{date}-gpu-{words}"
    numbers = (f"{stem}{'' if n == 1 else f'-{n}'}.jsonl" for n in range(1, 1000))
    return next(path for path in map(folder.joinpath, numbers) if not path.exists())


def newest(folder: Path) -> Path | None:
    """The file of ``folder`` that was written last."""
    return max(folder.glob("*-gpu-*.jsonl"), key=lambda path: path.stat().st_mtime, default=None)
