"""Builds the programs of this folder with the runtime's sources in them, under sanitisers; objects are kept.

An object's name holds a hash of all that it depends on, so a second build of the same sources costs nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "inception_engine" / "runtime"
_AVX512 = [*(f"-mavx512{part}" for part in ("f", "vl", "bw", "dq")), "-mfma"]
_ISA_FLAGS = {
    "kernels_avx2": ["-mavx2", "-mfma"],
    "kernels_avx512": _AVX512,
    "kernels_avx512_bf16": [*_AVX512, "-mavx512bf16"],
    "kernels_amx": [*_AVX512, "-mavx512bf16"],
}
_SANITISERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
    "coverage": ["--coverage", "-fsanitize=address"],
}
# In quick builds: kernels that other ones stand for, and the file that says so. AMX and AVX512-BF16 are imitated, on
# every machine.
_AMX = HERE.parent / "amx"
_IMITATIONS = sorted(_AMX.glob("*.cpp"))
_LEFT_OUT = {
    "address": (["kernels_avx512"], "no_avx512.cpp"),
    "thread": (["kernels_avx2", "kernels_avx512"], "portable_only.cpp"),
}


@dataclass(frozen=True)
class Kind:
    """``quick``: g++ and only what the processor paths of the tests need under the sanitiser, for the tests' sake.

    Else all of the runtime is built with it, and by clang++ where there is one that brings libFuzzer.
    """

    sanitiser: str
    quick: bool = True

    @property
    def compiler(self) -> str:
        return "g++" if self.quick or self.sanitiser == "coverage" else clang() or "g++"

    @property
    def fuzzer(self) -> bool:
        """Whether programs are libFuzzer's, and not those of driver.cpp."""
        return self.sanitiser == "address" and "clang" in self.compiler


@lru_cache
def clang() -> str | None:
    """A clang++ that links a program with libFuzzer."""
    for name in ("clang++", *(f"clang++-{version}" for version in range(22, 13, -1))):
        if shutil.which(name):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "empty.cpp")
                source.write_text('extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }\n')
                command = [name, "-fsanitize=fuzzer,address", str(source), "-o", str(source.with_suffix(""))]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    return name
    return None


def _folder() -> Path:
    builds = Path(sys.prefix, "build")  # in an environment that tools/setup made
    folder = builds / "hardening" if builds.is_dir() else Path(tempfile.gettempdir(), "inception-hardening")
    folder.mkdir(exist_ok=True)
    return folder


@lru_cache
def _headers(folder: Path) -> bytes:
    """A hash of every header in it."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*.h")):
        hashed.update(path.read_bytes())
    return hashed.digest()


@lru_cache
def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout


def _object(source: Path, kind: Kind) -> Path:
    """Compiles one file, unless that is done."""
    flags = [
        "-std=c++17",
        "-g1",
        f"-I{RUNTIME}",
        f"-I{HERE / 'fuzz'}",
        '-DIE_VERSION="0"',
        "-ffp-contract=off",
    ]
    inside = source.is_relative_to(RUNTIME)
    flags += _ISA_FLAGS.get(source.stem, []) if inside else []
    beside = source.parent.name == "cuda"  # there is no GPU: not under test
    loading = source.parent.name == "proof" or source.stem == "plan"
    beside |= kind.sanitiser == "thread" and loading  # one thread, before the others
    if kind.quick and beside:
        flags += ["-O0"]
    else:
        flags += [*_SANITISERS[kind.sanitiser], "-O0" if kind.sanitiser == "coverage" else "-O1"]
        if "-mavx512f" in flags:
            flags += ["-fno-sanitize=undefined"]  # with it the compiler takes minutes
        if kind.fuzzer and inside:
            flags += ["-fsanitize=fuzzer-no-link"]
    if inside:
        flags += ["-w"]  # warnings are the business of the library's own build
    command = [kind.compiler, *flags]
    headers = _headers(RUNTIME) + (b"" if inside else _headers(HERE) + _headers(_AMX))
    hashed = hashlib.sha256(headers + _version(kind.compiler) + source.read_bytes())
    hashed.update("\0".join(command).encode())
    made = _folder() / f"{source.parent.name}-{source.stem}-{hashed.hexdigest()[:16]}.o"
    if not made.exists():
        # Where coverage is counted, the object holds its own name.
        partial = made if kind.sanitiser == "coverage" else made.with_suffix(".part.o")
        subprocess.run([*command, "-c", str(source), "-o", str(partial)], check=True, timeout=500)
        partial.rename(made)
    return made


def _runtime(kind: Kind) -> list[Path]:
    folders = (RUNTIME, *(RUNTIME / name for name in ("cpu", "cuda", "proof")))
    sources = sorted(source for folder in folders for source in folder.glob("*.cpp"))
    if kind.quick and kind.sanitiser in _LEFT_OUT:
        left_out, instead = _LEFT_OUT[kind.sanitiser]
        left_out = [*left_out, *(source.stem for source in _IMITATIONS)]
        sources = [source for source in sources if source.stem not in left_out]
        sources += [HERE / "fuzz" / instead, *_IMITATIONS]
    return sources


def build(name: str, sources: Sequence[str], kind: Kind) -> Path:
    """The program ``name`` of files of this folder and the runtime."""
    files = [*(HERE / source for source in sources), *_runtime(kind)]
    with open(_folder() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may build the same
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(lambda source: _object(source, kind), files))
        key = hashlib.sha256("\0".join(map(str, objects)).encode()).hexdigest()[:16]
        program = _folder() / f"{name}-{key}"
        if not program.exists():
            flags = [*_SANITISERS[kind.sanitiser], *(["-fsanitize=fuzzer"] if kind.fuzzer else [])]
            partial = program.with_suffix(".part")
            command = [kind.compiler, *flags, *map(str, objects), "-o", str(partial), "-ldl", "-lpthread"]
            subprocess.run(command, check=True, timeout=500)
            partial.rename(program)
    return program


def fuzz_target(name: str, kind: Kind) -> Path:
    """ "loader" or "run", with libFuzzer's main or that of driver.cpp."""
    sources = [f"fuzz/target_{name}.cpp", "fuzz/plan_parts.cpp", "fuzz/mutator.cpp", "fuzz/measured.cpp"]
    if not kind.fuzzer:
        sources.append("fuzz/driver.cpp")
    return build(name, sources, kind)
