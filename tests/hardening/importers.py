"""Damaged files of weights and images: the project's own errors come out, in bounded memory and time.

    python -m tests.hardening.importers KIND EXECUTIONS SEED     in a process of its own: see ``fuzz``

With atheris installed long runs are guided by the coverage of the Python code; without it, files are mutated at random.
Either way what a checksum would stop is mended: a PNG's chunks and an archive's members get the sums of what they hold.
"""

from __future__ import annotations

import io
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import numpy as np
from PIL import Image

from tests.hardening.commands import FINDINGS, Failed

ROOT = Path(__file__).parents[2]
MOST_BYTES = 512 * 2**20  # of resident memory beyond what the good files took
MOST_SECONDS = 10.0  # of processor time for one file
_INTERESTING = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)


def _onnx() -> list[bytes]:
    from inception_engine.exporters.onnx import to_onnx

    return [to_onnx(_network()).SerializeToString()]


def _safetensors() -> list[bytes]:
    from safetensors.torch import save

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.safetensors")
        _network().save(path)
        return [path.read_bytes(), save(_state())]


def _pickled() -> list[bytes]:
    import torch

    files = []
    for archive in (True, False):
        buffer = io.BytesIO()
        torch.save({"state_dict": _state()}, buffer, _use_new_zipfile_serialization=archive)
        files.append(buffer.getvalue())
    return files


def _images() -> list[bytes]:
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (24, 31, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    files = []
    for mode, options in (
        ("RGB", {"format": "PNG"}),
        ("P", {"format": "PNG", "transparency": 3}),
        ("LA", {"format": "PNG"}),
        ("I;16", {"format": "PNG"}),
        ("RGB", {"format": "JPEG", "exif": exif}),
        ("L", {"format": "JPEG", "progressive": True}),
        ("CMYK", {"format": "JPEG", "subsampling": 2}),
    ):
        buffer = io.BytesIO()
        image = pixels.convert("L").convert("I;16") if mode == "I;16" else pixels.convert(mode)
        image.save(buffer, **options)
        files.append(buffer.getvalue())
    return files


def _network():
    from tests.hardening.corpus import small_network

    return small_network()


def _state():
    from tests.importers.torchvision_model import TorchvisionGoogLeNet

    return TorchvisionGoogLeNet(3, width=16).state_dict()


def _import(path: Path) -> None:
    from inception_engine import load_network
    from inception_engine.importers import ImportFailed
    from inception_engine.network import NetworkError
    from inception_engine.spec import SpecError

    try:
        load_network(path)
    except (ImportFailed, NetworkError, SpecError) as error:
        _one_line(error)


def _decode(path: Path) -> None:
    from inception_engine.errors import EngineError
    from inception_engine.network import Preprocess
    from inception_engine.preprocess import pixels

    try:
        pixels(path, Preprocess(), (3, 224, 224))
    except EngineError as error:
        _one_line(error)


def _one_line(error: Exception) -> None:
    text = str(error)
    if not text or "\n" in text or len(text) > 2000:
        raise AssertionError(f"{type(error).__name__} says {text[:200]!r}")


KINDS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], None]]] = {
    "onnx": (_onnx, _import),
    "safetensors": (_safetensors, _import),
    "pickled": (_pickled, _import),
    "image": (_images, _decode),
}


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to four changes, within the members of an archive where it is one."""
    if data.startswith(b"PK\x03\x04") and rng.random() < 0.7 and (archive := _in_archive(data, rng)):
        return archive
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # The first bytes say what all the others are.
        span = len(changed) if rng.random() < 0.5 else min(len(changed), 600)
        at = rng.randrange(span) if span else 0
        match rng.randrange(8):
            case 0 | 1 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 2 if changed:
                changed[at] = rng.randrange(256)
            case 3:
                size = rng.choice((1, 2, 4, 8))
                value = rng.choice(_INTERESTING) % 256**size
                changed[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
            case 4:
                del changed[at : at + rng.choice((1, 4, 64))]
            case 5:
                changed[at:at] = changed[at : at + rng.choice((1, 8, 200))]
            case 6:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case _ if rng.random() < 0.2:
                other = rng.choice(others)
                changed[at:] = other[rng.randrange(len(other)) :]
    return _with_png_sums(bytes(changed)) if rng.random() < 0.8 else bytes(changed)


def _in_archive(data: bytes, rng: random.Random) -> bytes:
    """Another content of one member, its pickle more often than not, under a right checksum; nothing if the archive is
    too damaged for that, as what a guided fuzzer goes on from often is."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # zipfile promises no type for damage
        return b""
    if not members:
        return b""
    pickles = [name for name in members if name.endswith("data.pkl")]
    chosen = rng.choice(pickles if pickles and rng.random() < 0.7 else list(members))
    members[chosen] = mutate(members[chosen], list(members.values()), rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _with_png_sums(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, at = bytearray(data), 8
    while at + 12 <= len(mended):
        (size,) = struct.unpack_from(">I", mended, at)
        if at + 12 + size > len(mended):
            break
        struct.pack_into(">I", mended, at + 8 + size, zlib.crc32(mended[at + 4 : at + 8 + size]))
        at += 12 + size
    return bytes(mended)


def run_here(kind: str, executions: int, seed: int) -> str:
    """Reads the good files and that many mutations of them; one line. Raises what gets out of the project's doors."""
    make, read = KINDS[kind]
    good, rng = make(), random.Random(seed)
    passed: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        for data in good:
            path.write_bytes(data)
            read(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for _ in range(executions):
            path.write_bytes(mutate(rng.choice(good), good, rng))
            start = time.process_time()
            try:
                read(path)
            except BaseException as error:
                FINDINGS.mkdir(parents=True, exist_ok=True)
                kept = FINDINGS / f"{kind}-{zlib.crc32(path.read_bytes()):08x}"
                kept.write_bytes(path.read_bytes())
                raise AssertionError(f"{kept} raises {type(error).__name__}: {error}") from error
            slowest = max(slowest, time.process_time() - start)
            passed["read"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown <= MOST_BYTES, f"resident memory grew by {grown} bytes"
    assert slowest <= MOST_SECONDS, f"a file took {slowest:.1f} s"
    return f"{passed['read']} files, {grown // 2**20} MiB more"


def fuzz(kind: str, executions: int, seed: int, *, guided: bool = False) -> str:
    """``run_here`` in a process of its own, for what it does to memory; ``guided``: by atheris. Raises Failed."""
    command = [sys.executable, "-m", "tests.hardening.importers", kind, str(executions), str(seed)]
    command += ["--guided"] if guided else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed("\n".join([f"{kind} ended with {done.returncode}", *done.stderr.splitlines()[-30:]]))
    if guided:
        return next(line for line in reversed(done.stderr.splitlines()) if line.startswith("Done "))
    return done.stdout.strip().splitlines()[-1]


def _functions() -> list[FunctionType]:
    """Of the project's modules, their own and those of their classes."""
    modules = [module for name, module in sys.modules.items() if name.startswith("inception_engine")]
    spaces = [dict(vars(module)) for module in modules]
    spaces += [
        dict(vars(value)) for space in list(spaces) for value in space.values() if isinstance(value, type)
    ]
    functions = {value for space in spaces for value in space.values() if isinstance(value, FunctionType)}
    return [function for function in functions if function.__module__.startswith("inception_engine")]


def _guided(kind: str, executions: int, seed: int) -> None:
    """atheris, which ends the process."""
    import atheris

    make, read = KINDS[kind]
    good = make()
    with tempfile.NamedTemporaryFile() as file:  # imports what reading needs
        file.write(good[0])
        file.flush()
        read(Path(file.name))
    for (
        function
    ) in _functions():  # our import hook is none that atheris knows, so nothing is instrumented on import
        atheris.instrument_func(function)

    def one(data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            read(Path(file.name))

    def mutated(data: bytes, most: int, number: int) -> bytes:
        return mutate(data or good[0], good, random.Random(number))[:most]

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(good):
            Path(folder, str(number)).write_bytes(data)
        limits = [
            f"-rss_limit_mb={MOST_BYTES // 2**20 + 2048}",
            f"-timeout={int(MOST_SECONDS)}",
            f"-max_len={2 * max(map(len, good))}",
        ]
        FINDINGS.mkdir(parents=True, exist_ok=True)
        places = [f"-artifact_prefix={FINDINGS}/{kind}-", folder]
        arguments = [sys.argv[0], f"-runs={executions}", f"-seed={seed}", *limits, *places]
        atheris.Setup(arguments, one, custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    if "--guided" in sys.argv:
        sys.argv.remove("--guided")
        _guided(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(run_here(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
