"""Training that is killed (SIGKILL) at random points, some of them inside a save, and resumed: does it end at the bits
of the training that nobody killed, and can every checkpoint that a kill leaves be read?

    python -m tests.train.kills --points 100 --inside 10

A process of its own trains, forked from this one, in which torch is imported and has run nothing. For a kill inside a
save, the process kills itself behind a random share of a random checkpoint's bytes, or just before or just behind the
rename. All other kills come from here, after a random time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from inception_engine import files
from inception_engine.train import checkpoint, loop
from inception_engine.train.config import Config
from inception_engine.train.distributed import World
from inception_engine.train.logs import read as read_rows
from inception_engine.train.loop import train
from tests.train.conftest import TINY, write_classes

KILLED = -signal.SIGKILL
PLACES = ("bytes", "before the rename", "behind the rename")  # inside a save


def config(data: Path, output: Path) -> Config:
    """Nine steps, three an epoch, with dropout, augmentation, batch norm and averaging; checkpoints behind every other
    step and every epoch."""
    keys = {**TINY, "epochs": 3, "save_every": 2, "data": str(data), "output": str(output)}
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
    last = checkpoint.newest(folder / loop.CHECKPOINTS)
    assert last is not None
    rows: list[object] = [
        replace(row, images_per_second=None, waiting=None) for row in read_rows(folder / "metrics.csv")
    ]
    return (folder / loop.NETWORK).read_bytes(), last.read_bytes(), rows


def check(points: int, inside: int, seed: int, folder: Path) -> list[str]:
    """Failures, a line each. Every point is a training of its own, killed once and resumed to its end."""
    chosen = random.Random(seed)
    import matplotlib.figure  # noqa: F401 - once here, and not in every process

    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)], lr=0.1)  # imports much
    data = write_classes(folder / "images", {"cat": 12, "dog": 10, "fox": 9})
    run = folder / "run"  # one place for all, as checkpoints name it
    settings = config(data, run)
    begin = time.monotonic()
    if forked(settings):
        return ["the training that nobody kills fails"]
    duration = time.monotonic() - begin
    expected = outcome(settings)
    failures = []
    late = 0
    point = 0
    while point < points:
        shutil.rmtree(run)
        if point < inside:
            number, place = chosen.randint(1, 6), PLACES[point % len(PLACES)]
            what = f"{place} in save {number}"
            share = chosen.random()
            status = forked(settings, lambda n=number, p=place, s=share: kill_inside_a_save(n, p, s))  # type: ignore[misc]
        else:
            after = chosen.uniform(0, duration)
            what = f"after {after:.3f} s"
            status = forked(settings, after=after)
        if status == 0 and point >= inside:  # it was faster than the one before
            late += 1
            continue
        left = sorted((run / loop.CHECKPOINTS).glob("checkpoint-*"))
        for path in left:
            try:
                checkpoint.read(path)
            except Exception as error:
                failures.append(f"{what}: {error}")
        resumed = forked(settings)
        if status != KILLED or resumed or outcome(settings) != expected:
            failures.append(f"{what}: status {status}, resumed {resumed}, or other bits")
        point += 1
        steps = int(left[-1].stem.split("-")[1]) if left else 0
        print(f"{point}/{points} killed {what}; last checkpoint of step {steps}", flush=True)
    print(
        f"{points} points, {inside} inside a save; {late} more kills came behind the end; failures: {len(failures)}"
    )
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill a training at random points and compare what it ends at."
    )
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--inside", type=int, default=10, help="of the points: inside a save")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failures = check(options.points, options.inside, options.seed, Path(folder))
    for line in failures:
        print(line, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
