"""The machine's peak, measured in the run that is judged by it: multiply-adds and bytes per second, by ``peak.c``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from inception_engine.bench import native
from inception_engine.bench.native import CompilerError

SECONDS = 1.6  # passes of a tenth of a second, of which the best slice counts
FLAGS = ("-march=native", "-ffp-contract=fast")


def measure(threads: int, folder: Path) -> dict[str, Any]:
    """``macs_per_s`` and ``bytes_per_s`` of so many threads together, which is the machine's where it has fewer cores;
    ``vector_bytes`` of a register. Raises CompilerError."""
    program = native.build("peak", folder, FLAGS)
    try:
        done = subprocess.run(
            [str(program), str(threads), str(SECONDS)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerError(f"the peak cannot be measured: {error}") from None
    found: dict[str, Any] = json.loads(done.stdout)
    return found
