"""What the tests of the CUDA executor share: the driver's double is built once."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.runtime import archives, machine
from tests.runtime.machine import Machine


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's double, and a copy of the library with an archive beside it."""
    return machine.install(tmp_path_factory.mktemp("cuda"), archives.standard())


@pytest.fixture(name="machine")
def machine_(installation: Path, tmp_path: Path) -> Machine:
    """Runs a program on files of ``tmp_path``; its log. Options: see ``machine.run``."""
    return functools.partial(_run, tmp_path, installation)


def _run(folder: Path, installation: Path, name: str, **options: object) -> list[dict[str, object]]:
    return machine.run(name, folder, installation, **options)  # type: ignore[arg-type]
