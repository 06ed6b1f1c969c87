"""The paper's Table 3, classification error by models and crops: this run's figures beside those that it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inception_engine.evaluate.ensemble import Row


@dataclass(frozen=True)
class Printed:
    """A row as printed: ``top5_error`` in percent, of GoogLeNet on ILSVRC 2014's validation images."""

    models: int
    crops: int
    cost: int
    top5_error: float


PAPER = (
    Printed(1, 1, 1, 10.07),
    Printed(1, 10, 10, 9.15),
    Printed(1, 144, 144, 7.89),
    Printed(7, 1, 7, 8.09),
    Printed(7, 10, 70, 7.62),
    Printed(7, 144, 1008, 6.67),
)
HEAD = ("models", "crops", "cost", "top-1 error", "top-5 error", "to base")
PAPER_HEAD = ("models", "cost", "top-5 error", "to base")


def render(rows: Sequence[Row]) -> str:
    """Lines of text: a row for each of the paper's and of ours, side by side where both are of one model, or both of
    several, and of as many crops. The base is each side's first row."""
    ours = {(row.models > 1, row.crops): row for row in rows}
    theirs = {(row.models > 1, row.crops): row for row in PAPER}
    base = rows[0]
    cells: list[tuple[str, ...]] = [(*HEAD, "|", *PAPER_HEAD)]
    for key in sorted(ours.keys() | theirs.keys()):
        left, right = ("",) * len(HEAD), ("",) * len(PAPER_HEAD)
        if (row := ours.get(key)) is not None:
            errors = 100 - row.tally.top1, 100 - row.tally.top5
            change = "base" if row is base else f"{errors[1] - (100 - base.tally.top5):+.2f}"
            left = (str(row.models), str(row.crops), f"{row.cost:g}", *(f"{e:.2f} %" for e in errors), change)
        if (printed := theirs.get(key)) is not None:
            change = "base" if printed is PAPER[0] else f"{printed.top5_error - PAPER[0].top5_error:+.2f}"
            right = (str(printed.models), str(printed.cost), f"{printed.top5_error:.2f} %", change)
            left = left if row is not None else ("", str(printed.crops), *left[2:])
        cells.append((*left, "|", *right))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    ours_width = sum(widths[: len(HEAD)]) + 2 * (len(HEAD) - 1)
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([f"{'this run':<{ours_width}}  |  the paper, ILSVRC 2014", *lines])


def document(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For JSON: our rows, percentages as in the table; the paper's figures beside those that it has."""
    theirs = {(row.models > 1, row.crops): row.top5_error for row in PAPER}
    base = rows[0].tally
    return [
        {
            "models": row.models,
            "crops": row.crops,
            "cost": row.cost,
            "top1": row.tally.top1,
            "top5": row.tally.top5,
            "top5_error": 100 - row.tally.top5,
            "to_base": base.top5 - row.tally.top5,
            "paper_top5_error": theirs[row.models > 1, row.crops],
        }
        for row in rows
    ]
