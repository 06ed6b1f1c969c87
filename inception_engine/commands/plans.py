"""Which plan a name means to `inception classify`, with and without --ray, and to `inception serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inception_engine.compiler.plan import Plan
    from inception_engine.network import Network

BUILT_IN = "digits"  # the model that comes with the package, unless a file here has that name
MAX_BATCH = 8  # of a network, which has none of its own


def is_built_in(name: str | None) -> bool:
    return name == BUILT_IN and not Path(name).exists()


def plan_for(name: str | None, device: str, max_batch: int | None = None) -> Plan | Path:
    """A file stays a path, unread; the built-in model, and GoogLeNet with random weights for None (which it says on
    standard error), are compiled for the device. Raises what compiling raises."""
    from inception_engine import googlenet, load_network, models

    if is_built_in(name):
        return compiled(load_network(models.DIGITS), device, max_batch)
    if name is not None:
        return Path(name)
    print("inception: note: no plan given; compiling GoogLeNet with random weights", file=sys.stderr)
    return compiled(googlenet(), device, max_batch)


def compiled(network: Network, device: str, max_batch: int | None = None) -> Plan:
    """For that device. Raises CompileError."""
    from inception_engine import compile

    target = "cuda" if device.startswith("cuda") else "cpu"
    return compile(network, targets=target, max_batch=max_batch or MAX_BATCH)
