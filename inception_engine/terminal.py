"""Text from files and about them, made fit for a terminal: it can neither steer it nor forge a line.

What is made printable is one name, one label, one message at a time, before lines are joined: afterwards nobody can
tell whose a newline was.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LONGEST_COMPLAINT = 1000  # characters
# Control characters, what ends a line, and what has the text behind it written from the other side.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable_line(text: str) -> str:
    """As one line, as long as ``text``, with ``?`` for newlines and all else that is not printable."""
    return "".join(c if c.isprintable() else "?" for c in text)


def printable_lines(document: Any) -> Any:
    """Every string in a document of lists and dicts, but for keys, as ``printable_line`` makes it."""
    if isinstance(document, dict):
        return {key: printable_lines(value) for key, value in document.items()}
    if isinstance(document, list):
        return [printable_lines(value) for value in document]
    return printable_line(document) if isinstance(document, str) else document


def printable_path(path: str | Path) -> str:
    """A file's name as one line, by which the user finds the file: ``?`` for what steers a terminal alone. Bytes that
    are no text stay; it is for the output to escape them."""
    return _STEERING.sub("?", str(path))


def error_line(program: str, error: Exception) -> str:
    """What the user is told of an error, which may quote a file: one line, without its end."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = _STEERING.sub("?", " ".join(text.split()))
    return f"{program}: error: {text[:LONGEST_COMPLAINT]}"
