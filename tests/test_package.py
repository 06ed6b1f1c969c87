"""The installed package: entry points, the library's symbols, what imports pull in, what a wheel holds."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import inception_engine
from inception_engine import binding

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "inception_engine/runtime/include/inception_engine.h"
TOP_LEVEL = {
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "inception_engine",
    "kernels",
    "pyproject.toml",
    "tests",
    "tools",
}
HEAVY = {"onnx", "onnxruntime", "sklearn", "torch", "triton"}


def imported_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit as done:\n    assert not done.code\n"
    code += "print('modules', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "statement",
    [
        "import inception_engine",
        "from inception_engine import Engine, Network, compile, googlenet, load_network",
        "from inception_engine.cli import main; main(['--help'])",
        "from inception_engine.cli import bench_main; bench_main(['--help'])",
    ],
)
def test_import_is_light(statement: str) -> None:
    modules = imported_by(statement)
    assert "inception_engine" in modules
    assert not modules & HEAVY


def test_import_of_the_package_alone_needs_nothing() -> None:
    assert "numpy" not in imported_by("import inception_engine")


def test_public_names_exist() -> None:
    assert all(getattr(inception_engine, name) is not None for name in inception_engine.__all__)


def test_kernels_import_from_the_mapped_folder() -> None:
    kernels = importlib.import_module("inception_engine.kernels")
    assert Path(kernels.__file__ or "").parent.name == "kernels"


@pytest.mark.parametrize("command", ["inception", "inception-bench"])
def test_entry_point(command: str) -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=command)
    assert callable(entry.load())
    done = subprocess.run([Path(sys.executable).parent / command, "--help"], capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {command} ".encode())


def test_library_exports_the_header_and_nothing_else() -> None:
    symbols = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--format=just-symbols", binding.library_path()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    declared = re.findall(r"^IE_API\b[^(]*?\b(ie_\w+)\(", HEADER.read_text(), re.MULTILINE)
    assert len(declared) > 10
    assert sorted(symbols) == sorted(declared)


def test_library_needs_no_more_than_the_system_has() -> None:
    dynamic = subprocess.run(
        ["readelf", "-d", binding.library_path()], capture_output=True, text=True, check=True
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert set(needed) <= {
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "libstdc++.so.6",
    }


def test_one_version() -> None:
    library = binding.library()
    assert library.ie_version().decode() == importlib.metadata.version("inception-engine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel made without the C++ build, which takes a minute and is in the installed package."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command = [*pip, "--config-settings=wheel.cmake=false", f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_module(wheel: set[str]) -> None:
    sources = {str(path.relative_to(ROOT)) for path in ROOT.glob("inception_engine/**/*.py")}
    kernels = {f"inception_engine/{path.relative_to(ROOT)}" for path in ROOT.glob("kernels/**/*.py")}
    assert sources
    assert kernels
    assert {name for name in wheel if name.endswith(".py")} == sources | kernels
    assert {"inception_engine/py.typed", "inception_engine/LICENSE"} <= wheel
    assert {
        "inception_engine/simulate/costs/h200.json",
        "inception_engine/kernels/tuned/module.json",
        "inception_engine/models/digits.safetensors",
        "inception_engine/models/digits.yaml",
    } <= wheel


def test_installed_package_holds_library_kernels_and_header() -> None:
    folders = [Path(folder) for folder in inception_engine.__path__]
    (header,) = [file for folder in folders if (file := folder / "include/inception_engine.h").is_file()]
    assert header.read_text() == HEADER.read_text()
    assert (header.parent.parent / "lib" / binding.LIBRARY).is_file()
    assert (header.parent.parent / "lib" / "inception_engine.kernels").is_file()


def test_source_distribution_holds_what_the_build_reads(tmp_path: Path) -> None:
    script = f"from scikit_build_core.build import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    (file,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("kernels/*.py", "kernels/tuned/*.json", "inception_engine/runtime/**/*.*")
    needed = {str(path.relative_to(ROOT)) for folder in folders for path in ROOT.glob(folder)}
    assert {"kernels/__main__.py", "inception_engine/runtime/CMakeLists.txt"} <= needed
    assert needed | {"pyproject.toml", "README.md", "inception_engine/LICENSE"} <= names


def test_top_level_names_are_the_agreed_ones() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
