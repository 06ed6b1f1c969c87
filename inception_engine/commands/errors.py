"""Mistakes of the user that no other package has an error for."""

from __future__ import annotations

USER_ERROR = 2  # the exit status


class CommandError(Exception):
    """What the user asked for cannot be done; the message says why."""
