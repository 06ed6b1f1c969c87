"""``python kernels FILE`` makes the kernel archive (archive.py); the package need not be installed.

This folder takes its place in the package by hand: at build time there is none yet, or another version is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

if not __package__:  # run as a folder, and not by -m
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    for name, path in (("inception_engine", []), ("inception_engine.kernels", [str(folder)])):
        package = ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package

from inception_engine.kernels.archive import main

sys.exit(main())
