"""The runtime on a GPU whose driver is a double (tests/driver): results, launches, graphs, release, errors.

Each test runs one program of cuda_programs.py in a process of its own, with a kernel archive made by hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import reference
from inception_engine.compiler import targets
from inception_engine.compiler.plan import NONE, Plan
from inception_engine.compiler.targets import Target, Tuned
from inception_engine.network import Conv, Linear, MaxPool, Network
from tests.runtime import archives
from tests.runtime.archives import (
    AVERAGE_POOL,
    CONV,
    EXPORTS,
    INPUT,
    MAX_POOL,
    PARTS,
    PTX,
    RAGGED,
    Archive,
    Kernel,
)
from tests.runtime.cuda_programs import loaded
from tests.runtime.machine import MULTIPROCESSORS, RESIDENT, Machine
from tests.runtime.test_emulation import CUT, SMALL, TARGETS, compilable, outputs, rounded
from tests.tolerances import TOLERANCES, error, violations


def compiled(
    network: Network, dtype: str, *batches: int, keep_all: bool = True, target: str | Target = "cuda"
) -> Plan:
    """``target`` "cuda": one launch for up to four images, one for each module for more, whatever was measured to be
    fast."""
    choices = [{"up_to_batch": 4, "fields": {"launch": "NETWORK", "reuse": False}}, {"fields": {}}]
    chosen = Tuned({"provenance": {}, "choices": choices})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "tuned", lambda _: chosen)
        return ie.compile(network, targets=(target,), dtype=dtype, batches=batches, keep_all=keep_all)


def normal(network: Network, batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *network.input_shape), dtype=np.float32)


def photos(network: Network, batch: int) -> np.ndarray:
    channels, height, width = network.input_shape
    return np.random.default_rng(3).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def normalised(network: Network, pixels: np.ndarray) -> np.ndarray:
    """What the plan's mean and scale make of pixels: (batch, channels, height, width) float32."""
    mean, std = np.array(network.preprocess.mean, np.float32), np.array(network.preprocess.std, np.float32)
    return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))


def tiny() -> Network:
    """A few small layers; for batches beyond a few images several launches."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)

    layers = (
        Conv(name="a", inputs=("input",), weight=weights(20, 3, 3, 3), bias=weights(20), pads=(1, 1, 1, 1)),
        MaxPool(name="p", inputs=("a",), kernel=(2, 2), stride=(2, 2)),
        Conv(name="b", inputs=("p",), module="m", weight=weights(24, 20, 1, 1), bias=weights(24)),
        Linear(name="fc", inputs=("b",), weight=weights(7, 24 * 20), bias=weights(7)),
    )
    return Network(name="tiny", input_shape=(3, 8, 10), layers=layers, logits="fc")


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of two programs, with images for both, in each format; K is cut where tiles are few."""
    folder = tmp_path_factory.mktemp("ways")
    network = ie.googlenet(width=0.25, input_size=64, classes=16)
    compiled(network, "fp16", 1, 4, target=CUT).save(folder / "ways.plan")
    np.savez(
        folder / "ways.npz",
        f1=normal(network, 1), f3=normal(network, 3), f4=normal(network, 4), u1=photos(network, 1),
        u2=photos(network, 2),
    )  # fmt: skip
    return folder


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def give(ways: Path, to: Path) -> None:
    for name in ("ways.plan", "ways.npz"):
        shutil.copy(ways / name, to / name)


def shaped(
    actual: np.lib.npyio.NpzFile, key: str, plan: Plan, expected: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Outputs by name, in the shapes of the reference."""
    program = plan.programs[0]
    names = [program.text(output) for output in program.outputs]
    found = {name: actual[f"{key}/{i}"] for i, name in enumerate(names)}
    return {name: found[name].reshape(expected[name].shape) for name in expected if name in found}


def test_the_double_knows_the_rules(machine: Machine) -> None:
    log = machine("rules")
    assert sum("violation" in line for line in log) == log[-1]["violations"] > 10


# ---- Results


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_networks_against_the_reference(dtype: str, machine: Machine, tmp_path: Path) -> None:
    """Whole networks of all kinds of layers, all batches and formats, memory full of NaN."""
    plan = compiled(SMALL, dtype, 3)
    plan.save(tmp_path / "small.plan")
    compiled(SMALL, dtype, 2, keep_all=False).save(tmp_path / "reuse.plan")
    images = {f"f{batch}": normal(SMALL, batch) for batch in (1, 2, 3)} | {"u2": photos(SMALL, 2)}
    save(tmp_path / "small.npz", images)
    save(tmp_path / "reuse.npz", {key: images[key] for key in ("f1", "u2")})
    machine("networks")
    actual, reused = np.load(tmp_path / "small.out.npz"), np.load(tmp_path / "reuse.out.npz")
    network = SMALL if dtype == "fp32" else rounded(SMALL, dtype)
    for key, given in images.items():
        floats = given if given.dtype == np.float32 else normalised(SMALL, given)
        expected = reference.run(network, floats, keep="all")
        expected["logits"] = expected.pop(SMALL.logits)
        found = shaped(actual, key, plan, expected)
        assert len(found) > 0.5 * len(expected)
        # Softmax magnifies what the logits are off by, so their bound is its bound.
        assert error(found.pop("softmax"), expected["softmax"]) <= TOLERANCES[dtype].logits
        assert violations(found, {name: expected[name] for name in found}, "logits", dtype) == [], key
        if f"{key}/0" in reused:
            assert (reused[f"{key}/0"] == actual[f"{key}/0"]).all()


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_random_networks_against_the_walking_cpu(dtype: str, machine: Machine, tmp_path: Path) -> None:
    """What an independent walk of the same plan gives that rounds at the same places."""
    networks = [compilable(seed) for seed in range(12)]
    images = [normal(network, 2, seed) for seed, network in enumerate(networks)]
    plans = [compiled(network, dtype, 3, target=TARGETS[i % 2]) for i, network in enumerate(networks)]
    for i, plan in enumerate(plans):
        plan.save(tmp_path / f"{i:02}.plan")
        np.savez(tmp_path / f"{i:02}.npz", f2=images[i])
    machine("networks")
    for i, (network, plan) in enumerate(zip(networks, plans, strict=True)):
        expected = outputs(network, images[i], dtype, TARGETS[i % 2])
        found = shaped(np.load(tmp_path / f"{i:02}.out.npz"), "f2", plan, expected)
        assert found.keys() == expected.keys()
        assert violations(found, expected, "logits", dtype) == [], i


@pytest.mark.parity
def test_a_changed_weight_is_seen(machine: Machine, tmp_path: Path) -> None:
    """The comparison can fail: the weights of one layer are those of another dtype's rounding."""
    plan = compiled(rounded(SMALL, "bf16"), "fp32", 1)
    plan.save(tmp_path / "small.plan")
    images = normal(SMALL, 1)
    np.savez(tmp_path / "small.npz", f1=images)
    machine("networks")
    expected = reference.run(SMALL, images, keep="all")
    expected["logits"] = expected.pop(SMALL.logits)
    found = shaped(np.load(tmp_path / "small.out.npz"), "f1", plan, expected)
    assert len(violations(found, {name: expected[name] for name in found}, "logits")) > 10


def test_all_ways_give_the_same_bits(machine: Machine, ways: Path, tmp_path: Path) -> None:
    give(ways, tmp_path)
    machine("ways")


def test_capture_by_the_caller(machine: Machine, ways: Path, tmp_path: Path) -> None:
    give(ways, tmp_path)
    machine("captured")


def test_the_python_engine(machine: Machine, ways: Path, tmp_path: Path) -> None:
    give(ways, tmp_path)
    machine("python")


@pytest.mark.parity
@pytest.mark.timeout(600)
def test_the_whole_network(machine: Machine, tmp_path: Path) -> None:
    network = ie.googlenet()
    compiled(network, "fp16", 1, keep_all=False).save(tmp_path / "whole.plan")
    np.savez(tmp_path / "whole.npz", f1=normal(network, 1))
    machine("networks", timeout=300)
    expected = reference.run(network, normal(network, 1))
    found = {network.logits: np.load(tmp_path / "whole.out.npz")["f1/0"].reshape(1, -1)}
    assert violations(found, expected, network.logits, "fp16") == []


# ---- Launches


def fits(kernel: Kernel, plan: Plan, launch: np.void) -> bool:
    """Whether a kernel has all that the ops of a launch need, by the archive's rules."""
    program = plan.programs[0]
    begin, count = int(launch["first_task"]), int(launch["task_count"])
    outputs = set(program.outputs["buffer"])
    kinds, rows, whole, columns = 0, set(), set(), set()
    for op in (program.ops[i] for i in set(program.tasks["op"][begin : begin + count]) - {NONE}):
        kind = 1 << int(op["kind"])
        kinds |= kind | (EXPORTS if op["out_buffer"] in outputs else 0)
        if kind == CONV and op["in_channels"] % 16:
            kinds |= RAGGED
        if op["part_depth"]:
            kinds |= PARTS
            whole.add(int(op["tile_rows"]))
        if kind != INPUT:
            rows.add(int(op["tile_rows"]))
        if kind & (CONV | MAX_POOL | AVERAGE_POOL):
            columns.add(int(op["tile_columns"]))
    return (
        (kernel.dtype, kernel.arch) == (archives.FP16, 90)
        and kinds & ~kernel.kinds == 0
        and whole <= set(kernel.rows)
        and all(any(row % side == 0 for side in kernel.rows) for row in rows)
        and columns <= set(kernel.columns)
    )


def test_launches_are_what_the_plan_says(machine: Machine, tmp_path: Path) -> None:
    """Kernels by the order of the archive, grids by what fits on the GPU, and every parameter."""
    plan = compiled(SMALL, "fp16", 8)
    program = plan.programs[0]
    plan.save(tmp_path / "launches.plan")
    counters, launches = int(program.header["counter_count"]), list(program.launches)
    (tmp_path / "lines").write_text(str(1 + counters + len(launches)))
    np.savez(tmp_path / "launches.npz", f2=normal(SMALL, 2))
    module = Kernel(name="module", kinds=CONV | MAX_POOL | EXPORTS, threads=128, shared=70_000)
    general = Kernel(name="general", flags=archives.PROGRAMMATIC)  # for the first launch and the last
    kernels = [
        Kernel(name="bf16", dtype=archives.BF16),
        Kernel(name="ampere", arch=80),
        Kernel(name="large", rows=(128,)),
        Kernel(name="wide", columns=(128,)),
        Kernel(name="silent", kinds=archives.ALL_KINDS & ~EXPORTS),
        Kernel(name="pools", kinds=MAX_POOL | EXPORTS),
        module,
        general,
        Kernel(name="late"),
    ]
    Archive([*kernels, archives.copy_output(module)]).save(tmp_path / "launches.kernels")
    executed = [line for line in machine("launches") if "execute" in line]
    walks = [line for line in executed if len(line["params"]) == 20]
    chosen = [next(kernel for kernel in kernels if fits(kernel, plan, launch)) for launch in launches]
    assert {kernel.name for kernel in chosen} == {"silent", "pools", "module", "general"}
    requested = ((0,), (0,), (1,), (0, 1), ())  # of the program that ran
    assert len(walks) == len(requested) * len(launches)
    cut, writes = 0, program.ops["out_buffer"][program.tasks["op"]]
    for i, line in enumerate(walks):
        outputs, (index, params) = requested[i // len(launches)], (i % len(launches), line["params"])
        kernel, launch = chosen[index], launches[index]
        assert line["execute"] == kernel.name
        assert (line["block"], line["shared"]) == ([kernel.threads, 1, 1], kernel.shared)
        resident = 3 if kernel is module else RESIDENT  # of 228 kB, 1 kB for each block being the system's
        assert line["grid"] == [min(int(launch["task_count"]), MULTIPROCESSORS * resident), 1, 1]
        # The last launch ends with the last task that the results need: softmax stands behind the logits.
        needed = [int(np.flatnonzero(writes == program.outputs[o]["buffer"])[-1]) + 1 for o in outputs]
        count = int(launch["task_count"])
        if needed and index == len(launches) - 1:
            count = min(count, max(needed) - int(launch["first_task"]))
        cut += count < launch["task_count"]
        assert params[10:14] == [launch["first_task"], count, 2, 0]
        assert params[14] == (counters if index == len(launches) - 1 else 0)
        assert line["programmatic"] == (kernel is general and index > 0)
        assert params[:6] + params[7:8] == walks[0]["params"][:6] + walks[0]["params"][7:8]
        if len(outputs) == 1:
            output = program.outputs[outputs[0]]
            assert params[9] != 0
            assert params[15:18] == [output["buffer"], output["channel"], output["channels"]]
        else:
            assert params[9] == 0 and params[15] == NONE
    assert cut > 0
    for begin in range(0, len(walks), len(launches)):
        lines = [line["params"][8] - line["params"][7] for line in walks[begin : begin + len(launches)]]
        assert len(set(lines)) == len(launches) and all(line % 128 == 0 for line in lines)
        assert min(lines) >= 128 * (1 + counters) and max(lines) < 128 * (1 + counters + len(launches))
    copies = [line for line in executed if len(line["params"]) == 8]
    assert len(copies) == 2
    for line, output in zip(copies, program.outputs[:2], strict=True):
        pixels, channels = int(output["height"] * output["width"]), int(output["channels"])
        buffer = program.buffers[output["buffer"]]
        assert line["params"][0] == walks[-1]["params"][5] + int(buffer["offset"]) + 2 * int(
            output["channel"]
        )
        assert line["params"][2:6] == [pixels, buffer["pitch"], channels, 2]
        assert line["grid"] == [-(-2 * pixels // 64), -(-channels // 64), 1]
        assert line["block"] == [128, 1, 1]


def test_the_archive_that_is_shipped(machine: Machine, tiny_files: Path) -> None:
    """Its writer, the runtime's reader and the names in the machine code agree, for one dtype and GPU."""
    from inception_engine.kernels import archive

    machine("networks")
    expected = loaded(tiny_files / "tiny.out.npz")
    jobs = archive.jobs(("fp16",), (90,))
    kernels = [kernel for job in jobs for kernel in archive.build(job)]
    (tiny_files / "kernels").write_bytes(archive.packed(sorted(kernels, key=lambda kernel: kernel.form)))
    log = machine("networks", dtype=archives.FP16)
    launched = {line["execute"] for line in log if "execute" in line}
    assert launched == {"walk", "copy_output"}
    actual = loaded(tiny_files / "tiny.out.npz")
    assert all((actual[key] == expected[key]).all() for key in expected) and len(expected) > 4


def test_graphs_are_captured_once(machine: Machine, ways: Path, tmp_path: Path) -> None:
    give(ways, tmp_path)
    machine("graphs")


# ---- Failures


@pytest.fixture
def tiny_files(tmp_path: Path) -> Path:
    plan = compiled(tiny(), "fp16", 1, 8)
    assert len(plan.programs[1].launches) > 1
    plan.save(tmp_path / "tiny.plan")
    np.savez(tmp_path / "tiny.npz", f1=normal(tiny(), 1), f2=normal(tiny(), 2))
    return tmp_path


def test_every_call_may_fail_once(machine: Machine, tiny_files: Path) -> None:
    machine("failures")


def test_the_device_may_be_lost_anywhere(machine: Machine, tiny_files: Path) -> None:
    machine("lost")
    machine("spent")


@pytest.mark.parametrize("code", [2, 999])
def test_the_first_calls_of_a_process_may_fail(code: int, machine: Machine, tiny_files: Path) -> None:
    machine("networks")
    found = np.load(tiny_files / "tiny.out.npz")
    save(tiny_files / "tiny.expected.npz", {str(i): found[f"f2/{i}"] for i in (0, 1)})
    for number in range(1, 6):
        machine("one_life", fail=f"*:{number}={code}")


def test_a_wait_that_never_ends(machine: Machine, ways: Path, tmp_path: Path) -> None:
    give(ways, tmp_path)
    machine("waits")


def answers(folder: Path) -> dict[str, tuple[str, str]]:
    lines = (folder / "stdout").read_text().splitlines()
    return {name: (status, text) for name, status, text in (line.split("\t") for line in lines)}


@pytest.fixture
def cases(tiny_files: Path) -> Callable[..., None]:
    """Writes the lines that ``refusals`` reads: name, plan, archive, device."""
    both = ie.compile(tiny(), targets=("cpu", "cuda"), max_batch=2)
    both.save(tiny_files / "both.plan")
    ie.compile(tiny(), max_batch=2).save(tiny_files / "cpu.plan")
    compiled(tiny(), "fp16", 2, target=CUT).save(tiny_files / "cut.plan")
    for name in ("both", "cpu", "cut"):
        shutil.copy(tiny_files / "tiny.npz", tiny_files / f"{name}.npz")

    def write(*lines: str) -> None:
        (tiny_files / "cases").write_text("\n".join(lines))

    return write


DEVICES = ("cuda tiny - cuda", "auto both - auto", "alone tiny - auto")


@pytest.mark.parametrize(
    ("status", "says", "environment"),
    [
        ("IE_ERROR_NO_DRIVER", "libcuda.so.1", {"driver": False}),
        ("IE_ERROR_DRIVER", "", {"version": 11080}),
        ("IE_ERROR_DEVICE", "", {"devices": 0}),
        ("IE_ERROR_GPU", "7.5", {"capability": 75}),
        ("IE_ERROR_GPU", "", {"capability": 120}),
        ("IE_ERROR_MEMORY", "", {"fail": "cuMemAlloc_v2:1=2,cuMemAlloc_v2:2=2,cuMemAlloc_v2:3=2"}),
    ],
)
def test_machines_that_cannot_run_it(
    status: str,
    says: str,
    environment: dict[str, Any],
    machine: Machine,
    cases: Callable[..., None],
    tmp_path: Path,
) -> None:
    """CUDA fails with the reason; AUTO takes the CPU and notes it, or fails if there is no program for that."""
    cases(*DEVICES)
    if environment.pop("driver", True):
        machine("refusals", **environment)
    else:
        environment["driver"] = False
        machine("refusals_without_driver", **environment)
    found = answers(tmp_path)
    assert found["cuda"][0] == status and says in found["cuda"][1]
    assert found["auto"][0] == "cpu" and found["auto"][1] == found["cuda"][1]
    assert found["alone"][0] == "IE_ERROR_NO_PROGRAM" and found["cuda"][1] in found["alone"][1]


def test_devices_are_chosen_by_their_number(
    machine: Machine, cases: Callable[..., None], tmp_path: Path
) -> None:
    cases(
        "first tiny - cuda",
        "second tiny - cuda:1",
        "third tiny - cuda:2",
        "cpu cpu - auto",
        "none cpu - cuda",
    )
    machine("refusals", devices=2)
    found = answers(tmp_path)
    assert found["first"][0] == found["second"][0] == "cuda"
    assert found["third"][0] == "IE_ERROR_DEVICE"
    assert found["cpu"] == ("cpu", "")
    assert found["none"][0] == "IE_ERROR_NO_PROGRAM"


@pytest.mark.parametrize(
    ("capability", "arch", "form", "runs"),
    [
        (80, 80, archives.CUBIN, True),
        (86, 80, archives.CUBIN, True),
        (80, 86, archives.CUBIN, False),
        (90, 80, archives.CUBIN, False),
        (103, 100, archives.CUBIN, False),
        (120, 100, archives.CUBIN, False),
        (120, 90, PTX, True),
        (89, 90, PTX, False),
    ],
)
def test_code_for_gpus(
    capability: int,
    arch: int,
    form: int,
    runs: bool,
    machine: Machine,
    cases: Callable[..., None],
    tmp_path: Path,
) -> None:
    registers = 0 if form == PTX else 128
    archives.standard(arch=arch, form=form, registers=registers).save(tmp_path / "kernels")
    cases("case tiny kernels cuda")
    machine("refusals", capability=capability)
    assert answers(tmp_path)["case"][0] == ("cuda" if runs else "IE_ERROR_GPU")


def damaged() -> dict[str, bytes]:
    """Archives that must be refused."""
    good = archives.standard().to_bytes()
    record = archives.HEADER.size
    found = {
        "empty": b"",
        "short": good[:40],
        "cut": good[:-1],
        "long": good + b"\0",
        "foreign": b"INCPLAN\n" + good[8:],
        "version": Archive(archives.standard().kernels, version=3).to_bytes(),
        "hash": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
        "records": good[:12] + (10**6).to_bytes(4, "little") + good[16:],
        "header-reserved": good[:60] + b"\1" + good[61:],
    }
    wrong = {"too-few": archives.WALK_PARAMS[:-1], "another-size": (4, *archives.WALK_PARAMS[1:])}
    found |= {name: archives.standard(params=params).to_bytes() for name, params in wrong.items()}
    patches = {
        "kernel": (0, 7), "form": (4, 9), "dtype": (12, 9), "threads": (28, 0), "threads-odd": (28, 33),
        "threads-many": (28, 2048), "param-count": (40, 33), "reserved": (128, 1),
    }  # fmt: skip
    for name, (at, value) in patches.items():
        patch = {record + at: value.to_bytes(4, "little")}
        found[name] = Archive(archives.standard().kernels, overrides=patch).to_bytes()
    for name, at, value in (
        ("offset-odd", 112, 1000), ("offset-far", 112, 1 << 40), ("offset-wraps", 112, 2**64 - 64),
        ("bytes", 120, 1 << 40), ("bytes-wrap", 120, 2**64 - 1), ("inside-header", 112, 0),
    ):  # fmt: skip
        patch = {record + at: value.to_bytes(8, "little")}
        found[name] = Archive(archives.standard().kernels, overrides=patch).to_bytes()
    patch = {record + 80: b"x" * 32}
    found["name-unterminated"] = Archive(archives.standard().kernels, overrides=patch).to_bytes()
    text = Kernel(form=PTX).text().rstrip(b"\0")
    found["ptx-unterminated"] = Archive([Kernel(form=PTX, code=text)]).to_bytes()
    return found


def test_damaged_archives(machine: Machine, cases: Callable[..., None], tmp_path: Path) -> None:
    bad = damaged()
    for name, content in bad.items():
        (tmp_path / f"{name}.kernels").write_bytes(content)
    lines = [f"{name} tiny {name}.kernels cuda" for name in bad]
    cases("good tiny good.kernels cuda", "missing tiny nothing.kernels cuda", "folder tiny . cuda", *lines)
    archives.standard().save(tmp_path / "good.kernels")
    machine("refusals")
    found = answers(tmp_path)
    assert found.pop("good")[0] == "cuda"
    assert {name: status for name, (status, _) in found.items() if status != "IE_ERROR_KERNELS"} == {}
    assert "nothing.kernels" in found["missing"][1]


def test_launches_without_a_kernel(machine: Machine, cases: Callable[..., None], tmp_path: Path) -> None:
    for name, options in {
        "rows": {"rows": (128,)},
        "columns": {"columns": (128,)},
        "kinds": {"kinds": archives.ALL_KINDS & ~RAGGED & ~CONV},
        "ragged": {"kinds": archives.ALL_KINDS & ~RAGGED},
        "exports": {"kinds": archives.ALL_KINDS & ~EXPORTS},
        "dtype": {"dtypes": (archives.FP32,)},
    }.items():
        archives.standard(**options).save(tmp_path / name)  # type: ignore[arg-type]
    archives.standard(kinds=archives.ALL_KINDS & ~PARTS).save(tmp_path / "parts")
    names = ("rows", "columns", "kinds", "ragged", "exports", "dtype")
    cases(*(f"{name} tiny {name} cuda" for name in names), "parts cut parts cuda", "whole tiny parts cuda")
    machine("refusals")
    found = answers(tmp_path)
    assert found["whole"] == ("cuda", "")
    for name in ("rows", "columns", "kinds", "ragged", "exports", "parts"):
        status, message = found[name]
        assert status == "IE_ERROR_NO_PROGRAM", (name, status, message)
        assert message.startswith("launch ") and "no kernel for tiles of 32 x 32" in message, message
    assert found["dtype"][0] in ("IE_ERROR_NO_PROGRAM", "IE_ERROR_GPU")
