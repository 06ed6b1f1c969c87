"""What tools/hardening does: each command prints what it did, and raises Failed where something was found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inception_engine import binding
from tests.hardening import build, corpus
from tests.hardening.build import HERE, RUNTIME, Kind
from tests.hardening.extremes import extremes, large

FINDINGS = HERE.parents[1] / "build" / "findings"  # inputs that ended a target
MIB = 2**20
_SANITISERS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:malloc_context_size=4:quarantine_size_mb=32:handle_abort=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
_WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-missing-field-initializers"]


class Failed(Exception):
    """A finding, with the last lines that say what."""


def run(command: Sequence[object], folder: Path | None = None, timeout: float | None = None) -> str:
    """All that a program printed. Raises Failed where it does not end with 0."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **_SANITISERS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stdout.splitlines()[-60:]
        raise Failed("\n".join([f"{Path(words[0]).name} ended with {done.returncode}", *lines]))
    return done.stdout


def _summary(output: str, name: str) -> dict[str, float]:
    """The counts of the target's last line: "loader: 5 executions, 2 accepted" -> {"executions": 5, ...}."""
    line = next(line for line in reversed(output.splitlines()) if line.startswith(f"{name}: "))
    print(line, flush=True)
    counts = {word: float(number) for number, word in re.findall(r"(\d+) (\w+)", line)}
    most = re.search(r"input \* 4 ([+-]\d+) bytes, ([\d.]+) s", line)
    return counts | ({"excess": float(most[1]), "seconds": float(most[2])} if most else {})


def fuzz(
    target: str, executions: int, *, quick: bool = True, seed: int = 1, seconds: int = 0
) -> dict[str, float]:
    """Runs the target ("loader" or "run") on the corpus and that many mutations of it, for ``seconds`` at most.

    Long runs are libFuzzer's where there is one; their corpus grows in build/ and serves the next run.
    """
    kind = Kind("address", quick)
    program = build.fuzz_target(target, kind)
    if not kind.fuzzer:
        with tempfile.TemporaryDirectory() as folder:
            files = corpus.unpack(Path(folder))
            FINDINGS.mkdir(parents=True, exist_ok=True)
            return _summary(run([program, f"-runs={executions}", f"-seed={seed}", *files], FINDINGS), target)
    grown = FINDINGS.parent / f"corpus-{target}"  # kept, so that the next run goes on where this one ended
    grown.mkdir(parents=True, exist_ok=True)
    corpus.unpack(grown)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={executions}",
        f"-seed={seed}",
        "-max_len=12288",
        "-timeout=60",
        f"-max_total_time={seconds}",
    ]
    output = run([program, *options, f"-artifact_prefix={FINDINGS}/", grown])
    return _summary(output, target)


def damage(target: str, mode: str, plan: bytes, *, quick: bool = True) -> dict[str, float]:
    """Runs the target on every prefix ("prefixes") or every flipped bit ("flips") of a plan, hash mended or not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan")
        path.write_bytes(plan)
        kind = Kind("address", quick)
        if kind.fuzzer:  # its main has no such modes
            kind = Kind("address")
        program = build.fuzz_target(target, kind)
        return _summary(run([program, f"-{mode}", path], Path(folder)), target)


def load_extremes(*, quick: bool = True) -> dict[str, float]:
    """The loader's memory for plans that ask for much of it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, plan in (extremes() | large()).items():
            paths.append(Path(folder, name))
            paths[-1].write_bytes(plan)
        program = build.fuzz_target("loader", Kind("address", quick))
        return _summary(run([program, *paths], Path(folder)), "loader")


def linked(name: str, folder: Path) -> Path:
    """A C program of programs/, linked to the library as it is installed."""
    library = binding.library_path()
    program = folder / name
    source = HERE / "programs" / f"{name}.c"
    command = [
        "gcc",
        "-std=c11",
        "-O1",
        *_WARNINGS,
        f"-I{RUNTIME / 'include'}",
        source,
        "-o",
        program,
        library,
    ]
    command += [f"-Wl,-rpath,{library.parent}", "-lpthread", "-ldl"]
    subprocess.run(list(map(str, command)), check=True, timeout=100)
    return program


def c_program(name: str, *arguments: object, plan: bytes) -> str:
    """Runs a C program of programs/ on a plan; what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan")
        path.write_bytes(plan)
        output = run([linked(name, Path(folder)), *arguments, path])
    print(output, end="", flush=True)
    return output


def threads(count: int, inferences: int, plan: bytes, *, quick: bool = True) -> str:
    """Shared engines and private contexts under the thread sanitiser."""
    program = build.build("threads", ["programs/threads.cpp"], Kind("thread", quick))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan")
        path.write_bytes(plan)
        output = run([program, count, inferences, path])
    print(output, end="", flush=True)
    return output


def check_soak(line: str) -> None:
    """Judges what soak.c printed. Raises Failed if anything grew: MIB bytes in all, or a MIB an hour."""
    counts = {
        name: [float(n) for n in values.split()] for name, values in re.findall(r"(\w+): ([-\d. ]+)", line)
    }
    grown = counts["growth"][0] >= MIB or (counts.get("slope", [0])[0] >= MIB and counts["seconds"][0] >= 600)
    if grown or any(len({*counts[name]}) != 1 for name in ("threads", "descriptors")):
        raise Failed(f"something grew: {line}")


def coverage(executions: int) -> dict[str, float]:
    """Share of the loader's lines, in percent, that the corpus and so many mutations of it run."""
    program = build.fuzz_target("loader", Kind("coverage"))
    objects = program.parent
    for old in objects.glob("*.gcda"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        files = corpus.unpack(Path(folder))
        run([program, f"-runs={executions}", *files], Path(folder))
        found = {}
        for source in (RUNTIME / "plan.cpp", *sorted(RUNTIME.glob("proof/*.cpp"))):
            name = f"{source.parent.name}/{source.name}"
            (counts,) = objects.glob(f"{source.parent.name}-{source.stem}-*.gcda")
            shutil.copy(counts, folder)
            shutil.copy(counts.with_suffix(".gcno"), folder)
            report = run(["gcov", counts.name], Path(folder))
            share = re.search(rf"File '[^']*/{re.escape(name)}'\nLines executed:([\d.]+)%", report)
            assert share, report
            found[name] = float(share[1])
    print(*(f"{name}: {share} % of lines" for name, share in found.items()), sep="\n", flush=True)
    return found
