"""``inception-bench compare OLD NEW``: two runs, case by case, and whether the new one is worse than it may be.

    inception-bench compare main.json branch.json --fail-if p50:5% --fail-if images_per_s:5%

Times of two runs can be compared where machine and load were the same; the output says where the machines differ.
``ratio`` is to the best peer of the same run, which is the better measure between runs. A case that was timed in the
old run, and failed in the new one or is gone from it, is worse by any measure; and a figure that the new run no longer
has is worse than any limit allows. So is a ratio over another peer, or a rate at another bound: they are not compared.
The output says, too, where method, load or an early end of a run make the figures unlike.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inception_engine.bench import records
from inception_engine.bench.cases import Case
from inception_engine.bench.options import Parser
from inception_engine.bench.records import OK, Document, RecordsError, Row
from inception_engine.bench.report import BUSY_CORES
from inception_engine.terminal import printable_line


@dataclass(frozen=True)
class Measure:
    """``field`` of a Row; ``higher_is_worse``."""

    field: str
    higher_is_worse: bool = True


MEASURES = {
    "p50": Measure("p50_ms"),
    "p90": Measure("p90_ms"),
    "p95": Measure("p95_ms"),
    "p99": Measure("p99_ms"),
    "p99.9": Measure("p999_ms"),
    "images_per_s": Measure("images_per_s", higher_is_worse=False),
    "ratio": Measure("ratio"),
    "load": Measure("load_ms"),
    "first": Measure("first_ms"),
    "peak": Measure("peak_mb"),
    "open_rate": Measure("open_rate_per_s", higher_is_worse=False),
    "parity": Measure("parity"),
}
_SAME_MACHINE = ("cpu", "cores", "isa", "governor", "gpu", "os", "python")
_SAME_METHOD = ("open_loop", "starts", "seed", "distinct_images")  # and all of the schedule
ROUNDING = 1e-9  # 1.05 over 1 is a little more than 5 %


@dataclass(frozen=True)
class Limit:
    """A case fails where ``measure`` is worse by more than ``share`` of the old value."""

    measure: str
    share: float


@dataclass(frozen=True)
class Change:
    """One case by one measure. ``worse``: (new - old) / old, its sign so that above 0 is worse; None where not
    comparable.

    ``verdict``: "", "FAIL", or why it is no number, behind "FAIL: " where that is a failure.
    """

    case: Case
    measure: str
    old: float | None
    new: float | None
    worse: float | None
    verdict: str
    unstable: bool

    @property
    def failed(self) -> bool:
        return self.verdict.startswith("FAIL")


def changes(old: Document, new: Document, limits: Sequence[Limit]) -> list[Change]:
    """Of all cases that both have, for each limit's measure (p50 where there is none)."""
    before = {row.case: row for row in old.rows}
    shares: dict[str, float | None] = {limit.measure: limit.share for limit in limits}
    return [
        _change(row.case, before[row.case], row, measure, shares.get(measure))
        for row in new.rows
        if row.case in before
        for measure in (shares or ("p50",))
    ]


def gone(old: Document, new: Document) -> list[Row]:
    """Rows of the old run whose cases the new one has not."""
    cases = {row.case for row in new.rows}
    return [row for row in old.rows if row.case not in cases]


def _change(case: Case, old: Row, new: Row, name: str, share: float | None) -> Change:
    measure = MEASURES[name]
    before, after = getattr(old, measure.field), getattr(new, measure.field)
    unstable = old.unstable or new.unstable
    if old.status == OK and new.status != OK:
        verdict = f"{'FAIL' if share is not None else 'lost'}: {new.status}"
        return Change(case, name, before, None, None, verdict, unstable)
    if share is not None and before is not None and after is None:
        return Change(case, name, before, None, None, "FAIL: not known in the new run", unstable)
    if before is None or after is None:
        missing = "in both" if before is after else "in the old run" if before is None else "in the new run"
        return Change(case, name, before, after, None, f"not known {missing}", unstable)
    if unlike := _unlike(old, new, name):
        verdict = f"{'FAIL: ' * (share is not None)}not comparable: {unlike}"
        return Change(case, name, before, after, None, verdict, unstable)
    if before:
        worse = (after - before) / before * (1 if measure.higher_is_worse else -1)
    else:
        worse = math.inf if (after > 0) == measure.higher_is_worse and after else 0.0
    failed = share is not None and not worse <= share + ROUNDING  # NaN, too
    return Change(case, name, before, after, worse, "FAIL" if failed else "", unstable)


def _unlike(old: Row, new: Row, name: str) -> str:
    """Why two figures are not of the same thing; empty where they are."""
    if name == "ratio" and old.best_peer != new.best_peer:
        return f"over {old.best_peer} and over {new.best_peer}"
    if name == "open_rate" and old.open_bound_ms != new.open_bound_ms:
        return f"at {old.open_bound_ms} and at {new.open_bound_ms} ms"
    return ""


def render(old: Document, new: Document, found: Sequence[Change], limited: bool) -> str:
    """What differs between the machines, a line for each change, and what only one run has. ``limited``: what is gone
    fails."""
    before, after = _where(old), _where(new)
    lines = [
        f"the runs differ in {name}: {before.get(name)} and {after.get(name)}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]
    for which, document in (("old", old), ("new", new)):
        others = document.environment["other_processes_cores"]
        if others is not None and others > BUSY_CORES:
            lines.append(f"the {which} run is UNRELIABLE: other processes used {others:.2f} cores during it")
        if document.status:
            lines.append(f"the {which} run was cut off (status {document.status})")
    wide = max((len(_name(change.case)) for change in found), default=0)
    for change in found:
        text = "-" if change.worse is None else f"{change.worse:+.1%}"
        values = f"{_value(change.old):>10} -> {_value(change.new):>10}"
        notes = ", ".join(filter(None, (change.verdict, "unstable" if change.unstable else "")))
        lines.append(
            f"{_name(change.case):<{wide}}  {change.measure:<12}{values}  {text:>8}  {notes}".rstrip()
        )
    lines += [
        f"{'FAIL: ' * (limited and row.status == OK)}only in the old run: {_name(row.case)}"
        for row in gone(old, new)
    ]
    lines += [f"only in the new run: {_name(row.case)}" for row in gone(new, old)]
    return "".join(f"{printable_line(line)}\n" for line in lines)


def _where(document: Document) -> dict[str, object]:
    """What should be the same in two runs: the machine, each package's version, and the method."""
    environment, method = document.environment, document.method
    memory, schedule = environment.get("memory_bytes"), method.get("schedule")
    return {
        **{name: environment.get(name) for name in _SAME_MACHINE},
        "memory": f"{memory / 1e9:.1f} GB" if isinstance(memory, int) else None,
        **environment["versions"],
        **{f"method, {name}": method.get(name) for name in _SAME_METHOD},
        **{
            f"method, {name}": value
            for name, value in (schedule if isinstance(schedule, dict) else {}).items()
        },
    }


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _name(case: Case) -> str:
    workload = case.workload
    more = f" x {case.streams}" if case.streams > 1 else ""
    pixels = " uint8" if workload.input == "uint8" else ""
    what = f"{workload.variant} {workload.dtype} batch {workload.batch}{pixels}"
    return f"{what}, {case.label} on {case.device}, threads {case.threads}{more}"


def main(arguments: Sequence[str]) -> int:
    """Returns 1 where a limit is passed, or a limited figure or a timed case is gone; 2 (by SystemExit) for a mistake,
    which a limit that can be held against nothing is; else 0."""
    parser = Parser(
        prog="inception-bench compare",
        description="Compares two files of inception-bench (--json or --jsonl), case by case. Above 0 is worse.",
        allow_abbrev=False,
    )
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument(
        "--fail-if",
        type=_limits,
        action="extend",
        default=[],
        help=f"exit status 1 if a case is worse by more: p50:5%%,images_per_s:10%% ({', '.join(MEASURES)})",
        metavar="MEASURE:PERCENT",
    )
    options = parser.parse_args(arguments)
    limited = [limit.measure for limit in options.fail_if]
    if twice := [name for name in MEASURES if limited.count(name) > 1]:
        parser.error(f"--fail-if: two limits for {twice[0]}")
    try:
        old, new = records.read(options.old), records.read(options.new)
    except RecordsError as error:
        parser.error(str(error))
    found = changes(old, new, options.fail_if)
    if not found:
        parser.error(f"{options.old} and {options.new} have no case in common")
    lost = any(row.status == OK for row in gone(old, new))
    for name in limited:
        of_it = [change for change in found if change.measure == name]
        if not lost and all(change.worse is None and not change.failed for change in of_it):
            parser.error(f"--fail-if {name}: there is no case in which both runs know it")
    sys.stdout.write(render(old, new, found, bool(limited)))
    return int(any(change.failed for change in found) or (bool(limited) and lost))


def _limits(text: str) -> list[Limit]:
    limits = []
    for part in text.split(","):
        matched = re.fullmatch(r"\s*([\w.]+):(\d+(?:\.\d+)?)%\s*", part, re.ASCII)
        if matched is None:
            raise argparse.ArgumentTypeError(f"{part!r} is not MEASURE:PERCENT, as p50:5%")
        if matched[1] not in MEASURES:
            raise argparse.ArgumentTypeError(
                f"unknown measure {matched[1]!r} (choose from {', '.join(MEASURES)})"
            )
        limits.append(Limit(matched[1], float(matched[2]) / 100))
    return limits
