"""Rows as a terminal table, Markdown, ratios or CSV.

What all rows have in common stands above the table; columns that would say nothing are left out of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from inception_engine.bench.cases import Case
from inception_engine.bench.records import OK, Row
from inception_engine.bench.timing import UNSTABLE
from inception_engine.terminal import printable_line, printable_lines

BUSY_CORES = 0.1  # of other processes; beyond it their share shows in the figures
Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Column:
    """``shown``: "always", "varies" (where rows differ in it), "known" (where a row has it) or "copied"
    (where one has copies)."""

    name: str
    cell: Cell
    left: bool = False
    shown: str = "always"


def _number(field: str, form: str) -> Cell:
    def cell(row: Row) -> str:
        value = getattr(row, field)
        return "-" if value is None else format(value, form)

    return cell


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "-"
    if row.label == row.best_peer:
        return "best peer"
    return f"{row.ratio:.2f} [{row.ratio_min:.2f}..{row.ratio_max:.2f}]"


def _spread(row: Row) -> str:
    return "-" if row.spread_min is None else f"{row.spread_min:.2f}..{row.spread_max:.2f}"


def _rate(row: Row) -> str:
    if row.open_rate_per_s is None:
        return "-"
    return f"{'>= ' * row.open_capped}{row.open_rate_per_s:.1f}"


def _status(row: Row) -> str:
    if row.status == OK and row.unstable:
        return "unstable" if row.warm else "unstable from warm-up on"
    if row.status == OK and len(row.rounds_ms) == 1:  # which agrees with itself
        return "one round"
    return row.status


_WHO = (
    Column("variant", lambda row: row.variant, left=True),
    Column("dtype", lambda row: row.dtype, left=True, shown="varies"),
    Column("device", lambda row: row.device, left=True, shown="varies"),
    Column("threads", lambda row: str(row.threads), shown="varies"),
    Column("streams", lambda row: str(row.streams), shown="varies"),
    Column("batch", lambda row: str(row.batch)),
    Column("peer", lambda row: row.label, left=True),
)
_PARITY = Column("parity", _number("parity", ".1e"))
_RATIO = Column("ratio to best peer", _ratio)
_STATUS = Column("status", _status, left=True)

TABLE = (
    *_WHO,
    Column("p50 ms", _number("p50_ms", ".2f")),
    Column("p90 ms", _number("p90_ms", ".2f")),
    Column("p95 ms", _number("p95_ms", ".2f")),
    Column("p99 ms", _number("p99_ms", ".2f")),
    Column("p99.9 ms", _number("p999_ms", ".2f"), shown="known"),
    Column("images/s", _number("images_per_s", ".1f")),
    Column("calls", _number("samples", "d")),
    Column("spread", _spread),
    Column("h2d ms", _number("h2d_ms", ".3f"), shown="known"),
    Column("compute ms", _number("compute_ms", ".3f"), shown="copied"),
    Column("d2h ms", _number("d2h_ms", ".3f"), shown="known"),
    Column("preprocess ms", _number("preprocess_ms", ".2f"), shown="known"),
    Column("load ms", _number("load_ms", ".1f")),
    Column("first ms", _number("first_ms", ".1f")),
    Column("peak MB", _number("peak_mb", ".0f")),
    Column("rate/s", _rate, shown="known"),
    Column("p99 there", _number("open_p99_ms", ".2f"), shown="known"),
    Column("requests", _number("open_requests", "d"), shown="known"),
    _PARITY,
    _RATIO,
    Column("includes", lambda row: row.includes or "-", left=True, shown="varies"),
    _STATUS,
)


def _relative(field: Callable[[Row], float | None]) -> Callable[[Row, Row | None], str]:
    def cell(row: Row, best: Row | None) -> str:
        mine, theirs = field(row), None if best is None else field(best)
        return "-" if not mine or not theirs else f"{mine / theirs:.2f}"

    return cell


def _ready(row: Row) -> float | None:
    return None if row.load_ms is None or row.first_ms is None else row.load_ms + row.first_ms


# Each over the best peer's of the same case: a table without a time, which holds for more than one day.
_RELATIVE = {
    "p99": _relative(lambda row: row.p99_ms),
    "images/s": _relative(lambda row: row.images_per_s),
    "load + first": _relative(_ready),
    "peak memory": _relative(lambda row: row.peak_mb),
}
RATIO_COLUMNS = (*(column.name for column in _WHO), _RATIO.name, *_RELATIVE, _PARITY.name, _STATUS.name)


def table(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    return _text(TABLE, rows, environment, _plain, made(environment))


def markdown(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    return _text(TABLE, rows, environment, _markdown, made(environment))


def ratios(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    """Everything over the best peer's, no absolute time."""
    best = {_group(row): row for row in rows if row.label == row.best_peer}

    def over_best(cell: Callable[[Row, Row | None], str]) -> Cell:
        return lambda row: cell(row, best.get(_group(row)))

    relative = [Column(name, over_best(cell)) for name, cell in _RELATIVE.items()]
    return _text((*_WHO, _RATIO, *relative, _PARITY, _STATUS), rows, environment, _plain)


def comma_separated(rows: Sequence[Row]) -> str:
    """Every field of every row; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        medians = " ".join(f"{value:.6g}" for value in row.rounds_ms)
        writer.writerow({**printable_lines(asdict(row)), "rounds_ms": medians})
    return text.getvalue()


def _group(row: Row) -> Case:
    """What the rows of one group have in common."""
    return replace(row.case, peer="", launch="")


def _text(
    columns: Sequence[Column],
    rows: Sequence[Row],
    environment: dict[str, Any],
    layout: Callable[[Sequence[str], Sequence[Column], Sequence[Sequence[str]], Sequence[Row]], list[str]],
    head: Sequence[str] = (),
) -> str:
    chosen = [column for column in columns if _shown(column, rows)]
    cells = [[column.cell(row) for column in chosen] for row in rows]
    lines = layout([*head, *_preamble(rows, environment)], chosen, cells, rows)
    return "".join(f"{printable_line(line)}\n" for line in lines)


def _shown(column: Column, rows: Sequence[Row]) -> bool:
    values = {column.cell(row) for row in rows}
    if column.shown == "copied":  # else to compute is all there is, and its time is the call's
        return any(row.h2d_ms is not None for row in rows)
    if column.shown == "varies":
        return len(values - {"-"}) > 1
    return column.shown == "always" or values != {"-"}


def _plain(
    preamble: Sequence[str], columns: Sequence[Column], cells: Sequence[Sequence[str]], rows: Sequence[Row]
) -> list[str]:
    names = [column.name for column in columns]
    widths = [max(len(line[number]) for line in (names, *cells)) for number in range(len(columns))]
    widths[-1] = len(names[-1])  # a long status runs on

    def line(values: Sequence[str]) -> str:
        padded = (
            value.ljust(width) if column.left else value.rjust(width)
            for column, value, width in zip(columns, values, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    lines = [*preamble, "", line(names), line(["-" * width for width in widths])]
    for number, row in enumerate(rows):
        if number and _group(row) != _group(rows[number - 1]):
            lines.append("")
        lines.append(line(cells[number]))
    return lines


def _markdown(
    preamble: Sequence[str], columns: Sequence[Column], cells: Sequence[Sequence[str]], rows: Sequence[Row]
) -> list[str]:
    def line(values: Sequence[str]) -> str:
        return f"| {' | '.join(value.replace('|', chr(92) + '|') for value in values)} |"

    return [
        *(f"{text}  " for text in preamble),
        "",
        line([column.name for column in columns]),
        line([":--" if column.left else "--:" for column in columns]),
        *map(line, cells),
    ]


def made(environment: dict[str, Any]) -> list[str]:
    """A line on when and by which command, as far as the record says; the commit is among the versions."""
    said = [str(environment[name]) for name in ("date", "command") if environment.get(name)]
    return [": ".join(said)] if said else []


def machine(environment: dict[str, Any]) -> list[str]:
    """Lines on where figures come from, and whether they can be trusted."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    git = environment["git"]
    commit = f", commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else ""
    others = environment["other_processes_cores"]
    where = f"{environment['cpu'] or 'unknown CPU'}, {environment['cores']} cores"
    lines = [
        f"{where}, instruction set {environment['isa'] or 'unknown'}"
        + (f", {environment['gpu']}" if environment.get("gpu") else ""),
        f"{environment['os']}, python {environment['python']}, {versions}{commit}",
    ]
    if others is not None and others > BUSY_CORES:
        lines.append(f"UNRELIABLE: other processes used {others:.2f} cores during the run")
    return lines


def _preamble(rows: Sequence[Row], environment: dict[str, Any]) -> list[str]:
    lines = [
        *machine(environment),
        f"{_common(rows)}; time of one call: {_said(row.input for row in rows)} images in host memory to float32 "
        f"logits in host memory; of {_said(row.includes or 'nothing timed' for row in rows)}",
        "ratio: median of the rounds [lowest..highest]; below 1 is faster than the best peer; unstable: the rounds' "
        f"medians lie more than {UNSTABLE:.0%} apart",
    ]
    bounds = {row.open_bound_ms for row in rows if row.open_bound_ms is not None}
    if bounds:
        bound = ", ".join(f"{bound:g}" for bound in sorted(bounds))
        lines.append(
            f"rate: requests per second, Poisson arrivals, the highest confirmed with p99 of at most {bound} ms, by so "
            "many requests; >=: all rates that were tried hold it, up to that of calls without a pause"
        )
    return lines


def _common(rows: Sequence[Row]) -> str:
    """What is the same in all rows, of that which only a column that varies would tell."""
    parts = []
    for name, form in (
        ("dtype", "{}"),
        ("device", "on {}"),
        ("threads", "{} threads"),
        ("streams", "{} streams"),
    ):
        values = {getattr(row, name) for row in rows}
        if len(values) == 1 and (name, values) != ("streams", {1}):
            text = form.format(*values)
            parts.append(text.removesuffix("s") if values == {1} else text)
    return ", ".join(parts) or "several settings"


def _said(values: Any) -> str:
    found = list(dict.fromkeys(value for value in values if value != "nothing timed"))
    return ", or ".join(found) if found else "-"
