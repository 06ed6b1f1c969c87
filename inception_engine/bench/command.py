"""The command ``inception-bench``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from inception_engine.bench import compare, environment, records, report, selftest
from inception_engine.bench.arrivals import OpenLoop
from inception_engine.bench.artefacts import Artefacts
from inception_engine.bench.cases import DISTINCT_IMAGES, PARITY_BOUNDS, SEED, Case, Workload
from inception_engine.bench.options import Parser, impossible, parser
from inception_engine.bench.peers import LAUNCHES, gpus
from inception_engine.bench.records import OK, Document, Journal, RecordsError
from inception_engine.bench.suite import Method, Suite, groups
from inception_engine.bench.timing import Schedule
from inception_engine.bench.worker import one_line
from inception_engine.compiler.errors import CompileError
from inception_engine.errors import EngineError
from inception_engine.files import check_target
from inception_engine.terminal import printable_line

FAILURES = ("failed", "parity failed")  # beginnings of the statuses that are faults, not circumstances


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if a peer failed or missed its parity bound, or ``compare`` found what is to fail; 2 on a mistake
    in the options; 130 on Ctrl-C, 143 on SIGTERM, 129 on SIGHUP: what is finished is then printed and kept, and peers
    are ended.

    A peer that is not installed, is not for this machine or does not support the device or data type is a row that says
    so and no failure, unless no peer is left: then nothing was measured, and the status is 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["compare"]:
        return compare.main(arguments[1:])
    if arguments[:1] == ["show"]:
        return _show(arguments[1:])
    options_parser = parser()
    options = options_parser.parse_args(arguments)
    options.device = list(dict.fromkeys(_device(device) for device in options.device))
    mistake = impossible(options) or _unwritable(options)
    if mistake is not None:
        options_parser.error(mistake)
    try:
        with _terminable():
            return selftest.main() if options.self_test else _measured(options, arguments, options_parser)
    except KeyboardInterrupt as stop:  # outside of the measurements, where it is kept what was finished
        return _interrupted(stop)


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP of a terminal that was closed, which end a run as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _interrupted(stop: KeyboardInterrupt) -> int:
    """Says so. Returns the exit status."""
    number = stop.number if isinstance(stop, Terminated) else signal.SIGINT
    _say(sys.stderr, f"inception-bench: cut off by {signal.Signals(number).name}\n", is_cut=True)
    return 128 + number


def _say(stream: TextIO, text: str, *, is_cut: bool) -> None:
    """Of a run that was cut off the terminal may be gone, and the rest is to be done all the same."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        if not is_cut:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what Python flushes at the end


@contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise Terminated and SIGINT KeyboardInterrupt, one of them and once: a second would
    only disturb the cleaning up, and what is finished would be lost."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    # A shell's background job is not to be interrupted, and one behind nohup outlives its terminal.
    before = {
        number: handler
        for number, handler in before.items()
        if number == signal.SIGTERM or handler is not signal.SIG_IGN
    }

    def stop(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measured(options: argparse.Namespace, arguments: Sequence[str], options_parser: Parser) -> int:
    if importlib.util.find_spec("torch") is None:
        options_parser.error(
            "torch is needed for the reference that parity is checked against: pip install torch"
        )
    return _run(options, arguments, options_parser)


def _device(name: str) -> str:
    return ("cuda" if gpus() else "cpu") if name == "auto" else name


def _unwritable(options: argparse.Namespace) -> str | None:
    """What cannot be written, now and not when the work is done."""
    outputs = {"json": [options.json], "jsonl": [options.jsonl], "trace": _traces(options)}
    for name, path in ((name, path) for name, paths in outputs.items() for path in paths if path is not None):
        try:
            check_target(path)
            if path.exists() and not os.access(path, os.W_OK):
                return f"--{name}: {path} is not writable"
            if name == "jsonl" and not records.can_be_continued(path):
                return f"--jsonl: {path} holds no records of this version to add to; give another file"
        except OSError as error:
            return f"--{name}: {error.filename}: {error.strerror}"
    return _unplottable(options)


def _unplottable(options: argparse.Namespace) -> str | None:
    if options.plots is not None:
        if importlib.util.find_spec("matplotlib") is None:
            return "--plots: matplotlib is not installed: pip install 'inception-engine[bench]'"
        if options.plots.exists() and not options.plots.is_dir():
            return f"--plots: {options.plots} is not a folder"
        if not os.access(
            options.plots if options.plots.exists() else options.plots.parent, os.W_OK | os.X_OK
        ):
            return f"--plots: cannot write in {options.plots}"
    return None


def _method(options: argparse.Namespace) -> Method:
    schedule = Schedule(
        warmup=options.warmup,
        duration=options.duration,
        rounds=options.rounds,
        turn_iterations=options.min_calls,
        most_iterations=options.max_calls,
    )
    loop = None if options.open_loop is None else OpenLoop(options.open_loop, options.open_seconds)
    return Method(schedule, loop, options.starts, options.limit)


def _workloads(options: argparse.Namespace) -> list[Workload]:
    return [
        Workload(variant, batch, dtype, options.input)
        for variant in options.variant
        for dtype in options.dtype
        for batch in options.batch
    ]


def _run(options: argparse.Namespace, arguments: Sequence[str], options_parser: Parser) -> int:
    method = _method(options)
    said = {
        **asdict(method),
        "seed": SEED,
        "distinct_images": DISTINCT_IMAGES,
        "parity_bounds": {dtype: PARITY_BOUNDS[dtype] for dtype in options.dtype},
    }
    document = Document(environment.environment(arguments), said)
    wanted = groups(
        _workloads(options),
        options.peers,
        options.device,
        options.threads,
        options.streams,
        options.launch or LAUNCHES,
    )
    unwritten: OSError | None = None
    refused: Exception | None = None
    status = 0
    with tempfile.TemporaryDirectory(prefix="inception-bench-") as folder:
        suite = Suite(Artefacts(Path(folder)), method)
        others = environment.OtherProcesses(suite.cpu_ns)
        try:
            journal = Journal(document, options.json, options.jsonl)
            if options.profile:
                _profile(options, journal, Path(folder))
            else:
                _measure(suite, wanted, journal)
        except KeyboardInterrupt as stop:  # the finished groups are shown and kept
            status = _interrupted(stop)
        except OSError as error:
            unwritten = error
        except (CompileError, EngineError) as error:  # of a profile, or the reference; a peer's own are rows
            refused, status = error, 2
        try:
            if unwritten is None:
                journal.end(status, others.cores())
        except OSError as error:
            unwritten = error
    document.environment["other_processes_cores"] = others.cores()
    if refused is None or document.profiles or document.rows:
        _say(sys.stdout, _text(document, options.format), is_cut=status > 128)
    if unwritten is not None:
        options_parser.error(f"{unwritten.filename or 'cannot write'}: {unwritten.strerror}")
    if refused is not None:
        options_parser.error(str(refused))
    if options.plots is not None and status == 0:
        _draw(document, options.plots, options_parser)
    return status or _status(document, options_parser)


def _measure(suite: Suite, wanted: Sequence[Sequence[Case]], journal: Journal) -> None:
    with _progress(sum(suite.steps(group) for group in wanted)) as (show, advance):
        for number, group in enumerate(wanted, 1):
            workload = group[0].workload
            head = f"[{number}/{len(wanted)}] {workload.variant}, batch {workload.batch}"
            suite.progress = partial(_step, show, head)
            suite.run(group, journal.rows)
            advance(sum(suite.steps(group) for group in wanted[:number]))


def _step(show: Callable[[str], None], head: str, text: str) -> None:
    show(f"{head}: {text}")


def _combinations(options: argparse.Namespace) -> list[tuple[Workload, str, int]]:
    """Of which profiles are made: a workload, on a device, with so many threads."""
    return [
        (workload, device, threads)
        for workload in _workloads(options)
        for device in options.device
        for threads in options.threads
    ]


def _traces(options: argparse.Namespace) -> list[Path]:
    """A file for each profile; none without --trace."""
    trace, combinations = options.trace, _combinations(options)
    if trace is None or len(combinations) == 1 or not trace.name:  # such as ".", which is no file
        return [] if trace is None else [trace]
    return [
        trace.with_name(
            f"{trace.stem}-{workload.variant}-{workload.dtype}-{device}-{threads}-{workload.batch}{trace.suffix}"
        )
        for workload, device, threads in combinations
    ]


def _profile(options: argparse.Namespace, journal: Journal, folder: Path) -> None:
    from inception_engine.bench import profiling

    combinations, traces = _combinations(options), _traces(options)
    with _progress(len(combinations)) as (show, advance):
        for number, (workload, device, threads) in enumerate(combinations, 1):
            show(f"{workload.variant}, batch {workload.batch}, {workload.dtype} on {device}")
            trace = None if options.trace is None else traces[number - 1]
            found, save = profiling.profile(workload, device, threads, folder, options.duration)
            journal.profile(found)
            if trace is not None:
                save(trace)
            advance(number)


def _status(document: Document, options_parser: Parser) -> int:
    rows = document.rows
    if any(row.status.startswith(FAILURES) for row in rows):
        return 1
    if rows and all(row.status != OK for row in rows):
        options_parser.error(f"nothing was timed: {rows[0].label}: {rows[0].status}")
    return 0


def _text(document: Document, form: str) -> str:
    if form == "json":
        return document.text()
    if form == "jsonl":
        return "".join(f"{line}\n" for line in records.lines(document))
    text = ""
    if document.status and form != "csv":
        if not document.rows and not document.profiles:
            return text
        text = f"CUT OFF: the run ended with status {document.status}, and some rows may be missing\n"
        text += "\n" * (form == "md")
    if document.rows or not document.profiles:
        formats: dict[str, Callable[[Any, Any], str]] = {
            "table": report.table,
            "md": report.markdown,
            "ratios": report.ratios,
            "csv": lambda rows, _: report.comma_separated(rows),
        }
        text += formats[form](document.rows, document.environment)
    if document.profiles and form != "csv":
        from inception_engine.bench import profiling

        where = document.environment
        head = [] if document.rows else [*report.made(where), *report.machine(where)]
        fence = "```\n" if form == "md" else ""
        lines = [printable_line(line) + "  " * (form == "md") for line in head]
        profiles = [f"{fence}{profiling.render(each)}{fence}" for each in document.profiles]
        text += "\n".join([*lines, *[""] * bool(lines), *profiles])
    return text


def _show(arguments: Sequence[str]) -> int:
    """``inception-bench show``: a file of records, printed or drawn again."""
    from inception_engine.bench.options import FORMATS

    options_parser = Parser(prog="inception-bench show", description="Prints a file of records again.")
    options_parser.add_argument("file", type=Path, metavar="FILE", help="of --json or --jsonl")
    options_parser.add_argument("--format", choices=FORMATS, default="table", help="(%(default)s)")
    options_parser.add_argument("--plots", type=Path, metavar="FOLDER", help="PNGs of it into FOLDER")
    options = options_parser.parse_args(arguments)
    mistake = _unplottable(options)
    if mistake is not None:
        options_parser.error(mistake)
    try:
        document = records.read(options.file)
    except RecordsError as error:
        options_parser.error(str(error))
    if options.format == "csv" and document.profiles and not document.rows:
        options_parser.error(f"{options.file} holds profiles, and no rows for --format csv")
    try:
        text = _text(document, options.format)
        text.encode()
        sys.stdout.write(text)
        if options.plots is not None:
            _draw(document, options.plots, options_parser)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        options_parser.error(f"{options.file}: damaged records: {one_line(error)}")
    return 0


def _draw(document: Document, folder: Path, options_parser: Parser) -> None:
    from inception_engine.bench import plots

    try:
        plots.write(document, folder)
    except OSError as error:
        options_parser.error(f"--plots: {error.filename or folder}: {error.strerror or error}")


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """A bar on stderr, where that is a terminal: ``show`` is a step with its name, ``advance`` sets how many are
    done."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        disable=None if sys.stderr.isatty() else True,
        leave=False,
        bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining} {desc}",
    ) as bar:

        def show(text: str) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update(min(1, total - bar.n))

        def advance(done: int) -> None:
            bar.update(done - bar.n)

        yield show, advance
