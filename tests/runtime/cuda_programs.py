"""What test_cuda.py runs in processes whose CUDA driver is the double.

    python -m tests.runtime.cuda_programs NAME FOLDER

FOLDER holds plans and images; a program reads and writes there, and an assertion that fails ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tests.driver.client import AUTO, CUDA, Context, Driver, Failure, LoadedEngine


def loaded(path: Path) -> dict[str, np.ndarray]:
    """Arrays that live as long as the dict: NumPy reads a file's anew each time."""
    with np.load(path) as arrays:
        return dict(arrays)


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all((a.view(np.uint32) == b.view(np.uint32)).all() for a, b in zip(first, second, strict=True))


def status_of(step: Callable[[], object]) -> str:
    """The name of the status that a call ends with."""
    try:
        step()
    except Failure as failure:
        return failure.name
    return "IE_OK"


def tidy(driver: Driver) -> None:
    """Nothing is left, and no rule was broken."""
    assert driver.leaks() == {}, driver.leaks()
    assert driver.lines("violation") == [] or driver.violations() == 0
    assert driver.library.double_depth() == 0


def rules(folder: Path) -> None:
    """The double sees the mistakes that the other programs must not make."""
    driver = Driver()
    library = driver.library
    address, stream, other, graph, event = c_uint64(), c_void_p(), c_void_p(), c_void_p(), c_void_p()

    def breaks(name: str, *arguments: object) -> None:
        before = driver.violations()
        assert getattr(library, name)(*arguments) != 0 and driver.violations() == before + 1, name

    breaks("cuDevicePrimaryCtxRetain", byref(stream), 0)  # before cuInit
    driver.call("cuInit", 0)
    breaks("cuMemAlloc_v2", byref(address), c_size_t(64))  # without a context
    with driver.own_context():
        memory = driver.allocate(64)
        data = np.zeros(16, np.float32)
        host = c_void_p(data.ctypes.data)
        assert np.isnan(driver.read(memory, (16,))).all()
        stream, other = driver.stream(), driver.stream()
        driver.call("cuEventCreate", byref(event), 2)
        fill = "cuMemsetD32Async"
        breaks(fill, c_uint64(memory + 4), 0, c_size_t(16), stream)  # behind its end
        breaks("cuMemcpyHtoDAsync_v2", c_uint64(memory), c_void_p(memory), c_size_t(64), stream)
        breaks("cuMemFree_v2", c_uint64(memory + 4))
        # Two streams at once, and one after the other.
        before = driver.violations()
        driver.call(fill, c_uint64(memory), 0, c_size_t(16), stream)
        driver.call(fill, c_uint64(memory), 1, c_size_t(16), other)
        driver.read(memory, (16,))
        assert driver.violations() == before + 1
        driver.call("cuEventRecord", event, other)
        driver.call("cuStreamWaitEvent", stream, event, 0)
        driver.call(fill, c_uint64(memory), 2, c_size_t(16), stream)
        driver.call("cuStreamSynchronize", stream)
        driver.call(fill, c_uint64(memory), 3, c_size_t(16), other)
        assert (driver.read(memory, (16,), np.int32) == 3).all() and driver.violations() == before + 1
        # What a capture forbids makes it invalid.
        for name, arguments in (
            ("cuMemAlloc_v2", (byref(address), c_size_t(64))),
            ("cuStreamSynchronize", (stream,)),
            ("cuMemcpyHtoDAsync_v2", (c_uint64(memory), host, c_size_t(64), stream)),
            ("cuStreamWaitEvent", (stream, event, 0)),
        ):
            driver.call("cuStreamBeginCapture_v2", stream, 0)
            breaks(name, *arguments)
            assert library.cuStreamEndCapture(stream, byref(graph)) == 901 and not graph.value
        for made in (stream, other):
            driver.call("cuStreamDestroy_v2", made)
        breaks("cuStreamSynchronize", stream)  # after its end
        driver.call("cuEventDestroy_v2", event)
        assert driver.leaks() == {"device": 1, "retained": 1}
        # An error that stays.
        driver.script("cuEventCreate:1=700")
        assert library.cuEventCreate(byref(event), 0) == library.cuMemFree_v2(c_uint64(memory)) == 700
    assert driver.leaks() == {}


def networks(folder: Path) -> None:
    """Every NAME.plan on the images of NAME.npz, by FOLDER/kernels if there is one; outputs to NAME.out.npz."""
    driver = Driver()
    kernels = folder / "kernels"
    for path in sorted(folder.glob("*.plan")):
        images = loaded(path.with_suffix(".npz"))
        engine = LoadedEngine(path.read_bytes(), kernels if kernels.exists() else None)
        context = engine.context(poison=True)
        everything = range(engine.outputs)
        results: dict[str, np.ndarray] = {}
        for key in images:
            outputs = context.run(images[key], everything)
            results |= {f"{key}/{i}": output for i, output in enumerate(outputs)}
            # One output goes another way than several.
            last = engine.outputs - 1
            assert same(context.run(images[key], (0,)), outputs[:1]), key
            assert same(context.run(images[key], (last,)), outputs[last:]), key
        context.free()
        engine.free()
        np.savez(path.with_suffix(".out.npz"), **results)  # type: ignore[arg-type]
    tidy(driver)


def ways(folder: Path) -> None:
    """The same bits from a graph, its replay, device buffers, streams, two contexts, two engines and two threads."""
    driver = Driver()
    plan = (folder / "ways.plan").read_bytes()
    images = loaded(folder / "ways.npz")
    engine = LoadedEngine(plan)
    first, second = engine.context(poison=True), engine.context()
    expected = {key: first.run(images[key]) for key in images}
    for key in images:
        assert same(first.run(images[key]), expected[key])
        assert same(second.run(images[key]), expected[key])
    with driver.own_context() as own:
        streams = [driver.stream(1), driver.stream(0), None]
        for key in images:
            image = driver.upload(images[key])
            shape = engine.shape(0, len(images[key]))
            result = driver.allocate(4 * int(np.prod(shape)))
            for context in (first, second):
                for stream in streams:
                    context.enqueue(images[key], image, [result], stream=stream)
                context.check()
                assert same([driver.read(result, shape)], expected[key])
                driver.write(result, np.full(shape, np.nan, np.float32))
                context.run_at(images[key], image, [result])
                assert same([driver.read(result, shape)], expected[key])
            # One side in host memory.
            host = np.full(shape, np.nan, np.float32)
            first.run_at(images[key], image, [host.ctypes.data])
            assert same([host], expected[key])
            driver.write(result, np.full(shape, np.nan, np.float32))
            first.run_at(images[key], images[key].ctypes.data, [result])
            assert same([driver.read(result, shape)], expected[key])
            # What the host waits for is what the stream did, without a check in between.
            first.enqueue(images[key], image, [result], stream=streams[0])
            assert same(first.run(images[key]), expected[key])
            assert driver.library.double_current() == own and driver.library.double_depth() == 1
            driver.free(image)
            driver.free(result)
        for stream in streams[:2]:
            driver.call("cuStreamDestroy_v2", stream)
    other = LoadedEngine(plan)
    third = other.context()
    found: dict[tuple[str, int], bool] = {}

    def work(number: int) -> None:
        context = (first, second, third)[number]
        for _ in range(3):
            for key in images:
                good = same(context.run(images[key]), expected[key])
                found[key, number] = found.get((key, number), True) and good

    threads = [Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 * len(expected) and all(found.values())
    engine.free()  # before its contexts
    assert same(first.run(images["f1"]), expected["f1"])
    for context in (first, second, third):
        context.free()
    other.free()
    tidy(driver)


def captured(folder: Path) -> None:
    """Runs recorded by the caller's own capture, and replayed for other images."""
    driver = Driver()
    engine = LoadedEngine((folder / "ways.plan").read_bytes())
    context = engine.context(poison=True)
    images = np.load(folder / "ways.npz")["f4"]
    expected = [context.run(images), context.run(images[::-1].copy())]
    with driver.own_context():
        shape = engine.shape(0, len(images))
        image, result = driver.upload(images), driver.allocate(4 * int(np.prod(shape)))
        other, stream = driver.stream(), driver.stream()
        context.enqueue(images, image, [result], stream=other)  # the capture must not wait for it
        driver.lines()
        graph, exec_graph = c_void_p(), c_void_p()
        driver.call("cuStreamBeginCapture_v2", stream, c_int(0))
        context.enqueue(images, image, [result], stream=stream)
        driver.call("cuStreamEndCapture", stream, byref(graph))
        lines = driver.lines()
        executed = [line for line in lines if "execute" in line]
        assert executed == [] and all(
            line["captured"] for line in lines if line.get("call") == "cuLaunchKernelEx"
        )
        context.check()
        driver.call("cuGraphInstantiateWithFlags", byref(exec_graph), graph, c_uint64(0))
        for index, batch in enumerate((images, images[::-1].copy(), images)):
            driver.write(image, batch)
            driver.call("cuGraphLaunch", exec_graph, stream)
            driver.call("cuStreamSynchronize", stream)
            assert same([driver.read(result, shape)], expected[index % 2])
        assert same(context.run(images), expected[0])
        context.check()
        driver.call("cuGraphExecDestroy", exec_graph)
        driver.call("cuGraphDestroy", graph)
        for address in (image, result):
            driver.free(address)
        for made in (other, stream):
            driver.call("cuStreamDestroy_v2", made)
    context.free()
    engine.free()
    tidy(driver)


def launches(folder: Path) -> None:
    """Runs for test_cuda.py to judge by the log; what lies in the state afterwards is zero."""
    driver = Driver()
    engine = LoadedEngine((folder / "launches.plan").read_bytes(), folder / "launches.kernels")
    context = engine.context()
    images = np.load(folder / "launches.npz")["f2"]
    for outputs in ((0,), (0,), (1,), (0, 1), ()):
        context.run(images, outputs)
        state = [line["params"][7] for line in driver.lines("execute") if len(line["params"]) == 20]
        words = 32 * int((folder / "lines").read_text())
        assert len(set(state)) == 1 and not driver.read(state[0], (words,), np.int32).any()
    context.free()
    engine.free()
    tidy(driver)


def graphs(folder: Path) -> None:
    """Captured once, replayed afterwards; the number kept is bounded."""
    driver = Driver()
    engine = LoadedEngine((folder / "ways.plan").read_bytes())
    context = engine.context()
    images = loaded(folder / "ways.npz")

    def calls(name: str, key: str, outputs: tuple[int, ...] = (0,)) -> int:
        driver.lines()
        context.run(images[key], outputs)
        lines = driver.lines("call")
        assert sum(line["call"] == "cuGraphLaunch" for line in lines) == 1
        forbidden = ("cuMemAlloc_v2", "cuMemAllocHost_v2", "cuMemFree_v2", "cuMemFreeHost")
        assert not any(line["call"] in forbidden for line in lines)
        return sum(line["call"] == name for line in lines)

    begin = "cuStreamBeginCapture_v2"
    for key in ("f1", "u1", "f4", "f3"):
        assert [calls(begin, key), calls(begin, key), calls(begin, key)] == [1, 0, 0], key
    assert calls(begin, "f1", ()) == 1 and calls(begin, "f1", ()) == 0
    assert calls(begin, "f1") == 0
    for batch in range(1, 5):  # many kinds of run: batches, formats, outputs
        for kind in (np.float32, np.uint8):
            shape = images["f4" if kind is np.float32 else "u1"].shape[1:]
            for outputs in ((), (0,), (1,), (0, 1), (1, 0)):
                context.run(np.zeros((batch, *shape), kind), outputs)
                assert driver.leaks()["execs"] <= 16
    assert driver.leaks()["execs"] >= 2
    context.free()
    engine.free()
    tidy(driver)


RELEASES = ("Free", "Destroy", "Unload", "Release", "PopCurrent", "EndCapture")


def _life(
    driver: Driver, plan: bytes, images: np.ndarray, expected: list[np.ndarray], on_device: Sequence[int] = ()
) -> tuple[list[Failure], int]:
    """Load, create, runs of each sort, release; goes on after failures as far as it can. Returns what failed, and the
    number of calls of the driver until the release began, whose functions cannot fail.

    ``on_device``: addresses of the images and of room for the first output, for runs on a stream.
    """
    failures: list[Failure] = []
    contexts: list[Context] = []

    def attempt(step: Callable[[], None]) -> bool:
        try:
            step()
        except Failure as failure:
            failures.append(failure)
            return False
        return True

    def good(outputs: tuple[int, ...]) -> Callable[[], None]:
        def step() -> None:
            assert same(contexts[0].run(images, outputs), [expected[i] for i in outputs])

        return step

    try:
        engine = LoadedEngine(plan)
    except Failure as failure:
        return [failure], driver.calls()
    if attempt(lambda: contexts.append(engine.context(poison=True))):
        for outputs in ((0,), (0,), (0, 1)):
            if not attempt(good(outputs)):
                attempt(good(outputs))
        if on_device:  # a run that breaks off half-way leaves the next one what it needs
            steps = (contexts[0].enqueue, contexts[0].run_at)
            for step in steps:
                if not attempt(partial(step, images, on_device[0], on_device[1:])):
                    attempt(partial(step, images, on_device[0], on_device[1:]))
                attempt(contexts[0].check)
                attempt(good((0,)))
                assert same([driver.read(on_device[1], expected[0].shape)], expected[:1])
                driver.write(on_device[1], np.zeros_like(expected[0]))
    calls = driver.calls()
    for context in contexts:
        context.free()
    engine.free()
    return failures, calls


def failures(folder: Path) -> None:
    """Each call of the driver fails once: a status and a line, nothing left, and the context works on."""
    driver = Driver()
    plan = (folder / "tiny.plan").read_bytes()
    images = np.load(folder / "tiny.npz")["f2"]
    engine = LoadedEngine(plan)
    context = engine.context()
    expected = context.run(images, (0, 1))
    context.free()
    engine.free()
    tidy(driver)
    hidden: set[str] = set()
    with driver.own_context():
        on_device = driver.upload(images), driver.allocate(expected[0].nbytes)
        for number in range(1, 1000):
            driver.lines()
            driver.script(f"*:{number}=2")
            found, calls = _life(driver, plan, images, expected, on_device)
            scripted = [line for line in driver.lines("call") if line.get("scripted")]
            driver.script()
            if not scripted:
                assert not found, found
                break
            name = scripted[0]["call"]
            assert driver.leaks() == {"device": 2, "retained": 1}, (number, name, driver.leaks())
            assert driver.library.double_depth() == 1, (number, name)
            assert len(found) <= 1, (number, name, list(map(str, found)))
            if not found and number <= calls and not any(word in name for word in RELEASES):
                hidden.add(name)
        for address in on_device:
            driver.free(address)
    assert number > 40, number
    assert not hidden, hidden
    assert driver.violations() == 0
    tidy(driver)
    print(number)


def lost(folder: Path) -> None:
    """Each call of the driver in turn ends with an error that stays."""
    driver = Driver()
    plan = (folder / "tiny.plan").read_bytes()
    images = np.load(folder / "tiny.npz")["f2"]
    engine = LoadedEngine(plan)
    context = engine.context()
    expected = context.run(images, (0, 1))
    context.free()
    engine.free()
    names: dict[str, set[str]] = {}
    for number in range(1, 1000):
        driver.lines()
        driver.script(f"*:{number}=700")
        found, _ = _life(driver, plan, images, expected)
        scripted = [line for line in driver.lines("call") if line.get("scripted")]
        driver.script()
        driver.library.double_reset()
        if not scripted:
            break
        names.setdefault(scripted[0]["call"], set()).update(failure.name for failure in found)
    assert number > 40
    for name, statuses in names.items():
        assert statuses <= {"IE_ERROR_DEVICE_LOST"}, (name, statuses)
    for name in ("cuLaunchKernelEx", "cuStreamSynchronize", "cuGraphLaunch", "cuMemAlloc_v2"):
        assert names[name] == {"IE_ERROR_DEVICE_LOST"}, (name, names)
    assert driver.violations() == 0


def one_life(folder: Path) -> None:
    """For failures before and inside of the first cuInit: from the environment."""
    driver = Driver()
    images = np.load(folder / "tiny.npz")["f2"]
    expected = list(np.load(folder / "tiny.expected.npz").values())
    plan = (folder / "tiny.plan").read_bytes()
    found, _ = _life(driver, plan, images, expected)
    assert len(found) == 1, list(map(str, found))
    driver.script()
    assert _life(driver, plan, images, expected)[0] == []  # the next attempt
    tidy(driver)


def spent(folder: Path) -> None:
    """A device that is lost in a run stays lost for its contexts, and says so each time."""
    driver = Driver()
    images = np.load(folder / "tiny.npz")["f2"]
    engine = LoadedEngine((folder / "tiny.plan").read_bytes())
    context, other = engine.context(), engine.context()
    context.run(images)
    driver.script("cuStreamSynchronize:1=700")
    for used in (context, context, other):
        assert status_of(lambda used=used: used.run(images)) == "IE_ERROR_DEVICE_LOST"  # type: ignore[misc]
    assert status_of(context.check) == status_of(other.check) == "IE_ERROR_DEVICE_LOST"
    context.free()
    other.free()
    engine.free()
    assert driver.violations() == 0 and driver.library.double_depth() == 0


def waits(folder: Path) -> None:
    """A wait that never ends, in tables that were changed on the device; then they are mended."""
    driver = Driver()
    engine = LoadedEngine((folder / "ways.plan").read_bytes())
    context = engine.context()
    images = np.load(folder / "ways.npz")["f1"]
    expected = context.run(images)
    params = driver.lines("execute")[0]["params"]
    waits, state = params[1], params[7]
    whole = driver.read(waits, (2,), np.int32)

    for _ in range(2):
        driver.write(waits, whole + np.array([0, 1], np.int32))
        assert status_of(lambda: context.run(images)) == "IE_ERROR_TIMEOUT"
        assert status_of(lambda: context.run(images)) == "IE_ERROR_TIMEOUT"
        driver.write(waits, whole)
        assert same(context.run(images), expected)
        assert not driver.read(state, (32,), np.int32).any()
    with driver.own_context():
        image, shape = driver.upload(images), engine.shape(0, 1)
        result, stream = driver.allocate(4 * int(np.prod(shape))), driver.stream()
        driver.write(waits, whole + np.array([0, 1], np.int32))
        context.enqueue(images, image, [result], stream=stream)
        driver.write(waits, whole)  # after the run: all that is submitted is done first
        context.enqueue(images, image, [result], stream=stream)
        assert status_of(context.check) == "IE_ERROR_TIMEOUT"
        context.check()  # said once
        context.enqueue(images, image, [result], stream=stream)
        context.check()
        assert same([driver.read(result, shape)], expected)
        # A run from the host does not hide what went wrong in the stream before it.
        driver.write(waits, whole + np.array([0, 1], np.int32))
        context.enqueue(images, image, [result], stream=stream)
        driver.write(waits, whole)
        steps = (lambda: context.run(images), context.check)
        assert "IE_ERROR_TIMEOUT" in [status_of(step) for step in steps]
        assert same(context.run(images), expected)
        for address in (image, result):
            driver.free(address)
        driver.call("cuStreamDestroy_v2", stream)
    context.free()
    engine.free()
    tidy(driver)


def refusals_without_driver(folder: Path) -> None:
    try:
        Driver()
    except OSError:
        _refusals(folder)
    else:
        raise AssertionError("there is a driver")


def refusals(folder: Path) -> None:
    driver = Driver()
    _refusals(folder)
    tidy(driver)


def _refusals(folder: Path) -> None:
    """Loads and runs a plan for each line "name plan archive device" of FOLDER/cases; prints name, what became of it
    (a device or a status) and the note or message."""
    for line in (folder / "cases").read_text().splitlines():
        name, plan, archive, device = line.split()
        try:
            engine = LoadedEngine(
                (folder / f"{plan}.plan").read_bytes(),
                None if archive == "-" else folder / archive,
                AUTO if device == "auto" else CUDA,
                int(device.partition(":")[2] or 0),
            )
        except Failure as failure:
            print(name, failure.name, failure.message, sep="\t")
            continue
        try:
            context = engine.context()
            batch = np.load(folder / f"{plan}.npz")["f1"]
            context.run(batch)
            print(name, engine.device, engine.note, sep="\t")
            context.free()
        except Failure as failure:
            print(name, failure.name, failure.message, sep="\t")
        engine.free()


def python(folder: Path) -> None:
    """The same through inception_engine.Engine."""
    from inception_engine import Engine, errors

    driver = Driver()
    images = loaded(folder / "ways.npz")
    expected = LoadedEngine((folder / "ways.plan").read_bytes())
    context = expected.context()
    with (
        Engine(str(folder / "ways.plan"), device="cuda") as engine,
        Engine(str(folder / "ways.plan"), device="cuda:0") as second,
        Engine(str(folder / "ways.plan")) as third,
    ):
        assert (engine.device, second.device, third.device) == ("cuda",) * 3, (engine.device, third.device)
        assert engine.isa == "cuda" and engine.note == ""
        for key in images:
            logits, middle = (output.reshape(output.shape[:2]) if output.shape[2:] == (1, 1) else output
                              for output in context.run(images[key], (0, 1)))  # fmt: skip
            names = list(engine.outputs)
            assert same([engine.run(images[key])], [logits]) and same([second.run(images[key])], [logits])
            assert same(list(engine.run(images[key], outputs=names[:2]).values()), [logits, middle])
        engine.check()
        assert len(third.classify(images["f4"], top_k=2)) == 4
    for device in ("cuda:7", "cuda:x", "gpu"):
        with pytest.raises(errors.DeviceError) as raised:
            Engine(str(folder / "ways.plan"), device=device)
        assert "\n" not in str(raised.value)
    context.free()
    expected.free()
    tidy(driver)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
