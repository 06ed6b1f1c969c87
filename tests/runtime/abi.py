"""The binary interface of inception_engine.h as data: what a compiler makes of the header, and what changed since.

    python -m tests.runtime.abi            # says how the header differs from the committed description
    python -m tests.runtime.abi --write    # writes the description anew

The description, abi.json beside the header's folder, holds sizes, offsets and values as the compiler sees them on
x86-64, and signatures as they are written. A change is an *addition* if programs built against the old description keep
working, else it *breaks* them, which needs another IE_ABI_VERSION.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RUNTIME = Path(__file__).parents[2] / "inception_engine" / "runtime"
HEADER = RUNTIME / "include" / "inception_engine.h"
DESCRIPTION = RUNTIME / "abi.json"

Abi = dict[str, Any]


def describe(header: str) -> Abi:
    """The interface that a header, given as text, declares. Raises CalledProcessError for one that does not compile."""
    plain = re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL)
    enums = {
        name: re.findall(r"\b(IE_\w+)\s*=", body)
        for body, name in re.findall(r"\benum \w+\s*\{([^}]*)\}\s*(\w+);", plain)
    }
    structs = {
        name: list(_fields(body)) for body, name in re.findall(r"\bstruct \w+\s*\{([^}]*)\}\s*(\w+);", plain)
    }
    macros = re.findall(r"^#define (IE_\w+)[ \t]+\d", plain, re.MULTILINE)
    callbacks = re.findall(r"^typedef ([^;{}]*?\(\*(\w+)\)\([^;]*?\));", plain, re.MULTILINE)
    functions = re.findall(r"^IE_API\b([^;]*?\b(ie_\w+)\([^;]*?\));", plain, re.MULTILINE)
    numbers = _measured(header, enums, structs, macros)
    return {
        "macros": {name: numbers[name] for name in macros},
        "enums": {
            enum: {"size": numbers[f"sizeof({enum})"], "values": {name: numbers[name] for name in names}}
            for enum, names in enums.items()
        },
        "structs": {
            struct: {
                "size": numbers[f"sizeof({struct})"],
                "fields": {
                    name: {
                        "type": kind,
                        "offset": numbers[f"offsetof({struct}, {name})"],
                        "size": numbers[f"sizeof((({struct}*)0)->{name})"],
                    }
                    for kind, name in fields
                },
            }
            for struct, fields in structs.items()
        },
        "callbacks": {name: _plain(signature) for signature, name in callbacks},
        "functions": {name: _plain(signature) for signature, name in functions},
    }


def _fields(body: str) -> Iterator[tuple[str, str]]:
    for declaration in filter(None, map(_plain, body.split(";"))):
        kind, names = re.fullmatch(r"(.*?[ *])(\w+(?:, \w+)*)", declaration).groups()  # type: ignore[union-attr]
        yield from ((kind.strip(), name) for name in names.split(", "))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _measured(
    header: str,
    enums: Mapping[str, list[str]],
    structs: Mapping[str, list[tuple[str, str]]],
    macros: list[str],
) -> dict[str, int]:
    """The values of all constants, sizes and offsets, from a program made with the system's compiler."""
    terms = [*macros, *(name for names in enums.values() for name in names)]
    terms += [f"sizeof({name})" for name in (*enums, *structs)]
    for struct, fields in structs.items():
        for _, name in fields:
            terms += [f"offsetof({struct}, {name})", f"sizeof((({struct}*)0)->{name})"]
    prints = "".join(f'  printf("%s\\t%lld\\n", "{term}", (long long)({term}));\n' for term in terms)
    source = f'#include "api.h"\n#include <stdio.h>\nint main(void) {{\n{prints}  return 0;\n}}\n'
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "api.h").write_text(header)
        Path(folder, "measure.c").write_text(source)
        subprocess.run(["gcc", "-std=c99", "measure.c", "-o", "measure"], cwd=folder, check=True)
        done = subprocess.run([f"{folder}/measure"], check=True, capture_output=True, text=True)
    return {term: int(value) for term, value in (line.split("\t") for line in done.stdout.splitlines())}


def changes(old: Abi, new: Abi) -> tuple[list[str], list[str]]:
    """What breaks programs that were built with ``old`` and run with ``new``, and what only adds to it."""
    breaks: list[str] = []
    adds: list[str] = []

    def compare(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """Reports what is gone and what came; names in both."""
        breaks.extend(f"{what} {name} is gone" for name in before if name not in after)
        adds.extend(f"{what} {name} is new" for name in after if name not in before)
        return [name for name in before if name in after]

    def compare_values(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """The same, and what has another value."""
        both = compare(what, before, after)
        breaks.extend(
            f"{what} {name} is {after[name]}, was {before[name]}"
            for name in both
            if before[name] != after[name] and name != "IE_ABI_VERSION"
        )

    compare_values("macro", old["macros"], new["macros"])
    compare_values("callback", old["callbacks"], new["callbacks"])
    compare_values("function", old["functions"], new["functions"])
    for enum in compare("enum", old["enums"], new["enums"]):
        before, after = old["enums"][enum], new["enums"][enum]
        compare_values(f"{enum}:", before["values"], after["values"])
        if before["size"] != after["size"]:
            breaks.append(f"{enum} has {after['size']} bytes, had {before['size']}")
    for struct in compare("struct", old["structs"], new["structs"]):
        before, after = old["structs"][struct], new["structs"][struct]
        compare_values(f"{struct}:", before["fields"], after["fields"])
        inside = [
            name
            for name in after["fields"].keys() - before["fields"].keys()
            if after["fields"][name]["offset"] < before["size"]  # where older programs leave anything
        ]
        breaks.extend(f"{struct}.{name} lies inside of what was {struct}" for name in inside)
        if after["size"] < before["size"]:
            breaks.append(f"{struct} has {after['size']} bytes, had {before['size']}")
    return breaks, adds


def verdict(old: Abi, new: Abi) -> str:
    """Lines on what has to be done; empty if nothing has changed."""
    breaks, adds = changes(old, new)
    version, before = new["macros"]["IE_ABI_VERSION"], old["macros"]["IE_ABI_VERSION"]
    if version < before:
        breaks.append(f"IE_ABI_VERSION is {version}, was {before}")
    lines = [f"breaks: {text}" for text in breaks] + [f"adds: {text}" for text in adds]
    if breaks and version <= before:
        lines.append("programs built before would fail: take it back, or raise IE_ABI_VERSION")
    elif old != new:
        lines.append("if this is meant, commit the description anew: tools/abi --write")
    return "\n".join(lines)


def to_text(abi: Abi) -> str:
    """The description as it is committed."""
    return json.dumps(abi, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    new = describe(HEADER.read_text())
    text = verdict(json.loads(DESCRIPTION.read_text()) if DESCRIPTION.exists() else new, new)
    if text:
        print(text)
    if arguments == ["--write"]:
        DESCRIPTION.write_text(to_text(new))
        return 0
    return 1 if text else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
