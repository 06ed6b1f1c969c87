"""The command `inception export onnx`."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_engine.commands import variant
from inception_engine.importers import command as importing
from inception_engine.terminal import printable_path

OPSET = 17


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the ONNX model is to be, and what its weights come from."""
    parser.add_argument(
        "file", metavar="NETWORK|CHECKPOINT", help="a file of weights: whatever `inception import` takes"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, type=Path, help="the ONNX model to write"
    )
    group = parser.add_argument_group("ONNX model")
    group.add_argument(
        "--opset", type=int, default=OPSET, metavar="N", help=f"of its operators (default: {OPSET})"
    )
    group.add_argument(
        "--dtype", default="fp32", help="of weights and activations: fp32 (default), or fp16, by their types"
    )
    group.add_argument("--io", default="fp32", help="of input and output: fp32 (default), or fp16")
    group.add_argument(
        "--preprocess",
        action="store_true",
        help="take pixels, uint8 (batch, height, width, channels), and normalise them inside",
    )
    group.add_argument(
        "--classes",
        dest="classifier",
        choices=("logits", "softmax"),
        default="logits",
        help="what comes out (default: logits)",
    )
    variant.add_options_of_a_file(parser)
    importing.add_options_of_a_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0; 1 where parity fails, and nothing is written. Raises ExportError, OSError, and what ``load_network``
    raises."""
    from inception_engine.exporters.errors import ExportError
    from inception_engine.files import check_target, write_atomically

    spec = variant.spec_of_a_file(arguments)
    target: Path = arguments.output
    check_target(target, arguments.file)
    try:
        from inception_engine.exporters.onnx import to_onnx
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed: pip install 'inception-engine[onnx]'") from None
    network = importing.load(arguments.file, arguments, spec)
    if network is None:
        return importing.failed(target)
    model = to_onnx(
        network,
        opset=arguments.opset,
        dtype=arguments.dtype,
        io=arguments.io,
        preprocess=arguments.preprocess,
        probabilities=arguments.classifier == "softmax",
    )
    if arguments.no_check:
        print("the ONNX model is not checked against the reference (--no-check)")
    else:
        _need("onnxruntime", "torch")
        from inception_engine.exporters.onnx_parity import check

        report = check(model, network, dtype=arguments.dtype)
        print("\n".join(report.lines()))
        if not report.passed:
            return importing.failed(target)
    try:
        write_atomically(target, [model.SerializeToString()])
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror}") from None
    print(
        f"{printable_path(target)}: opset {arguments.opset}, {arguments.dtype}, {target.stat().st_size / 1e6:.1f} MB"
    )
    if network.metadata.get("weights") == "random":
        print("Its weights are random: it knows nothing.")
    return 0


def _need(*packages: str) -> None:
    import importlib.util

    from inception_engine.exporters.errors import ExportError

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ExportError(
                f"the check needs {package}: pip install it, or leave the check out (--no-check)"
            )
