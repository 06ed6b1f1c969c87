"""The options of inception-bench, and what they may be."""

from __future__ import annotations

import argparse
import itertools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

from inception_engine.bench.cases import DEVICES, DTYPES, INPUTS, VARIANTS
from inception_engine.bench.peers import LAUNCHES, PEERS
from inception_engine.terminal import printable_line

FORMATS = ("table", "md", "csv", "json", "jsonl", "ratios")
LARGEST_COUNT = 1024  # of threads, rounds and images in a batch: beyond it is a slip of the keyboard
LARGEST_CALLS = 100_000_000
T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable_line(message)}\n")


def parser() -> Parser:
    found = Parser(
        prog="inception-bench",
        description="Times our engine beside other engines: the same seeded network, images and threads; parity first.",
        epilog="`inception-bench compare OLD NEW` compares two runs, `inception-bench show FILE` prints one again. "
        "Lists are swept: every combination is measured.",
        allow_abbrev=False,
    )
    _what(found.add_argument_group("what is run"))
    _how(found.add_argument_group("how it is measured"))
    _output(found.add_argument_group("output"))
    return found


def _what(group: argparse._ArgumentGroup) -> None:
    def add(name: str, kind: Callable[[str], object], default: str | None, text: str) -> None:
        group.add_argument(name, type=kind, default=default, help=f"{text} (%(default)s)", metavar="A,B")

    cores = len(os.sched_getaffinity(0))
    add(
        "--peers",
        _peers,
        ",".join(name for name in PEERS if not PEERS[name].slow),
        "who is run; all: also the slow",
    )
    add(
        "--variant",
        _list(_one_of(VARIANTS)),
        ",".join(VARIANTS),
        "lrn: the paper's network; plain: without LRN",
    )
    add("--batch", _list(count), "1,8", "images per call")
    add("--dtype", _list(_one_of(DTYPES)), "fp32", "of weights and activations")
    add("--device", _list(_one_of((*DEVICES, "auto"))), "cpu", "cpu, cuda, or auto: a GPU if there is one")
    add("--threads", _list(count), str(cores), "of every call")
    add("--streams", _list(count), "1", "callers at once, each with an instance and threads of its own")
    group.add_argument(
        "--launch",
        type=_list(_one_of(LAUNCHES)),
        help=f"how our engine gives a GPU its work: {', '.join(LAUNCHES)} (all; with --device cuda)",
        metavar="A,B",
    )
    group.add_argument(
        "--input",
        choices=INPUTS,
        default="float32",
        help="what a call takes: normalised images, or pixels, so that preprocessing is timed (%(default)s)",
    )


def _how(group: argparse._ArgumentGroup) -> None:
    def add(name: str, kind: Callable[[str], object], default: object, text: str, unit: str) -> None:
        shown = "" if default is None else " (%(default)s)"
        group.add_argument(name, type=kind, default=default, help=f"{text}{shown}", metavar=unit)

    add("--duration", seconds, 3.0, "seconds timed per row, shared out among the rounds", "S")
    add("--warmup", seconds, 0.5, "seconds before, per row; longer until three blocks agree", "S")
    add("--rounds", count, 5, "in which the peers take turns; one says nothing of stability", "N")
    add("--min-calls", calls, 3, "of a turn, whichever time they take", "N")
    add("--max-calls", calls, 1_000_000, "of a turn, whatever time is left", "N")
    add("--starts", count, 1, "fresh processes for load and first call", "N")
    add("--limit", positive, 300.0, "seconds for an answer of a peer, besides what it was asked to take", "S")
    add(
        "--open-loop",
        positive,
        None,
        "also search the highest rate of Poisson arrivals whose 99th percentile is at most this: 7 rates by 500 "
        "requests, and up to 12 by 2,000 to confirm it, or as many as come in 24 times --open-seconds, at least 200",
        "MS",
    )
    add("--open-seconds", positive, 5.0, "of arrivals at each rate", "S")


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", choices=FORMATS, default="table", help="of what is printed (%(default)s)")
    group.add_argument(
        "--json", type=Path, help="rows and environment, whole after every group", metavar="FILE"
    )
    group.add_argument("--jsonl", type=Path, help="add the rows to FILE after every group", metavar="FILE")
    group.add_argument(
        "--plots", type=Path, help="PNGs of the run into FOLDER (needs matplotlib)", metavar="FOLDER"
    )
    group.add_argument(
        "--profile",
        action="store_true",
        help="our engine alone, per layer and per task, beside the machine's measured peak",
    )
    group.add_argument(
        "--trace", type=Path, help="with --profile: the schedule, for Perfetto", metavar="FILE"
    )
    group.add_argument(
        "--self-test", action="store_true", help="check the percentiles on known latencies, and leave"
    )


def _peers(text: str) -> list[str]:
    return list(PEERS) if text == "all" else _list(_one_of(PEERS))(text)


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


def _whole(largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= largest):
            raise argparse.ArgumentTypeError(f"not a whole number from 1 to {largest}: {text!r}")
        return int(text)

    return parse


count = _whole(LARGEST_COUNT)
calls = _whole(LARGEST_CALLS)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"not a number of seconds up to a day: {text!r}")
    return value


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400_000:
        raise argparse.ArgumentTypeError(f"not a number above 0: {text!r}")
    return value


_NOT_OF_PROFILES = ("peers", "launch", "warmup", "rounds", "min_calls", "max_calls", "starts", "limit")


def _given(options: argparse.Namespace) -> list[str]:
    """Options that are not what they would be anyway."""
    usual = vars(parser().parse_args([]))
    return [name for name, value in vars(options).items() if value != usual[name]]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def impossible(options: argparse.Namespace) -> str | None:
    """What in the options cannot be had together, or None."""
    if options.min_calls > options.max_calls:
        return f"--min-calls {options.min_calls} is more than --max-calls {options.max_calls}"
    if options.launch and "cuda" not in options.device:
        return "--launch is of a GPU: with --device cuda"
    if options.launch and not any(set(PEERS[name].launches) & set(options.launch) for name in options.peers):
        return f"--launch {','.join(options.launch)}: none of the peers has it"
    given = _given(options)
    if options.self_test and (others := [name for name in given if name != "self_test"]):
        return f"--self-test measures nothing: not with {_option(others[0])}"
    if options.open_loop is None and "open_seconds" in given:
        return "--open-seconds goes with --open-loop"
    if options.trace and not options.profile:
        return "--trace goes with --profile"
    if options.profile and options.open_loop is not None:
        return "--profile runs our engine alone: not with --open-loop"
    if options.profile and (ignored := [name for name in given if name in _NOT_OF_PROFILES]):
        return f"--profile runs our engine alone, for --duration: not with {_option(ignored[0])}"
    if options.profile and options.input != "float32":
        return "--profile takes normalised images: not with --input uint8"
    if options.profile and options.streams != [1]:
        return "--profile runs one call at a time: not with --streams"
    if options.profile and options.format in ("csv", "ratios"):
        return f"--format {options.format} is of rows: a profile has none"
    outputs = {name: path for name in ("json", "jsonl", "trace", "plots") if (path := getattr(options, name))}
    for one, other in itertools.combinations(outputs, 2):
        if os.path.realpath(outputs[one]) == os.path.realpath(outputs[other]):
            return f"--{one} and --{other} name the same file"
    return None
