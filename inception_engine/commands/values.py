"""What texts of options stand for: each takes a text and raises argparse.ArgumentTypeError."""

from __future__ import annotations

import argparse


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not whole numbers with commas between: {text!r}") from None


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number from 0 on: {text!r}")
    return int(text)
