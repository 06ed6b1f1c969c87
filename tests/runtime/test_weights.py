"""Weights that the CPU makes of a plan's: their bits, who may read what, and what memory they take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_void_p
from pathlib import Path

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding, compiler, reference
from inception_engine.compiler.plan import NONE, OpFlag, OpKind, Plan
from inception_engine.compiler.targets import CPU, target_for
from inception_engine.network import Conv, Network, Preprocess
from tests.hardening import build, commands
from tests.tolerances import TOLERANCES, error

CHANNELS, SIDE, LAYERS = 256, 12, 4
WINDOWS_OF_ALL = LAYERS * 9 * CHANNELS**2 * 4  # bytes, float32: 9.4 MB


@pytest.fixture(scope="module")
def network() -> Network:
    """Nearly all of its weights are windows for Winograd's algorithm, by small patches."""
    rng = np.random.default_rng(0)
    layers = tuple(
        Conv(
            name=f"conv{i}",
            inputs=(f"conv{i - 1}" if i else "input",),
            weight=rng.standard_normal((CHANNELS, CHANNELS if i else 3, 3, 3), np.float32) / np.float32(48),
            bias=rng.standard_normal(CHANNELS, np.float32),
            pads=(1, 1, 1, 1),
        )
        for i in range(LAYERS + 1)
    )
    return Network(
        name="windows",
        input_shape=(3, SIDE, SIDE),
        layers=layers,
        logits=f"conv{LAYERS}",
        preprocess=Preprocess(mean=(100,), std=(50,)),
    )


def images(batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32)


@contextmanager
def loaded(content: bytes, **options: object) -> Iterator[c_void_p]:
    """An engine of the C API, which may have several contexts."""
    engine, message = c_void_p(), binding.message_buffer()
    library, chosen = binding.library(), binding.EngineOptions(device=binding.DEVICES.index("cpu"), **options)
    status = library.ie_engine_load_memory(content, len(content), chosen, byref(engine), message)
    assert status == 0, message.value
    try:
        yield engine
    finally:
        library.ie_engine_free(engine)


def run(engine: c_void_p, isa: str = "auto") -> np.ndarray:
    """The output for the images, by a context of its own."""
    context, message, library = c_void_p(), binding.message_buffer(), binding.library()
    options = binding.ContextOptions(threads=2, isa=binding.ISAS.index(isa))
    assert library.ie_context_create(engine, options, byref(context), message) == 0, message.value
    given, result = images(), np.empty((1, CHANNELS, SIDE, SIDE), np.float32)
    image = binding.Input(format=binding.FLOAT32_NCHW, batch=1, data=given.ctypes.data)
    assert library.ie_run(context, image, byref(binding.Output(index=0, data=result.ctypes.data)), 1) == 0
    library.ie_context_free(context)
    return result


@pytest.mark.timeout(900)  # the first test builds the runtime
@pytest.mark.parametrize(
    ("size", "finite"), [(3, [0, 0.75, -0.75, 1.5, -1.5]), (5, [0, 0.75, -0.75, 1.5, -1.5]), (3, [0, 1, -1])]
)
def test_points_are_the_transform_of_the_windows_rounded_once(
    size: int, finite: list[float], tmp_path: Path
) -> None:
    """U = G g G' in 80 bits. G, of the points p: the powers of each over its distances to the others; and infinity."""
    channels = 7
    powers = np.array([[np.longdouble(p) ** k for k in range(size)] for p in finite])
    distances = [np.prod([np.longdouble(p) - q for q in finite if q != p]) for p in finite]
    g = np.vstack([powers / np.array(distances)[:, None], np.eye(size, dtype=np.longdouble)[-1:]])
    windows = np.random.default_rng(size).standard_normal((size, size, channels, 16), np.float32)
    expected = np.einsum("yi,ijcl,xj->yxcl", g, windows.astype(np.longdouble), g).astype(np.float32)
    windows.tofile(tmp_path / "windows")
    program = build.build("points", ["programs/points.cpp"], build.Kind("address"))
    said = commands.run([program, size, len(finite) + 1, channels, tmp_path / "windows", tmp_path / "points"])
    assert said in ("1 builds\n", "2 builds\n", "3 builds\n")
    points = np.fromfile(tmp_path / "points", np.float32).reshape(expected.shape)
    np.testing.assert_array_equal(points, expected)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_any_first_context_makes_weights_for_all_later_ones(network: Network, dtype: str) -> None:
    content = ie.compile(network, dtype=dtype).to_bytes()
    isas = [isa for isa in ("portable", "avx2", "avx512") if isa in binding.machine_isas()]
    results = {}
    for first in isas:
        with loaded(content) as engine, loaded(content) as other:
            run(engine, first)
            for isa in isas:
                results[first, isa] = run(engine, isa)
                np.testing.assert_array_equal(run(other, isa), results[first, isa])
    expected = reference.run(network, images())[network.logits]
    for (_, isa), result in results.items():
        np.testing.assert_array_equal(result, results["portable", isa])
        assert error(result, expected) <= TOLERANCES[dtype].layer


def test_windows_that_another_program_reads_as_they_are(network: Network) -> None:
    both = ie.compile(network, targets=(target_for("cpu", 1, "fp32"), CPU), batches=(1, 2))
    by_patches, direct = both.programs[1], both.programs[2]
    assert [int(program.header["max_batch"]) for program in (direct, by_patches)] == [1, 2]
    convolutions = [program.ops[program.ops["kind"] == OpKind.CONV] for program in (direct, by_patches)]
    np.testing.assert_array_equal(*(ops["weight_offset"] for ops in convolutions))
    assert [bool((ops["flags"] & OpFlag.WINOGRAD).any()) for ops in convolutions] == [False, True]
    plan = Plan(metadata=both.metadata, weights=both.weights, programs=[direct, by_patches])
    expected = reference.run(network, images(2))[network.logits]
    with ie.Engine(plan) as engine:
        for batch in (2, 1):
            result = engine.run(images(2)[:batch])
            assert error(result, expected[:batch]) <= TOLERANCES["fp32"].layer


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_windows_among_weights_that_are_read_as_they_are(
    network: Network, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    ordered = ie.compile(network, dtype=dtype)
    monkeypatch.setattr(compiler, "_store_made", lambda *_: None)
    mixed = ie.compile(network, dtype=dtype)
    assert not np.array_equal(ordered.weights, mixed.weights)
    with ie.Engine(ordered) as engine, ie.Engine(mixed) as other:
        np.testing.assert_array_equal(engine.run(pixels), other.run(pixels))


def test_memory_of_the_caller_stays_as_it_is(network: Network) -> None:
    content = ie.compile(network).to_bytes()
    given: list[np.ndarray] = []

    def allocate(_: int, size: int, alignment: int) -> int:
        given.append(np.full(size + alignment, 0xA5, np.uint8))
        given[-1] = given[-1][-given[-1].ctypes.data % alignment :][:size]
        return given[-1].ctypes.data

    functions = {
        "allocate": binding.AllocateFunction(allocate),
        "release": binding.ReleaseFunction(lambda *_: None),
    }
    with loaded(content, **functions) as engine:
        run(engine)
        assert given[0][: len(content)].tobytes() == content


# Prints what was resident more than before the engine was loaded: when it was, with a context, and at most.
MEMORY = """
import sys
from ctypes import byref, c_void_p
from inception_engine import binding

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

library, message = binding.library(), binding.message_buffer()
engine, context = c_void_p(), c_void_p()
before = status("VmRSS")
assert library.ie_engine_load(sys.argv[1].encode(), None, byref(engine), message) == 0, message.value
read = status("VmRSS")
options = binding.ContextOptions(threads=1)
assert library.ie_context_create(engine, options, byref(context), message) == 0, message.value
print(*(resident - before for resident in (read, status("VmRSS"), status("VmHWM"))))
"""


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_memory_of_windows_goes_back_to_the_system(network: Network, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "windows.plan"
    plan = ie.compile(network, dtype=dtype)
    plan.save(path)
    (program,) = plan.programs
    windows = WINDOWS_OF_ALL if dtype == "fp32" else WINDOWS_OF_ALL // 2
    # AMX and AVX512-BF16 take windows as they are; they are kept, for other contexts would make others of them.
    taken = dtype == "bf16" and binding.machine_isas()[-1] in ("amx", "avx512_bf16")
    made = 2 * windows if taken else WINDOWS_OF_ALL * 16 // 9
    arena = int(program.header["arena_bytes"]) * (1 if dtype == "fp32" else 2)
    assert windows < path.stat().st_size < 1.01 * windows and arena < 2e6
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    loaded_, after, most = map(int, done.stdout.split())
    few = 4e6  # the arena, scratch, threads, the interpreter
    assert windows <= loaded_ <= windows + few
    assert made <= after <= made + few  # and not the windows, too, but with AMX
    assert most - after < windows / 2  # they went one layer after the other


def test_windows_come_first(network: Network) -> None:
    """So that their memory is large pages, and none that holds other weights."""
    plan = ie.compile(network, batches=(1, 4))
    windows = WINDOWS_OF_ALL
    for program in plan.programs:
        ops = program.ops[program.ops["in_buffer"] != NONE]
        first = ops["flags"] & OpFlag.WINOGRAD != 0
        assert ops["weight_offset"][first].max() < windows <= ops["weight_offset"][~first].min()
