"""What `inception classify --ray` does before it shows results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from inception_engine import packages
from inception_engine.classification import Classification
from inception_engine.commands.plans import plan_for
from inception_engine.compiler.plan import Plan
from inception_engine.errors import ArgumentError, FileError
from inception_engine.evaluate.collection import Collection
from inception_engine.evaluate.workers import classify

PART_SIZE = 500


def run(
    name: str | None, images: Sequence[Path], arguments: argparse.Namespace
) -> tuple[Iterator[Classification], bool]:
    """Classify what has no results yet. ``name``: as of ``plan_for``. Returns the results of all images, in order, and
    whether weights are random."""
    from tqdm import tqdm

    if arguments.top_k < 1:
        raise ArgumentError(f"top_k is {arguments.top_k}, not a positive number")
    if arguments.threads < 0:
        raise ArgumentError(f"--threads {arguments.threads}: out of range")
    if arguments.device.startswith("cuda:"):
        raise ArgumentError("with --ray every process has a GPU of its own: give --device cuda")
    packages.load("ray")  # before a folder is made
    content, random_weights = _content(plan_for(name, arguments.device))
    size = PART_SIZE if arguments.part_size is None else arguments.part_size
    collection = Collection(arguments.ray, list(map(str, images)), content, arguments.top_k, size)
    missing = sum(len(collection.part(part)) for part in collection.missing())
    if done := len(images) - missing:
        print(
            f"inception: note: {done} of {len(images)} images have results in {arguments.ray}",
            file=sys.stderr,
        )
    with tqdm(
        total=len(images), initial=done, unit=" images", leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        classify(collection, content, device=arguments.device, threads=arguments.threads, progress=bar.update)
    return collection.results(), random_weights


def _content(plan: Plan | Path) -> tuple[bytes, bool]:
    """A plan as a file's content, proven, and whether its weights are random."""
    if isinstance(plan, Path):
        if plan.exists() and not plan.is_file():
            raise FileError(f"{plan}: not a file")
        loaded, content = Plan.load(plan), plan.read_bytes()
    else:
        loaded, content = plan, plan.to_bytes()
    return content, loaded.metadata.get("random_weights") is True
