"""Builds the stand-in for the CUDA driver (driver.h) against the cuda.h that Triton brings; once, and keeps it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_RUNTIME = _HERE.parents[1] / "inception_engine" / "runtime"
_BUILDS = Path(sys.prefix, "build")  # in an environment that tools/setup made
_NAME = "libcuda.so.1"
_FLAGS = ["-std=c++17", "-O2", "-march=native", "-fPIC", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def build_driver(folder: Path) -> Path:
    """Make ``folder``/libcuda.so.1 and return it."""
    triton = pytest.importorskip(
        "triton", reason="backend driver: triton, whose cuda.h is used, is not installed"
    )
    include = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    if not _BUILDS.is_dir():
        return _build(folder, include)
    kept = _BUILDS / f"driver-{_key(include)}"
    with open(_BUILDS / "driver.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may build the same
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=_BUILDS) as partial:
                _build(Path(partial), include).rename(kept)
    return Path(shutil.copy(kept, folder / _NAME))


def _key(include: Path) -> str:
    """Of all that the library depends on."""
    sources = (*_HERE.iterdir(), *_RUNTIME.rglob("*.h"), include / "cuda.h")
    compiler = ["g++", *_FLAGS, "-v", "-E", "-x", "c++", "/dev/null"]  # says what it is, and what `native` is
    found = subprocess.run(compiler, check=True, capture_output=True, timeout=60)
    hashed = hashlib.sha256(found.stderr)
    for path in sorted(path for path in sources if path.is_file()):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _build(folder: Path, include: Path) -> Path:
    flags = [*_FLAGS, "-isystem", str(include), "-I", str(_RUNTIME)]

    def compiled(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(made)], check=True, timeout=240)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sorted(_HERE.glob("*.cpp"))))
    library = folder / _NAME
    link = ["-shared", f"-Wl,-soname,{_NAME}", f"-Wl,--version-script={_HERE / 'exports.map'}"]
    subprocess.run(["g++", *link, *map(str, objects), "-o", str(library)], check=True, timeout=240)
    return library
