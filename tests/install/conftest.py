"""What the tests of installing share: a plan, what Python makes of it, and a run of a program on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import inception_engine as ie

PROGRAM = Path(__file__).parent / "consumer" / "program.c"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")

Run = Callable[..., str]


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.plan"
    ie.compile(ie.googlenet(width=0.25, input_size=64, classes=10), batches=(1,)).save(path)
    return path


@pytest.fixture(scope="session")
def expected(plan: Path) -> str:
    """What tests/install/consumer/program.c has to print of the plan."""
    with ie.Engine(plan) as engine:
        (logit, *_) = engine.run(np.zeros((1, *engine.input_shape), np.float32))[0]
    return f"{version('inception-engine')} {float(logit):.9g}\n"


def run(*command: object, **variables: str) -> str:
    """What a command prints. Neither compilers nor programs see this process's settings of paths."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(part) for part in command], env=kept | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
