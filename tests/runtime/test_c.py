"""The C API from C: programs of tests/c, compiled as C99 with all warnings against the installed header and library."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import inception_engine as ie
from inception_engine import binding

SOURCES = Path(__file__).parent.parent / "c"
HEADERS = Path(__file__).parent.parent.parent / "inception_engine" / "runtime" / "include"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-missing-field-initializers")

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Compiles ``tests/c/<name>.c`` once and runs it with arguments."""
    folder = tmp_path_factory.mktemp("c")
    library = binding.library_path()

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        binary = folder / name
        if not binary.exists():
            command = [
                "gcc",
                "-std=c11",
                *WARNINGS,
                f"-I{HEADERS}",
                str(SOURCES / f"{name}.c"),
                "-o",
                str(binary),
            ]
            subprocess.run([*command, str(library), f"-Wl,-rpath,{library.parent}"], check=True)
        command = [str(binary), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.plan"
    ie.compile(ie.googlenet(width=0.25, input_size=64, classes=10), batches=(1, 3)).save(path)
    return path


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_nothing_is_allocated_in_a_run(program: Program, plan: Path, batch: int, threads: int) -> None:
    done = program("allocation", plan, batch, threads, 10)
    assert done.returncode == 0, done.stderr
    _, loaded, _, ran = done.stdout.split()
    assert int(loaded) > 10  # it does count
    assert int(ran) == 0


def test_misuse(program: Program, plan: Path) -> None:
    done = program("misuse", plan)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


@pytest.mark.parametrize("name", ["callbacks", "older"])
def test_program(name: str, program: Program, plan: Path) -> None:
    done = program(name, plan)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
