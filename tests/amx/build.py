"""Builds the library with imitations of AMX and AVX512-BF16, for tests on machines without them; once, and keeps it."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inception_engine import binding

_HERE = Path(__file__).parent
_TESTS = _HERE.parent
_RUNTIME = _TESTS.parent / "inception_engine" / "runtime"
_BUILDS = Path(sys.prefix, "build")  # in an environment that tools/setup made
_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
# Vectors of all kinds are the portable ones: the kernels of AVX2 and AVX-512 are not under test.
_INSTEAD = (*sorted(_HERE.glob("*.cpp")), _TESTS / "hardening" / "fuzz" / "portable_only.cpp")
_LEFT_OUT = (*(source.stem for source in _INSTEAD), "kernels_avx2", "kernels_avx512")


def build_library(folder: Path) -> Path:
    """The library's path; ``folder`` is where it is made if there is no place to keep it."""
    if not _BUILDS.is_dir():
        return _build(folder)
    kept = _BUILDS / f"amx-{_key()}"
    with open(_BUILDS / "amx.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may build the same
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=_BUILDS) as partial:
                _build(Path(partial))
                Path(partial).rename(kept)
                Path(partial).mkdir()
    return kept / binding.LIBRARY


def _sources() -> list[Path]:
    folders = (_RUNTIME, *(_RUNTIME / name for name in ("cpu", "cuda", "proof")))
    found = sorted(source for folder in folders for source in folder.glob("*.cpp"))
    return [*(source for source in found if source.stem not in _LEFT_OUT), *_INSTEAD]


def _key() -> str:
    """Of all that the library depends on."""
    hashed = hashlib.sha256(subprocess.run(["g++", "--version"], check=True, capture_output=True).stdout)
    headers = (*sorted(_RUNTIME.rglob("*.h")), *sorted(_HERE.glob("*.h")))
    for path in (Path(__file__), *_sources(), *headers):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _build(folder: Path) -> Path:
    flags = [*_FLAGS, '-DIE_VERSION="0"', "-I", str(_RUNTIME)]

    def compiled(source: Path) -> Path:
        made = folder / f"{source.parent.name}-{source.stem}.o"
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(made)], check=True, timeout=240)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, _sources()))
    library = folder / binding.LIBRARY
    link = ["-shared", f"-Wl,--version-script={_RUNTIME / 'exports.map'}", "-Wl,--no-undefined"]
    command = ["g++", *link, *map(str, objects), "-o", str(library), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=240)
    return library
