"""The C header as compilers see it, its interface against the committed description, and what the library exports."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding
from tests.runtime import abi
from tests.runtime.abi import Abi

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Werror")
OF_C = ("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wc++-compat")
OF_CPP = ("-Wold-style-cast", "-Wzero-as-null-pointer-constant")
HEADER = abi.HEADER.read_text()


def compiler(name: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"backend compiler: there is no {name}")
    return name


@pytest.mark.parametrize("standard", ["c99", "c11", "c17"])
@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_the_header_is_plain_c(name: str, standard: str) -> None:
    command = [compiler(name), f"-std={standard}", *WARNINGS, *OF_C, "-fsyntax-only", "-x", "c"]
    subprocess.run([*command, str(abi.HEADER)], check=True)


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_the_header_is_plain_cpp(name: str, standard: str) -> None:
    command = [compiler(name), f"-std={standard}", *WARNINGS, *OF_CPP, "-fsyntax-only", "-x", "c++"]
    subprocess.run([*command, str(abi.HEADER)], check=True)


@pytest.fixture(scope="module")
def described() -> Abi:
    return abi.describe(HEADER)


def test_the_interface_is_the_committed_one(described: Abi) -> None:
    committed = json.loads(abi.DESCRIPTION.read_text())
    assert len(committed["functions"]) > 15
    assert abi.verdict(committed, described) == ""
    assert abi.DESCRIPTION.read_text() == abi.to_text(committed)


def test_the_library_exports_the_described_functions_and_nothing_else(described: Abi) -> None:
    command = ["nm", "--dynamic", "--defined-only", "--format=just-symbols", str(binding.library_path())]
    exported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(exported) == sorted(described["functions"])


def test_structures_can_grow(described: Abi) -> None:
    """They begin with their size and end with a field: what would be padding an older program leaves as it is."""
    for name, struct in described["structs"].items():
        assert next(iter(struct["fields"])) == "struct_size", name
        ends = [field["offset"] + field["size"] for field in struct["fields"].values()]
        assert struct["size"] == max(ends), name


def test_changes_that_break_and_that_add_are_told_apart(described: Abi) -> None:
    def changed(change: Callable[[Abi], object]) -> tuple[str, list[str], list[str]]:
        other = copy.deepcopy(described)
        change(other)
        return abi.verdict(described, other), *abi.changes(described, other)

    def picture(abi: Abi) -> Abi:
        return abi["structs"]["ie_picture"]

    new_field = {"type": "uint32_t", "offset": described["structs"]["ie_picture"]["size"], "size": 4}
    for change in (
        lambda a: a["functions"].pop("ie_run"),
        lambda a: a["functions"].update(ie_run="ie_status ie_run(void)"),
        lambda a: a["callbacks"].pop("ie_log_function"),
        lambda a: a["enums"]["ie_isa"]["values"].update(IE_ISA_AVX2=3),
        lambda a: a["enums"]["ie_isa"]["values"].pop("IE_ISA_AVX2"),
        lambda a: a["enums"]["ie_isa"].update(size=8),
        lambda a: a["enums"].pop("ie_isa"),
        lambda a: a["macros"].update(IE_MESSAGE_BYTES=256),
        lambda a: a["macros"].update(IE_ABI_VERSION=0),
        lambda a: picture(a)["fields"]["width"].update(offset=40),
        lambda a: picture(a)["fields"]["width"].update(type="int32_t"),
        lambda a: picture(a)["fields"].pop("stride"),
        lambda a: picture(a)["fields"].update(dpi={**new_field, "offset": 20}),
        lambda a: picture(a).update(size=32),
        lambda a: a["structs"].pop("ie_picture"),
    ):
        text, breaks, _ = changed(change)
        assert breaks or "IE_ABI_VERSION is 0" in text
        assert "raise IE_ABI_VERSION" in text and "--write" not in text
    for change in (
        lambda a: a["functions"].update(ie_new="void ie_new(void)"),
        lambda a: a["enums"]["ie_isa"]["values"].update(IE_ISA_AVX10=4),
        lambda a: a["macros"].update(IE_NEW=1),
        lambda a: (picture(a)["fields"].update(dpi=new_field), picture(a).update(size=48)),
        lambda a: a["structs"].update(ie_new={"size": 4, "fields": {}}),
    ):
        text, breaks, adds = changed(change)
        assert adds and not breaks
        assert "--write" in text and "raise" not in text
    text, breaks, _ = changed(lambda a: (a["functions"].pop("ie_run"), a["macros"].update(IE_ABI_VERSION=2)))
    assert breaks and "--write" in text and "raise" not in text


def test_the_description_is_read_off_the_header(described: Abi) -> None:
    """A changed header gives another description: it is not a copy of names."""
    older = HEADER.replace(
        "  uint32_t width, height;\n  uint32_t channels; ", "  uint64_t width, height;\n  uint32_t channels; "
    )
    older = older.replace("IE_ORDER_BGR = 1", "IE_ORDER_BGR = 2")
    assert older != HEADER
    breaks, adds = abi.changes(described, abi.describe(older))
    assert not adds
    assert any(text.startswith("ie_picture: data") for text in breaks)
    assert "ie_order: IE_ORDER_BGR is 2, was 1" in breaks


def test_the_example_on_top_of_the_header_runs(tmp_path: Path) -> None:
    comment = HEADER.split(" */", 1)[0]
    code = re.findall(r"^ \*   (.*)$", comment, re.MULTILINE)
    report, *body = code
    program = [
        "#include <inception_engine.h>",
        "#include <stdio.h>",
        "#include <stdlib.h>",
        "static uint8_t rgb[640 * 480 * 3];",
        'static void die(const char* why) { printf("died: %s\\n", why), exit(1); }',
        report,
        "int main(void) {",
        *body,
        "return 0;",
        "}",
    ]
    (tmp_path / "example.c").write_text("\n".join(program))
    network = ie.googlenet(width=0.25, input_size=64, classes=10)
    ie.compile(network).save(tmp_path / "googlenet.plan")
    library = Path(ie.get_library())
    flags = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")
    place = (f"-I{abi.HEADER.parent}", f"-Wl,-rpath,{library.parent}")
    command = ["gcc", *flags, *place, "example.c", "-o", "example", str(library)]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["./example"], cwd=tmp_path, check=True, capture_output=True, text=True)
    with ie.Engine(tmp_path / "googlenet.plan") as engine:
        (black, *_) = engine.run(np.zeros((1, 64, 64, 3), np.uint8))[0]
    assert done.stdout == f": {float(black):f}\n"
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["3", "3"]
