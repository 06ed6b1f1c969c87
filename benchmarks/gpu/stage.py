"""One stage, as a process: python -m benchmarks.gpu.stage NAME MODULE RECORDS MODE SECONDS."""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu import records
from benchmarks.gpu.scale import FULL, QUICK, REHEARSED, Scale

if TYPE_CHECKING:
    from benchmarks.gpu.device import Device

SCALES = {"quick": QUICK, "full": FULL, "rehearsal": REHEARSED}


@dataclass
class Job:
    """What a stage is given. ``mode``: a key of SCALES. ``deadline``: of time.monotonic, when the process is ended."""

    name: str
    path: Path
    mode: str
    deadline: float

    @property
    def scale(self) -> Scale:
        return SCALES[self.mode]

    @property
    def rehearsal(self) -> bool:
        return self.mode == "rehearsal"

    @cached_property
    def device(self) -> Device:
        """Before the first kernel. Stages that need none do without PyTorch, which takes seconds to import."""
        from benchmarks.gpu.device import open_device

        if self.rehearsal:
            from benchmarks.gpu.rehearsal import interpret

            interpret()
        return open_device(self.rehearsal)

    def row(self, name: str, ok: bool | None = True, note: str = "", **figures: Any) -> None:
        """Write a row now. ``ok``: None for what was left out. ``note``: what else is to be said."""
        record = {"kind": "row", "stage": self.name, "name": name, "ok": ok, **figures}
        records.append(self.path, record | ({"note": note} if note else {}))
        mark = {True: "ok", False: "FAILED", None: "left out"}[ok]
        print(f"{mark:8}  {name}{f': {note}' if note else ''}", flush=True)

    def earlier(self, stage: str) -> list[dict[str, Any]]:
        """Rows of another stage of this run, empty if it was not run."""
        return records.read(self.path).rows(stage)

    def left(self) -> float:
        """Seconds until the process is ended."""
        return self.deadline - time.monotonic()


def first_line(error: BaseException) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def main(name: str, module: str, path: str, mode: str, seconds: str) -> None:
    job = Job(name, Path(path), mode, time.monotonic() + float(seconds))
    importlib.import_module(module).run(job)


if __name__ == "__main__":
    main(*sys.argv[1:])
