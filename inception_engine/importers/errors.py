"""What is raised when a file of another program cannot become a Network."""

from __future__ import annotations


class ImportFailed(ValueError):
    """Not a file of the kind, damaged, or a network outside what Network holds; the message says which part.

    For ONNX: the node, its op, and the attribute or input.
    """
