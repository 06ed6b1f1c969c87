"""What a run leaves behind: one row per case, where it was measured, and the two files that hold them.

The JSON document has ``format``, ``environment``, ``method``, ``rows``, ``profiles`` and ``status``. The JSON lines
are the same in the order in which it became known, rows after each group of cases, so that no finished group is lost:

    {"kind": "environment", "format": 2, "environment": ..., "method": ...}    once for each run
    {"kind": "row", ...}                                                      a Row
    {"kind": "profile", ...}                                                  as ``profiling`` makes it
    {"kind": "end", "status": ..., "other_processes_cores": ...}              of the run, if it came to that
"""

from __future__ import annotations

import builtins
import json
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inception_engine.bench.cases import Case, Workload
from inception_engine.files import append_line, write_atomically

FORMAT = 2  # of both files
OK = "ok"


class RecordsError(ValueError):
    """A file holds no records that this version reads; the message is the line for the user."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case. A figure is None where it is not known: all of them where the peer could not be run, those of time
    where it missed its parity bound or failed in the rounds. ``status`` says which. A peer that failed in the open
    loop, behind the rounds, has the figures of the rounds.

    ``parity``: max|d| / max|ref| of the logits against the float64 reference, over all streams. ``images_per_s``: of
    the turns as wholes, all streams together. ``rounds_ms``: the median of each round. ``spread_*``: the lowest and
    the highest of them over ``p50_ms``; ``unstable`` where they lie more than timing.UNSTABLE apart, or (``warm`` is
    false) the warm-up never came to agree. ``ratio``: the median over the rounds of this peer's median over that of
    ``best_peer``, the fastest peer by this ratio that is not our engine, in the same round, with its range. Below
    1 is faster.

    ``includes``: the parts that a timed call is made of. ``*_ms`` of parts: medians, each waited for by itself.
    ``import_ms``, ``load_ms``, ``first_ms``: packages, from a file to ready, the first call; medians of ``starts``
    fresh processes. ``peak_mb``: the most memory of the process until its first result, MB = 10^6 bytes.
    ``open_rate_per_s``: requests per second, the highest confirmed whose 99th percentile holds ``open_bound_ms``, 0
    where none that was tried does, None where it is not known; ``open_p99_ms`` there, of ``open_requests``.
    ``open_capped``: it is the highest that was tried, so a higher one might hold it, too.
    """

    peer: str
    variant: str
    device: str
    dtype: str
    batch: int
    threads: int
    streams: int = 1
    launch: str = ""
    input: str = "float32"
    status: str = OK
    parity: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    images_per_s: float | None = None
    samples: int | None = None
    rounds_ms: list[float] = field(default_factory=list)
    spread_min: float | None = None
    spread_max: float | None = None
    unstable: bool = False
    warm: bool = True
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    best_peer: str | None = None
    includes: str = ""
    preprocess_ms: float | None = None
    h2d_ms: float | None = None
    compute_ms: float | None = None
    d2h_ms: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    starts: int | None = None
    peak_mb: float | None = None
    open_bound_ms: float | None = None
    open_rate_per_s: float | None = None
    open_p99_ms: float | None = None
    open_requests: int | None = None
    open_capped: bool = False

    @classmethod
    def of(cls, case: Case, **values: Any) -> Row:
        workload = asdict(case.workload)
        own = {name: value for name, value in asdict(case).items() if name != "workload"}
        return cls(**workload, **own, **values)

    @property
    def case(self) -> Case:
        workload = Workload(self.variant, self.batch, self.dtype, self.input)
        return Case(self.peer, workload, self.threads, self.streams, self.device, self.launch)

    @property
    def label(self) -> str:
        return self.case.label


@dataclass
class Document:
    """Of one run. ``profiles``: documents of ``profiling``. ``status``: as ``Journal.end`` is told, None of a run that
    did not come to its end (and of files that do not say)."""

    environment: dict[str, Any]
    method: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    status: int | None = None

    def text(self) -> str:
        content = {
            "format": FORMAT,
            "environment": self.environment,
            "method": self.method,
            "rows": [asdict(row) for row in self.rows],
            "profiles": self.profiles,
            "status": self.status,
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


class Journal:
    """Where a run's results go while it goes on: ``json`` is written anew with each, ``lines`` grows. Raises
    OSError."""

    def __init__(self, document: Document, json_path: Path | None, lines_path: Path | None) -> None:
        self._document, self._json, self._lines = document, json_path, lines_path
        if lines_path is not None and lines_path.exists():
            content = lines_path.read_bytes()
            os.truncate(lines_path, content.rfind(b"\n") + 1)  # a line that was not written to its end
        self._line(
            kind="environment", format=FORMAT, environment=document.environment, method=document.method
        )

    def rows(self, rows: list[Row]) -> None:
        self._document.rows += rows
        for row in rows:
            self._line(kind="row", **asdict(row))
        self._whole()

    def profile(self, profile: dict[str, Any]) -> None:
        self._document.profiles.append(profile)
        self._line(kind="profile", **profile)
        self._whole()

    def end(self, status: int, others: float | None) -> None:
        """``status``: 0, or that with which the run was ended. A run that was ended before its first results leaves an
        older file as it is."""
        self._document.status = status
        self._document.environment["other_processes_cores"] = others
        self._line(kind="end", status=status, other_processes_cores=others)
        empty = not self._document.rows and not self._document.profiles
        if not (empty and self._json is not None and self._json.exists() and self._json.stat().st_size):
            self._whole()

    def _line(self, **record: Any) -> None:
        if self._lines is not None:
            append_line(self._lines, json.dumps(record, allow_nan=False))

    def _whole(self) -> None:
        if self._json is not None:
            write_atomically(self._json, [self._document.text().encode()])


def can_be_continued(path: Path) -> bool:
    """Whether lines may be added: to a file that is not there, is empty or begins with a run's environment."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        begin = file.readline()
    if not begin:
        return True
    try:
        record = json.loads(begin)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and (record.get("kind"), record.get("format")) == ("environment", FORMAT)


def lines(document: Document) -> Iterator[str]:
    """The document as JSON lines, without line ends."""
    begin = {"format": FORMAT, "environment": document.environment, "method": document.method}
    yield json.dumps({"kind": "environment", **begin}, allow_nan=False)
    for row in document.rows:
        yield json.dumps({"kind": "row", **asdict(row)}, allow_nan=False)
    for profile in document.profiles:
        yield json.dumps({"kind": "profile", **profile}, allow_nan=False)
    if document.status is not None:
        others = document.environment["other_processes_cores"]
        yield json.dumps(
            {"kind": "end", "status": document.status, "other_processes_cores": others}, allow_nan=False
        )


def read(path: Path) -> Document:
    """Either file; of JSON lines the last run. Raises RecordsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecordsError(f"{path}: holds no records of inception-bench") from None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or whole numbers or brackets beyond what Python reads
        whole = None
    try:
        if isinstance(whole, dict) and "rows" in whole:
            return _document(path, whole)
        return _lines(path, text)
    except (KeyError, TypeError, AttributeError):
        raise RecordsError(f"{path}: holds no records of inception-bench") from None


def _lines(path: Path, text: str) -> Document:
    document: Document | None = None
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if document is not None and number == len(lines) and not line.endswith("\n"):
                break  # a run that was killed while it wrote
            raise RecordsError(f"{path}, line {number}: not JSON") from None
        kind = record.pop("kind")
        if kind == "environment":
            document = _document(path, record)
        elif document is None:
            raise KeyError(kind)
        elif kind == "row":
            document.rows.append(_row(path, record))
        elif kind == "profile":
            document.profiles.append(record)
        elif kind == "end":
            document.environment["other_processes_cores"] = record["other_processes_cores"]
            document.status = record["status"]
            _check(path, "the run", {"status": document.status}, {"status": int | None})
            _check_environment(path, document.environment)
    if document is None:
        raise RecordsError(f"{path}: holds no records of inception-bench")
    return document


def _document(path: Path, content: dict[str, Any]) -> Document:
    found = content.get("format")
    if found != FORMAT:
        raise RecordsError(
            f"{path}: written by another version of inception-bench (format {found}; this one reads {FORMAT})"
        )
    environment, method = content["environment"], content["method"]
    _check_environment(path, environment)
    rows = [_row(path, row) for row in content.get("rows", [])]
    profiles = list(content.get("profiles", []))
    if not isinstance(method, dict) or not all(isinstance(profile, dict) for profile in profiles):
        raise TypeError
    status = content.get("status")
    _check(path, "the run", {"status": status}, {"status": int | None})
    return Document(environment, method, rows, profiles, status)


# What is read of an environment again, and what it may be; a record may say more.
_ENVIRONMENT = {
    "cpu": str | None,
    "cores": int,
    "isa": str | None,
    "other_processes_cores": float | None,
    "os": str,
    "python": str,
    "versions": dict[str, str],
}
_COMMIT = {"commit": str, "dirty": bool}
_NAMES = {str: "str", bool: "bool", int: "int", float: "float"}


def _check_environment(path: Path, environment: dict[str, Any]) -> None:
    """KeyError where something is missing, TypeError where there is no environment."""
    _check(path, "the environment", environment, _ENVIRONMENT)
    _check(path, "the environment", {"gpu": environment.get("gpu")}, {"gpu": str | None})
    if environment["git"] is not None:
        _check(path, "the environment's git", environment["git"], _COMMIT)


def _row(path: Path, values: dict[str, Any]) -> Row:
    if not isinstance(values, dict):
        raise TypeError
    known = typing.get_type_hints(Row)
    if unknown := set(values) - set(known):
        raise RecordsError(f"{path}: a row has the field {min(unknown)!r}, which this version does not know")
    _check(path, "a row", values, {name: known[name] for name in values})
    return Row(**values)


def _check(path: Path, owner: str, values: dict[str, Any], kinds: Mapping[str, Any]) -> None:
    if not isinstance(values, dict):
        raise TypeError
    for name, kind in kinds.items():
        if not _is(values[name], kind):
            raise RecordsError(f"{path}: {owner}'s {name} is no {_NAMES.get(kind, kind)}")


def _is(value: Any, kind: Any) -> bool:
    """``kind``: str (without halves of characters, which cannot be printed), bool, int, float (finite, or a whole
    number), a list or dict of them, one of several."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case types.UnionType:
            return any(_is(value, each) for each in arguments)
        case builtins.list:
            return isinstance(value, list) and all(_is(each, arguments[0]) for each in value)
        case builtins.dict:
            return isinstance(value, dict) and all(_is(each, arguments[1]) for each in value.values())
    if kind is types.NoneType:
        return value is None
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN is not, either
    if kind is str:
        return type(value) is str and not re.search("[\ud800-\udfff]", value)
    return type(value) is kind
