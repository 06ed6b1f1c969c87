"""The command `inception compare`."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_engine.commands import values
from inception_engine.terminal import printable_line

if TYPE_CHECKING:
    from inception_engine.backends.base import Backend
    from inception_engine.backends.sources import Source
    from inception_engine.compare import Comparison, Difference

RANDOM = "random"
BEYOND = 1  # the exit status where they differ by more than the tolerance


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="what is judged")
    parser.add_argument("b", metavar="B", help="what it is judged by")
    parser.add_argument(
        "--images", default=RANDOM, metavar="DIR|FILE|random", help="to run (default: random, seeded)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="of images (default: 4 random ones, or all)")
    parser.add_argument(
        "--seed", type=values.natural, default=0, metavar="N", help="of random images (default: 0)"
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="of max|d|/max|B| (default: by the coarser dtype)"
    )
    parser.add_argument("--device", metavar="NAME", help="of backends that have one: cpu or cuda")
    parser.add_argument("--dtype", help="of A, where a backend makes it from a network")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0 where A and B agree, 1 where they do not. Raises as ``load`` and ``compare``."""
    from inception_engine.backends.named import split
    from inception_engine.compare import common_batch, compare
    from inception_engine.errors import BackendError

    for name, value in (("--tolerance", arguments.tolerance), ("--count", arguments.count)):
        if value is not None and not (math.isfinite(value) and value >= (1 if name == "--count" else 0)):
            raise BackendError(f"{name} {value}: out of range")
    (backend_a, path_a), (backend_b, path_b) = split(arguments.a), split(arguments.b)
    source_a, source_b = _sources(path_a, path_b)
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(_open(source_a, backend_a, arguments.device, arguments.dtype))
        b = stack.enter_context(_open(source_b, backend_b, arguments.device, None))
        common_batch(a, b)  # before images are read
        comparison = compare(a, b, _images(arguments, a, b), arguments.tolerance)
    print(json.dumps(comparison.document(), indent=2) if arguments.json else render(comparison))
    return 0 if comparison.agree else BEYOND


def _sources(path_a: Path | None, path_b: Path | None) -> tuple[Source, Source]:
    """A backend without a file takes the other's; without any it is the seeded GoogLeNet."""
    from inception_engine.backends.sources import read

    if path_a is None and path_b is None:
        from inception_engine.seeded import googlenet

        print("inception: note: no file given; comparing on GoogLeNet with random weights", file=sys.stderr)
        network = googlenet()
        return network, network
    read_a = None if path_a is None else read(path_a)
    read_b = read_a if path_b is None or path_b == path_a else read(path_b)
    source_a, source_b = read_a or read_b, read_b or read_a
    assert source_a is not None and source_b is not None
    return source_a, source_b


def _open(source: Source, backend: str | None, device: str | None, dtype: str | None) -> Backend:
    from inception_engine.backends import load
    from inception_engine.backends.named import options
    from inception_engine.backends.sources import OnnxFile, default_backend
    from inception_engine.compare import LARGEST_BATCH
    from inception_engine.network import Network

    name = default_backend(source) if backend is None else backend
    given = options(
        name,
        source,
        device=device,
        dtype=dtype,
        max_batch=LARGEST_BATCH if name == "engine" else None,
    )
    return load(source, name, keep_all=isinstance(source, Network | OnnxFile), **given)


def _images(arguments: argparse.Namespace, a: Backend, b: Backend) -> Any:
    from inception_engine.compare import RANDOM_IMAGES, folder_images, random_images
    from inception_engine.errors import BackendError
    from inception_engine.network import Preprocess

    shape, count = a.input_shape, arguments.count
    if arguments.images == RANDOM:
        return random_images(shape, count or RANDOM_IMAGES, arguments.seed)
    path = Path(arguments.images)
    if not path.exists():
        raise BackendError(f"{path}: no such file or folder; random images: --images {RANDOM}")
    known = [one.face.preprocess for one in (a, b) if one.face.preprocess is not None]
    if len(known) == 2 and known[0] != known[1]:
        raise BackendError(f"A and B make different inputs of an image ({known[0]}, {known[1]})")
    if known:
        preprocess = known[0]
    else:
        preprocess = Preprocess.default(shape[0])
        print(f"inception: note: neither file says how images are normalised; {preprocess}", file=sys.stderr)
    return folder_images(path, shape, preprocess, count)


def render(comparison: Comparison) -> str:
    """A line for every layer, then what they add up to; each fit for a terminal, whatever layers are called."""
    lines = [f"A  {comparison.a}", f"B  {comparison.b}", ""]
    rows: list[tuple[str, ...]] = [
        ("layer", "max|d|/max|B|", "max|d|", "mean|d|", "rmse", "1-cosine", "where", "")
    ]
    for difference in (*comparison.layers, comparison.logits):
        mark = "<- first beyond the tolerance" if difference.name == comparison.first else ""
        rows.append((*_row(difference), mark))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:7], widths[1:7], strict=True)),
        ]
        lines.append("  ".join([*cells, row[7]]).rstrip())
    if not comparison.layers:
        lines.append("no layers: both must be made from a network, or from ONNX models with the same names")
    lines += [
        "",
        f"images {comparison.images}, same first class {comparison.top1:.1%}, tolerance {comparison.tolerance:.0e}",
    ]
    verdict = "A and B agree" if comparison.agree else f"A and B differ from {comparison.first} on"
    return "\n".join(map(printable_line, [*lines, verdict]))


def _row(difference: Difference) -> tuple[str, ...]:
    image, channel, row, column = difference.where
    place = f"image {image}, channel {channel}" + (
        f", {row},{column}" if difference.shape[1:] != (1, 1) else ""
    )
    values = (difference.error, difference.largest, difference.mean, difference.rmse)
    angle = max(1 - difference.cosine, 0.0)  # rounding can take the cosine beyond 1
    return (difference.name, *(f"{value:.1e}" for value in (*values, angle)), place)
