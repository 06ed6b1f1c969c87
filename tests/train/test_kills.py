"""Killed and resumed: a few points here; tools/train-kills does a hundred."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_killed_at_random_points_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    """In a process of its own: it forks, which one in which PyTorch has run must not."""
    command = [sys.executable, "-m", "tests.train.kills", "--points", "2", "--inside", "1"]
    command += ["--record", str(tmp_path / "kills.json")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "2 points, 1 inside a save; failures: 0"
    record = json.loads((tmp_path / "kills.json").read_text())
    assert (record["points"], record["resumed_to_the_same_bits"], record["unreadable_checkpoints"]) == (
        2,
        2,
        0,
    )
    assert record["inside_a_save"] == {"bytes": 1} and record["by_workers"] == {"0": 1, "2": 1}
