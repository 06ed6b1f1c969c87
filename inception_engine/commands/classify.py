"""The command `inception classify`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_engine.commands.errors import USER_ERROR, CommandError
from inception_engine.commands.plans import BUILT_IN, is_built_in, plan_for
from inception_engine.terminal import error_line, printable_line, printable_path

if TYPE_CHECKING:
    from inception_engine.classification import Classification

MANY_IMAGES = 10  # from which on a progress bar is shown


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PLAN, IMAGE", nargs="+")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="classes per image (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default: all that may be used")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--ray",
        metavar="FOLDER",
        type=Path,
        help="classify on all machines of a Ray cluster, or with all processors of this one, in parts whose results go "
        "to FOLDER; the same command again does what is missing there",
    )
    parser.add_argument(
        "--part-size", type=int, metavar="N", help="images of a part, with --ray (default: 500)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Returns 0; 2 where some image could not be used. Raises CommandError, EngineError, OSError, and what making the
    network raises."""
    from inception_engine import Engine
    from inception_engine.preprocess import find_images

    if len(arguments.paths) == 1 and is_built_in(arguments.paths[0]):
        return _classify_digits(arguments)
    name, paths = _split_plan(arguments.paths)
    for path in map(Path, paths):
        if os.path.isdir(path) and next(find_images([path]), None) is None:
            raise CommandError(f"{path}: holds no JPEG or PNG files")
    images = list(find_images(paths))
    if arguments.ray is not None:
        from inception_engine.evaluate.collection_command import run as run_collection

        found, random_weights = run_collection(name, images, arguments)
        return _show(found, len(images), random_weights, arguments)
    if arguments.part_size is not None:
        raise CommandError("--part-size is of --ray FOLDER")
    plan = plan_for(name, arguments.device)
    with Engine(plan, device=arguments.device, threads=arguments.threads) as engine:
        if engine.note:
            print(f"inception: note: running on the CPU: {engine.note}", file=sys.stderr)
        found = engine.classify_each(images, arguments.top_k)
        return _show(found, len(images), engine.random_weights, arguments)


def _classify_digits(arguments: argparse.Namespace) -> int:
    from inception_engine import Engine
    from inception_engine.evaluate import digits

    if arguments.ray is not None or arguments.part_size is not None:
        raise CommandError("--ray is for images of your own: give them after digits")
    plan = plan_for(BUILT_IN, arguments.device)
    with Engine(plan, device=arguments.device, threads=arguments.threads) as engine:
        for line in digits.lines(engine, arguments.top_k, arguments.json):
            print(line)
    return 0


def _split_plan(paths: list[str]) -> tuple[str | None, list[str]]:
    """The plan, if the first name is not an image's, and the images."""
    from inception_engine.preprocess import SUFFIXES

    first = Path(paths[0])
    if os.path.isdir(first) or first.suffix.lower() in SUFFIXES:
        return None, paths
    if len(paths) == 1:
        raise CommandError(f"no images to classify with {first}: give JPEG or PNG files or folders after it")
    return paths[0], paths[1:]


def _show(
    found: Iterator[Classification], images: int, random_weights: bool, arguments: argparse.Namespace
) -> int:
    from tqdm import tqdm

    failed = False
    results: list[dict[str, Any]] = []
    if random_weights and not arguments.json:
        print("The network's weights are random: the classes below mean nothing.")
    silent = images < MANY_IMAGES or not sys.stderr.isatty()
    with tqdm(total=images, unit=" images", leave=False, disable=silent) as bar:
        for result in found:
            bar.update()
            if result.error is not None:
                failed = True
                with tqdm.external_write_mode(sys.stderr):
                    print(error_line("inception", result.error), file=sys.stderr)
            if arguments.json:
                results.append(result.document())
            elif result.error is None:
                tqdm.write("\n".join(_as_text(result)))
    if arguments.json:
        print(json.dumps({"random_weights": random_weights, "results": results}, indent=2))
    return USER_ERROR if failed else 0


def _as_text(result: Classification) -> Iterator[str]:
    assert result.path is not None  # it was given as one
    yield printable_path(result.path)
    if result.nan:
        yield "  no classes: the network's output holds NaN"
    for prediction in result.top:
        yield f"  {prediction.probability:7.2%}  {printable_line(prediction.label)}"
