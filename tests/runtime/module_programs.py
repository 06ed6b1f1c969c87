"""What test_cuda_modules.py runs in processes whose CUDA driver is the double: launches by the kernel `module`.

python -m tests.runtime.module_programs NAME FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine import binding
from tests.driver.client import CUDA, Driver, Failure, LoadedEngine
from tests.runtime.cuda_programs import loaded, same, status_of, tidy

ALWAYS = binding.SPECIALISE.index("always")
STATE, TICKET = 58, 59  # parameters of `module`


def of_modules(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Launches of `module` in a log."""
    return [line for line in lines if "execute" in line and len(line["params"]) == 63]


def choices(folder: Path) -> None:
    """For each line "name plan archive specialise" of FOLDER/cases: loads, runs and prints name, the number of
    specialised launches, and that of launches of `module` in a run; or name and status."""
    driver = Driver()
    for line in (folder / "cases").read_text().splitlines():
        name, plan, archive, specialise = line.split()
        driver.lines()
        try:
            engine = LoadedEngine(
                (folder / f"{plan}.plan").read_bytes(), folder / archive, CUDA, specialise=int(specialise)
            )
        except Failure as failure:
            print(name, failure.name, failure.message, sep="\t")
            continue
        context = engine.context()
        images = loaded(folder / f"{plan}.npz")["f1"]
        context.run(images)
        context.free()
        specialised = engine.specialised
        engine.free()
        print(name, specialised, len(of_modules(driver.lines())), sep="\t")
    tidy(driver)


def launches(folder: Path) -> None:
    """Runs for test_cuda_modules.py to judge by the log; all of the state is zero after each."""
    driver = Driver()
    engine = LoadedEngine((folder / "launches.plan").read_bytes(), folder / "kernels", specialise=ALWAYS)
    context = engine.context(poison=True)
    images = loaded(folder / "launches.npz")["f3"]
    words = 32 * int((folder / "lines").read_text())
    for outputs in ((0,), (0,), (1,), (0, 1), ()):
        context.run(images, outputs)
        state = {line["params"][STATE] for line in of_modules(driver.lines("execute"))}
        assert len(state) == 1 and not driver.read(state.pop(), (words,), np.int32).any()
    context.free()
    engine.free()
    tidy(driver)


def waits(folder: Path) -> None:
    """A group's counter that starts too low: a status, once, and a clear state behind it; in runs of both sorts."""
    driver = Driver()
    engine = LoadedEngine((folder / "launches.plan").read_bytes(), folder / "kernels", specialise=ALWAYS)
    context = engine.context()
    images = loaded(folder / "launches.npz")["f3"]
    expected = context.run(images)
    state = of_modules(driver.lines())[0]["params"][STATE]

    def spoil() -> None:
        driver.write(state + 128, np.array([-1], np.int32))

    for _ in range(2):
        spoil()
        assert status_of(lambda: context.run(images)) == "IE_ERROR_TIMEOUT"
        assert not driver.read(state, (64,), np.int32).any()
        assert same(context.run(images), expected)
    with driver.own_context():
        image, shape = driver.upload(images), engine.shape(0, len(images))
        result, stream = driver.allocate(4 * int(np.prod(shape))), driver.stream()
        spoil()
        context.enqueue(images, image, [result], stream=stream)
        context.enqueue(images, image, [result], stream=stream)  # it does not hide what went wrong before
        assert status_of(context.check) == "IE_ERROR_TIMEOUT"
        context.check()
        context.enqueue(images, image, [result], stream=stream)
        context.check()
        assert same([driver.read(result, shape)], expected)
        for address in (image, result):
            driver.free(address)
        driver.call("cuStreamDestroy_v2", stream)
    context.free()
    engine.free()
    tidy(driver)


def refused_maps(folder: Path) -> None:
    """A tensor that the driver will not describe: no context, one line, nothing left; then another attempt."""
    driver = Driver()
    engine = LoadedEngine((folder / "launches.plan").read_bytes(), folder / "kernels", specialise=ALWAYS)
    before = driver.leaks()
    for number in (1, 9):
        driver.script(f"cuTensorMapEncodeTiled:{number}=1")
        failures: list[Failure] = []
        try:
            engine.context()
        except Failure as failure:
            failures.append(failure)
        assert [failure.name for failure in failures] == ["IE_ERROR_DRIVER"]
        assert "a module's tensors" in failures[0].message and driver.leaks() == before
    driver.script()
    context = engine.context()
    context.run(loaded(folder / "launches.npz")["f3"])
    context.free()
    engine.free()
    tidy(driver)


def faults(folder: Path) -> None:
    """Kernels whose code wants other tensor maps than their record says: the double sees it."""
    driver = Driver()
    images = loaded(folder / "launches.npz")["f3"]
    for kernels in sorted(folder.glob("fault-*")):
        engine = LoadedEngine((folder / "launches.plan").read_bytes(), kernels, specialise=ALWAYS)
        context = engine.context()
        before = driver.violations()
        assert status_of(lambda context=context: context.run(images)) == "IE_ERROR_DEVICE_LOST"  # type: ignore[misc]
        assert driver.violations() > before
        context.free()
        engine.free()
        driver.library.double_reset()


def python(folder: Path) -> None:
    """The same through inception_engine.Engine."""
    from inception_engine import Engine, errors

    driver = Driver()
    images = loaded(folder / "launches.npz")["f3"]
    plan, kernels = folder / "launches.plan", folder / "kernels"
    found = {}
    for specialise in (None, False, True):
        with Engine(plan, device="cuda", kernels=kernels, specialise=specialise) as engine:
            found[specialise] = engine.specialised, engine.run(images)
    assert (found[False][0], found[True][0]) == (0, 1)
    assert (found[None][1] == found[found[None][0] == 1][1]).all()  # as the archive says
    assert np.abs(found[True][1] - found[False][1]).max() <= 2e-2 * np.abs(found[False][1]).max()
    for wrong in (2, "always"):
        with pytest.raises(errors.ArgumentError) as raised:
            Engine(plan, device="cuda", specialise=wrong)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
    assert status_of(lambda: LoadedEngine(plan.read_bytes(), kernels, specialise=3)) == "IE_ERROR_ARGUMENT"
    tidy(driver)


if __name__ == "__main__":
    program: Callable[[Path], None] = globals()[sys.argv[1]]
    program(Path(sys.argv[2]))
