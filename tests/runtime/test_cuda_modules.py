"""Inception modules by the kernel `module` in the C++ runtime, on the driver's double.

Kernel archives are made by hand (archives.py, module_kernels.py) for the modules of small networks.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding, reference
from inception_engine.compiler.plan import Plan, Program
from inception_engine.network import Concat, Conv, Layer, MaxPool, Network, Preprocess
from tests.runtime import archives, module_kernels
from tests.runtime import machine as machine_files
from tests.runtime.archives import Archive
from tests.runtime.machine import MULTIPROCESSORS, RESIDENT, Machine
from tests.runtime.module_kernels import ModuleKernel
from tests.runtime.module_programs import ALWAYS, of_modules
from tests.runtime.test_cuda import compiled, normal, photos, save, shaped
from tests.runtime.test_emulation import rounded
from tests.tolerances import violations

PROGRAMS = "tests.runtime.module_programs"
AUTO, NEVER = 0, 1
# Half of the paper's channels. Of its modules `module` takes these and 4c, which the archive lacks; others are padded.
MIXED = functools.cache(lambda **fields: ie.googlenet(width=0.5, input_size=64, classes=11, **fields))
SIZES = {
    "3a": ModuleKernel(8, 8, 96, (32, 48, 64, 16, 16, 16), reduced=56),
    "3b": ModuleKernel(8, 8, 128, (64, 64, 96, 16, 48, 32)),
    "4e": ModuleKernel(4, 4, 272, (128, 80, 160, 16, 64, 64)),
    "5a": ModuleKernel(2, 2, 416, (128, 80, 160, 16, 64, 64)),
    "5b": ModuleKernel(2, 2, 416, (192, 96, 192, 32, 64, 64), reduced=120),
}
PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "projection")


def kernels_of(dtype: str = "fp16", third: int = 5, **fields: object) -> list[ModuleKernel]:
    number = {"fp16": archives.FP16, "bf16": archives.BF16}[dtype]
    return [
        dataclasses.replace(each, name=f"m{name}", third=third, dtype=number, from_pixels=0, **fields)  # type: ignore[arg-type]
        for name, each in SIZES.items()
    ]


def inception(
    side: tuple[int, int] = (6, 5), channels: int = 32, changed: str = "",
    widths: tuple[int, int, int, int, int, int] = (16, 16, 32, 24, 16, 16), **fields: Any,
) -> Network:  # fmt: skip
    """One module and nothing else. ``changed``: a layer to which ``fields`` belong."""
    rng = np.random.default_rng(1)

    def conv(name: str, source: str, rows: int, columns: int, kernel: int) -> Conv:
        weight = rng.standard_normal((rows, columns, kernel, kernel), dtype=np.float32)
        weight /= np.float32((columns * kernel * kernel) ** 0.5)
        bias = rng.standard_normal(rows, dtype=np.float32)
        half = (kernel // 2,) * 4
        return Conv(name=name, inputs=(source,), module="m", weight=weight, bias=bias, pads=half)

    n1, c3, n3, c5, n5, projected = widths
    layers: list[Layer] = [
        conv("1x1", "input", n1, channels, 1),
        conv("3x3_reduce", "input", c3, channels, 1),
        conv("5x5_reduce", "input", c5, channels, 1),
        conv("3x3", "3x3_reduce", n3, c3, 3),
        conv("5x5", "5x5_reduce", n5, c5, 5),
        MaxPool(name="pool", inputs=("input",), module="m", kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1)),
        conv("projection", "pool", projected, channels, 1),
        Concat(name="out", inputs=("1x1", "3x3", "5x5", "projection"), module="m"),
    ]
    layers = [dataclasses.replace(each, **fields) if each.name == changed else each for each in layers]
    plain = Preprocess(mean=(0.0,), std=(1.0,))
    shape = (channels, *side)
    return Network(name="one", input_shape=shape, layers=tuple(layers), logits="out", preprocess=plain)


ONE = ModuleKernel(6, 5, 32, (16, 16, 32, 32, 16, 16), reduced=40)


@pytest.fixture(scope="session")
def specialising(installation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose archive has `module`, from the first pixel on."""
    modules = [
        *kernels_of(),
        *kernels_of("bf16"),
        *kernels_of(third=3),
        dataclasses.replace(ONE, from_pixels=0),
    ]
    folder = tmp_path_factory.mktemp("specialising")
    return machine_files.install(folder, archives.standard(modules=modules), driver=False)


def found(program: Program) -> list[bool]:
    """Which launches are modules by the rule of Python's executor."""
    from inception_engine.specialised import find

    return [find(program, launch, group=2) is not None for launch in program.launches]


# ---- Results


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_networks_against_the_reference(
    dtype: str, machine: Machine, specialising: Path, tmp_path: Path
) -> None:
    """Launches of both kernels in one run: every layer, all batches up to three groups, both formats, memory full of
    NaN; by a plan that reuses memory the same bits."""
    network = MIXED()
    plan = compiled(network, dtype, 5)
    plan.save(tmp_path / "all.plan")
    reuse = compiled(network, dtype, 6, keep_all=False)
    reuse.save(tmp_path / "reuse.plan")
    images = {f"f{batch}": normal(network, batch) for batch in (1, 2, 5)} | {"u3": photos(network, 3)}
    save(tmp_path / "all.npz", images)
    save(tmp_path / "reuse.npz", {key: images[key] for key in ("f5", "u3")})
    log = machine("networks", library=specialising)
    (program,) = plan.programs
    taken = [
        program.text(launch)
        for launch, is_one in zip(program.launches, found(program), strict=True)
        if is_one
    ]
    assert sorted(taken) == sorted([*SIZES, "4c"]) and sum(found(reuse.programs[0])) == len(taken)
    assert {line["execute"] for line in of_modules(log)} == {f"m{name}" for name in SIZES}
    actual, reused = np.load(tmp_path / "all.out.npz"), np.load(tmp_path / "reuse.out.npz")
    for key in ("f1", "f2", "f5"):
        expected = reference.run(rounded(network, dtype), images[key], keep="all")
        expected["logits"] = expected.pop(network.logits)
        got = shaped(actual, key, plan, expected)
        got.pop("softmax")  # magnifies what the logits are off by
        assert len(got) > 0.5 * len(expected)
        assert violations(got, {name: expected[name] for name in got}, "logits", dtype) == [], key
    assert all((reused[f"{key}/0"] == actual[f"{key}/0"]).all() for key in ("f5", "u3"))


def test_a_module_that_later_launches_wait_for_is_left_to_walk(
    machine: Machine, specialising: Path, tmp_path: Path
) -> None:
    """The loader takes such a plan, and `module` would signal none of its counters."""
    network = MIXED()
    plan = compiled(network, "fp16", 5, keep_all=False)
    (program,) = plan.programs
    place = next(i for i, is_one in enumerate(found(program)) if is_one)
    first, after = program.launches[place], program.launches[place + 1]
    tasks = program.tasks[int(first["first_task"]) :][: int(first["task_count"])]
    counter = int(tasks["signal"][0])
    reader = program.tasks[int(after["first_task"])]
    wait = np.array([(counter, (program.tasks["signal"] == counter).sum())], program.waits.dtype)
    waits = np.insert(program.waits, int(reader["wait_begin"]), wait)
    waiting = dataclasses.replace(program, tasks=program.tasks.copy(), waits=waits)
    waiting.tasks["wait_count"][int(after["first_task"])] += 1
    waiting.tasks["wait_begin"][int(after["first_task"]) + 1 :] += 1
    assert found(waiting) == [is_one and i != place for i, is_one in enumerate(found(program))]
    images = {"f3": normal(network, 3)}
    for name, each in (("a", program), ("b", waiting)):
        dataclasses.replace(plan, programs=[each]).save(tmp_path / f"{name}.plan")
        save(tmp_path / f"{name}.npz", images)
    log = machine("networks", library=specialising)
    assert len(of_modules(log)) > 0
    usual, other = (np.load(tmp_path / f"{name}.out.npz")["f3/0"] for name in ("a", "b"))
    np.testing.assert_allclose(usual, other, atol=2e-2 * np.abs(usual).max())


@pytest.mark.parity
def test_a_third_branch_of_3x3(machine: Machine, specialising: Path, tmp_path: Path) -> None:
    network = MIXED(third_branch=3, norm="batch")
    compiled(network, "fp16", 5, keep_all=False).save(tmp_path / "three.plan")
    images = normal(network, 3)
    np.savez(tmp_path / "three.npz", f3=images)
    assert of_modules(machine("networks", library=specialising))
    expected = reference.run(network, images)
    actual = np.load(tmp_path / "three.out.npz")["f3/0"].reshape(3, -1)
    assert violations({network.logits: actual}, expected, network.logits, "fp16") == []


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A plan whose last launch is a module, and its archive, which is to be asked for; images."""
    network = inception()
    plan = compiled(network, "fp16", 5)
    plan.save(tmp_path / "launches.plan")
    np.savez(tmp_path / "launches.npz", f1=normal(network, 1), f3=normal(network, 3))
    archives.standard(modules=[ONE]).save(tmp_path / "kernels")
    header = plan.programs[0].header
    lines = 1 + int(header["counter_count"]) + len(plan.programs[0].launches)
    (tmp_path / "lines").write_text(str(lines + 5))  # status, three groups, ticket
    return tmp_path


@pytest.mark.parity
@pytest.mark.parametrize("fault", ["", "weight", "bias"])
def test_what_a_module_writes(fault: str, machine: Machine, specialising: Path, one: Path) -> None:
    """All that it writes, also what it hands to nobody. The comparison can fail: one branch has another's."""
    network = inception()
    images = normal(network, 3)
    save(one / "launches.npz", {"f3": images})
    if fault:
        other = next(layer for layer in network.layers if layer.name == "projection")
        network = inception(changed="1x1", **{fault: getattr(other, fault)})
    (one / "kernels").unlink()
    plan = Plan.load(one / "launches.plan")
    assert of_modules(machine("networks", library=specialising))
    expected = reference.run(network, images, keep="all")
    expected["logits"] = expected.pop(network.logits)
    got = shaped(np.load(one / "launches.out.npz"), "f3", plan, expected)
    assert "logits" in got and len(got) >= 3
    wrong = violations(got, {name: expected[name] for name in got}, "logits", "fp16")
    assert bool(wrong) == bool(fault)


@pytest.mark.parametrize("program", ["ways", "captured"])
def test_all_ways_give_the_same_bits(
    program: str, machine: Machine, specialising: Path, tmp_path: Path
) -> None:
    """Graphs and their replay, the caller's streams and capture, two contexts, two engines, three threads."""
    network = MIXED()
    compiled(network, "fp16", 2, 5).save(tmp_path / "ways.plan")
    np.savez(tmp_path / "ways.npz", f1=normal(network, 1), f4=normal(network, 4), u1=photos(network, 1))
    assert of_modules(machine(program, library=specialising, timeout=300))


def test_the_modules_that_are_shipped(machine: Machine, tmp_path: Path) -> None:
    """The installed archive's record of a module and the runtime agree, and its plan's launch is what it was compiled
    for; against `walk`. The double reads off the tensor maps what the machine code computes."""
    network = inception(side=(7, 7), channels=832, widths=(384, 192, 384, 48, 128, 128))
    compiled(network, "fp16", 32, keep_all=False).save(tmp_path / "launches.plan")
    np.savez(tmp_path / "launches.npz", f3=normal(network, 1))
    shutil.copy(binding.library_path().parent / machine_files.ARCHIVE, tmp_path / "kernels")
    log = machine("python", programs=PROGRAMS, dtype=archives.FP16)
    lines = of_modules(log)
    assert len(lines) == 2  # asked for, and chosen: it was measured to be faster from 32 x 7 x 7 pixels on
    for line in lines:
        assert (line["execute"], line["block"]) == ("module", [128, 1, 1]) and line["shared"] > 48 << 10


# ---- Launches


def test_launches(machine: Machine, one: Path) -> None:
    """Where things lie, what is cleared, and how a result that `module` writes reaches the caller."""
    plan = Plan.load(one / "launches.plan")
    (program,) = plan.programs
    log = machine("launches", programs=PROGRAMS)
    executed = [line for line in log if "execute" in line]
    modules, walks = of_modules(executed), [line for line in executed if len(line["params"]) == 20]
    assert found(program) == [False, True] and len(modules) == len(walks) == 5
    arena, state = walks[0]["params"][5], walks[0]["params"][7]
    for line in modules:
        params = line["params"]
        assert (line["execute"], line["block"], line["shared"]) == ("special", [256, 1, 1], 98304)
        tickets = ONE.first + 2 * (ONE.first + ONE.second)  # three images are two groups
        assert line["grid"] == [min(tickets, MULTIPROCESSORS * RESIDENT), 1, 1] and not line["programmatic"]
        assert params[60] == 3 and params[61:] == [0, 0]
        # x, both reduces, pooled, out: four buffers of the plan.
        offsets = [address - arena for address in params[53:57]]
        assert sorted(offsets) == sorted(int(buffer["offset"]) for buffer in program.buffers)
        # Its state stands before that of `walk`: status, a counter for each of three groups at most, ticket.
        assert params[58] == state - 5 * 128 and params[59] == state - 128
    counters = int(program.header["counter_count"])
    for line, outputs in zip(walks, ((0,), (0,), (1,), (0, 1), ()), strict=True):
        assert line["params"][14] == counters  # the last launch of `walk`, though not of the run
        assert line["params"][9] == 0, outputs
    copies = [line for line in executed if len(line["params"]) == 8]
    assert len(copies) == 5  # one, one, one, two, none


def test_each_module_is_packed_once(machine: Machine, specialising: Path, tmp_path: Path) -> None:
    """Two programs of a plan share the weights; the driver is told of the tensors once for each context."""
    network = inception()
    compiled(network, "fp16", 5, 9, keep_all=False).save(tmp_path / "two.plan")
    np.savez(tmp_path / "two.npz", f1=normal(network, 1), f9=normal(network, 9))
    log = machine("networks", library=specialising)
    maps = [line for line in log if line.get("call") == "cuTensorMapEncodeTiled"]
    assert len(maps) == 2 * 9
    weights = [line["address"] for line in maps]
    assert weights[4:9] == weights[13:18] and len({*weights[4:9]}) == 5
    copied = [line["bytes"] for line in log if line.get("call") == "cuMemcpyHtoDAsync_v2"]
    size = 2 * (16 * 32 + 48 * 32 + 32 * 9 * 16 + 16 * 25 * 32 + 16 * 32) + 4 * (48 + 80)
    assert sum(size <= count < size + 6 * 256 for count in copied) == 2  # the plan's own, and the modules'


# ---- Choice


def test_the_choice(machine: Machine, one: Path) -> None:
    """What is specialised: where the archive says so, where the caller does, and only what the archive has."""
    pixels = 6 * 5 * 5
    variants: dict[str, Sequence[ModuleKernel]] = {
        "has": [ONE],
        "from": [dataclasses.replace(ONE, from_pixels=pixels)],
        "above": [dataclasses.replace(ONE, from_pixels=pixels + 1)],
        "second": [dataclasses.replace(ONE, third=3), dataclasses.replace(ONE, arch=100), ONE],
        "group": [dataclasses.replace(ONE, group=6)],
        "whole": [dataclasses.replace(ONE, group=5)],
        "shared": [dataclasses.replace(ONE, shared=240_000)],
        "none": [],
    }
    for field in ("height", "width", "channels", "reduced", "third", "dtype", "arch"):
        other = {"channels": 48, "reduced": 48, "third": 3, "dtype": archives.BF16, "arch": 100}.get(field, 7)
        variants[f"other-{field}"] = [dataclasses.replace(ONE, **{field: other})]  # type: ignore[arg-type]
    for i in range(6):
        widths = (*ONE.widths[:i], 64, *ONE.widths[i + 1 :])
        variants[f"other-{PARTS[i]}"] = [dataclasses.replace(ONE, widths=widths, reduced=40)]  # type: ignore[arg-type]
    for name, modules in variants.items():
        archives.standard(modules=modules).save(one / name)
    lines = [f"{name} launches {name} {ALWAYS}" for name in variants]
    lines += [f"{name}-auto launches {name} {AUTO}" for name in ("has", "from", "above")]
    lines += [f"from-never launches from {NEVER}"]
    (one / "cases").write_text("\n".join(lines))
    machine("choices", programs=PROGRAMS)
    answers = dict(line.split("\t", 1) for line in (one / "stdout").read_text().splitlines())
    taken = {name for name, answer in answers.items() if answer == "1\t1"}
    assert {*answers.values()} == {"1\t1", "0\t0"}
    assert taken == {"has", "from", "above", "second", "whole", "from-auto"}


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "no-relu": ("3x3", {"relu": False}),
    "pool-2": ("pool", {"kernel": (2, 2), "pads": (0, 0, 1, 1)}),
    "shifted": ("3x3", {"pads": (2, 1, 0, 1)}),
    "swapped": ("out", {"inputs": ("3x3", "1x1", "5x5", "projection")}),
}


def test_other_launches_are_left_to_walk(machine: Machine, tmp_path: Path) -> None:
    """The two executors have one rule: what differs from a module in one thing is none for either."""
    variants = {"same": inception(), "long": inception(side=(4, 129)), "padded": inception(channels=24)}
    variants |= {name: inception(changed=layer, **fields) for name, (layer, fields) in CHANGES.items()}
    for dtype in ("fp16", "fp32"):
        for name, network in variants.items():
            title = name if dtype == "fp16" else f"{name}-32"
            plan = compiled(network, dtype, 5)
            assert any(found(plan.programs[0])) == (name == "same"), name
            plan.save(tmp_path / f"{title}.plan")
            np.savez(tmp_path / f"{title}.npz", f1=normal(network, 1))
    kernels = [ONE, dataclasses.replace(ONE, height=4, width=128), dataclasses.replace(ONE, channels=48)]
    archives.standard(modules=kernels).save(tmp_path / "kernels")
    names = [name for each in variants for name in (each, f"{each}-32")]
    (tmp_path / "cases").write_text("\n".join(f"{name} {name} kernels {ALWAYS}" for name in names))
    machine("choices", programs=PROGRAMS)
    answers = dict(line.split("\t", 1) for line in (tmp_path / "stdout").read_text().splitlines())
    assert {name for name, answer in answers.items() if answer != "0\t0"} == {"same"}, answers


def test_gpus_without_the_kernel(machine: Machine, one: Path) -> None:
    archives.standard(modules=[ONE], arch=80).save(one / "kernels")
    (one / "cases").write_text(f"ampere launches kernels {ALWAYS}")
    machine("choices", programs=PROGRAMS, capability=86)
    assert (one / "stdout").read_text() == "ampere\t0\t0\n"


def test_the_python_engine(machine: Machine, one: Path) -> None:
    machine("python", programs=PROGRAMS)


# ---- Failures


def test_a_wait_that_never_ends(machine: Machine, one: Path) -> None:
    machine("waits", programs=PROGRAMS)


def test_a_tensor_that_the_driver_refuses(machine: Machine, one: Path) -> None:
    machine("refused_maps", programs=PROGRAMS)


def test_every_call_may_fail_once(machine: Machine, specialising: Path, one: Path) -> None:
    """A status and a line each, nothing left behind; and the device may be lost anywhere."""
    network = inception()
    compiled(network, "fp16", 5).save(one / "tiny.plan")
    np.savez(one / "tiny.npz", f2=normal(network, 2))
    for program in ("failures", "lost"):
        assert of_modules(machine(program, library=specialising))


def test_the_double_sees_wrong_tensor_maps(machine: Machine, one: Path) -> None:
    good = ONE.described()
    for i in (0, 2, 6):
        kind, swizzle, box = good[i]
        for name, wrong in {
            "box": (kind, swizzle, (*box[:-1], box[-1] * 2)),
            "swizzle": (kind, 0, box),
            "type": (module_kernels.TYPES[archives.BF16], swizzle, box),
        }.items():
            maps = (*good[:i], wrong, *good[i + 1 :])
            kernel = dataclasses.replace(ONE, coded_maps=maps)
            archives.standard(modules=[kernel]).save(one / f"fault-{name}-{i}")
    machine("faults", programs=PROGRAMS)


def damaged() -> dict[str, bytes]:
    """Archives that must be refused: a module's record changed in each of its fields, or cut."""
    good = archives.standard(modules=[ONE])
    record = archives.HEADER.size + archives.RECORD.size * len(good.kernels)
    content = good.to_bytes()
    cut = archives.standard(modules=[ONE], dtypes=()).to_bytes()[: archives.HEADER.size + 300]
    found = {
        "count": content[:32] + (10**6).to_bytes(4, "little") + content[36:],
        "cut": cut[:16] + len(cut).to_bytes(8, "little") + cut[24:],
        "float32": archives.standard(
            modules=[dataclasses.replace(ONE, dtype=1, maps=ONE.described())]
        ).to_bytes(),
        "too-few": archives.standard(modules=[dataclasses.replace(ONE, params=ONE.params[:-1])]).to_bytes(),
        "another-size": archives.standard(
            modules=[dataclasses.replace(ONE, params=(64, *ONE.params[1:]))]
        ).to_bytes(),
    }
    words = {
        "form": (0, 9), "arch": (4, 0), "dtype": (8, 9), "height": (12, 0), "width": (16, 257), "channels": (20, 8),
        "widths": (24, 0), "widths-odd": (44, 24), "reduced": (48, 49), "reduced-none": (48, 0), "third": (52, 4),
        "group": (56, 0), "first": (60, 0), "second": (64, 2**31), "threads": (68, 100), "shared": (72, 2**30),
        "param-count": (80, 62), "flags": (84, 1), "no-name": (160, 0), "rank": (208, 3), "type": (212, 99),
        "swizzle": (216, 4), "box": (220, 0), "box-long": (224, 257), "box-rank": (228, 1), "reserved": (496, 1),
    }  # fmt: skip
    numbers = {
        "offset-odd": (192, 1000),
        "offset-far": (192, 1 << 40),
        "bytes": (200, 1 << 40),
        "none": (200, 0),
    }
    for size, patches in ((4, words), (8, numbers)):
        for name, (at, value) in patches.items():
            patch = {record + at: value.to_bytes(size, "little")}
            found[name] = dataclasses.replace(good, overrides=patch).to_bytes()
    patch = {record + 160: b"x" * 32}
    found["name-unterminated"] = dataclasses.replace(good, overrides=patch).to_bytes()
    return found


def test_damaged_records(machine: Machine, one: Path) -> None:
    bad = damaged()
    for name, content in bad.items():
        (one / name).write_bytes(content)
    (one / "cases").write_text("\n".join(f"{name} launches {name} {ALWAYS}" for name in ("kernels", *bad)))
    machine("choices", programs=PROGRAMS)
    answers = dict(line.split("\t", 1) for line in (one / "stdout").read_text().splitlines())
    assert answers.pop("kernels") == "1\t1" and len(answers) == len(bad)
    refused = {name for name, answer in answers.items() if answer.startswith("IE_ERROR_KERNELS\t")}
    assert refused == bad.keys(), {*bad} - refused


def test_any_flipped_bit_is_refused(machine: Machine, one: Path) -> None:
    """By the hash, wherever it lies in the module's record."""
    content = bytearray(Archive([], [ONE]).to_bytes())
    rng = np.random.default_rng(0)
    names = []
    for at in rng.choice(512, 24, replace=False):
        flipped = content.copy()
        flipped[64 + int(at)] ^= 1 << int(rng.integers(8))
        names.append(f"flip-{at}")
        (one / names[-1]).write_bytes(flipped)
    (one / "cases").write_text("\n".join(f"{name} launches {name} {ALWAYS}" for name in names))
    machine("choices", programs=PROGRAMS)
    lines = (one / "stdout").read_text().splitlines()
    assert len(lines) == len(names) and all("\tIE_ERROR_KERNELS\t" in line for line in lines)
