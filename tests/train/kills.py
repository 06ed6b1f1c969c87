"""Training that is killed (SIGKILL) at random points, some of them inside a save, and resumed: does it end at the bits
of the training that nobody killed, and can every checkpoint that a kill leaves be read?

    python -m tests.train.kills --points 100 --inside 10 --record FILE

A process of its own trains, forked from this one, in which torch is imported and has run nothing; at every other point
two more prepare its images. For a kill inside a save, the process kills itself behind a random share of a random
checkpoint's bytes, or just before or just behind the rename. All other kills come from here, after a random time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from inception_engine import files
from inception_engine.bench.environment import environment
from inception_engine.train import checkpoint, output
from inception_engine.train.config import Config
from inception_engine.train.distributed import World
from inception_engine.train.errors import CheckpointError
from inception_engine.train.logs import read as read_rows
from inception_engine.train.loop import train
from tests.train.conftest import TINY, write_classes

KILLED = -signal.SIGKILL
PLACES = ("bytes", "before the rename", "behind the rename")  # inside a save
WORKERS = (0, 2)  # processes that prepare images, in turn


@dataclass(frozen=True, kw_only=True)
class Point:
    """One kill. ``inside``: one of PLACES, or None: after a random time. ``step``: of the last checkpoint that it left,
    0: none. ``unreadable``: of the checkpoints left; ``resumed``: exit status; ``same``: it ended at the same bits."""

    inside: str | None
    workers: int
    killed: bool
    step: int
    unreadable: int
    resumed: int
    same: bool

    @property
    def good(self) -> bool:
        return self.killed and not self.unreadable and self.resumed == 0 and self.same


def config(data: Path, run: Path, workers: int) -> Config:
    """Nine steps, three an epoch, with dropout, augmentation, batch norm and averaging; checkpoints behind every other
    step and every epoch."""
    keys = {**TINY, "epochs": 3, "save_every": 2, "data": str(data), "output": str(run), "workers": workers}
    return Config(**keys)  # type: ignore[arg-type]


def forked(settings: Config, prepare: Callable[[], None] = lambda: None, after: float | None = None) -> int:
    """Train in a process of its own, resuming if there is something. Returns its exit status. ``after``: seconds from
    when it gets to training to when it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            prepare()
            os.write(writing, b".")
            train(settings, World(device=torch.device("cpu")), resume=True)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_inside_a_save(number: int, place: str, share: float) -> None:
    """Let this process kill itself in its ``number``-th save from now, at the place."""
    saves = 0
    write, rename = files.write_atomically, os.replace

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def cut(chunks: Iterable[bytes | memoryview]) -> Iterable[bytes | memoryview]:
        content = b"".join(chunks)
        yield content[: int(len(content) * share)]
        kill()

    def counted(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
        nonlocal saves
        saves += 1
        if saves != number:
            return write(path, chunks)
        if place == "bytes":
            return write(path, cut(chunks))

        def killing(source: str, target: str) -> None:
            if place == "behind the rename":
                rename(source, target)
            kill()

        os.replace = killing  # type: ignore[assignment]
        return write(path, chunks)

    setattr(checkpoint, "write_atomically", counted)  # noqa: B010 - it is another module's name


def outcome(settings: Config) -> tuple[bytes, bytes, list[object]]:
    """What must be equal: network, last checkpoint, log without speeds."""
    folder = Path(settings.output)
    last = checkpoint.newest(folder / output.CHECKPOINTS)
    assert last is not None
    rows: list[object] = [
        replace(row, images_per_second=None, waiting=None) for row in read_rows(folder / "metrics.csv")
    ]
    return (folder / output.NETWORK).read_bytes(), last.read_bytes(), rows


def check(points: int, inside: int, seed: int, folder: Path) -> list[Point]:
    """Every point is a training of its own, killed once and resumed to its end.

    Raises SystemExit where a training that nobody kills fails.
    """
    chosen = random.Random(seed)
    import matplotlib.figure  # noqa: F401 - once here, and not in every process

    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)], lr=0.1)  # imports much
    data = write_classes(folder / "images", {"cat": 12, "dog": 10, "fox": 9})
    run = folder / "run"  # one place for all, as checkpoints name it
    settings = [config(data, run, workers) for workers in WORKERS]
    durations, expected = [], []
    for each in settings:
        shutil.rmtree(run, ignore_errors=True)
        begin = time.monotonic()
        if forked(each):
            raise SystemExit("the training that nobody kills fails")
        durations.append(time.monotonic() - begin)
        expected.append(outcome(each))
    assert expected[0][0] == expected[1][0] and expected[0][2] == expected[1][2]
    found: list[Point] = []
    while len(found) < points:
        shutil.rmtree(run, ignore_errors=True)  # not there, where nothing was trained
        which = len(found) % len(WORKERS)
        place = PLACES[len(found) % len(PLACES)] if len(found) < inside else None
        if place is not None:
            number, share = chosen.randint(1, 6), chosen.random()
            what = f"{place} in save {number}"
            status = forked(settings[which], lambda n=number, p=place, s=share: kill_inside_a_save(n, p, s))  # type: ignore[misc]
        else:
            after = chosen.uniform(0, durations[which])
            what = f"after {after:.3f} s"
            status = forked(settings[which], after=after)
            if status == 0:  # it was faster than the one before
                continue
        left = sorted((run / output.CHECKPOINTS).glob("checkpoint-*"))
        unreadable = sum(not readable(path) for path in left)
        resumed = forked(settings[which])
        found.append(
            Point(
                inside=place,
                workers=WORKERS[which],
                killed=status == KILLED,
                step=int(left[-1].stem.split("-")[1]) if left else 0,
                unreadable=unreadable,
                resumed=resumed,
                same=resumed == 0 and outcome(settings[which]) == expected[which],
            )
        )
        print(f"{len(found)}/{points} killed {what}: {found[-1]}", flush=True)
    return found


def readable(path: Path) -> bool:
    try:
        checkpoint.read(path)
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return False
    return True


def record(found: list[Point], where: dict[str, object]) -> dict[str, object]:
    """What is kept of a run: counts, and every point. ``where``: the environment."""
    return {
        "environment": where,
        "points": len(found),
        "inside_a_save": dict(Counter(point.inside for point in found if point.inside)),
        "by_workers": {str(n): sum(point.workers == n for point in found) for n in WORKERS},
        "by_step_of_the_last_checkpoint": {
            str(step): count for step, count in sorted(Counter(point.step for point in found).items())
        },
        "unreadable_checkpoints": sum(point.unreadable for point in found),
        "resumed_to_the_same_bits": sum(point.good for point in found),
        "failures": sum(not point.good for point in found),
        "each": [asdict(point) for point in found],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill a training at random points and compare what it ends at."
    )
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--inside", type=int, default=10, help="of the points: inside a save")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write what was found, as JSON")
    options = parser.parse_args()
    choice = f"--points {options.points} --inside {options.inside} --seed {options.seed}"
    where = {**environment([]), "command": f"tools/train-kills {choice}"}
    with tempfile.TemporaryDirectory() as folder:
        found = check(options.points, options.inside, options.seed, Path(folder))
    document = record(found, where)
    if options.record is not None:
        files.write_atomically(options.record, [(json.dumps(document, indent=1) + "\n").encode()])
    print(
        f"{len(found)} points, {sum(point.inside is not None for point in found)} inside a save; "
        f"failures: {document['failures']}"
    )
    return 1 if document["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
