"""What is raised when a file of another program cannot become a Network."""

from __future__ import annotations

MOST_CHARACTERS = 1000


class ImportFailed(ValueError):
    """Not a file of the kind, damaged, or a network outside what Network holds; the message says which part.

    For ONNX: the node, its op, and the attribute or input. Libraries may quote much of a file: the first
    ``MOST_CHARACTERS`` of a message are kept.
    """

    def __init__(self, message: str) -> None:
        cut = len(message) > MOST_CHARACTERS
        super().__init__(message[: MOST_CHARACTERS - 3] + "..." if cut else message)
