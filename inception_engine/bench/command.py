"""The command ``inception-bench``."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from inception_engine.bench import records, report
from inception_engine.bench.cases import DISTINCT_IMAGES, PARITY_BOUNDS, SEED, VARIANTS, Case
from inception_engine.bench.peers import ENGINE, PEERS, Peer, Run
from inception_engine.bench.records import OK, Row
from inception_engine.bench.timing import Clock, Samples, Schedule, measure, ratio, statistics
from inception_engine.files import write_atomically
from inception_engine.parity import error as parity

DTYPES = ("fp32", "fp16", "bf16")
DEVICES = ("cpu", "cuda", "auto")
FORMATS = ("table", "md", "csv", "json")
LARGEST_COUNT = 1024  # of threads, rounds and images in a batch: beyond it is a slip of the keyboard
FAILURES = ("failed", "parity failed")  # beginnings of the statuses that are faults, not circumstances
METHOD = {"includes": records.INCLUDES, "seed": SEED, "distinct_images": DISTINCT_IMAGES}
Progress = Callable[[str], None]
T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if a peer failed or missed its parity bound; 2 on a mistake in the options; 130 on Ctrl-C.

    A peer that is not installed or does not support the device or data type is a row that says so and no
    failure, unless no peer is left: then nothing was measured, and the status is 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.json is not None:  # now, not when the work is done
        if options.json.is_dir():
            parser.error(f"--json: {options.json} is a folder")
        if not os.access(options.json.parent, os.W_OK | os.X_OK):
            parser.error(f"--json: cannot write in {options.json.parent}")
    if importlib.util.find_spec("torch") is None:
        parser.error("torch is needed for the reference that parity is checked against: pip install torch")
    schedule = Schedule(warmup=options.warmup, duration=options.duration, rounds=options.rounds)
    device = "cpu" if options.device == "auto" else options.device  # no peer runs elsewhere yet
    peers = [PEERS[name] for name in options.peers]
    cases = [Case(variant, batch, options.dtype) for variant in options.variant for batch in options.batch]
    environment = records.environment(arguments, options.threads)

    others = records.OtherProcesses()
    rows: list[Row] = []
    interrupted = False
    with _progress_line() as show:
        try:
            for index, case in enumerate(cases, 1):
                progress = partial(
                    _show_case, show, f"[{index}/{len(cases)}] {case.variant}, batch {case.batch}"
                )
                rows += run_case(case, peers, options.threads, device, schedule, progress=progress)
        except KeyboardInterrupt:
            interrupted = True  # the finished cases are shown and kept

    environment["other_processes_cores"] = others.cores()
    method = {**asdict(schedule), **METHOD, "parity_bound": PARITY_BOUNDS.get(options.dtype)}
    document = records.document(rows, environment, method)
    formats: dict[str, Callable[[], str]] = {
        "table": lambda: report.table(rows, environment),
        "md": lambda: report.markdown(rows, environment),
        "csv": lambda: report.comma_separated(rows),
        "json": lambda: document,
    }
    unwritten = None
    if options.json is not None:
        try:
            write_atomically(options.json, [document.encode()])
        except OSError as error:
            unwritten = f"--json: {options.json}: {error.strerror}"
    sys.stdout.write(formats[options.format]())
    sys.stdout.flush()
    if unwritten is not None:
        parser.error(unwritten)
    if interrupted:
        return 130
    if any(row.status.startswith(FAILURES) for row in rows):
        return 1
    if all(row.status != OK for row in rows):
        parser.error(f"nothing was timed: {rows[0].peer}: {rows[0].status}")
    return 0


def run_case(
    case: Case,
    peers: Iterable[Peer],
    threads: int,
    device: str,
    schedule: Schedule,
    *,
    clock: Clock | None = None,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Prepares and checks the peers one after the other, then times together those that passed: a row for each."""
    progress("reference")
    images, expected = case.images(), case.expected()
    rows: dict[str, Row] = {}
    runs: dict[str, Run] = {}
    with contextlib.ExitStack() as stack:
        for peer in peers:
            progress(f"preparing and checking {peer.name}")
            row = Row(
                peer=peer.name,
                variant=case.variant,
                device=device,
                dtype=case.dtype,
                batch=case.batch,
                threads=threads,
            )
            obstacle = peer.obstacle(device, case.dtype)
            if obstacle is not None:
                rows[peer.name] = replace(row, status=obstacle)
                continue
            try:
                run = stack.enter_context(peer.prepare(case, threads))
                error = parity(run(images), expected)
            except Exception as exception:  # a peer's failure is a row, not the end of the run
                rows[peer.name] = replace(row, status=_failure(exception))
                continue
            bound = PARITY_BOUNDS[case.dtype]
            if error <= bound:
                runs[peer.name] = run
                rows[peer.name] = replace(row, parity=error)
            else:  # NaN, too
                status = f"parity failed: {error:.1e}, bound {bound:.0e}"
                rows[peer.name] = replace(row, status=status, parity=error if math.isfinite(error) else None)

        timed = measure(
            {name: partial(run, images) for name, run in runs.items()},
            schedule,
            clock=clock,
            progress=lambda name, turn: progress(
                f"{name}, round {turn} of {schedule.rounds}" if turn else f"{name}, warm-up"
            ),
        )
    return [_timed(row, timed) for row in rows.values()]


def _timed(row: Row, timed: Mapping[str, Samples]) -> Row:
    """The row with its figures, or with the failure that ended its timing."""
    samples = timed.get(row.peer)
    if samples is None:
        return row
    if samples.error is not None:
        return replace(row, status=_failure(samples.error))
    figures = statistics(samples)
    row = replace(
        row,
        p50_ms=figures.p50_ms,
        p90_ms=figures.p90_ms,
        p99_ms=figures.p99_ms,
        images_per_s=row.batch / figures.p50_ms * 1e3,
        samples=figures.samples,
        spread_min=figures.spread[0],
        spread_max=figures.spread[1],
    )
    others = {name: other for name, other in timed.items() if name != ENGINE and other.error is None}
    if not others:
        return row
    best = min(others, key=lambda name: statistics(others[name]).p50_ms)
    middle, lowest, highest = ratio(samples, others[best])
    return replace(row, ratio=middle, ratio_min=lowest, ratio_max=highest, best_peer=best)


def _failure(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"failed: {type(error).__name__}: {lines[0]}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="inception-bench",
        description="Times our engine beside other engines: the same seeded network, images and threads; parity first.",
        allow_abbrev=False,
    )
    peers, variants = ",".join(PEERS), ",".join(VARIANTS)
    parser.add_argument(
        "--batch", type=_list(_count), default="1,8", help="images per call (%(default)s)", metavar="A,B"
    )
    parser.add_argument(
        "--peers", type=_list(_one_of(PEERS)), default=peers, help="who is run (%(default)s)", metavar="A,B"
    )
    parser.add_argument(
        "--variant",
        type=_list(_one_of(VARIANTS)),
        default=variants,
        help="lrn: the paper's network; plain: without local response normalisation (%(default)s)",
        metavar="A,B",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="fp32", help="of weights and activations (%(default)s)"
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto is the CPU (%(default)s)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--threads", type=_count, default=cores, help="of every peer (%(default)s)", metavar="N"
    )
    parser.add_argument(
        "--duration", type=_seconds, default=3.0, help="seconds timed per row (%(default)s)", metavar="S"
    )
    parser.add_argument(
        "--warmup", type=_seconds, default=0.5, help="seconds before, per row (%(default)s)", metavar="S"
    )
    parser.add_argument(
        "--rounds", type=_count, default=5, help="that share the duration (%(default)s)", metavar="N"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="of what is printed (%(default)s)")
    parser.add_argument("--json", type=Path, help="write rows and environment to FILE", metavar="FILE")
    return parser


def _list(item: Callable[[str], T]) -> Callable[[str], list[T]]:
    def parse(text: str) -> list[T]:
        return list(dict.fromkeys(item(part.strip()) for part in text.split(",")))

    return parse


def _one_of(names: Iterable[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"unknown: {text!r} (choose from {', '.join(names)})")
        return text

    return parse


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LARGEST_COUNT):
        raise argparse.ArgumentTypeError(f"not a whole number from 1 to {LARGEST_COUNT}: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return value


@contextlib.contextmanager
def _progress_line() -> Iterator[Progress]:
    """A line on stderr that each call overwrites; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return

    def show(text: str) -> None:
        columns = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r\x1b[K{text[: columns - 1]}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        show("")


def _show_case(show: Progress, case: str, text: str) -> None:
    show(f"{case}: {text}")
