"""What an exporter raises."""

from __future__ import annotations


class ExportError(ValueError):
    """The network, or what was asked for, cannot be exported; the message says what."""
