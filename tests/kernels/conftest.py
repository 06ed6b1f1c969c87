"""Kernels that the build has compiled are not compiled again: its cache, and what it compiles with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# In an environment that tools/setup made; the cache's keys are hashes of the sources and the options.
_CACHE = Path(sys.prefix, "build", "triton")
if _CACHE.is_dir():
    os.environ.setdefault("TRITON_CACHE_DIR", str(_CACHE))
os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")  # as in archive.py
