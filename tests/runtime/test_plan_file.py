"""The file around the programs: what is truncated, foreign, newer, damaged or badly divided is refused by name."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

import pytest
import xxhash

from inception_engine import binding
from tests import plans
from tests.loader import STATUS, verdict
from tests.plans import FILE_HEADER, HEADER, METADATA, PROGRAM, SECTION, WEIGHTS, plan_file, small_program

FILE = plan_file(small_program(1))
SECTIONS = plans.read_sections(FILE)


def test_the_plan_that_the_tests_below_break_is_accepted() -> None:
    assert verdict(FILE) == "IE_OK"


def test_the_hash_is_xxh64() -> None:
    # Lengths around the algorithm's blocks of 32, 8, 4 and 1 bytes.
    for size in range(100):
        assert verdict(plan_file(small_program(1), metadata=bytes(range(size)))) == "IE_OK"


def test_every_prefix_is_truncated() -> None:
    assert verdict(b"") == "IE_PLAN_FOREIGN"
    for end in range(1, len(FILE)):
        assert verdict(FILE[:end]) == "IE_PLAN_TRUNCATED", end


@pytest.mark.parametrize(
    "end", sorted({64, 96, *(b for _, b, _ in SECTIONS), *(b + n for _, b, n in SECTIONS)})
)
def test_a_cut_at_a_section_with_a_mended_header_is_refused(end: int) -> None:
    cut = plans.seal(FILE[64:end], section_count=len(SECTIONS))
    assert verdict(cut) == ("IE_OK" if end == len(FILE) else "IE_PLAN_SECTIONS")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04", b"\n", bytes(4096)])
def test_foreign(content: bytes) -> None:
    assert verdict(content) == "IE_PLAN_FOREIGN"


@pytest.mark.parametrize("version", [0, 2, 0xFFFFFFFF])
def test_version(version: int) -> None:
    assert verdict(plan_file(small_program(), version=version)) == "IE_PLAN_VERSION"


def test_every_damaged_byte_is_noticed() -> None:
    rng = random.Random(0)
    for position in range(len(FILE)):
        damaged = bytearray(FILE)
        damaged[position] ^= rng.randint(1, 255)
        status = verdict(bytes(damaged))
        assert status == "IE_PLAN_HASH" if position >= 64 else status != "IE_OK", position


def test_trailing_bytes() -> None:
    assert verdict(FILE + b"\0") == "IE_PLAN_SECTIONS"
    assert verdict(plans.seal(FILE[64:] + bytes(64), section_count=len(SECTIONS))) == "IE_PLAN_SECTIONS"


def with_sections(change: Callable[[list[Any]], None], **header: Any) -> bytes:
    """The file with another section table."""
    records = SECTION.unpack(FILE[64 : 64 + SECTION.bytes * len(SECTIONS)])
    change(records)
    table = b"".join(map(SECTION.pack, records))
    body = table + FILE[64 + SECTION.bytes * len(SECTIONS) :]
    return plans.seal(body, **({"section_count": len(SECTIONS)} | header))


def change_section(index: int, **fields: int) -> bytes:
    return with_sections(lambda records: vars(records[index]).update(fields))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(change_section(1, offset=SECTIONS[1][1] + 4), id="misaligned"),
        pytest.param(change_section(1, offset=SECTIONS[0][1]), id="overlapping"),
        pytest.param(change_section(0, offset=0), id="over the header"),
        pytest.param(change_section(2, bytes=SECTIONS[2][2] + 1), id="beyond the file"),
        pytest.param(change_section(2, bytes=2**64 - 1), id="length overflows"),
        pytest.param(change_section(2, offset=2**64 - 64), id="offset overflows"),
        pytest.param(change_section(2, offset=2**64 - 64, bytes=64), id="end overflows"),
        pytest.param(change_section(0, bytes=1), id="gap that is not zero"),
        pytest.param(change_section(2, bytes=SECTIONS[2][2] - 64), id="bytes behind the last"),
        pytest.param(with_sections(lambda r: r.reverse()), id="out of order"),
        pytest.param(with_sections(lambda r: None, section_count=0), id="none"),
        pytest.param(with_sections(lambda r: None, section_count=2), id="no weights"),
        pytest.param(plans.seal(b"", section_count=3), id="table beyond the file"),
        pytest.param(change_section(0, kind=WEIGHTS), id="two weights, no metadata"),
        pytest.param(change_section(2, kind=METADATA), id="two metadata, no weights"),
        pytest.param(change_section(1, kind=METADATA), id="no program"),
    ],
)
def test_sections(data: bytes) -> None:
    assert verdict(data) == "IE_PLAN_SECTIONS"


@pytest.mark.parametrize("kind", [0, 4, 0xFFFFFFFF])
def test_an_unknown_section(kind: int) -> None:
    assert verdict(change_section(0, kind=kind)) == "IE_PLAN_VALUE"


def test_too_many_programs() -> None:
    program = small_program(1)
    assert verdict(plan_file(*[program] * 64)) == "IE_OK"
    assert verdict(plan_file(*[program] * 65)) == "IE_PLAN_LIMIT"
    assert verdict(with_sections(lambda r: None, section_count=0xFFFFFFFF)) == "IE_PLAN_LIMIT"


def with_header(**fields: int) -> bytes:
    """The file with other fields in its program's header, whatever the tables hold."""
    offset = next(begin for kind, begin, _ in SECTIONS if kind == PROGRAM)
    (header,) = HEADER.unpack(FILE[offset : offset + HEADER.bytes])
    vars(header).update(fields)
    return plans.mend_hash(FILE[:offset] + HEADER.pack(header) + FILE[offset + HEADER.bytes :])


@pytest.mark.parametrize("count", [*plans.COUNTS, "string_bytes"])
@pytest.mark.parametrize("change", [-1, 1])
def test_tables_that_do_not_fill_the_section(count: str, change: int) -> None:
    value = vars(small_program(1).header)[count]
    assert verdict(with_header(**{count: value + change})) == "IE_PLAN_TABLES"


def test_a_program_shorter_than_its_header() -> None:
    assert verdict(change_section(1, bytes=HEADER.bytes - 1)) in ("IE_PLAN_TABLES", "IE_PLAN_SECTIONS")
    sections = b"".join(
        SECTION.pack(SECTION.new(kind=kind, offset=offset, bytes=size))
        for kind, offset, size in ((METADATA, 192, 0), (PROGRAM, 192, 64), (WEIGHTS, 256, 0))
    )
    data = plans.seal(sections + bytes(32) + bytes(64), section_count=3)
    assert verdict(data) == "IE_PLAN_TABLES"


@pytest.mark.parametrize("count", [*plans.COUNTS, "counter_count", "string_bytes", "max_batch"])
def test_counts_that_would_take_the_memory(count: str) -> None:
    assert verdict(with_header(**{count: 0xFFFFFFFF})) == "IE_PLAN_LIMIT"


@pytest.mark.parametrize("record", ["header", *plans.TABLES])
def test_reserved_fields(record: str) -> None:
    layout = HEADER if record == "header" else plans.TABLES[record]
    if "reserved" not in layout.names:
        return
    size = int(layout.formats[layout.names.index("reserved")][:-1])
    for byte in range(size):
        program = small_program(1)
        target = program.header if record == "header" else getattr(program, record)[-1]
        target.reserved = bytes(byte) + b"\x80"
        assert verdict(plan_file(program)) == "IE_PLAN_RESERVED", byte


def test_reserved_fields_of_the_file() -> None:
    for byte in range(32):
        assert verdict(plan_file(small_program(1), reserved=bytes(byte) + b"\1")) == "IE_PLAN_RESERVED"
    for index in range(3):
        assert verdict(change_section(index, reserved=1)) == "IE_PLAN_RESERVED"
        assert verdict(change_section(index, reserved2=1 << 63)) == "IE_PLAN_RESERVED"


def test_every_program_is_proven() -> None:
    good, bad = small_program(1), small_program(1)
    bad.waits[0].target += 1
    assert verdict(plan_file(good, good)) == "IE_OK"
    assert verdict(plan_file(good, bad)) == "IE_PLAN_COUNTER"
    assert verdict(plan_file(bad, good)) == "IE_PLAN_COUNTER"


def test_random_bytes_behind_a_good_header() -> None:
    rng = random.Random(1)
    for _ in range(500):
        body = rng.randbytes(rng.randint(0, 2000))
        assert verdict(plans.seal(body, section_count=rng.randint(0, 4))) != "IE_OK"


def test_the_hash_covers_what_follows_the_header() -> None:
    (stored,) = struct.unpack_from("<Q", FILE, 24)
    assert stored == xxhash.xxh64_intdigest(FILE[FILE_HEADER.bytes :])


@pytest.mark.parametrize("name", [b"a\nb.plan", b"\x1b[2J\x7f.plan", b"\xc3\xa9\r.plan"])
def test_a_message_is_one_line_whatever_the_path_is(name: bytes) -> None:
    library, message, engine = binding.library(), binding.message_buffer(), c_void_p()
    lines: list[bytes] = []
    log = binding.LogFunction(lambda _user, _level, line: lines.append(line))
    options = binding.EngineOptions(log=log)
    status = library.ie_engine_load(b"/nonexistent/" + name, options, byref(engine), message)
    assert STATUS[status] == "IE_ERROR_FILE"
    shown = bytes(byte if 0x20 <= byte != 0x7F else ord("?") for byte in name)
    assert message.value == b"/nonexistent/" + shown + b": cannot open: No such file or directory"
    assert lines == [b"IE_ERROR_FILE: " + message.value]


def test_messages_do_not_follow_the_locale(tmp_path: Path) -> None:
    """The C library translates what an errno means by LANGUAGE, in a program that set its locale."""
    catalogue = tmp_path / "xx" / "LC_MESSAGES"
    catalogue.mkdir(parents=True)
    original, translated = b"No such file or directory\0", b"Nix da\0"
    body = struct.pack("<7I", 0x950412DE, 0, 1, 28, 36, 0, 0)
    body += struct.pack("<4I", len(original) - 1, 44, len(translated) - 1, 44 + len(original))
    (catalogue / "libc.mo").write_bytes(body + original + translated)
    script = (
        "import ctypes, locale, sys\n"
        "from inception_engine import binding\n"
        "locale.setlocale(locale.LC_ALL, '')\n"
        "c = ctypes.CDLL(None)\n"
        "c.bindtextdomain(b'libc', sys.argv[1].encode())\n"
        "c.strerror.restype = ctypes.c_char_p\n"
        "print(c.strerror(2).decode())\n"
        "message, engine = binding.message_buffer(), ctypes.c_void_p()\n"
        "binding.library().ie_engine_load(b'/nonexistent', None, ctypes.byref(engine), message)\n"
        "print(message.value.decode())\n"
    )
    make = ["localedef", "--no-archive", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]
    if shutil.which(make[0]) is None or subprocess.run(make, capture_output=True, check=False).returncode:
        pytest.skip("backend locale: the sources of locales are not installed")
    # A locale of its own, because the C locale is never translated.
    environment = {**os.environ, "LANGUAGE": "xx", "LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], env=environment, check=True, capture_output=True, text=True
    )
    usual, ours = done.stdout.splitlines()
    assert usual == "Nix da"
    assert ours == "/nonexistent: cannot open: No such file or directory"
