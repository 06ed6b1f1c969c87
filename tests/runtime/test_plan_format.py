"""Python's mirrors of the plan format are the C structs of plan_format.h, byte for byte."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine.compiler import plan as mirror
from tests import plans

HEADER = Path(__file__).parents[2] / "inception_engine" / "runtime" / "plan_format.h"
STRUCTS = {
    "FileHeader": (mirror.FILE_HEADER, plans.FILE_HEADER),
    "SectionRecord": (mirror.SECTION, plans.SECTION),
    "ProgramHeader": (mirror.PROGRAM_HEADER, plans.HEADER),
    "BufferRecord": (mirror.BUFFER, plans.BUFFER),
    "OutputRecord": (mirror.OUTPUT, plans.OUTPUT),
    "OpRecord": (mirror.OP, plans.OP),
    "LaunchRecord": (mirror.LAUNCH, plans.LAUNCH),
    "TaskRecord": (mirror.TASK, plans.TASK),
    "WaitRecord": (mirror.WAIT, plans.WAIT),
}
ENUMS = {
    "Section": mirror.Section,
    "Target": mirror.TargetKind,
    "Dtype": mirror.Dtype,
    "OpKind": mirror.OpKind,
    "OpFlag": mirror.OpFlag,
    "Packing": mirror.Packing,
    "LaunchMode": mirror.LaunchMode,
}
CONSTANTS = {
    "kVersion": mirror.VERSION,
    "kNone": mirror.NONE,
    "kSectionAlignment": mirror.ALIGNMENT,
    "kBufferAlignment": mirror.ALIGNMENT,
    "kPanel": mirror.PANEL,
}


def members(struct: str) -> list[str]:
    """Names of the members that a struct of plan_format.h declares, in order."""
    text = re.sub(r"//[^\n]*", "", HEADER.read_text())
    body = re.search(rf"struct {struct} {{(.*?)}};", text, re.S)
    assert body
    names: list[str] = []
    for declaration in body[1].split(";"):
        declared = re.sub(r"^\s*\w+\s", "", declaration.strip())
        names += re.findall(r"(\w+)(?:\[\d+\])?\s*(?:,|$)", declared)
    return names


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a C++ compiler says of the header: sizes, offsets, kinds of members, constants."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    lines = []
    for struct in STRUCTS:
        for name in members(struct):
            member = f"ie::{struct}::{name}"
            lines.append(
                f'printf("\\"{struct}.{name}\\": [%zu, %zu, %d],\\n", offsetof(ie::{struct}, {name}), '
                f"sizeof({member}), kind<decltype({member})>());"
            )
        lines.append(f'printf("\\"{struct}\\": %zu,\\n", sizeof(ie::{struct}));')
    lines += [f'printf("\\"{name}\\": %llu,\\n", (unsigned long long)ie::{name});' for name in CONSTANTS]
    source = f"""
        #include <cstddef>
        #include <cstdio>
        #include <type_traits>
        #include "{HEADER}"
        template <typename T> int kind() {{
          return std::is_floating_point<T>() ? 'f' : std::is_array<T>() ? 'V' : 'u';
        }}
        int main() {{
          printf("{{");
          {"".join(lines)}
          printf("\\"kMagic\\": \\"%.7s\\"}}", ie::kMagic);
        }}"""
    folder = tmp_path_factory.mktemp("format")
    (folder / "layout.cpp").write_text(source)
    command = [compiler, "-std=c++17", "-o", str(folder / "layout"), str(folder / "layout.cpp")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(subprocess.run([folder / "layout"], capture_output=True).stdout)
    return found


@pytest.mark.parametrize("struct", STRUCTS)
def test_numpy_record_is_the_struct(struct: str, layout: dict[str, Any]) -> None:
    dtype, _ = STRUCTS[struct]
    assert dtype.itemsize == layout[struct]
    assert dtype.fields is not None
    known = [name for name in dtype.fields if not name.startswith("reserved")]
    assert known == [name for name in members(struct) if not name.startswith("reserved")]
    for name in known:
        kind, offset = dtype.fields[name][:2]
        expected = "V" if kind.kind == "S" else kind.kind
        assert [offset, kind.itemsize, ord(expected)] == layout[f"{struct}.{name}"], name
        assert kind.byteorder in "=<|" and np.little_endian


@pytest.mark.parametrize("struct", STRUCTS)
def test_the_tests_records_are_the_struct(struct: str, layout: dict[str, Any]) -> None:
    _, record = STRUCTS[struct]
    assert record.bytes == layout[struct]
    assert record.names == members(struct)
    offset = 0
    for name, kind in zip(record.names, record.formats, strict=True):
        size = plans.Layout(f"x:{kind}").bytes
        assert [offset, size] == layout[f"{struct}.{name}"][:2], name
        offset += size


def test_constants(layout: dict[str, Any]) -> None:
    assert {name: layout[name] for name in CONSTANTS} == CONSTANTS
    assert layout["kMagic"].encode() + b"\n" == mirror.MAGIC


@pytest.mark.parametrize("name", ENUMS)
def test_enumerations(name: str) -> None:
    text = HEADER.read_text()
    body = re.search(rf"enum (?:class )?{name} : uint32_t {{(.*?)}};", text, re.S)
    assert body
    values = {key: int(value) for key, value in re.findall(r"k(\w+) = (\d+)", body[1])}
    spelled = {_spelled(member.name or ""): member.value for member in ENUMS[name]}
    assert {key.lower(): value for key, value in values.items()} == spelled


def _spelled(name: str) -> str:
    """FP32 -> float32, PANEL_16 -> panel16, MAX_POOL -> maxpool."""
    return name.lower().replace("bf16", "bfloat16").replace("fp", "float").replace("_", "")
