"""Attacks on the engine and its doors; tools/hardening runs this. Short by default; --night is long."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.hardening import commands, corpus, damage, importers

_SHORT = {"loader": 100_000, "run": 10_000}
_NIGHT = {"loader": 10_000_000, "run": 1_000_000}


def _fuzz(target: str) -> Callable[[argparse.Namespace], object]:
    def run(arguments: argparse.Namespace) -> object:
        executions = arguments.executions or (_NIGHT if arguments.night else _SHORT)[target]
        return commands.fuzz(
            target, executions, quick=not arguments.night, seed=arguments.seed, seconds=arguments.seconds
        )

    return run


def _damage(arguments: argparse.Namespace) -> None:
    tiny = corpus.tiny()
    for mode in ("prefixes", "flips"):
        commands.damage("loader", mode, tiny)
        commands.damage("run", mode, tiny)
    found = Counter(damage.judge_flip(tiny, bit) for bit in range(8 * len(tiny)))
    print(f"tiny plan, judged: {dict(sorted(found.items()))}", flush=True)
    flips = 10_000 if arguments.night else 100
    print(f"GoogLeNet: {damage.googlenet(flips, arguments.seed)}")


def _faults(arguments: argparse.Namespace) -> None:
    plans = [corpus.compiled(4, dtype) for dtype in ("fp32", "bf16")] if arguments.night else [corpus.tiny()]
    for plan in plans:
        for mode in ("memory", "files"):
            commands.c_program("faults", mode, plan=plan)


def _threads(arguments: argparse.Namespace) -> None:
    count, inferences = (64, 100_000) if arguments.night else (8, 2_000)
    for dtype in ("fp32", "bf16"):
        commands.threads(count, inferences, corpus.compiled(2, dtype), quick=not arguments.night)


def _soak(arguments: argparse.Namespace) -> None:
    plan = corpus.compiled(1)
    cycles, seconds, threads = (10_000, arguments.seconds or 1800, 64) if arguments.night else (300, 6, 8)
    commands.check_soak(commands.c_program("soak", "cycles", cycles, plan=plan))
    commands.check_soak(commands.c_program("soak", "run", seconds, threads, arguments.pause, plan=plan))


def _importers(arguments: argparse.Namespace) -> None:
    executions = arguments.executions or (100_000 if arguments.night else 300)
    guided = arguments.night and importlib.util.find_spec("atheris") is not None
    for kind in importers.KINDS:
        print(f"{kind}: {importers.fuzz(kind, executions, arguments.seed, guided=guided)}", flush=True)


def _coverage(arguments: argparse.Namespace) -> None:
    commands.coverage(arguments.executions or (100_000 if arguments.night else 5_000))


def _corpus(arguments: argparse.Namespace) -> None:
    if arguments.take:
        corpus.add_found(Path(arguments.take))
    else:
        corpus.renew()
    print(f"{len(corpus.stored())} files, {corpus.CORPUS.stat().st_size} bytes")


COMMANDS: Mapping[str, tuple[Callable[[argparse.Namespace], object], str]] = {
    "loader": (_fuzz("loader"), "fuzzes the plan loader"),
    "run": (_fuzz("run"), "fuzzes loading and running, under right hashes"),
    "damage": (_damage, "cuts a plan everywhere, and flips its bits"),
    "extremes": (
        lambda a: commands.load_extremes(quick=not a.night),
        "plans that ask for much of the loader",
    ),
    "faults": (_faults, "memory, threads and files that fail at the n-th call, for every n"),
    "threads": (_threads, "shared engines and private contexts under ThreadSanitizer"),
    "soak": (_soak, "loads, runs and frees for long: nothing grows, no result changes"),
    "importers": (_importers, "fuzzes importing of weights and decoding of images"),
    "coverage": (_coverage, "the share of the loader's lines that fuzzing runs"),
    "corpus": (_corpus, "writes the corpus anew; --take adds what a fuzzer's folder holds"),
}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/hardening", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, what) in COMMANDS.items():
        command = subparsers.add_parser(name, help=what, description=what)
        command.add_argument("--night", action="store_true", help="the long settings")
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--executions", type=int, default=0, help="other than short or night")
        command.add_argument(
            "--seconds", type=int, default=0, help="of a long soak, or of fuzzing by libFuzzer at most"
        )
        command.add_argument("--pause", type=int, default=0, help="of each thread between runs of a soak, ms")
        command.add_argument("--take", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    try:
        COMMANDS[arguments.command][0](arguments)
    except commands.Failed as finding:
        print(f"tools/hardening {arguments.command}: {finding}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
