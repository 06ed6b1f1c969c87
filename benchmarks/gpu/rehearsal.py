"""What takes a GPU's place: Triton's interpreter, a stand-in for the driver with a kernel archive for it, and programs
that print what compute-sanitizer and ncu print. All of it says nothing about a GPU; it shows that the report works."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from benchmarks.gpu.operations import DRIVER_LOG
from benchmarks.gpu.provenance import ROOT

# Both run the program that they are given.
TOOLS = {
    "compute-sanitizer": """#!/bin/sh
echo "========= COMPUTE-SANITIZER"
shift 2
"$@" || exit
echo "========= ERROR SUMMARY: 0 errors"
""",
    "ncu": """#!/bin/sh
while [ "${1#*python}" = "$1" ]; do shift; done
echo "==PROF== Connected to process 1"
"$@" || exit
echo '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
echo '"0","walk","gpu__time_duration.sum","usecond","1.00"'
echo '"0","walk","dram__bytes.sum","Mbyte","2.00"'
""",
}


def environment(folder: Path, library: Path) -> dict[str, str]:
    """Make what is missing in ``folder`` and return what a stage's environment has beside the usual. ``library``: the
    runtime's."""
    from tests.driver.build import build_driver
    from tests.runtime import archives
    from tests.runtime.module_kernels import ModuleKernel

    folder.mkdir(parents=True, exist_ok=True)
    sources = max(path.stat().st_mtime for path in (ROOT / "tests" / "driver").iterdir() if path.is_file())
    driver = folder / "libcuda.so.1"
    if not driver.exists() or driver.stat().st_mtime < sources:
        build_driver(folder)
    shutil.copy(library, folder / library.name)
    paper_5b = ModuleKernel(7, 7, 832, (384, 192, 384, 48, 128, 128), group=1)
    archive = archives.standard(modules=[paper_5b], rows=SIDES, columns=SIDES, kinds=ALL_KINDS)
    archive.save(folder / "inception_engine.kernels")
    for name, text in TOOLS.items():
        tool = folder / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(text, encoding="utf-8")
        tool.chmod(0o755)
    log = folder / "driver.log"
    log.unlink(missing_ok=True)
    return {
        "TRITON_INTERPRET": "1",
        "INCEPTION_ENGINE_LIBRARY": str(folder / library.name),
        "LD_LIBRARY_PATH": str(folder),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        DRIVER_LOG: str(log),
    }


SIDES = (16, 32, 64, 128)
ALL_KINDS = 0b11111111


def is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def interpret() -> None:
    """In a process with TRITON_INTERPRET: quick and without warnings."""
    import torch

    from tests.kernels import quickened, recorded

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # rows behind the batch: their results are not stored
    quickened.quicken()
    recorded.replay()
