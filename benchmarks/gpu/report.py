"""Records as Markdown: python -m benchmarks.gpu.report FILE.jsonl writes FILE.md and, with matplotlib, FILE-*.png."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import records
from benchmarks.gpu.records import Records, StageRecords
from inception_engine.files import write_atomically

REHEARSAL = "**A rehearsal without a GPU: nothing here is a measurement.**"
METHOD = (
    "Times are of one call on the device, float32 images in device memory to float32 logits, by events around groups of"
    " replays of a CUDA graph (`torch` and `onnxruntime`: of calls). `spread`: lowest and highest median of a round "
    "over the median. Ratios: median of the interleaved rounds [lowest..highest]; below 1 is faster."
)
_MARKS = {True: "ok", False: "FAILED", None: "left out"}
_HIDDEN = {"kind", "stage", "name", "ok", "note", "dtype", "target"}


def write(path: Path) -> Path:
    """The report of a file of records, beside it, made anew. Returns its path. Raises RecordsError and OSError."""
    found = records.read(path)
    pictures: list[Path] = []
    if importlib.util.find_spec("matplotlib") is not None:
        from benchmarks.gpu import plots

        pictures = plots.write(found, path)
    target = path.with_suffix(".md")
    write_atomically(target, [markdown(found, path, pictures).encode()])
    return target


def markdown(found: Records, path: Path, pictures: Sequence[Path] = ()) -> str:
    rehearsal = any(environment["rehearsal"] for environment in found.environments)
    lines = [REHEARSAL, ""] if rehearsal else []
    lines += ["# GPU report", "", *_environment(found.environments[-1]), "", f"Records: `{path.name}`.", ""]
    lines += [METHOD, ""]
    lines += _table([_outcome(name, stage) for name, stage in found.stages.items()])
    for picture in pictures:
        lines += ["", f"![{picture.stem}]({picture.name})"]
    for name, stage in found.stages.items():
        lines += ["", f"## {name}: {stage.status}", "", *_stage(stage)]
    return "\n".join(lines) + "\n"


def _environment(environment: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    commit = environment["commit"]
    known = (
        f"commit {commit[:12]}{' with changes' if environment['dirty'] else ''}"
        if commit
        else "commit unknown"
    )
    gpu = [f"{environment['gpu']}"]
    gpu += [f"{what} {environment[what]}" for what in ("driver", "cuda", "cudnn") if environment.get(what)]
    return [
        f"{', '.join(gpu)}; {versions}; python {environment['python']}, {environment['os']}  ",
        f"{known}, sources {environment['sources']}; {environment['date']}; `{environment['command']}`",
    ]


def _outcome(name: str, stage: StageRecords) -> dict[str, Any]:
    seconds, message = stage.end.get("seconds", ""), stage.end.get("message", "was cut off")
    return {"stage": name, "status": stage.status, "seconds": seconds, "message": message}


def _stage(stage: StageRecords) -> list[str]:
    if not stage.rows:
        return ["Nothing was written."]
    return _table([
        {"name": row["name"], "": _MARKS[row["ok"]]}
        | {key: _cell(value) for key, value in row.items() if key not in _HIDDEN and not isinstance(value, dict)}
        | {"note": row.get("note", "")}
        for row in stage.rows
    ])  # fmt: skip


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float | list):
        return str(value)
    if isinstance(value, list):
        return (
            f"{value[0]:.3g} [{value[1]:.3g}..{value[2]:.3g}]"
            if len(value) == 3
            else ", ".join(map(_cell, value))
        )
    return f"{value:.3g}" if abs(value) < 1 or abs(value) >= 1e6 else f"{value:.1f}"


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns = [column for column in columns if any(row.get(column, "") != "" for row in rows)]
    if "note" in columns:
        columns.append(columns.pop(columns.index("note")))

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [
        line(columns),
        line(["---"] * len(columns)),
        *(line([row.get(c, "") for c in columns]) for row in rows),
    ]


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m benchmarks.gpu.report FILE.jsonl", file=sys.stderr)
        return 2
    try:
        print(write(Path(arguments[0])))
    except (records.RecordsError, OSError) as error:
        print(f"benchmarks.gpu.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
