"""What every importer takes and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inception_engine.importers.errors import ImportFailed
from inception_engine.network import Network, Preprocess
from inception_engine.spec import Spec

HEAD_ACTIVATIONS = ("relu", "none")
MAX_PIXELS = 2048  # of a side: the check of a few images in float64 takes gigabytes there


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the file does not say; None: the importer's default. See ``load_network`` for each."""

    transform_input: bool | None = None
    input_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None
    order: str | None = None
    head_activation: str | None = None
    spec: Spec | None = None

    def check(self) -> None:
        """Raises ImportFailed for values that no importer takes."""
        if self.order not in (None, "RGB", "BGR"):
            raise ImportFailed(f"order is {self.order!r}, not RGB or BGR")
        for name in ("resize", "input_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or not 1 <= value <= MAX_PIXELS):
                raise ImportFailed(f"{name} is {value!r}, not a whole number from 1 to {MAX_PIXELS}")
        if self.head_activation not in (None, *HEAD_ACTIVATIONS):
            raise ImportFailed(
                f"head_activation is {self.head_activation!r}, not {' or '.join(HEAD_ACTIVATIONS)}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name) or ()
            if any(0 < value < 1 for value in values):
                raise ImportFailed(
                    f"{name} {', '.join(f'{value:g}' for value in values)}: mean and std are of pixels from 0 to 255, "
                    "so multiply those of pixels from 0 to 1 by 255"
                )

    def refuse(self, path: str, *names: str) -> None:
        """Raises ImportFailed where one of these is given and the file leaves nothing open."""
        for name in names:
            if getattr(self, name) is not None:
                option = "variant" if name == "spec" else name
                raise ImportFailed(f"{path}: {option} is given, and changes nothing in such a file")

    def preprocess(self, default: Preprocess) -> Preprocess:
        """``default`` with what is given in its place."""
        given = {name: getattr(self, name) for name in ("mean", "std", "resize", "order")}
        return dataclasses.replace(default, **{name: v for name, v in given.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was imported, run by something that shares no code with the importer.

    ``run``: uint8 images (batch, height, width, channels), in the network's channel order -> the outputs that the
    network calls logits, (batch, ...). ``tolerance``: of max|d| / max|ref| between it and the float64 reference.
    """

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    tolerance: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Imported:
    """``description``: the file's content in a few words. ``notes``: what was left out or assumed, a line each.

    ``source``: None where the file is a Network already.
    """

    network: Network
    description: str
    notes: tuple[str, ...] = ()
    source: Source | None = None
