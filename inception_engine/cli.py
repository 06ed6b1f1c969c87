"""The commands `inception` and `inception-bench`.

Only the standard library is imported at the top: `inception --help` answers at once. A user's mistake is one line on
stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from inception_engine.terminal import error_line, printable_line, printable_lines, printable_path

if TYPE_CHECKING:
    from inception_engine.compiler.plan import Plan
    from inception_engine.engine import Classification, Engine
    from inception_engine.spec import Spec

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED = 141  # 128 + SIGPIPE

MANY_IMAGES = 10  # from which on a progress bar is shown
DEFAULT_BATCH = 8  # of the network that stands in where no plan is given


class CommandError(Exception):
    """What the user asked for cannot be done; the message says why."""


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


def _parser() -> argparse.ArgumentParser:
    from inception_engine.evaluate.command import add_options as add_evaluate_options
    from inception_engine.exporters.command import add_options as add_export_options
    from inception_engine.exporters.tensorrt_command import add_options as add_tensorrt_options
    from inception_engine.importers.command import add_options
    from inception_engine.serve.command import add_options as add_serve_options
    from inception_engine.train.command import add_options as add_train_options

    parser = _Parser(
        prog="inception",
        description="Train GoogLeNet, compile it to a plan, look at plans, run them on images, serve them.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    summary = commands.add_parser("summary", help="print the network's table beside the paper's")
    _add_variant(summary)
    summary.set_defaults(command=_summary)

    importing = commands.add_parser(
        "import",
        help="make a network file of a torchvision checkpoint or an ONNX model",
        description="FILE is a torchvision GoogLeNet's state dict (.pth, .pt or safetensors), an ONNX model, or a "
        "state dict of this package's own model. The result is held against PyTorch or ONNX Runtime on random images: "
        "where they differ, nothing is written and the exit status is 1.",
    )
    importing.add_argument("file", metavar="FILE")
    importing.add_argument(
        "-o", "--output", metavar="FILE", required=True, type=Path, help="the network to write (.safetensors)"
    )
    _add_unseen(importing.add_argument_group(_VARIANT_OF_STATE_DICT))
    add_options(importing)
    importing.set_defaults(command=_import)

    export = commands.add_parser("export", help="write a network in another format")
    formats = export.add_subparsers(required=True, metavar="FORMAT")
    onnx = formats.add_parser(
        "onnx",
        help="ONNX, for any batch size",
        description="The model is checked, and held against the reference on random images by ONNX Runtime: where they "
        "differ, nothing is written and the exit status is 1.",
    )
    add_export_options(onnx)
    _add_unseen(onnx.add_argument_group(_VARIANT_OF_STATE_DICT))
    add_options(onnx)
    onnx.set_defaults(command=_export_onnx)

    tensorrt = formats.add_parser(
        "tensorrt",
        help="an engine for TensorRT 10 or 11, built on this machine for its GPU",
        description="Builds a TensorRT engine and writes it with a record of the TensorRT, GPU and driver that it is "
        "for. The ONNX model goes beside it, to FILE.onnx, and the equivalent trtexec command is printed.",
    )
    add_tensorrt_options(tensorrt)
    tensorrt.set_defaults(command=_export_tensorrt)

    build = commands.add_parser("build", help="compile a network to a plan file")
    build.add_argument("-o", "--output", metavar="FILE", required=True, type=Path, help="the plan to write")
    build.add_argument(
        "--network",
        metavar="FILE",
        help="a file of weights: whatever `inception import` takes (default: random weights)",
    )
    _add_variant(build)
    add_options(build)
    build.add_argument("--seed", type=_natural, metavar="N", help="of the random weights (default: 0)")
    sizes = build.add_mutually_exclusive_group()
    sizes.add_argument(
        "--batches", type=_numbers, metavar="N,N", help="one program for each of these maximum batches"
    )
    sizes.add_argument(
        "--max-batch", type=int, default=1, metavar="N", help="one program for batches up to N (default: 1)"
    )
    build.add_argument(
        "--target", type=_names, default=["cpu"], help="machines to compile for (default: cpu)"
    )
    build.add_argument("--dtype", default="fp32", help="of the arithmetic (default: fp32)")
    build.set_defaults(command=_build)

    inspect = commands.add_parser("inspect", help="show what is in a plan")
    inspect.add_argument("plan", metavar="FILE", type=Path)
    inspect.add_argument("--layers", action="store_true", help="each layer instead of each module")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(command=_inspect)

    simulate = commands.add_parser(
        "simulate",
        help="predict how a GPU would run a plan, from its task table; needs no GPU",
        description="Of a plan: latency, bounds, critical path, launches. Of a network saved as .safetensors: tile "
        "shapes by predicted latency, best first.",
    )
    simulate.add_argument("path", metavar="PLAN|NETWORK", type=Path)
    simulate.add_argument("--gpu", default="h200", help="whose constants to take (default: h200)")
    program = simulate.add_mutually_exclusive_group()
    program.add_argument(
        "--program",
        type=int,
        metavar="N",
        help="of the plan, as inspect counts them (default: the first for a GPU)",
    )
    program.add_argument(
        "--batch", type=int, metavar="N", help="images of a run (default: the program's maximum)"
    )
    simulate.add_argument("--dtype", help="of a network: fp16 (default), bf16 or fp32")
    simulate.add_argument(
        "--trace", metavar="FILE", type=Path, help="write the run for Perfetto or chrome://tracing"
    )
    simulate.add_argument("--json", action="store_true", help="print JSON")
    simulate.set_defaults(command=_simulate)

    kernels = commands.add_parser(
        "kernels", help="show what the GPU kernels compile to; needs Triton, no GPU"
    )
    kernels.add_argument(
        "--table",
        action="store_true",
        required=True,
        help="registers, spills and instructions of every variant on every GPU generation (minutes the first time)",
    )
    kernels.set_defaults(command=_kernels)

    compare = commands.add_parser(
        "compare",
        help="say how far two backends or two files are apart, layer by layer",
        description="A and B are a file, BACKEND:FILE, or a backend alone, which takes the other's file. Backends: "
        "engine, onnxruntime, tensorrt, torch, reference. Exit status 1 if they differ by more than the tolerance.",
    )
    compare.add_argument("a", metavar="A", help="what is judged")
    compare.add_argument("b", metavar="B", help="what it is judged by")
    compare.add_argument(
        "--images", default="random", metavar="DIR|FILE|random", help="to run (default: random, seeded)"
    )
    compare.add_argument("--count", type=int, metavar="N", help="of images (default: 4 random ones, or all)")
    compare.add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="of random images (default: 0)"
    )
    compare.add_argument(
        "--tolerance", type=float, metavar="X", help="of max|d|/max|B| (default: by the coarser dtype)"
    )
    compare.add_argument("--device", metavar="NAME", help="of backends that have one: cpu or cuda")
    compare.add_argument("--dtype", help="of A, where a backend makes it from a network")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(command=_compare)

    train = commands.add_parser(
        "train",
        help="train a network on folders of images, by the paper's recipe",
        description="The keys of a training are options and, in a file, YAML. Under torchrun, several processes train "
        "one network. The result is OUTPUT/network.safetensors, which `inception build --network` takes.",
    )
    add_train_options(train)
    train.set_defaults(command=_train)

    classify = commands.add_parser(
        "classify",
        help="say what images show",
        usage="inception classify [options] [PLAN] IMAGE...",
        description="PLAN is the first name, unless that is a folder or ends like an image; without one, a network "
        "with random weights is used. An IMAGE is a JPEG or PNG file, or a folder of such files. `digits` as the PLAN "
        "is the built-in model, unless a file or folder here has that name; without images it is shown handwritten "
        "digits that it was not trained with.",
    )
    classify.add_argument("paths", metavar="PLAN, IMAGE", nargs="+")
    classify.add_argument("--top-k", type=int, default=5, metavar="K", help="classes per image (default: 5)")
    classify.add_argument("--json", action="store_true", help="print JSON")
    classify.add_argument("--threads", type=int, default=0, metavar="N", help="default: all that may be used")
    classify.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    classify.add_argument(
        "--ray",
        metavar="FOLDER",
        type=Path,
        help="classify on all machines of a Ray cluster, or with all processors of this one, in parts whose results go "
        "to FOLDER; the same command again does what is missing there",
    )
    classify.add_argument(
        "--part-size", type=int, metavar="N", help="images of a part, with --ray (default: 500)"
    )
    classify.set_defaults(command=_classify)

    serve = commands.add_parser(
        "serve",
        help="say what images show, over HTTP",
        description="POST an image file to /classify; /health says when it is ready, /metrics is for Prometheus. "
        "Images of several clients are run together. SIGTERM stops it when what it has taken is answered.",
    )
    add_serve_options(serve)
    serve.set_defaults(command=_serve)

    evaluate = commands.add_parser(
        "evaluate",
        help="say how often models are right: top-1 and top-5 by the paper's protocol",
        description="Runs models on labelled images and prints the paper's table, models by crops, beside its figures.",
    )
    add_evaluate_options(evaluate)
    evaluate.set_defaults(command=_evaluate)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from inception_engine import __version__

        print(f"{parser.prog} {__version__}")
        parser.exit()


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not whole numbers with commas between: {text!r}") from None


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number from 0 on: {text!r}")
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_numbers(text))


def _names(text: str) -> list[str]:
    return text.split(",")


# Fields of a Spec that have an option of their own: those that a file's tensors do not show, and those that they do.
_UNSEEN_FIELDS = ("norm", "pool_padding", "pool_kernels")
_SEEN_FIELDS = ("third_branch", "width", "classes")
_VARIANT_OF_STATE_DICT = "variant of the network, for state dicts of this package's model"
_VARIANT_FIELDS = (*_UNSEEN_FIELDS, *_SEEN_FIELDS, "input_size")


def _add_variant(parser: argparse.ArgumentParser) -> None:
    variant = parser.add_argument_group("variant of the network")
    _add_unseen(variant)
    variant.add_argument("--third-branch", type=int, metavar="K", help="kernel of the 5x5 branch: 5 or 3")
    variant.add_argument("--width", type=float, metavar="X", help="multiplies channel counts")
    variant.add_argument("--classes", type=int, metavar="N")


def _add_unseen(variant: argparse._ArgumentGroup) -> None:
    variant.add_argument(
        "--variant", "--preset", metavar="NAME", help="lrn (the paper's, default), plain or torchvision"
    )
    variant.add_argument("--norm", help="lrn, batch or none")
    variant.add_argument("--pool-padding", help="ceil (56/28/14/7 pixels) or none (55/27/13/6)")
    variant.add_argument(
        "--pool-kernels", type=_sizes, metavar="A,B,C,D", help="of the four max-pools between the modules"
    )
    variant.add_argument("--input-size", type=int, metavar="N", help="height and width in pixels")


def _spec(arguments: argparse.Namespace) -> Spec:
    import dataclasses

    from inception_engine.spec import PRESETS

    name = arguments.variant or "lrn"
    if name not in PRESETS:
        raise CommandError(f"unknown variant {name!r}; there is {', '.join(PRESETS)}")
    given = {field: getattr(arguments, field, None) for field in _VARIANT_FIELDS}
    return dataclasses.replace(
        PRESETS[name], **{field: value for field, value in given.items() if value is not None}
    )


def _summary(arguments: argparse.Namespace) -> int:
    from inception_engine.summary import render

    print(render(_spec(arguments)))
    return 0


def _unseen_spec(arguments: argparse.Namespace) -> Spec | None:
    """What is said of the variant of a file's network, or None. Raises CommandError for what its tensors say."""
    for field in ("seed", *_SEEN_FIELDS):
        if getattr(arguments, field, None) is not None:
            raise CommandError(f"--{field.replace('_', '-')} changes nothing in a network read from a file")
    given = any(getattr(arguments, field) is not None for field in ("variant", *_UNSEEN_FIELDS))
    return _spec(arguments) if given else None


def _import(arguments: argparse.Namespace) -> int:
    from inception_engine.importers.command import run

    return run(arguments, _unseen_spec(arguments))


def _export_onnx(arguments: argparse.Namespace) -> int:
    from inception_engine.exporters.command import run

    return run(arguments, _unseen_spec(arguments))


def _build(arguments: argparse.Namespace) -> int:
    from inception_engine import compile, googlenet
    from inception_engine.files import check_target
    from inception_engine.importers import command

    path: Path = arguments.output
    check_target(path, arguments.network)
    if arguments.network is None:
        command.refuse_options(arguments)
        network = googlenet(arguments.seed or 0, _spec(arguments))
    elif (loaded := command.load(arguments.network, arguments, _unseen_spec(arguments))) is None:
        return command.failed(path)
    else:
        network = loaded
    plan = compile(
        network,
        targets=arguments.target,
        batches=arguments.batches,
        max_batch=arguments.max_batch,
        dtype=arguments.dtype,
    )
    try:
        plan.save(path)
    except OSError as error:  # it names the temporary file
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
    print(f"{path}: {printable_line(network.name)}, {_programs(plan)}, {path.stat().st_size / 1e6:.1f} MB")
    if plan.metadata["random_weights"]:
        seed = printable_line(str(network.metadata.get("seed", "unknown")))
        print(
            f"Its weights are random (seed {seed}): it computes as fast as a trained network, and knows nothing."
        )
    return 0


def _programs(plan: Plan) -> str:
    batches = ", ".join(str(int(program.header["max_batch"])) for program in plan.programs)
    return f"{len(plan.programs)} program{'s' if len(plan.programs) > 1 else ''} (maximum batch {batches})"


def _inspect(arguments: argparse.Namespace) -> int:
    from inception_engine.compiler.inspect import render, report
    from inception_engine.compiler.plan import Plan
    from inception_engine.errors import PlanError

    path: Path = arguments.plan
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: not a file")
    try:
        document = report(Plan.load(path))
    except PlanError as error:
        raise type(error)(f"{path}: {error}") from None
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        print(render(printable_lines(document), arguments.layers))
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from inception_engine.simulate.command import simulate_network, simulate_plan

    path: Path = arguments.path
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: not a file")
    simulated = simulate_network if path.suffix == ".safetensors" else simulate_plan
    document, text = simulated(arguments)
    print(json.dumps(document, indent=2) if arguments.json else text)
    return 0


def _kernels(_: argparse.Namespace) -> int:
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        raise CommandError("TRITON_INTERPRET is set: kernels are interpreted, not compiled")
    try:
        from inception_engine.kernels import machine_code
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise CommandError("Triton is not installed: pip install 'inception-engine[gpu]'") from None
    for line in machine_code.render(machine_code.table()):
        print(line, flush=True)
    return 0


def _export_tensorrt(arguments: argparse.Namespace) -> int:
    from inception_engine.exporters.tensorrt_command import run

    return run(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    from inception_engine.compare_command import command

    return command(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from inception_engine.train.command import run

    return run(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from inception_engine.evaluate.command import run

    return run(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from inception_engine.serve.command import run

    return run(arguments)


def _classify(arguments: argparse.Namespace) -> int:
    from inception_engine.preprocess import find_images

    if arguments.paths == [BUILT_IN] and not Path(BUILT_IN).exists():
        return _classify_digits(arguments)
    plan, paths = _split_plan(arguments.paths)
    for path in map(Path, paths):
        if path.is_dir() and next(find_images([path]), None) is None:
            raise CommandError(f"{path}: holds no JPEG or PNG files")
    images = list(find_images(paths))
    if arguments.ray is not None:
        from inception_engine.evaluate.collection_command import run

        found, random_weights = run(plan, images, arguments)
        return _show(found, len(images), random_weights, arguments)
    if arguments.part_size is not None:
        raise CommandError("--part-size is of --ray FOLDER")
    with _engine(plan, arguments) as engine:
        if engine.note:
            print(f"inception: note: running on the CPU: {engine.note}", file=sys.stderr)
        found = engine.classify_each(images, arguments.top_k)
        return _show(found, len(images), engine.random_weights, arguments)


def _classify_digits(arguments: argparse.Namespace) -> int:
    from inception_engine.evaluate import digits

    if arguments.ray is not None or arguments.part_size is not None:
        raise CommandError("--ray is for images of your own: give them after digits")
    with _engine(BUILT_IN, arguments) as engine:
        for line in digits.lines(engine, arguments.top_k, arguments.json):
            print(line)
    return 0


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


BUILT_IN = "digits"  # as a plan: the model that comes with the package


def _split_plan(paths: list[str]) -> tuple[str | None, list[str]]:
    """The plan, if the first name is not an image's, and the images."""
    from inception_engine.preprocess import SUFFIXES

    first = Path(paths[0])
    if first.is_dir() or first.suffix.lower() in SUFFIXES:
        return None, paths
    if len(paths) == 1:
        raise CommandError(f"no images to classify with {first}: give JPEG or PNG files or folders after it")
    return paths[0], paths[1:]


def _engine(plan: str | None, arguments: argparse.Namespace) -> Engine:
    from inception_engine import Engine, compile, googlenet

    options = {"device": arguments.device, "threads": arguments.threads}
    if plan == BUILT_IN and not Path(plan).exists():
        from inception_engine import load_network, models

        targets = "cuda" if arguments.device.startswith("cuda") else "cpu"
        return Engine(
            compile(load_network(models.DIGITS), targets=targets, max_batch=DEFAULT_BATCH), **options
        )
    if plan is not None:
        return Engine(plan, **options)
    print("inception: note: no plan given; compiling GoogLeNet with random weights", file=sys.stderr)
    return Engine(compile(googlenet(), max_batch=DEFAULT_BATCH), **options)


def _as_text(result: Classification) -> Iterator[str]:
    assert result.path is not None  # it was given as one
    yield printable_path(result.path)
    if result.nan:
        yield "  no classes: the network's output holds NaN"
    for prediction in result.top:
        yield f"  {prediction.probability:7.2%}  {printable_line(prediction.label)}"
