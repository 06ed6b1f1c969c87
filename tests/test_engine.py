"""The Engine against the reference, its arguments and its errors; and the binding against the C header."""

from __future__ import annotations

import copy
import ctypes
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_engine import binding, errors, reference
from inception_engine.classification import Classification
from inception_engine.compiler import compile
from inception_engine.compiler.plan import Plan
from inception_engine.engine import Engine
from inception_engine.network import AveragePool, Conv, Linear, MaxPool, Network, Preprocess, Softmax
from inception_engine.preprocess import normalise, pixels
from tests.tolerances import TOLERANCES, error

MAX_BATCH = 5
SHAPE = (3, 8, 10)
LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture(scope="module")
def network() -> Network:
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)

    return Network(
        name="tiny",
        input_shape=SHAPE,
        layers=(
            Conv(
                name="conv",
                inputs=("input",),
                weight=weights(20, 3, 3, 3),
                bias=weights(20),
                pads=(1, 1, 1, 1),
            ),
            MaxPool(name="pool", inputs=("conv",), kernel=(2, 2), stride=(2, 2)),
            Linear(name="fc", inputs=("pool",), weight=weights(7, 20 * 4 * 5), bias=weights(7)),
            Softmax(name="softmax", inputs=("fc",)),
        ),
        logits="fc",
        labels=LABELS,
        preprocess=Preprocess(mean=(100, 110, 120), std=(50, 55, 60), order="BGR", resize=12),
        metadata={"weights": "random"},
    )


@pytest.fixture(scope="module")
def plan(network: Network) -> Plan:
    return compile(network, batches=(2, MAX_BATCH))


@pytest.fixture
def engine(plan: Plan) -> Iterator[Engine]:
    with Engine(plan, threads=2, poison=True) as engine:
        yield engine


def images(batch: int = MAX_BATCH) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, *SHAPE), dtype=np.float32)


def photos(batch: int = MAX_BATCH) -> np.ndarray:
    channels, height, width = SHAPE
    return np.random.default_rng(2).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def test_float32_images_match_the_reference(engine: Engine, network: Network) -> None:
    expected = reference.run(network, images())["fc"]
    result = engine.run(images())
    assert result.dtype == np.float32
    assert error(result, expected) <= TOLERANCES["fp32"].logits


def test_uint8_images_are_normalised_by_the_plan(engine: Engine, network: Network) -> None:
    normalised = normalise(photos(), network.preprocess)
    result = engine.run(photos())
    assert error(result, reference.run(network, normalised)["fc"]) <= TOLERANCES["fp32"].logits
    assert error(result, engine.run(normalised)) <= TOLERANCES["fp32"].layer


def test_tensors_in_tensors_out(engine: Engine) -> None:
    torch = pytest.importorskip("torch")
    expected = engine.run(images())
    tensor = torch.from_numpy(images())
    for variant in (tensor, tensor.clone().requires_grad_(), tensor.to(memory_format=torch.channels_last)):
        result = engine.run(variant)
        assert isinstance(result, torch.Tensor)
        np.testing.assert_array_equal(result.numpy(), expected)
    named = engine.run(torch.from_numpy(photos()), outputs=["probabilities"])
    assert isinstance(named["probabilities"], torch.Tensor)


@pytest.mark.parametrize("make", ["meta", "sparse", "bfloat16"])
def test_tensors_that_numpy_cannot_see_are_refused(engine: Engine, make: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(images())
    variants = {
        "meta": tensor.to("meta"),
        "sparse": tensor.to_sparse(),
        "bfloat16": tensor.to(torch.bfloat16),
    }
    with pytest.raises(errors.InputTypeError, match="tensor of"):
        engine.run(variants[make])


@pytest.mark.parametrize("given", ["path", "content"])
def test_a_run_imports_no_more_than_it_needs(plan: Plan, tmp_path: Path, given: str) -> None:
    plan.save(tmp_path / "tiny.plan")
    code = (
        "import sys\n"
        "import numpy as np\n"
        "import inception_engine as ie\n"
        f"plan = {str(tmp_path / 'tiny.plan')!r}\n"
        f"with ie.Engine(plan if {given == 'path'} else open(plan, 'rb').read()) as engine:\n"
        f"    engine.run(np.zeros((1, *{SHAPE}), np.float32))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('inception_engine.')))\n"
        "print(*{'torch', 'PIL', 'yaml', 'xxhash', 'tempfile'} & sys.modules.keys())\n"
        "assert engine.preprocess.resize == 12\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours, others = done.stdout.splitlines()
    assert ours.split() == [f"inception_engine.{name}" for name in ("binding", "engine", "errors")]
    assert not others


def test_layout_in_memory_does_not_matter(engine: Engine) -> None:
    whole = images()
    expected = engine.run(whole)
    unaligned = np.empty(whole.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(whole.shape)
    unaligned[:] = whole
    read_only = whole.copy()
    read_only.flags.writeable = False
    reversed_twice = whole[:, :, ::-1].copy()[:, :, ::-1]
    for variant in (unaligned, read_only, reversed_twice, np.asfortranarray(whole)):
        np.testing.assert_array_equal(engine.run(variant), expected)


def test_any_batch_gives_the_same_bits(engine: Engine) -> None:
    expected = engine.run(images())
    for batch in range(1, MAX_BATCH + 1):
        np.testing.assert_array_equal(engine.run(images()[:batch]), expected[:batch])


def test_outputs_by_name(engine: Engine) -> None:
    results = engine.run(images(), outputs=["probabilities", "logits", "logits"])
    assert list(results) == ["probabilities", "logits"]
    np.testing.assert_array_equal(results["logits"], engine.run(images()))
    np.testing.assert_allclose(results["probabilities"].sum(axis=1), 1, rtol=1e-6)
    assert engine.run(images(), outputs=[]) == {}


def test_outputs_larger_than_a_pixel_keep_their_image(network: Network) -> None:
    with Engine(compile(network, max_batch=2, keep_all=True)) as engine:
        assert engine.run(images(2), outputs=["conv"])["conv"].shape == (2, 20, 8, 10)


@pytest.mark.parametrize("outputs", [["nothing"], ["logits", "nothing"], "logits", 5, [[]]])
def test_unknown_outputs_are_refused(engine: Engine, outputs: Any) -> None:
    with pytest.raises(errors.OutputNameError):
        engine.run(images(), outputs=outputs)


def test_attributes(engine: Engine, network: Network, plan: Plan) -> None:
    assert engine.input_shape == SHAPE
    assert engine.max_batch == MAX_BATCH
    assert engine.programs == 2
    assert engine.outputs == {"logits": (7, 1, 1), "probabilities": (7, 1, 1)}
    assert engine.device == "cpu" and engine.isa in binding.ISAS[1:]
    assert engine.name == "tiny" and engine.labels == LABELS and engine.random_weights
    assert engine.preprocess == network.preprocess
    assert engine.weight_bytes == len(plan.weights)
    assert engine.arena_bytes == plan.programs[-1].header["arena_bytes"] > 0
    half = compile(network, batches=(1, MAX_BATCH), dtype="bf16")
    with Engine(half) as other:  # what is allocated: others keep bfloat16 as float32
        scale = 1 if other.isa in ("amx", "avx512_bf16") else 2
        assert other.arena_bytes == scale * half.programs[-1].header["arena_bytes"]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1000, 1), (7, 5000)])
def test_pools_of_lines_longer_than_they_do_at_a_time(kernel: int, stride: int) -> None:
    pads = (0, kernel // 3, 0, kernel // 3)
    size, step = (2, kernel), (1, stride)
    layers = (
        MaxPool(name="largest", inputs=("input",), kernel=size, stride=step, pads=pads),
        AveragePool(name="mean", inputs=("input",), kernel=size, stride=step, pads=pads),
    )
    network = Network(
        name="wide",
        input_shape=(3, 2, 13_001),
        layers=layers,
        logits="mean",
    )
    image = np.random.default_rng(0).standard_normal((1, *network.input_shape), dtype=np.float32)
    expected = reference.run(network, image, keep="all")
    plan = compile(network, keep_all=True)
    assert all(op["tile_rows"] >= op["out_w"] for op in plan.programs[0].ops)
    with Engine(plan, poison=True) as engine:
        found = engine.run(image, outputs=list(engine.outputs))
    assert (found["largest"] == expected["largest"]).all()
    assert error(found["logits"], expected["mean"]) <= TOLERANCES["fp32"].logits


@pytest.mark.parametrize(
    ("wrong", "kind", "builtin"),
    [
        pytest.param(images().astype(np.float64), errors.InputTypeError, TypeError, id="float64"),
        pytest.param(images().astype(">f4"), errors.InputTypeError, TypeError, id="big-endian"),
        pytest.param(images().tolist(), errors.InputTypeError, TypeError, id="list"),
        pytest.param(None, errors.InputTypeError, TypeError, id="None"),
        pytest.param(images()[0], errors.InputShapeError, ValueError, id="rank"),
        pytest.param(np.zeros((), np.float32), errors.InputShapeError, ValueError, id="scalar"),
        pytest.param(images().transpose(0, 2, 3, 1), errors.InputShapeError, ValueError, id="float-NHWC"),
        pytest.param(photos().transpose(0, 3, 1, 2), errors.InputShapeError, ValueError, id="uint8-NCHW"),
        pytest.param(images()[:, :, :, :-1], errors.InputShapeError, ValueError, id="width"),
        pytest.param(images(0), errors.BatchError, ValueError, id="batch-0"),
        pytest.param(images(MAX_BATCH + 1), errors.BatchError, ValueError, id="large-batch"),
    ],
)
def test_wrong_images_are_refused(
    engine: Engine, wrong: np.ndarray, kind: type[Exception], builtin: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        engine.run(wrong)
    assert isinstance(caught.value, errors.EngineError) and isinstance(caught.value, builtin)
    assert "\n" not in str(caught.value)
    engine.run(images())  # and the engine goes on


def test_the_c_library_checks_the_batch_itself(engine: Engine) -> None:
    engine.max_batch = 1000
    with pytest.raises(errors.BatchError, match=f"1 to {MAX_BATCH}"):
        engine.run(images(MAX_BATCH + 1))


def test_nan_propagates_to_its_image_alone(engine: Engine) -> None:
    batch = images()
    batch[1, 2, 3, 4] = np.nan
    result = engine.run(batch)
    assert np.isnan(result[1]).any()
    np.testing.assert_array_equal(np.delete(result, 1, axis=0), np.delete(engine.run(images()), 1, axis=0))


def test_threads_can_share_an_engine(engine: Engine) -> None:
    batches = [images() * np.float32(scale) for scale in range(1, 5)]
    expected = [engine.run(batch) for batch in batches]

    def run(index: int) -> bool:
        return all(np.array_equal(engine.run(batches[index]), expected[index]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))


Handling = Callable[[int, Callable[[], object]], None]


@pytest.fixture
def handling() -> Iterator[Handling]:
    """Has a signal handled by a function, and ends a test that waits for itself."""

    def alarm(number: int, frame: object) -> None:
        raise TimeoutError("the handler does not end")

    before: dict[int, Any] = {signal.SIGALRM: signal.signal(signal.SIGALRM, alarm)}
    signal.setitimer(signal.ITIMER_REAL, 60)

    def handle(number: int, function: Callable[[], object]) -> None:
        before.setdefault(number, signal.getsignal(number))
        signal.signal(number, lambda *_: function())

    yield handle
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("use", [lambda engine: engine.run(images()), Engine.check, Engine.close])
def test_what_interrupts_a_run_cannot_use_its_engine(
    use: Callable[[Engine], object], plan: Plan, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[errors.BusyError] = []
    with Engine(plan, threads=1) as engine:

        class Interrupted:
            def __getattr__(self, name: str) -> Any:
                return getattr(binding.library(), name)

            def ie_run(self, *arguments: Any) -> int:
                status: int = binding.library().ie_run(*arguments)
                signal.raise_signal(signal.SIGUSR1)
                return status

        def handler() -> None:
            with pytest.raises(errors.BusyError, match="in the middle of a run of this thread") as caught:
                use(engine)
            refused.append(caught.value)

        expected = engine.run(images())
        handling(signal.SIGUSR1, handler)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_library", Interrupted())
            np.testing.assert_array_equal(engine.run(images()), expected)
            handling(signal.SIGUSR1, lambda: use(engine))  # its error ends the run, and no more than that
            with pytest.raises(errors.BusyError):
                engine.run(images())
        np.testing.assert_array_equal(engine.run(images()), expected)
    assert len(refused) == 1


def test_what_interrupts_closing_frees_nothing_twice(
    plan: Plan, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[str] = []
    engine = Engine(plan, threads=1)

    class Interrupted:
        def __getattr__(self, name: str) -> Any:
            freed.append(name)
            return getattr(binding.library(), name)

        def ie_context_free(self, context: Any) -> None:
            signal.raise_signal(signal.SIGUSR1)
            self.__getattr__("ie_context_free")(context)

    def handler() -> None:
        with pytest.raises(errors.BusyError):
            engine.close()

    handling(signal.SIGUSR1, handler)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_library", Interrupted())
        engine.close()
        engine.close()  # twice is once
    assert freed == ["ie_context_free", "ie_engine_free"]
    with pytest.raises(errors.ClosedError):
        engine.run(images())


def test_a_timer_whose_handler_runs_the_engine(plan: Plan, handling: Handling) -> None:
    """Between runs it has its result, within one it is refused."""
    with Engine(plan, threads=1) as engine:
        expected = engine.run(images())
        refused: list[errors.BusyError] = []

        def handler() -> None:
            try:
                np.testing.assert_array_equal(engine.run(images()), expected)
            except errors.BusyError as error:
                refused.append(error)

        handling(signal.SIGVTALRM, handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.005, 0.005)
        try:
            while len(refused) < 5:
                np.testing.assert_array_equal(engine.run(images()), expected)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def test_use_after_close_is_an_error(plan: Plan) -> None:
    with Engine(plan) as engine:
        pass
    engine.close()
    with pytest.raises(errors.ClosedError, match="closed"):
        engine.run(images())


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_would_share_what_the_library_frees(engine: Engine, make: Callable[[Engine], Any]) -> None:
    with pytest.raises(TypeError, match="an Engine cannot be copied or pickled; make another from the plan"):
        make(engine)
    engine.run(images())


def test_a_batch_is_refused_before_it_is_copied(engine: Engine) -> None:
    with pytest.raises(errors.BatchError):  # of 960 TB, were it made contiguous
        engine.run(np.broadcast_to(images(1), (10**12, *SHAPE)))


@pytest.mark.parametrize("tasks", [-1, 1.5, "7", 2**40])
def test_tasks_that_are_no_number_are_refused(engine: Engine, tasks: Any) -> None:
    with pytest.raises(errors.ArgumentError, match="tasks is"):
        engine.trace(images(), tasks)


@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
def test_names_that_are_no_paths(name: str, plan: Plan) -> None:
    with pytest.raises(errors.FileError, match="not a path"):
        Engine(name)
    with pytest.raises(errors.FileError, match="not a path"):
        Engine(plan, kernels=name)


def test_a_forked_process_is_told_to_make_its_own(engine: Engine) -> None:
    child = os.fork()
    if child == 0:
        try:
            engine.run(images())
        except errors.ClosedError:
            engine.close()  # must not wait for threads that this process does not have
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.run(images())


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"device": "tpu"}, errors.DeviceError),
        ({"device": "cuda"}, errors.NoProgramError),
        ({"isa": "neon"}, errors.ArgumentError),
        ({"threads": -1}, errors.ArgumentError),
        ({"threads": 2**32}, errors.ArgumentError),
        ({"threads": 100_000}, errors.ArgumentError),
        ({"specialise": "always"}, errors.ArgumentError),
    ],
)
def test_wrong_options_are_refused(plan: Plan, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Engine(plan, **options)


def test_a_plan_comes_as_object_content_or_file(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "tiny.plan")
    expected = Engine(plan).run(images())
    for source in (plan.to_bytes(), tmp_path / "tiny.plan", str(tmp_path / "tiny.plan")):
        np.testing.assert_array_equal(Engine(source).run(images()), expected)


def test_files_that_are_no_plans(plan: Plan, tmp_path: Path) -> None:
    content = plan.to_bytes()
    newer = bytearray(content)
    newer[8] = 99
    changed = bytearray(content)
    changed[-1] ^= 1
    files: dict[str, tuple[bytes, type[errors.PlanError]]] = {
        "truncated": (content[:-100], errors.PlanTruncated),
        "foreign": (b"PK\x03\x04" * 100, errors.PlanForeign),
        "empty": (b"", errors.PlanForeign),
        "newer": (bytes(newer), errors.PlanVersion),
        "changed": (bytes(changed), errors.PlanHash),
    }
    for name, (data, kind) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(errors.PlanError) as caught:
            Engine(tmp_path / name)
        assert type(caught.value) is kind, name
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)
    for path in (tmp_path / "missing", tmp_path, "nul\0byte"):
        with pytest.raises(errors.FileError) as failed:
            Engine(path)
        assert isinstance(failed.value, OSError)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_plan_for_another_machine_is_refused(network: Network, dtype: str) -> None:
    with pytest.raises(errors.NoProgramError):
        Engine(compile(network, targets=("cuda",), dtype=dtype), device="cpu")


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"labels": ["one", "two"]}, id="labels"),
        pytest.param({"labels": 3}, id="labels-type"),
        pytest.param({"preprocess": {"std": [1, 0, 1]}}, id="std"),
        pytest.param({"preprocess": {"mean": [1, 2]}}, id="mean"),
        pytest.param({"preprocess": {"order": "RBG"}}, id="order"),
        pytest.param({"preprocess": {"resize": -1}}, id="resize"),
        pytest.param({"preprocess": {"resize": "large"}}, id="resize-type"),
        pytest.param({"preprocess": {"colour": 1}}, id="unknown-field"),
        pytest.param({"preprocess": 3}, id="preprocess-type"),
        pytest.param([], id="not-an-object"),
    ],
)
def test_damaged_metadata_is_refused(plan: Plan, metadata: dict[str, object]) -> None:
    damaged = Plan(metadata=metadata, weights=plan.weights, programs=plan.programs)
    with pytest.raises(errors.PlanMetadata):
        Engine(damaged)


def test_classify_keeps_order_and_outlives_a_bad_file(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for index, photo in enumerate(photos(9)):
        Image.fromarray(photo).save((folder if index else tmp_path) / f"{index}.png")
    (folder / "4.png").write_text("no image")
    results = engine.classify([tmp_path / "0.png", folder, tmp_path / "missing.jpg"], top_k=3)
    assert [Path(result.path or "").name for result in results] == [f"{i}.png" for i in range(9)] + [
        "missing.jpg"
    ]
    assert isinstance(results[4].error, errors.ImageForeign) and results[4].top == ()
    assert isinstance(results[9].error, errors.ImageUnreadable)
    for index in (0, 1, 2, 3, 5, 6, 7, 8):
        expected = engine.run(pixels(photos(9)[index], engine.preprocess, SHAPE)[None])[0]
        assert results[index].error is None
        assert_ranked(results[index], expected, 3)


def assert_ranked(result: Classification, logits: np.ndarray, top_k: int) -> None:
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    order = np.argsort(-probabilities)[:top_k]
    assert [prediction.index for prediction in result.top] == order.tolist()
    assert [prediction.label for prediction in result.top] == [LABELS[i] for i in order]
    np.testing.assert_allclose([p.probability for p in result.top], probabilities[order], rtol=1e-9)


def test_classify_takes_images_in_memory(engine: Engine, tmp_path: Path) -> None:
    photo = photos(1)[0]
    Image.fromarray(photo).save(tmp_path / "a.png")
    (expected,) = engine.classify(str(tmp_path / "a.png"))
    assert expected.path == str(tmp_path / "a.png") and len(expected.top) == 5
    for source in (photo, Image.fromarray(photo), [photo], photo[None], iter([Image.fromarray(photo)])):
        (result,) = engine.classify(source)
        assert result == Classification(None, expected.top)


def test_classify_takes_normalised_images_of_any_batch(engine: Engine) -> None:
    torch = pytest.importorskip("torch")
    many = images(2 * MAX_BATCH + 1)
    results = engine.classify(many, top_k=100)
    assert len(results) == len(many)
    assert_ranked(results[-1], engine.run(many[-1:])[0], len(LABELS))
    assert engine.classify(many[0], top_k=100) == results[:1]
    assert engine.classify(torch.from_numpy(many), top_k=100) == results


def test_classify_says_so_when_the_output_is_nan(engine: Engine) -> None:
    batch = images()
    batch[1] = np.nan
    results = engine.classify(batch)
    assert [result.nan for result in results] == [False, True, False, False, False]
    assert results[1].top == () and results[1].error is None


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (3, errors.InputTypeError),
        ([3], errors.InputTypeError),
        (np.zeros((8, 10), np.float32), errors.InputShapeError),
        (np.zeros((0, 3, 8, 10), np.float32), errors.BatchError),
        (np.zeros((3, 8, 10), np.float64), errors.InputTypeError),
        (np.zeros((3, 9, 10), np.float32), errors.InputShapeError),
    ],
)
def test_classify_refuses_what_is_no_image(engine: Engine, source: np.ndarray, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        engine.classify(source)


def test_classify_refuses_top_0(engine: Engine) -> None:
    with pytest.raises(errors.ArgumentError):
        engine.classify(photos(), top_k=0)


def test_running_on_arrays_imports_no_torch(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "tiny.plan")
    code = (
        "import sys, numpy, inception_engine as ie\n"
        "with ie.Engine(sys.argv[1]) as engine:\n"
        "    images = numpy.zeros((1, 3, 8, 10), numpy.float32)\n"
        "    assert engine.run(images).shape == (1, 7) and engine.classify(images)\n"
        "assert not {'torch', 'triton', 'onnx'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "tiny.plan")], check=True)


def test_a_missing_or_other_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = binding.library_path()
    binding.library.cache_clear()
    monkeypatch.setattr(binding, "ABI_VERSION", 99)
    with pytest.raises(errors.LibraryError, match="ABI version 1, this package needs 99"):
        binding.library()
    monkeypatch.undo()
    monkeypatch.setenv(binding.LIBRARY_VARIABLE, str(tmp_path / "nothing.so"))
    with pytest.raises(errors.LibraryError, match=r"nothing\.so"):
        binding.library()
    (tmp_path / "nothing.so").write_text("not a library")
    with pytest.raises(errors.LibraryError, match="cannot be used"):
        binding.library()
    monkeypatch.setenv(binding.LIBRARY_VARIABLE, str(path))
    assert binding.library().ie_abi_version() == binding.ABI_VERSION
    binding.library.cache_clear()


ROOT = Path(__file__).parents[1]
HEADER = (ROOT / "inception_engine/runtime/include/inception_engine.h").read_text()


def test_every_status_of_the_header_has_its_error() -> None:
    statuses = {name: int(value) for name, value in re.findall(r"(IE_(?:ERROR|PLAN)_\w+) = (\d+)", HEADER)}
    assert len(statuses) == len(set(statuses.values())) > 30
    classes = {}
    for name, value in statuses.items():
        with pytest.raises(errors.EngineError, match="why") as caught:
            errors.raise_for_status(value, "why")
        classes[name] = type(caught.value)
        assert caught.value.status == value
        assert isinstance(caught.value, errors.PlanError) == name.startswith("IE_PLAN_")
        assert binding.library().ie_status_name(value) == name.encode()
    assert len(set(classes.values())) == len(statuses) and errors.EngineError not in classes.values()
    errors.raise_for_status(0, "")


def test_the_binding_declares_what_the_header_does() -> None:
    described = json.loads((ROOT / "inception_engine/runtime/abi.json").read_text())
    assert described["functions"].keys() == binding._FUNCTIONS.keys()
    for name, (_, arguments) in binding._FUNCTIONS.items():
        signature = described["functions"][name]
        assert len(arguments) == (0 if signature.endswith("(void)") else signature.count(",") + 1), name
    structures = {
        "ie_engine_options": binding.EngineOptions,
        "ie_context_options": binding.ContextOptions,
        "ie_engine_info": binding.EngineInfo,
        "ie_preprocess_info": binding.PreprocessInfo,
        "ie_picture": binding.Picture,
        "ie_output_info": binding.OutputInfo,
        "ie_input": binding.Input,
        "ie_output": binding.Output,
    }
    assert described["structs"].keys() == structures.keys()
    for name, structure in structures.items():
        fields = [(field[0], getattr(structure, field[0])) for field in structure._fields_]
        declared = {field: {"offset": place.offset, "size": place.size} for field, place in fields}
        for field in described["structs"][name]["fields"].values():
            del field["type"]
        assert declared == described["structs"][name]["fields"], name
        assert ctypes.sizeof(structure) == described["structs"][name]["size"], name
    enumerations = {
        "ie_device": binding.DEVICES,
        "ie_isa": binding.ISAS,
        "ie_specialise": binding.SPECIALISE,
        "ie_order": binding.ORDERS,
        "ie_log_level": binding.LOG_LEVELS,
    }
    for enum, names in enumerations.items():
        values = described["enums"][enum]["values"]
        prefix = enum.removesuffix("_level").upper()
        assert values == {f"{prefix}_{name.upper()}": value for value, name in enumerate(names) if name}
    assert f"#define IE_ABI_VERSION {binding.ABI_VERSION}u" in HEADER
    assert f"#define IE_MESSAGE_BYTES {binding.MESSAGE_BYTES}" in HEADER


@pytest.mark.parametrize("plan", [None, 3, np.zeros(3), [b"INCPLAN"]])
def test_what_cannot_be_a_plan_is_refused(plan: Any) -> None:
    with pytest.raises(errors.InputTypeError, match="a plan is a path"):
        Engine(plan)


def test_options_of_another_type_are_refused(engine: Engine, plan: Plan) -> None:
    for threads in ("2", None, 1.5):
        with pytest.raises(errors.ArgumentError):
            Engine(plan, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError):
        engine.classify([], top_k="3")  # type: ignore[arg-type]
    with pytest.raises(errors.InputTypeError, match="bytes are not an image"):
        engine.classify(b"\xff\xd8")  # type: ignore[arg-type]
