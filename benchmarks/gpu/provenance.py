"""Where figures come from: the GPU, the versions, the commit or, where there is no checkout, a hash of the sources.

``python -m benchmarks.gpu.provenance`` prints the hash, to be compared with the one in a file of records.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception_engine.bench.environment import output, system, version

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "triton", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt")
_SOURCES = ("inception_engine", "kernels", "benchmarks/gpu")
_SUFFIXES = {".py", ".cpp", ".h", ".txt", ".json"}


def environment(arguments: Sequence[str], rehearsal: bool, quick: bool) -> dict[str, Any]:
    """A record. Imports torch."""
    return {
        "kind": "environment",
        "rehearsal": rehearsal,
        "quick": quick,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["tools/gpu", *arguments]),
        **(_rehearsed() if rehearsal else _gpu()),
        "cores": len(os.sched_getaffinity(0)),
        "os": system(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "sources": sources(),
    }


def _rehearsed() -> dict[str, Any]:
    return {"gpu": "none"}


def _gpu() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "driver": (output(query) or "").split("\n")[0] or None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def sources() -> str:
    """A hash of what was run: every source of the package, the kernels and this report."""
    files = (path for folder in _SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in _SUFFIXES)
    named = sorted((path.relative_to(ROOT).as_posix(), path) for path in files)
    digest = hashlib.sha256()
    for name, path in named:
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    return output(["git", "-C", str(ROOT), *arguments])


if __name__ == "__main__":
    print(sources())
