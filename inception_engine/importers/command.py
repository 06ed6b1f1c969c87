"""The command `inception import`, and what it shares with others that read a file of weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inception_engine.commands import variant
from inception_engine.terminal import printable_line, printable_path

if TYPE_CHECKING:
    from inception_engine.network import Network
    from inception_engine.spec import Spec

PARITY_FAILED = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, type=Path, help="the network to write (.safetensors)"
    )
    variant.add_options_of_a_file(parser)
    add_options_of_a_file(parser)


def add_options_of_a_file(parser: argparse.ArgumentParser) -> None:
    """What a file of weights does not say of itself."""
    group = parser.add_argument_group("what the file of weights does not say")
    group.add_argument(
        "--transform-input",
        action=argparse.BooleanOptionalAction,
        help="of torchvision's network: pretrained weights and models fine-tuned from them have it (default), those "
        "trained from scratch do not",
    )
    group.add_argument(
        "--labels", metavar="FILE", type=Path, help="names of the classes: a line each, or JSON"
    )
    numbers = "of the pixels, 0 to 255, as training normalised them (default: ImageNet's)"
    group.add_argument("--mean", type=_decimals, metavar="R,G,B", help=numbers)
    group.add_argument("--std", type=_decimals, metavar="R,G,B", help="as --mean")
    group.add_argument(
        "--resize", type=int, metavar="N", help="shorter side before the centre crop (default: 256)"
    )
    group.add_argument("--order", metavar="RGB|BGR", help="of the channels (default: RGB)")
    group.add_argument(
        "--head-activation",
        metavar="relu|none",
        help="between linear layers of a classifier that is an nn.Sequential (default: relu)",
    )
    group.add_argument(
        "--no-check", action="store_true", help="do not hold the result against the file, which needs torch"
    )


def _decimals(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not numbers with commas between: {text!r}") from None


def refuse_options(arguments: argparse.Namespace) -> None:
    """Raises ImportFailed where one of ``add_options_of_a_file`` is given though no file is read."""
    from inception_engine.importers.errors import ImportFailed

    for name in ("transform_input", "labels", "mean", "std", "resize", "order", "head_activation"):
        if getattr(arguments, name) is not None:
            raise ImportFailed(f"--{name.replace('_', '-')} is of a network read from a file: --network FILE")


def load(path: str, arguments: argparse.Namespace, spec: Spec | None) -> Network | None:
    """Import a file with the options of ``add_options_of_a_file`` and ``input_size``, say what was done, and check it.

    None if parity failed. Raises what ``load_network`` raises.
    """
    from inception_engine.importers.formats import import_file
    from inception_engine.importers.imported import Options
    from inception_engine.importers.parity import check

    names = "transform_input", "input_size", "mean", "std", "resize", "order", "head_activation"
    given = {name: getattr(arguments, name) for name in names}
    given |= {name: None if given[name] is None else tuple(given[name]) for name in ("mean", "std")}
    imported = import_file(path, Options(**given, spec=spec), arguments.labels)
    network, source = imported.network, imported.source
    if source is None:  # a network of ours has nothing else to be held against
        return network
    for line in (
        f"{path}: {imported.description}",
        *(f"  {note}" for note in (*imported.notes, _input(network))),
    ):
        print(printable_line(line))
    if arguments.no_check:
        print(f"not checked against {source.name} (--no-check)")
        return network
    report = check(imported)
    print("\n".join(report.lines()))
    return network if report.passed else None


def _input(network: Network) -> str:
    channels, height, width = network.input_shape
    preprocess = network.preprocess
    mean, std = (
        ", ".join(f"{value:.6g}" for value in values) for values in (preprocess.mean, preprocess.std)
    )
    order = f" {preprocess.order}" if channels == 3 else ""
    shape = f"{channels} x {height} x {width}{order}"
    return f"input: {shape}, (pixel - ({mean})) / ({std}), resized to {preprocess.resize}"


def run(arguments: argparse.Namespace) -> int:
    """Returns 0; 1 where parity fails, and nothing is written. Raises what ``load_network`` raises, and OSError."""
    from inception_engine.files import check_target
    from inception_engine.importers.errors import ImportFailed

    spec = variant.spec_of_a_file(arguments)
    target: Path = arguments.output
    check_target(target, arguments.file)
    network = load(arguments.file, arguments, spec)
    if network is None:
        return failed(target)
    try:
        network.save(target)
    except OSError as error:
        raise ImportFailed(f"cannot write {target}: {error.strerror}") from None
    print(
        f"{printable_path(target)}: {network.parameters():,} parameters, {target.stat().st_size / 1e6:.1f} MB"
    )
    return 0


def failed(target: Path) -> int:
    """Say that nothing was written, and return the exit status."""
    import sys

    print(f"inception: error: parity failed; {printable_path(target)} is not written", file=sys.stderr)
    return PARITY_FAILED
