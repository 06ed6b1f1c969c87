"""The command `inception evaluate`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_engine.terminal import printable_line

if TYPE_CHECKING:
    from inception_engine.backends.base import Backend
    from inception_engine.backends.sources import Source
    from inception_engine.datasets import Dataset
    from inception_engine.errors import ImageError
    from inception_engine.evaluate.ensemble import Row

DIGITS = "digits"  # the built-in data set
EPILOG = (
    "144 crops are the paper's: 4 scales, 3 squares of each, 6 crops of each square, mirrored. 10 are the corners and "
    "the centre of the centre square, mirrored. A cost is the forward passes of an image."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="a file, or BACKEND:FILE; more than one make an ensemble (default: the built-in model of digits)",
    )
    parser.add_argument(
        "--data",
        default=DIGITS,
        metavar="DIR",
        help="a folder with a folder for each class, or with `val` in that layout; or digits: the fifth of "
        "scikit-learn's that is held out (default), unless a file or folder here has that name",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="of a folder with a folder for each class, take only the fifth that `inception train` holds out of it; of "
        "other data nothing changes: `val` and the built-in fifth are held out",
    )
    parser.add_argument(
        "--crops",
        default=[1],
        type=_counts,
        metavar="N,N",
        help="crops averaged over: 1, 10, 144, or several of these with commas between (default: 1)",
    )
    parser.add_argument("--backend", metavar="NAME", help="of models that name none (default: by the file)")
    parser.add_argument("--device", metavar="NAME", help="of backends that have one: cpu or cuda")
    parser.add_argument(
        "--dtype", help="of models that a backend makes from a network: fp32 (default), fp16 or bf16"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of backends on the CPU (default: all)")
    parser.add_argument(
        "--max-batch", type=int, default=8, metavar="N", help="crops of a run, of networks (default: 8)"
    )
    parser.add_argument(
        "--emulate", action="store_true", help="the engine walks a GPU's program on the CPU, slowly"
    )
    parser.add_argument(
        "--against",
        metavar="BACKEND",
        help="run the same models there too, and say on how many images both name the same class",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read, and name them"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    parser.add_argument("--confusion", metavar="FILE", type=Path, help="write the confusion matrix as PNG")


def _counts(text: str) -> list[int]:
    from inception_engine.evaluate.crops import COUNTS

    wanted = text.split(",")
    if strange := [one for one in wanted if one not in map(str, COUNTS)]:
        raise argparse.ArgumentTypeError(f"{strange[0]!r} crops; there is {', '.join(map(str, COUNTS))}")
    return [int(one) for one in wanted]


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises EngineErrors, OSError, and what opening the models raises."""
    from inception_engine import packages
    from inception_engine.backends.named import split
    from inception_engine.datasets import held_out, opened, taken_whole
    from inception_engine.errors import ArgumentError
    from inception_engine.evaluate.metrics import agreement
    from inception_engine.files import check_target, write_atomically

    targets = [path for path in (arguments.json, arguments.confusion) if path is not None]
    for path in targets:
        for source in (None, *(split(text)[1] for text in arguments.models)):
            check_target(path, source)
    if len(set(map(os.path.realpath, targets))) < len(targets):
        raise ArgumentError("--json and --confusion name one file")
    if arguments.max_batch < 1:
        raise ArgumentError(f"--max-batch {arguments.max_batch}: out of range")
    if (arguments.threads or 0) < 0:
        raise ArgumentError(f"--threads {arguments.threads}: out of range")
    if arguments.confusion is not None:
        packages.load("matplotlib")
    dataset = held_out(arguments.data) if arguments.held_out else opened(arguments.data, "held-out")
    models = [_read(text, arguments.backend) for text in arguments.models or [_built_in()]]
    own = {name: getattr(arguments, name) for name in ("device", "dtype", "threads", "max_batch", "emulate")}
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(_open(source, name, own)) for name, source in models]
        others: list[Backend] = []
        if arguments.against is not None:  # opened before minutes of work are done
            there = {**own, "dtype": None, "emulate": False}
            others = [stack.enter_context(_open(source, arguments.against, there)) for _, source in models]
        skipped: dict[str, None] | None = {} if arguments.skip_unreadable else None
        found = _evaluated(backends, dataset, arguments.crops, skipped)
        last = found.rows[-1]
        compared = None
        if others:
            other = _evaluated(others, dataset, [last.crops], skipped)
            first = last.tally.first, other.rows[-1].tally.first
            compared = agreement(_together(found.models), first[0], _together(other.models), first[1])

    if taken_whole(arguments.data) and not arguments.held_out:
        text = f"all images of {arguments.data} were taken, those of a training included; see --held-out"
        print(f"inception: note: {printable_line(text)}", file=sys.stderr)
    print(found.render(arguments.data, len(dataset), dataset.classes))
    if compared is not None:
        print(f"\n{printable_line(str(compared))}")
    if arguments.json is not None:
        document = found.document(arguments.data, dataset.classes)
        document["held_out"] = not taken_whole(arguments.data) or arguments.held_out
        document["agreement"] = None if compared is None else compared.document()
        write_atomically(arguments.json, [json.dumps(document, indent=2).encode() + b"\n"])
    if arguments.confusion is not None:
        from inception_engine.evaluate.confusion import png

        title = f"{last.tally.top1:.2f} % of {last.tally.images} images, {_row_name(last)}"
        names = found.labels or (dataset.classes if len(dataset.classes) == last.tally.classes else ())
        write_atomically(arguments.confusion, [png(last.tally.confusion, names, title)])
    return 0


def _built_in() -> str:
    from inception_engine.models import DIGITS

    return str(DIGITS)


def _read(text: str, backend: str | None) -> tuple[str | None, Source]:
    from inception_engine.backends.named import split
    from inception_engine.backends.sources import read
    from inception_engine.errors import BackendError

    name, path = split(text)
    if path is None:
        raise BackendError(f"{text!r}: no file; give {text}:FILE, or FILE with --backend {text}")
    return backend if name is None else name, read(path)


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """``models``: their descriptions. ``skipped``: why each image that was left out was."""

    rows: list[Row]
    models: list[str]
    labels: tuple[str, ...]
    by_name: bool
    random_weights: bool
    skipped: list[str]

    def render(self, data: str, images: int, classes: Sequence[str]) -> str:
        """Lines that a terminal can show, whatever the data and the models are called."""
        from inception_engine.evaluate.table import render

        last = self.rows[-1]
        lines = [f"data   {data}: {images} images of {len(classes)} classes"]
        lines += [f"model  {description}" for description in self.models]
        if self.labels and not self.by_name:
            lines.append(
                "note   the labels are not the names of the data's classes, which are taken in order"
            )
        if self.random_weights:
            lines.append("note   the weights are random: the figures mean nothing")
        if self.skipped:
            lines.append(f"note   left out {len(self.skipped)} of the images, which could not be read")
        if last.tally.unknown:
            lines.append(f"note   NaN for {last.tally.unknown} images, which count as wrong")
        score = f"top-1 {last.tally.top1:.2f} %, top-5 {last.tally.top5:.2f} % ({_row_name(last)})"
        return "\n".join([*map(printable_line, lines), "", render(self.rows), "", score])

    def document(self, data: str, classes: Sequence[str]) -> dict[str, Any]:
        from inception_engine.evaluate.table import document

        last = self.rows[-1]
        return {
            "top1": last.tally.top1,
            "top5": last.tally.top5,
            "models": self.models,
            "crops": last.crops,
            "cost": last.cost,
            "data": data,
            "images": last.tally.images,
            "classes": list(classes),
            "classes_by_name": self.by_name,
            "random_weights": self.random_weights,
            "nan": last.tally.unknown,
            "skipped": self.skipped,
            "table": document(self.rows),
        }


def _evaluated(
    backends: Sequence[Backend], dataset: Dataset, counts: Sequence[int], skipped: dict[str, None] | None
) -> _Evaluated:
    """``skipped``: why images were left out, so far, to be added to; None: an image that cannot be read ends it."""
    from tqdm import tqdm

    from inception_engine.evaluate.ensemble import Ensemble, evaluate

    ensemble = Ensemble(backends)
    classes, by_name = ensemble.classes_of(dataset)

    def skip(error: ImageError) -> None:
        assert skipped is not None
        if str(error) not in skipped:  # each is met once for every number of crops
            skipped[str(error)] = None
            with tqdm.external_write_mode(sys.stderr):
                print(f"inception: skipped: {printable_line(str(error))}", file=sys.stderr)

    images = len(dataset) * len(set(counts))
    with tqdm(total=images, unit=" images", leave=False, disable=not sys.stderr.isatty()) as bar:
        rows = evaluate(
            ensemble, dataset, counts, classes, None if skipped is None else skip, lambda: bar.update()
        )
    return _Evaluated(
        rows=rows,
        models=[backend.description for backend in backends],
        labels=ensemble.labels,
        by_name=by_name,
        random_weights=any(backend.face.random_weights for backend in backends),
        skipped=list(skipped or ()),
    )


def _open(source: Source, backend: str | None, given: dict[str, Any]) -> Backend:
    from inception_engine.backends import load
    from inception_engine.backends.named import options
    from inception_engine.backends.sources import default_backend

    name = default_backend(source) if backend is None else backend
    return load(source, name, **options(name, source, **given))


def _together(descriptions: Sequence[str]) -> str:
    return descriptions[0] if len(descriptions) == 1 else f"({'; '.join(descriptions)})"


def _row_name(row: Row) -> str:
    return f"{row.models} model{'s' * (row.models > 1)}, {row.crops} crop{'s' * (row.crops > 1)}"
