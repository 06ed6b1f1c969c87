"""What was measured of one case as its row."""

from __future__ import annotations

import re
import statistics as middle
from collections.abc import Mapping, Sequence
from dataclasses import replace

from inception_engine.bench.arrivals import Held, OpenLoop
from inception_engine.bench.peers import PEERS
from inception_engine.bench.process import Ready
from inception_engine.bench.records import Row
from inception_engine.bench.timing import Samples, ratio, round_medians, statistics


def status_of(error: Exception) -> str:
    """A failure as the status of a row; what is only not here, or not to be had, is not called a failure."""
    text = (str(error).splitlines() or [""])[0]
    # A worker says its exceptions' types in front.
    absent = re.match(r"(?:\w+: )?(not (?:here|supported): .*)", text)
    return absent[1] if absent else f"failed: {text}"


def begun(row: Row, begins: Sequence[Ready], peak: int | None) -> Row:
    return replace(
        row,
        import_ms=middle.median(begin.import_ns for begin in begins) / 1e6,
        load_ms=middle.median(begin.load_ns for begin in begins) / 1e6,
        first_ms=middle.median(begin.first_ns for begin in begins) / 1e6,
        starts=len(begins),
        peak_mb=None if peak is None else peak / 1e6,
    )


def timed_row(
    row: Row,
    timed: Mapping[str, Samples],
    parts: Mapping[str, float],
    held: Held | None,
    loop: OpenLoop | None,
) -> Row:
    """The row with its figures, or with the failure that ended its timing."""
    samples = timed[row.label]
    if samples.error is not None:
        return replace(row, status=status_of(samples.error))
    figures = statistics(samples)
    row = replace(
        row,
        p50_ms=figures.p50_ms,
        p90_ms=figures.p90_ms,
        p95_ms=figures.p95_ms,
        p99_ms=figures.p99_ms,
        p999_ms=figures.p999_ms,
        images_per_s=None if figures.calls_per_s is None else row.batch * figures.calls_per_s,
        samples=figures.samples,
        rounds_ms=round_medians(samples),
        spread_min=figures.spread[0],
        spread_max=figures.spread[1],
        unstable=figures.unstable or not samples.warm,
        warm=samples.warm,
        includes=_includes(row, parts),
        preprocess_ms=parts.get("preprocess"),
        h2d_ms=parts.get("h2d"),
        compute_ms=parts.get("compute"),
        d2h_ms=parts.get("d2h"),
    )
    if held is not None and loop is not None:
        row = replace(
            row,
            status=row.status if held.error is None else status_of(held.error),
            open_bound_ms=loop.bound_ms,
            open_rate_per_s=held.rate,
            open_p99_ms=held.p99_ms,
            open_requests=None if held.rate is None else held.requests,
            open_capped=held.capped,
        )
    peers = {name: other for name, other in timed.items() if not _ours(name) and other.error is None}
    if not peers:
        return row
    best = best_of(peers)
    median, lowest, highest = ratio(samples, peers[best])
    return replace(row, ratio=median, ratio_min=lowest, ratio_max=highest, best_peer=best)


def best_of(peers: Mapping[str, Samples]) -> str:
    """Whom no other was faster than, by the ratio that is printed: of all times together another may have the lower
    median. Where there is no such peer, as of three that beat each other in turn, whom the others were least below."""

    def rank(name: str) -> tuple[float, float]:
        ratios = [ratio(other, peers[name])[0] for other in peers.values() if other is not peers[name]]
        return -min(1.0, *ratios) if ratios else -1.0, statistics(peers[name]).p50_ms

    return min(peers, key=rank)


def _ours(label: str) -> bool:
    return PEERS[label.partition("/")[0]].ours


def _includes(row: Row, parts: Mapping[str, float]) -> str:
    """What a timed call is made of."""
    copies = "h2d" in parts
    compute = ["h2d", "compute", "d2h"] if copies else ["compute"]
    notes = []
    if row.device == "cuda" and not copies:
        notes.append("copies inside")
    if row.input == "uint8":
        if _ours(row.label) and not copies:
            notes.append("preprocessing inside")
        else:
            compute.insert(0, "preprocess")
    return " + ".join(compute) + (f" ({', '.join(notes)})" if notes else "")
