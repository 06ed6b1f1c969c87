"""Builds the stand-in for the CUDA driver (driver.h) against the cuda.h that Triton brings."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_RUNTIME = _HERE.parents[1] / "inception_engine" / "runtime"


def build_driver(folder: Path) -> Path:
    """Make ``folder``/libcuda.so.1 and return it."""
    triton = pytest.importorskip(
        "triton", reason="backend driver: triton, whose cuda.h is used, is not installed"
    )
    include = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    flags = ["-std=c++17", "-O2", "-march=native", "-fPIC", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    flags += ["-isystem", str(include), "-I", str(_RUNTIME)]

    def compiled(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(made)], check=True, timeout=240)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sorted(_HERE.glob("*.cpp"))))
    library = folder / "libcuda.so.1"
    link = ["-shared", "-Wl,-soname,libcuda.so.1", f"-Wl,--version-script={_HERE / 'exports.map'}"]
    subprocess.run(["g++", *link, *map(str, objects), "-o", str(library)], check=True, timeout=240)
    return library
