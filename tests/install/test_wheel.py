"""The wheel of tools/wheel: what it holds and needs, and that it runs in an environment that has nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.install.conftest import PROGRAM, WARNINGS, run
from tests.runtime import abi

ROOT = abi.RUNTIME.parents[1]
MOST_BYTES = 2 << 20  # of the library
# libgcc_s unwinds exceptions and cancelled threads: the C library itself asks for it.
NEEDED = {"ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path(sys.prefix, "build", "build.ninja").is_file() or Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("backend wheel: tools/setup did not make this environment")
    pytest.importorskip("auditwheel", reason="backend wheel: auditwheel is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    printed = run(ROOT / "tools" / "wheel", folder)
    (path,) = folder.iterdir()
    assert printed == f"{path}\n"
    return path


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel and the packages that it says it needs, which are lent to it."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    pip = (sys.executable, "-m", "pip", f"--python={python}", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel)
    (mine,) = importlib.metadata.distributions(name="inception-engine", path=[str(site)])
    for requirement in mine.requires or ():
        if "extra ==" not in requirement:
            lend(re.match(r"[\w-]+", requirement)[0], site)  # type: ignore[index]
    assert "No broken requirements" in run(*pip, "check")
    return python


def lend(package: str, site: Path) -> None:
    """Link the top-level files and folders of an installed package into another environment."""
    installed = importlib.metadata.distribution(package)
    for name in {
        file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")
    }:
        (site / name).symlink_to(str(installed.locate_file(name)))


def test_its_name_says_which_glibc_it_runs_on(wheel: Path) -> None:
    match = re.fullmatch(r"inception_engine-[\d.]+-py3-none-manylinux_2_(\d+)_x86_64\.whl", wheel.name)
    assert match is not None, wheel.name
    _, version = platform.libc_ver()
    assert 17 <= int(match[1]) <= int(version.split(".")[1])


def test_library_header_and_kernels(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "inception_engine"
    library = folder / "lib" / "libinception_engine.so"
    assert {path.name for path in library.parent.iterdir()} == {library.name, "inception_engine.kernels"}
    assert library.stat().st_size < MOST_BYTES
    dynamic = run("readelf", "-d", library)
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert "libc.so.6" in needed and needed <= NEEDED
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == [library.name]
    assert not re.search(r"RPATH|RUNPATH", dynamic)
    names = run("nm", "--dynamic", "--defined-only", "--format=just-symbols", library).split()
    assert sorted(names) == sorted(json.loads(abi.DESCRIPTION.read_text())["functions"])
    assert (folder / "include" / "inception_engine.h").read_bytes() == abi.HEADER.read_bytes()


def test_it_runs_where_nothing_else_is(bare: Path, plan: Path, expected: str, tmp_path: Path) -> None:
    script = (
        "import sys, numpy, inception_engine as ie\n"
        "assert not any('torch' in path for path in sys.path)\n"
        "network = ie.googlenet(width=0.25, input_size=64, classes=10)\n"
        "ie.compile(network, batches=(1,)).save('made.plan')\n"
        "with ie.Engine('made.plan') as engine:\n"
        "    logits = engine.run(numpy.zeros((1, 3, 64, 64), numpy.float32))[0]\n"
        "print(ie.__version__, format(float(logits[0]), '.9g'))\n"
        "print(ie.__file__)\n"
    )
    *first, place = subprocess.run(
        [bare, "-I", "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    ).stdout.splitlines(keepends=True)
    assert "".join(first) == expected
    assert Path(place.strip()).is_relative_to(bare.parents[1])
    assert (tmp_path / "made.plan").read_bytes() == plan.read_bytes()
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run(bare, "-I", "-c", "import torch")
    assert "usage: inception" in run(bare.parent / "inception", "--help")


def test_a_program_builds_with_what_the_wheel_brings(
    bare: Path, plan: Path, expected: str, tmp_path: Path
) -> None:
    place = "import inception_engine as ie; print(ie.get_include()); print(ie.get_library())"
    include, library = run(bare, "-I", "-c", place).splitlines()
    assert Path(library).is_relative_to(bare.parents[1])
    program = tmp_path / "program"
    run(
        "gcc",
        *WARNINGS,
        f"-I{include}",
        PROGRAM,
        "-o",
        program,
        library,
        f"-Wl,-rpath,{Path(library).parent}",
    )
    assert run(program, plan) == expected
