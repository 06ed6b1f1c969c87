"""The archive of compiled kernels: what is in it; and the build stops at one that the runtime cannot launch."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

pytest.importorskip("triton", reason="backend triton: triton is not installed")

from inception_engine.kernels import archive
from inception_engine.kernels.archive import CUBIN, PORTABLE, PTX, WALK, ArchiveError, Kernel
from inception_engine.kernels.machine_code import ARCHITECTURES
from inception_engine.kernels.module_record import ModuleKernel
from inception_engine.kernels.variants import DEPENDENT_FROM, KINDS, VARIANTS

from inception_engine import binding
from tests.runtime.archives import HEADER, RECORD

FOLDER = Path(archive.__file__ or "").parent
FORMAT = (FOLDER.parent / "inception_engine/runtime/cuda/archive.h").read_text()
JOB = ("fp16", VARIANTS["fp16"][0], KINDS["module"], PORTABLE)
COPY = ("bf16", None, 0, 80)


@functools.cache
def contents() -> tuple[list[Kernel], list[ModuleKernel]]:
    return archive.unpacked((binding.library_path().parent / "inception_engine.kernels").read_bytes())


def installed() -> list[Kernel]:
    return contents()[0]


@functools.cache
def built() -> tuple[Kernel, ...]:
    return (*archive.build(JOB), *archive.build(COPY))


def test_every_kernel_is_installed() -> None:
    """For each dtype, variant, set of kinds and generation machine code; and PTX for what comes later."""
    walks = [kernel for kernel in installed() if kernel.kernel == WALK]
    wanted = {
        (archive.DTYPES[dtype], sum(variant.rows), sum(variant.columns), kinds, arch)
        for dtype, variants in VARIANTS.items()
        for variant in variants
        for kinds in map(KINDS.get, variant.kinds)
        for arch in ARCHITECTURES
    }
    for form, arches in ((CUBIN, set(ARCHITECTURES)), (PTX, {PORTABLE})):
        found = {(k.dtype, k.rows, k.columns, k.kinds, k.arch) for k in walks if k.form == form}
        assert found == {key for key in wanted if key[-1] in arches}
    copies = {(k.dtype, k.arch, k.form) for k in installed() if k.kernel == archive.COPY_OUTPUT}
    assert copies == {(d, a, CUBIN) for d in (1, 2, 3) for a in ARCHITECTURES} | {
        (d, PORTABLE, PTX) for d in (1, 2, 3)
    }
    forms = [kernel.form for kernel in installed()]
    assert forms == sorted(forms)  # the driver translates only where there is no machine code


def test_kernels_that_wait_for_the_launch_before_them_say_so() -> None:
    """Those of generations that can be launched so; in `copy_output` and in PTX for all generations nothing waits."""
    for kernel in installed():
        waits = kernel.kernel == WALK and kernel.form == CUBIN and kernel.arch >= DEPENDENT_FROM
        assert kernel.flags == (archive.WAITS_ITSELF if waits else 0), kernel.name


def test_the_first_that_fits_is_the_best() -> None:
    """Of one dtype: special kinds before general ones, and of those the newest generation first."""
    for dtype, number in archive.DTYPES.items():
        found = [k for k in installed() if (k.kernel, k.form, k.dtype) == (WALK, CUBIN, number)]
        assert [(k.rows, k.columns, k.kinds, k.arch) for k in found] == [
            (sum(variant.rows), sum(variant.columns), kinds, arch)
            for variant in VARIANTS[dtype]
            for kinds in map(KINDS.get, variant.kinds)
            for arch in reversed(ARCHITECTURES)
        ]
    copies = [k.arch for k in installed() if (k.kernel, k.form) == (archive.COPY_OUTPUT, CUBIN)]
    assert copies == [*reversed(ARCHITECTURES)] * len(archive.DTYPES)


def test_installed_is_what_the_sources_make() -> None:
    for mine in built():
        same = [
            k for k in installed() if dataclasses.replace(k, code=b"") == dataclasses.replace(mine, code=b"")
        ]
        assert [kernel.code for kernel in same] == [mine.code]


def test_bytes_depend_on_the_sources_alone(tmp_path: Path) -> None:
    """Compiled again from another folder, without a cache, PyTorch or NumPy: the same file."""
    shutil.copytree(FOLDER, tmp_path / "inception_engine/kernels")
    (tmp_path / "inception_engine/__init__.py").touch()
    script = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]  # no editable install
        sys.modules.update(dict.fromkeys(("torch", "numpy")))
        from inception_engine.kernels import archive
        assert archive.__file__.startswith(sys.argv[1])
        jobs = ("fp16", archive.VARIANTS["fp16"][0], archive.KINDS["module"], archive.PORTABLE), ("bf16", None, 0, 80)
        sys.stdout.buffer.write(archive.packed([kernel for job in jobs for kernel in archive.build(job)]))
    """
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == archive.packed(built())


def test_codes() -> None:
    for kernel in installed():
        if kernel.form == CUBIN:
            assert kernel.code.startswith(b"\x7fELF") and 0 < kernel.registers <= 255
        else:
            text = kernel.code.decode()
            assert text.endswith("\0") and text.count("\0") == 1
            assert f".target sm_{PORTABLE}\n" in text and f".entry {kernel.name}(" in text
        assert b"/kernels/" not in kernel.code  # no paths of the machine that built it
        assert kernel.threads % 32 == 0 and 0 < kernel.threads <= 1024


def test_parameters_are_those_that_the_runtime_passes() -> None:
    for name, kernel in (("kWalkSizes", WALK), ("kCopySizes", archive.COPY_OUTPUT)):
        (sizes,) = re.findall(rf"{name}\[\] = {{(.*?)}}", FORMAT)
        expected = tuple(map(int, sizes.split(",")))
        assert {k.params for k in installed() if k.kernel == kernel} == {expected}


def test_file() -> None:
    """Field by field, by the numbered list of archive.h."""
    content = archive.packed(built())
    magic, version, count, size, hashed, modules = HEADER.unpack_from(content)
    assert (magic, version, count, size) == (b"INCKERN\n", 2, len(built()), len(content))
    assert hashed == xxhash.xxh64(content[64:]).intdigest()
    assert modules == 0 and content[36:64] == bytes(28)
    end = 64 + 192 * count
    for i, kernel in enumerate(built()):
        record = content[64 + 192 * i :][:192]
        *numbers, params, name, offset, length = RECORD.unpack(record)
        assert numbers[:7] == [
            kernel.kernel, kernel.form, kernel.arch, kernel.dtype, kernel.kinds, kernel.rows, kernel.columns
        ]  # fmt: skip
        assert numbers[7:] == [kernel.threads, kernel.shared, kernel.registers, len(kernel.params), 0]
        assert params == bytes(kernel.params).ljust(32, b"\0")
        assert name == kernel.name.encode().ljust(32, b"\0")
        assert record[128:] == bytes(64)
        assert offset % 64 == 0 and offset >= end and content[end:offset] == bytes(offset - end)
        assert content[offset : offset + length] == kernel.code
        end = offset + length
    assert end == len(content)
    walk = built()[0]
    assert (walk.kernel, walk.form, walk.dtype, walk.arch, walk.kinds) == (
        WALK,
        CUBIN,
        2,
        PORTABLE,
        1 << 2 | 1 << 3,
    )
    assert walk.rows == sum(JOB[1].rows) and walk.columns == sum(JOB[1].columns)
    assert walk.threads == 32 * JOB[1].warps and walk.name == "walk"
    assert [kernel.form for kernel in built()] == [CUBIN, PTX, CUBIN]


def test_file_is_read_as_it_was_written() -> None:
    content = archive.packed(built())
    assert archive.unpacked(content) == ([*built()], [])
    damaged = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    for bad in (content[:-1], content + b"\0", damaged, b"", b"INCPLAN\n" * 9):
        with pytest.raises(ArchiveError):
            archive.unpacked(bad)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PARAMETERS", ("u64", "u32"), "parameters u64 .* not u64 u32"),
        ("PORTABLE", 90, "PTX is for one generation only"),
    ],
)
def test_the_build_stops(monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str) -> None:
    monkeypatch.setattr(archive, name, value)
    job = (*JOB[:3], 90)
    with pytest.raises(ArchiveError, match=message):
        archive.build(job)


def test_the_build_stops_at_spills() -> None:
    cramped = dataclasses.replace(VARIANTS["fp16"][0], rows=(128,), columns=(128,), warps=2)
    with pytest.raises(
        ArchiveError, match=r"^walk fp16 128x128 0x0c sm_80: \d+ bytes of stack: it spills registers$"
    ):
        archive.build(("fp16", cramped, KINDS["module"], 80))


def test_what_the_compiler_says_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_walk(*_: object) -> None:
        raise AssertionError("first\n  second")

    monkeypatch.setattr(archive, "compile_walk", compile_walk)
    with pytest.raises(ArchiveError, match=r"^walk fp16 \S+ 0x0c sm_89: first second$"):
        archive.build(JOB)


def test_command_fails_with_one_line(tmp_path: Path) -> None:
    """And leaves no file behind."""
    done = subprocess.run(
        [sys.executable, FOLDER, tmp_path / "kernels"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("kernel archive: error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
