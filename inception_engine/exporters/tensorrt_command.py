"""The command `inception export tensorrt`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inception_engine.terminal import printable_line, printable_path

if TYPE_CHECKING:
    from inception_engine.exporters.tensorrt import Build
    from inception_engine.network import Network
    from inception_engine.onnx_model import OnnxModel


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the engine is to be."""
    parser.add_argument(
        "source",
        metavar="NETWORK|ONNX",
        nargs="?",
        type=Path,
        help="whatever `inception import` takes, ONNX as it is (default: GoogLeNet with random weights)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, type=Path, help="the engine to write"
    )
    parser.add_argument("--dtype", default="fp32", help="of a network: fp32 or fp16 (default: fp32)")
    parser.add_argument(
        "--batches", type=_batches, metavar="MIN,BEST,MAX", help="images of a run (default: 1,8,32)"
    )
    parser.add_argument(
        "--workspace", type=int, metavar="MIB", help="limit of a layer's scratch memory (default: none)"
    )
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="measured kernels, to use and to add to"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not compare with ONNX Runtime before writing"
    )
    parser.add_argument(
        "--trtexec",
        action="store_true",
        help="write the ONNX model and print the trtexec command; build nothing, need no TensorRT",
    )
    parser.add_argument("--json", action="store_true", help="print the record as JSON")


def _batches(text: str) -> tuple[int, int, int]:
    try:
        smallest, best, largest = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"not three whole numbers with commas between: {text!r}") from None
    return smallest, best, largest


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    from inception_engine import packages
    from inception_engine.files import check_target

    check_target(arguments.output, arguments.source)
    if not arguments.trtexec:
        for name in ("tensorrt", "polygraphy") + (() if arguments.no_check else ("onnxruntime",)):
            packages.load(name)
    packages.load("onnx")
    from inception_engine.exporters.tensorrt import Batches, onnx_beside, prepare

    check_target(Path(onnx_beside(arguments.output)), arguments.source)
    build = prepare(
        _source(arguments.source),
        dtype=arguments.dtype,
        batches=None if arguments.batches is None else Batches(*arguments.batches),
        workspace=arguments.workspace,
        timing_cache=arguments.timing_cache,
    )
    if arguments.trtexec:
        from inception_engine.files import write_atomically

        write_atomically(onnx_beside(arguments.output), [build.model.content])
        print(f"inception: wrote {printable_path(onnx_beside(arguments.output))}", file=sys.stderr)
        # To be pasted, so its paths stay what they are.
        print(printable_path(build.trtexec(arguments.output)))
        return 0
    return _build(build, arguments)


def _build(build: Build, arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from inception_engine.exporters.tensorrt import to_tensorrt

    path: Path = arguments.output
    record = to_tensorrt(build, path, check=not arguments.no_check)
    if arguments.json:
        print(json.dumps(asdict(record), indent=2))
        return 0
    machine, (smallest, best, largest) = record.machine, record.batches
    print(f"{printable_path(path)}: {printable_line(record.network)}, {record.dtype}, batch {smallest} to {largest}, "
          f"best at {best}, {path.stat().st_size / 1e6:.1f} MB")  # fmt: skip
    print(f"For TensorRT {machine.tensorrt}, {machine.gpu} (compute capability {machine.compute_capability}), "
          f"driver {machine.driver} or newer; nothing else loads it.")  # fmt: skip
    if record.random_weights:
        print("Its weights are random: it computes as fast as a trained network, and knows nothing.")
    print(printable_line(record.trtexec))
    return 0


def _source(path: Path | None) -> Network | OnnxModel:
    from inception_engine import googlenet
    from inception_engine.backends.sources import OnnxFile, describe, read
    from inception_engine.exporters.errors import ExportError
    from inception_engine.network import Network

    if path is None:
        print("inception: note: no network given; exporting GoogLeNet with random weights", file=sys.stderr)
        return googlenet()
    source = read(path)
    if isinstance(source, OnnxFile):
        return source.read()
    if not isinstance(source, Network):
        raise ExportError(f"{describe(source)}: give a network or an ONNX model")
    return source
