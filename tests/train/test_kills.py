"""Killed and resumed: a few points here; tools/train-kills does a hundred."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_killed_at_random_points_it_ends_at_the_same_bits() -> None:
    """In a process of its own: it forks, which one in which PyTorch has run must not."""
    command = [sys.executable, "-m", "tests.train.kills", "--points", "2", "--inside", "1"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 points, 1 inside a save;")
    assert done.stdout.splitlines()[-1].endswith("failures: 0")
