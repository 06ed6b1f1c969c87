"""Torch on one thread here, too."""

from tests.importers.conftest import _one_thread

__all__ = ["_one_thread"]
