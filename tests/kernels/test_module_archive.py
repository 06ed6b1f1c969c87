"""The archive's modules: which they are, that their records say what their code wants, and what ends the build."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="backend triton: triton is not installed")

from inception_engine.kernels import archive, machine_code, module_record, shipped, tuning
from inception_engine.kernels.archive import ArchiveError
from inception_engine.kernels.module_record import ModuleKernel

from tests.kernels.test_archive import FOLDER, FORMAT, built, contents
from tests.runtime import module_kernels
from tests.runtime.archives import HEADER


@functools.cache
def built_module() -> ModuleKernel:
    return archive.build_module(("bf16", "4b", 90))


def test_every_module_is_installed() -> None:
    """The paper's nine, for each half precision and generation that is shipped; each with machine code of its own."""
    found = [(m.arch, m.dtype, m.key) for m in contents()[1]]
    assert sorted(found) == sorted(
        (arch, archive.DTYPES[dtype], dataclasses.astuple(shipped.sizes_of(name))[:2] + _rest(name))
        for arch in shipped.ARCHITECTURES
        for dtype in shipped.DTYPES
        for name in shipped.MODULES
    )
    assert len({m.code for m in contents()[1]}) == len(found) == 36
    for module in contents()[1]:
        chosen = tuning.specialise_from(module.arch)
        assert module.from_pixels == (module_record.NEVER if chosen == float("inf") else chosen)


def _rest(name: str) -> tuple[int, ...]:
    sizes = shipped.sizes_of(name)
    return sizes.channels, *sizes.widths, sizes.reduced, sizes.third, sizes.group


def test_modules_are_those_that_the_compiler_makes() -> None:
    """Of the paper's network, read off a plan by the rule that executors have."""
    pytest.importorskip("torch", reason="backend triton: torch is not installed")
    import inception_engine as ie
    from inception_engine.specialised import find

    (program,) = ie.compile(ie.googlenet(), targets="cuda", dtype="fp16", max_batch=64).programs
    found = {program.text(launch): find(program, launch) for launch in program.launches}
    assert {name: each.sizes for name, each in found.items() if each} == {
        name: shipped.sizes_of(name) for name in shipped.MODULES
    }


def test_module_parameters_are_those_that_the_runtime_passes() -> None:
    (sizes,) = re.findall(r"kModuleSizes\[\] = {(.*?)}", FORMAT, re.DOTALL)
    expected = tuple(map(int, sizes.split(",")))
    assert {m.params for m in contents()[1]} == {expected}
    assert len(expected) == 63 and sum(expected) == 9 * 128 + 22 * (4 + 8) + 7 * 8 + 4 + 16


def test_modules_spill_nothing() -> None:
    """By the driver's own words on what is installed; and as many blocks fit on a multiprocessor as were meant to."""
    for module in contents()[1]:
        assert module.code.startswith(b"\x7fELF") and b"/kernels/" not in module.code
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(module.code)
            file.flush()
            registers, stack = machine_code.usage(Path(file.name))
        sizes = shipped.sizes_of("3a").on(module.arch)  # as of all
        assert (registers, stack) == (module.registers, 0)
        assert registers * module.threads * sizes.blocks_per_sm <= 65536
        assert module.threads == 32 * sizes.warps
        assert sizes.blocks_per_sm * (module.shared + 1024) <= 227 * 1024


def test_descriptors() -> None:
    """What cuTensorMapEncodeTiled asks for: a box's line is as long as the swizzle's, no side is above 256."""
    for module in contents()[1]:
        boxes = list(module.sizes.blocks.values())
        assert [list(reversed(m.box)) for m in module.maps] == boxes
        for each in module.maps:
            assert each.type == {2: 6, 3: 9}[module.dtype]  # FLOAT16, BFLOAT16
            assert 2 * each.box[0] == {1: 32, 2: 64, 3: 128}[each.swizzle]
            assert max(each.box) <= 256


def test_module_record() -> None:
    """Field by field, by archive.h; written by hand, the same record has the same bytes."""
    mine = built_module()
    content = archive.packed(built(), [mine])
    *_, count, size, _, modules = HEADER.unpack_from(content)
    assert (count, modules, size) == (len(built()), 1, len(content))
    begin = 64 + 192 * count
    offset, length = struct.unpack_from("<QQ", content, begin + 192)
    assert offset % 64 == 0 and content[offset : offset + length] == mine.code and offset + length == size
    first, second = mine.sizes.phases
    other = module_kernels.ModuleKernel(
        14, 14, 512, (160, 112, 224, 32, 64, 64), reduced=136, group=32, dtype=module_kernels.BF16, first=first,
        second=second, threads=128, shared=mine.shared, registers=mine.registers, from_pixels=mine.from_pixels,
        name="module",
    )  # fmt: skip
    assert content[begin : begin + 512] == other.record(offset, length)
    assert archive.unpacked(content) == ([*built()], [mine])
    same = [m for m in contents()[1] if (m.key, m.dtype, m.arch) == (mine.key, mine.dtype, mine.arch)]
    assert same == [mine]  # what is installed is what the sources make


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("_POINTERS", ("x",), "parameters b8.* not b8"),
        ("_DEVICE_TYPES", {"bf16": 6}, "another element type"),
    ],
)
def test_the_build_stops_at_another_module(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str
) -> None:
    monkeypatch.setattr(module_record, name, value)
    with pytest.raises(ArchiveError, match=rf"^module bf16 4b sm_90: .*{message}"):
        archive.build_module(("bf16", "4b", 90))


def test_the_build_stops_at_other_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = module_record.compile_module("bf16", shipped.sizes_of("4b"), 90)
    for change, message in (
        ({"swizzle": 0}, "swizzled in another way"),
        ({"block_size": [64, 64]}, "other boxes"),
        ({"elem_type": 6}, "another element type"),
        ({"fp4_padded": True}, "another element type"),
    ):
        described = [
            {**meta, **change} if i == 0 else meta for i, meta in enumerate(compiled.metadata.tensordesc_meta)
        ]
        other = SimpleNamespace(
            metadata=compiled.metadata._replace(tensordesc_meta=described), asm=compiled.asm
        )
        monkeypatch.setattr(module_record, "compile_module", lambda *_, other=other: other)
        with pytest.raises(ArchiveError, match=message):
            archive.build_module(("bf16", "4b", 90))


def test_modules_that_would_spill_are_not_shipped() -> None:
    """On 12.0: why there is none. The measure can fail."""
    with pytest.raises(
        ArchiveError, match=r"^module fp16 3a sm_120: \d+ bytes of stack: it spills registers$"
    ):
        archive.build_module(("fp16", "3a", 120))


# What was chosen


def test_tuned_data() -> None:
    """Every number says where it is from; what is not listed is never."""
    document = json.loads((FOLDER / "tuned" / "module.json").read_text())
    assert {int(arch) for arch in document["generations"]} == {*shipped.ARCHITECTURES}
    for arch, entry in document["generations"].items():
        assert entry.keys() == {"from_pixels", "provenance", "source"} and entry["source"]
        measured = entry["provenance"] == "measured"
        assert (tuning.specialise_from(int(arch)) < float("inf")) == measured
    assert tuning.specialise_from(80) == float("inf")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"from_pixels": 12544, "provenance": "measured"}, 12544),
        ({"from_pixels": 0, "provenance": "assumed"}, 0),
        ({"from_pixels": None, "provenance": "measured"}, float("inf")),
        ({"from_pixels": 5, "provenance": "none"}, None),
        ({"from_pixels": -1, "provenance": "measured"}, None),
        ({"from_pixels": True, "provenance": "measured"}, None),
        ({"from_pixels": None, "provenance": "guessed"}, None),
    ],
)
def test_what_tuned_data_may_say(
    entry: dict[str, object], expected: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One datum: the archive's record has what Python's executor reads."""
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "module.json").write_text(
        json.dumps({"generations": {"90": {**entry, "source": "x"}}})
    )
    monkeypatch.setattr(tuning, "__file__", str(tmp_path / "tuning.py"))
    monkeypatch.setattr(module_record, "specialise_from", tuning.specialise_from.__wrapped__)
    if expected is None:
        with pytest.raises(ArchiveError, match=r"module\.json: 90: from_pixels"):
            archive.build_module(("bf16", "4b", 90))
    else:
        made = archive.build_module(("bf16", "4b", 90))
        assert made.from_pixels == (module_record.NEVER if expected == float("inf") else expected)
