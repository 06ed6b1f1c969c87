"""Programs in processes whose CUDA driver is the double (tests/driver)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inception_engine import binding
from tests.driver.build import build_driver
from tests.runtime.archives import Archive

ROOT = Path(__file__).parents[2]
ARCHIVE = "inception_engine.kernels"
MULTIPROCESSORS, RESIDENT = 4, 2  # of the double, and blocks of the kernels here: 128 registers, 256 threads

Machine = Callable[..., list[dict[str, Any]]]


def install(folder: Path, archive: Archive, driver: bool = True) -> Path:
    """The driver's double, unless another folder has it, and a copy of the library with an archive beside it."""
    if driver:
        build_driver(folder)
    shutil.copy(binding.library_path(), folder / binding.LIBRARY)
    archive.save(folder / ARCHIVE)
    return folder


def run(
    name: str,
    folder: Path,
    installation: Path,
    *,
    programs: str = "tests.runtime.cuda_programs",
    library: Path | None = None,
    driver: bool = True,
    timeout: float = 120,
    **environment: object,
) -> list[dict[str, Any]]:
    """A program on files of ``folder``; its log. ``library``: a folder with another one than the ``installation``'s, to
    which the driver belongs. ``environment``: of the double."""
    log = folder / f"{name}.log"
    log.unlink(missing_ok=True)
    variables = os.environ | {
        "PYTHONPATH": str(ROOT),
        binding.LIBRARY_VARIABLE: str((library or installation) / binding.LIBRARY),
        "IE_DOUBLE_LOG": str(log),
        "IE_DOUBLE_MULTIPROCESSORS": str(MULTIPROCESSORS),
        **{f"IE_DOUBLE_{key.upper()}": str(value) for key, value in environment.items()},
    }
    if driver:
        variables["LD_LIBRARY_PATH"] = str(installation)
    command = [sys.executable, "-m", programs, name, str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] or done.returncode
    (folder / "stdout").write_text(done.stdout)
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
