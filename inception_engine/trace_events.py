"""The Trace Event Format, which Perfetto and chrome://tracing show: tracks of processes, with pieces of time on
them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping

from inception_engine.files import write_atomically

Event = Mapping[str, object]


def save(events: Iterable[Event], path: str | os.PathLike[str]) -> None:
    """Write the events, one on a line. Raises OSError."""
    write_atomically(path, (line.encode() for line in _lines(events)))


def _lines(events: Iterable[Event]) -> Iterator[str]:
    yield '{"displayTimeUnit": "ns", "traceEvents": ['
    separator = "\n"
    for event in events:
        yield separator + json.dumps(event)
        separator = ",\n"
    yield "\n]}\n"


def named_process(process: int, name: str) -> Event:
    return {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}


def named_track(process: int, track: int, name: str) -> Event:
    return {"ph": "M", "name": "thread_name", "pid": process, "tid": track, "args": {"name": name}}


def piece(
    name: str,
    kind: str,
    process: int,
    track: int,
    begin: float,
    end: float,
    more: Mapping[str, object] | None = None,
) -> Event:
    """From ``begin`` to ``end``, in seconds; ``more`` is shown when it is clicked on."""
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": process,
        "tid": track,
        "ts": float(begin) * 1e6,
        "dur": float(end - begin) * 1e6,
        "args": dict(more or {}),
    }
