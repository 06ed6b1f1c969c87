"""The command behind tools/gpu, which prepares what this needs: python -m benchmarks.gpu --help."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.gpu import records, stages
from benchmarks.gpu.provenance import ROOT, environment
from benchmarks.gpu.stages import STAGES, Stage


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None, known: Sequence[Stage] = STAGES) -> int:
    """Returns 0; 1 if a stage failed or did not end in time; 2 on a mistake in the options; 130 on Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(known)
    options = parser.parse_args(given)
    chosen = _chosen(parser, options.stages, known)
    if not options.out.is_dir() or not os.access(options.out, os.W_OK | os.X_OK):
        parser.error(f"--out: {options.out} is not a folder that can be written to")
    variables = dict(os.environ)
    try:
        if options.rehearse:
            from benchmarks.gpu import rehearsal
            from inception_engine import binding

            variables |= rehearsal.environment(ROOT / "build" / "gpu" / "rehearsal", binding.library_path())
        else:
            from benchmarks.gpu.device import open_device

            open_device(rehearsal=False)
        now = environment(given, options.rehearse, options.quick)
        path = _file(options.out, now, options.resume)
    except (RuntimeError, records.RecordsError) as error:
        parser.error(str(error))
    records.append(path, now)
    mode = "rehearsal" if options.rehearse else "quick" if options.quick else "full"
    print(f"tools/gpu: {mode}, on {now['gpu']}; records: {path}", flush=True)
    statuses = []
    try:
        for stage in chosen:
            before = records.read(path).stages.get(stage.name)
            if options.resume and before is not None and before.status == records.DONE:
                print(f"{stage.name}: done before", flush=True)
                continue
            limit: float = getattr(stage, mode)
            print(f"{stage.name}: at most {limit:g} s", flush=True)
            statuses.append(stages.run(stage, path, mode, limit, variables))
            end = records.read(path).stages[stage.name].end
            print(f"{stage.name}: {end['status']} in {end['seconds']} s{_colon(end['message'])}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on", file=sys.stderr)
        return 130
    finally:
        _report(path)
    return int(any(status != records.DONE for status in statuses))


def _colon(message: str) -> str:
    return f": {message}" if message else ""


def _chosen(parser: _Parser, text: str | None, known: Sequence[Stage]) -> list[Stage]:
    names = [stage.name for stage in known]
    wanted = names if text is None else [name.strip() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"unknown stage {unknown[0]!r}; there is {', '.join(names)}")
    return [stage for stage in known if stage.name in wanted]


def _file(folder: Path, now: dict[str, Any], resume: bool) -> Path:
    """The file to write to. Raises RecordsError where there is nothing to resume."""
    if not resume:
        name = "rehearsal" if now["rehearsal"] else now["gpu"]
        return records.new_file(folder, datetime.date.today().isoformat(), name)
    path = records.newest(folder)
    if path is None:
        raise records.RecordsError(f"--resume: there are no records in {folder}")
    before = records.read(path).environments[-1]
    for what in ("rehearsal", "quick", "gpu", "sources"):
        if before[what] != now[what]:
            raise records.RecordsError(
                f"--resume: {path} was made with {what} {before[what]}, this is {now[what]}"
            )
    records.remove_cut_off_line(path)
    return path


def _report(path: Path) -> None:
    from benchmarks.gpu import report

    target = report.write(path)
    print(f"report: {target}", flush=True)
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed", flush=True)


def _parser(known: Sequence[Stage]) -> _Parser:
    parser = _Parser(
        prog="tools/gpu",
        description="Every figure that needs a GPU: parity first, then times. Writes JSON lines and a report.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--stages", metavar="A,B", help=f"only these of {', '.join(stage.name for stage in known)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and repeats")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        metavar="DIR",
        help="where records and report are written; nothing is overwritten (benchmarks/results)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="add to the newest records of DIR what is not done"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="all of it without a GPU, on tiny cases; no measurement"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
