"""The commands `inception` and `inception-bench`.

Only the standard library is imported at the top, and what imports no more itself: `inception --help` answers at once.
A user's mistake is one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from inception_engine.commands.errors import USER_ERROR, CommandError
from inception_engine.terminal import error_line

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `inception` with these arguments (default: the process's). Returns the exit status."""

    def body() -> int:
        arguments = _parser().parse_args(argv)
        status: int = arguments.command(arguments)
        return status

    return _guarded("inception", body)


def bench_main(argv: Sequence[str] | None = None) -> int:
    """Run `inception-bench`. Returns the exit status."""

    def body() -> int:
        from inception_engine.bench.command import main as bench

        return bench(argv)

    return _guarded("inception-bench", body)


def _guarded(program: str, body: Callable[[], int]) -> int:
    """Run a command; its errors become a line and a status. What is no user's mistake keeps its traceback."""
    if sys.stdout is None:  # closed by the caller (`>&-`), who wants the work and not the words
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes need not fit its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = body()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`). Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        if not isinstance(error, _user_errors()):
            raise
        print(error_line(program, error), file=sys.stderr)
        return USER_ERROR


def _user_errors() -> tuple[type[Exception], ...]:
    from inception_engine.compiler import CompileError
    from inception_engine.errors import EngineError
    from inception_engine.exporters.errors import ExportError
    from inception_engine.importers.errors import ImportFailed
    from inception_engine.network import NetworkError
    from inception_engine.simulate.gpu import SimulationError
    from inception_engine.spec import SpecError
    from inception_engine.train.errors import TrainError

    known = CommandError, EngineError, ImportFailed, ExportError, NetworkError, CompileError, SpecError
    return *known, SimulationError, TrainError, OSError, MemoryError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from inception_engine import __version__

        print(f"{parser.prog} {__version__}")
        parser.exit()


class _Command(Protocol):
    """The module of a command."""

    def add_options(self, parser: argparse.ArgumentParser, /) -> None: ...

    def run(self, arguments: argparse.Namespace, /) -> int:
        """Returns the exit status."""


def _parser() -> argparse.ArgumentParser:
    from inception_engine.commands import build, classify, compare, inspect, kernels, simulate, summary
    from inception_engine.evaluate import command as evaluate
    from inception_engine.exporters import command as export_onnx
    from inception_engine.exporters import tensorrt_command as export_tensorrt
    from inception_engine.importers import command as importing
    from inception_engine.serve import command as serve
    from inception_engine.train import command as train

    parser = _Parser(
        prog="inception",
        description="Train GoogLeNet, compile it to a plan, look at plans, run them on images, serve them.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: _Command, what: str, to: Any = commands, **texts: str) -> None:
        own = to.add_parser(name, help=what, **texts)
        command.add_options(own)
        own.set_defaults(command=command.run)

    add("summary", summary, "print the network's table beside the paper's")
    add(
        "import",
        importing,
        "make a network file of a torchvision checkpoint or an ONNX model",
        description="FILE is a torchvision GoogLeNet's state dict (.pth, .pt or safetensors), an ONNX model, or a "
        "state dict of this package's own model. The result is held against PyTorch or ONNX Runtime on random images: "
        "where they differ, nothing is written and the exit status is 1.",
    )
    export = commands.add_parser("export", help="write a network in another format")
    formats = export.add_subparsers(required=True, metavar="FORMAT")
    add(
        "onnx",
        export_onnx,
        "ONNX, for any batch size",
        formats,
        description="The model is checked, and held against the reference on random images by ONNX Runtime: where they "
        "differ, nothing is written and the exit status is 1.",
    )
    add(
        "tensorrt",
        export_tensorrt,
        "an engine for TensorRT 10 or 11, built on this machine for its GPU",
        formats,
        description="Builds a TensorRT engine and writes it with a record of the TensorRT, GPU and driver that it is "
        "for. The ONNX model goes beside it, to FILE.onnx, and the equivalent trtexec command is printed.",
    )
    add("build", build, "compile a network to a plan file")
    add("inspect", inspect, "show what is in a plan")
    add(
        "simulate",
        simulate,
        "predict how a GPU would run a plan, from its task table; needs no GPU",
        description="Of a plan: latency, bounds, critical path, launches. Of a network saved as .safetensors: tile "
        "shapes by predicted latency, best first.",
    )
    add("kernels", kernels, "show what the GPU kernels compile to; needs Triton, no GPU")
    add(
        "compare",
        compare,
        "say how far two backends or two files are apart, layer by layer",
        description="A and B are a file, BACKEND:FILE, or a backend alone, which takes the other's file. Backends: "
        "engine, onnxruntime, tensorrt, torch, reference. Exit status 1 if they differ by more than the tolerance.",
    )
    add(
        "train",
        train,
        "train a network on folders of images, by the paper's recipe",
        description="The keys of a training are options and, in a file, YAML. Under torchrun, several processes train "
        "one network. The result is OUTPUT/network.safetensors, which `inception build --network` takes.",
    )
    add(
        "classify",
        classify,
        "say what images show",
        usage="inception classify [options] [PLAN] IMAGE...",
        description="PLAN is the first name, unless that is a folder or ends like an image; without one, a network "
        "with random weights is used. An IMAGE is a JPEG or PNG file, or a folder of such files. `digits` as the PLAN "
        "is the built-in model, unless a file or folder here has that name; without images it is shown handwritten "
        "digits that it was not trained with.",
    )
    add(
        "serve",
        serve,
        "say what images show, over HTTP",
        description="POST an image file to /classify; /health says when it is ready, /metrics is for Prometheus. "
        "Images of several clients are run together. SIGTERM stops it when what it has taken is answered.",
    )
    add(
        "evaluate",
        evaluate,
        "say how often models are right: top-1 and top-5 by the paper's protocol",
        description="Runs models on labelled images and prints the paper's table, models by crops, beside its figures.",
    )
    return parser
