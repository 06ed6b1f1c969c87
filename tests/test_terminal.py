"""Text from files that reaches a terminal: it cannot steer it, and is one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from inception_engine.errors import PlanError
from inception_engine.terminal import (
    LONGEST_COMPLAINT,
    error_line,
    printable_line,
    printable_lines,
    printable_path,
)

STEERING = {
    "newline": "\n",
    "carriage return": "\r",
    "escape": "\x1b",
    "delete": "\x7f",
    "control sequence": "\x9b",
    "arabic mark": "\u061c",
    "right-to-left mark": "\u200f",
    "line separator": "\u2028",
    "right-to-left override": "\u202e",
    "right-to-left isolate": "\u2067",
}


@pytest.mark.parametrize("character", STEERING.values(), ids=STEERING.keys())
def test_what_steers_a_terminal_is_replaced(character):
    assert printable_line(f"a{character}b") == "a?b"
    assert printable_path(f"a{character}b") == printable_path(Path(f"a{character}b")) == "a?b"
    shown = error_line("inception", PlanError(f"a{character}b"))
    assert shown in ("inception: error: a?b", "inception: error: a b")  # white space is one space


@pytest.mark.parametrize("name", ["zürich.jpg", "猫 (1).png", "a\u200db", "\udcff.png"])
def test_names_stay_what_finds_the_file(name):
    assert printable_path(name) == name


def test_documents_are_made_printable_but_for_their_keys():
    assert printable_lines({"a\n": ["b\n", {"c": "\x1b[2J"}, 1, None]}) == {
        "a\n": ["b?", {"c": "?[2J"}, 1, None]
    }


def test_a_complaint_is_one_line_of_bounded_length():
    shown = error_line("inception", PlanError("x" * 10_000 + "\n" + "y"))
    assert len(shown) == len("inception: error: ") + LONGEST_COMPLAINT
    assert error_line("inception", PlanError()) == "inception: error: PlanError"


def test_an_error_of_the_system_names_its_file():
    error = OSError(errno.ENOENT, "No such file or directory", "a\u202eb")
    assert error_line("inception", error) == "inception: error: a?b: No such file or directory"
