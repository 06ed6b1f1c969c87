"""``cmake --install``: programs outside of the tree build by plain gcc, pkg-config and CMake, wherever it is moved."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

import inception_engine as ie
from benchmarks import calling
from tests.install.conftest import PROGRAM, WARNINGS, run
from tests.runtime import abi

STATIC_NEEDS = ("-lstdc++", "-lm", "-lpthread", "-ldl")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that was moved after it was made. Without optimisation and GPU kernels, to compile in seconds."""
    kept = Path(sys.prefix, "build-install")  # of an earlier run, so that nothing is compiled twice
    if not Path(sys.prefix, "build").is_dir():  # not an environment that tools/setup made
        kept = tmp_path_factory.mktemp("build")
    kept.mkdir(exist_ok=True)
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = ("-DIE_KERNELS=OFF", "-DCMAKE_CXX_FLAGS_RELEASE=-O0")
        run(cmake(), *ninja(), *options, "-S", abi.RUNTIME, "-B", kept)
        run(cmake(), "--build", kept)
        first = tmp_path_factory.mktemp("install")
        run(cmake(), "--install", kept, "--prefix", first / "here")
    return (first / "here").rename(first / "moved away")


def cmake() -> Path | str:
    return BIN / "cmake" if (BIN / "cmake").exists() else "cmake"


def ninja() -> tuple[str, ...]:
    """Options that make it the build tool where it came with cmake: a machine with g++ need not have make."""
    return ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={BIN / 'ninja'}") if (BIN / "ninja").exists() else ()


def test_what_is_installed(prefix: Path) -> None:
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    package = "lib/cmake/inception_engine/inception_engine"
    assert files == {
        "include/inception_engine.h",
        "lib/libinception_engine.a",
        "lib/libinception_engine.so",
        "lib/libinception_engine.so.1",
        f"lib/libinception_engine.so.{version('inception-engine')}",
        "lib/pkgconfig/inception_engine.pc",
        f"{package}Config.cmake",
        f"{package}ConfigVersion.cmake",
        f"{package}Targets.cmake",
        f"{package}Targets-release.cmake",
    }
    assert (prefix / "include/inception_engine.h").read_bytes() == abi.HEADER.read_bytes()
    for text in (*prefix.rglob("*.cmake"), *prefix.rglob("*.pc")):
        assert str(prefix.parent) not in text.read_text()
        assert str(abi.RUNTIME) not in text.read_text()


def test_the_name_of_the_library_has_the_number_of_the_interface(prefix: Path) -> None:
    number = json.loads(abi.DESCRIPTION.read_text())["macros"]["IE_ABI_VERSION"]
    dynamic = run("readelf", "-d", prefix / "lib/libinception_engine.so")
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == [f"libinception_engine.so.{number}"]


def test_exports_of_both_libraries(prefix: Path) -> None:
    functions = set(json.loads(abi.DESCRIPTION.read_text())["functions"])
    nm = ("nm", "--defined-only", "--extern-only", "--format=posix")
    shared = run(*nm, "--dynamic", prefix / "lib/libinception_engine.so")
    assert {line.split()[0] for line in shared.splitlines()} == functions
    static = [line.split() for line in run(*nm, prefix / "lib/libinception_engine.a").splitlines()]
    strong = {fields[0] for fields in static if len(fields) > 2 and fields[1] in "TDBRG"}
    assert functions <= strong
    # What else a static library names lies in its namespace, `ie`, and cannot meet a name of the program's.
    assert all(re.match(r"_ZN?[A-Z]*K?2ie", name) for name in strong - functions), strong - functions


def test_plain_gcc(prefix: Path, plan: Path, expected: str, tmp_path: Path) -> None:
    compiler = ("gcc", *WARNINGS, f"-I{prefix}/include", PROGRAM)
    run(*compiler, "-o", tmp_path / "shared", f"-L{prefix}/lib", "-linception_engine")
    assert run(tmp_path / "shared", plan, LD_LIBRARY_PATH=str(prefix / "lib")) == expected
    assert "libinception_engine.so.1" in run("readelf", "-d", tmp_path / "shared")

    run(*compiler, "-o", tmp_path / "static", prefix / "lib/libinception_engine.a", *STATIC_NEEDS)
    assert run(tmp_path / "static", plan) == expected
    assert "inception" not in run("readelf", "-d", tmp_path / "static")


def test_pkg_config(prefix: Path, plan: Path, expected: str, tmp_path: Path) -> None:
    tool = next(
        (
            found
            for name in ("pkgconf", "pkg-config")
            if (found := shutil.which(name, path=f"{BIN}:/usr/bin"))
        ),
        None,
    )
    if tool is None:
        pytest.skip("backend pkg-config: neither pkgconf nor pkg-config is installed")
    variables = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    asked = (tool, "inception_engine")
    assert run(*asked, "--modversion", **variables).strip() == version("inception-engine")
    # By a name without a space: a shell would take the path apart there.
    script = 'exec gcc "$@" $(printf %s "$flags")'
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "prefix")
        link.symlink_to(prefix)
        variables = {"PKG_CONFIG_PATH": str(link / "lib/pkgconfig")}
        flags = run(*asked, "--cflags", "--libs", **variables)
        run("sh", "-c", script, "sh", *WARNINGS, PROGRAM, "-o", tmp_path / "shared", flags=flags)
        assert run(tmp_path / "shared", plan, LD_LIBRARY_PATH=str(prefix / "lib")) == expected
        flags = run(*asked, "--cflags", "--libs", "--static", **variables).replace(
            "-linception_engine", "-l:libinception_engine.a"
        )
        run("sh", "-c", script, "sh", *WARNINGS, PROGRAM, "-o", tmp_path / "static", flags=flags)
        assert run(tmp_path / "static", plan) == expected


def test_cmake_package(prefix: Path, plan: Path, expected: str, tmp_path: Path) -> None:
    shutil.copytree(PROGRAM.parent, tmp_path / "source")
    build = tmp_path / "build"
    run(cmake(), *ninja(), "-S", tmp_path / "source", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(cmake(), "--build", build)
    for name in ("with_shared", "with_static"):
        assert run(build / name, plan) == expected
    assert "libinception_engine.so.1" in run("readelf", "-d", build / "with_shared")
    assert "inception" not in run("readelf", "-d", build / "with_static")


def test_the_benchmark_of_calling_runs(prefix: Path, plan: Path, tmp_path: Path) -> None:
    """How long calls take is not looked at."""
    program = calling.link(tmp_path, prefix / "lib/libinception_engine.a")
    ie.compile(calling.tiny()).save(tmp_path / "tiny.plan")
    call = calling.measure(program, tmp_path / "tiny.plan", "overhead", 10)
    assert call["ie_run"] > 0 and call["executor"] > 0
    assert calling.measure(program, plan, "contexts", 0.2)["ratio"] > 0
    load = calling.measure(program, plan, "load", 3)
    assert 0 < load["least"] <= load["ratio"] <= load["most"]
