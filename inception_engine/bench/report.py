"""Rows as a terminal table, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from inception_engine.bench.records import INCLUDES, Row

COLUMNS = (
    "variant",
    "batch",
    "peer",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "images/s",
    "parity",
    "ratio to best peer",
    "status",
)
BUSY_CORES = 0.1  # of other processes; beyond it their share shows in the figures
LEFT = {"variant", "peer", "status"}  # text to the left, numbers to the right


def table(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in (COLUMNS, *cells)) for column in range(len(COLUMNS))]
    widths[-1] = len(COLUMNS[-1])  # a long status runs on

    def line(values: Sequence[str]) -> str:
        padded = (
            value.ljust(width) if name in LEFT else value.rjust(width)
            for name, value, width in zip(COLUMNS, values, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    lines = [*_preamble(rows, environment), "", line(COLUMNS), line(["-" * width for width in widths])]
    for index, row in enumerate(rows):
        if index and (row.variant, row.batch) != (rows[index - 1].variant, rows[index - 1].batch):
            lines.append("")
        lines.append(line(cells[index]))
    return "\n".join(lines) + "\n"


def markdown(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    lines = [f"{text}  " for text in _preamble(rows, environment)]
    lines += [
        "",
        _markdown_line(COLUMNS),
        _markdown_line([":--" if name in LEFT else "--:" for name in COLUMNS]),
    ]
    lines += [_markdown_line([cell.replace("|", "\\|") for cell in _cells(row)]) for row in rows]
    return "\n".join(lines) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Every field of every row; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _preamble(rows: Sequence[Row], environment: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    git = environment["git"]
    commit = f", commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else ""
    kinds = "".join(f", {kind}" for kind in sorted({f"{row.dtype} on {row.device}" for row in rows}))
    others = environment["other_processes_cores"]
    lines = [
        f"{environment['cpu'] or 'unknown CPU'}, {environment['cores']} cores, {environment['threads']} threads, "
        f"instruction set {environment['isa'] or 'unknown'}{kinds}",
        f"{environment['os']}, python {environment['python']}, {versions}{commit}",
        f"time of {INCLUDES}",
        "ratio: median of the rounds [lowest..highest]; below 1 is faster than the best peer",
    ]
    if others is not None and others > BUSY_CORES:
        lines.append(f"UNRELIABLE: other processes used {others:.2f} cores during the run")
    return lines


def _cells(row: Row) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    if row.ratio is None:
        ratio = "-"
    elif row.peer == row.best_peer:
        ratio = "best peer"
    else:
        ratio = f"{row.ratio:.2f} [{row.ratio_min:.2f}..{row.ratio_max:.2f}]"
    figures = [number(value, ".2f") for value in (row.p50_ms, row.p90_ms, row.p99_ms)]
    return [
        row.variant,
        str(row.batch),
        row.peer,
        *figures,
        number(row.images_per_s, ".1f"),
        number(row.parity, ".1e"),
        ratio,
        row.status,
    ]


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
