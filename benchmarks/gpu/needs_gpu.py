"""A plugin of pytest: of the tests collected, only those that are skipped where there is no GPU."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

REASON = "backend cuda"


def files(folder: Path) -> list[str]:
    """Those that hold such tests."""
    return sorted(
        str(path) for path in folder.rglob("test_*.py") if f'"{REASON}' in path.read_text(encoding="utf-8")
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = [item for item in items if _needs_gpu(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _needs_gpu(item: pytest.Item) -> bool:
    """By a fixture called ``cuda``, a mark that says so, or a skip in the test itself."""
    reasons = [str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skipif")]
    return (
        "cuda" in getattr(item, "fixturenames", ())
        or any(reason.startswith(REASON) for reason in reasons)
        or (isinstance(item, pytest.Function) and f'"{REASON}' in inspect.getsource(item.function))
    )
