"""Parity: the Network and the engine that is compiled from it, against what was imported, on random images.

``source`` (see ``Source``) -> the float64 reference on the Network: what folding and the graph got wrong.
``source`` -> the engine on its plan: that, and what the compiler and the kernels got wrong.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inception_engine.importers.errors import ImportFailed
from inception_engine.importers.imported import Imported
from inception_engine.network import Shape
from inception_engine.parity import BOUNDS
from inception_engine.preprocess import normalise

ENGINE_TOLERANCE = BOUNDS["fp32"]

LEAST_SPREAD = 1e-2  # a hundred times the tolerance

IMAGES = 4
SEED = 0


class ParityFailed(ImportFailed):
    """What was imported does not compute what the file does."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. ``error``: max|d| / max|ref| at the logits. ``agree``: images of the same largest logit."""

    name: str
    error: float
    tolerance: float
    agree: int
    images: int

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # NaN is not

    def __str__(self) -> str:
        return (
            f"{self.name:<20} max|d|/max|ref| {self.error:.1e} at the logits, tolerance {self.tolerance:.0e}, "
            f"top-1 the same on {self.agree} of {self.images}{'' if self.passed else '  FAILED'}"
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """``spread``: how far a logit moves between the images at most, over max|ref|. Where it is next to nothing, a
    network that ignores the image would pass as well."""

    against: str
    rows: tuple[Row, ...]
    spread: float

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def lines(self) -> Iterator[str]:
        images = self.rows[0].images
        yield f"parity with {self.against}, on {images} random images:"
        yield from (f"  {row}" for row in self.rows)
        if self.spread < LEAST_SPREAD:
            yield f"  the logits differ by {self.spread:.0e} between images: this says little"


def check(imported: Imported, images: int = IMAGES, seed: int = SEED) -> Report:
    """Run everything. Raises ImportFailed where torch is missing, and what compiling and loading a plan raise."""
    from inception_engine import reference
    from inception_engine.compiler import compile as compile_network
    from inception_engine.engine import Engine

    if importlib.util.find_spec("torch") is None:
        raise ImportFailed(
            "the parity check needs PyTorch: pip install 'inception-engine[torch]', or leave it out"
        )
    network, source = imported.network, imported.source
    pictures = random_images(network.input_shape, images, seed)
    found = reference.run(network, normalise(pictures, network.preprocess))[network.logits]
    with Engine(compile_network(network, max_batch=images), device="cpu") as engine:
        computed = engine.run(pictures)
    if source is None:
        rows: tuple[Row, ...] = (compare("engine, fp32", computed, found, ENGINE_TOLERANCE),)
        return Report(against="the float64 reference", rows=rows, spread=spread_of(found))
    expected = source.run(pictures)
    rows = (
        compare("reference, float64", found, expected, source.tolerance),
        compare("engine, fp32", computed, expected, max(ENGINE_TOLERANCE, source.tolerance)),
    )
    return Report(against=source.name, rows=rows, spread=spread_of(expected))


def assert_parity(imported: Imported) -> Report:
    """``check``. Raises ParityFailed, with the figures in its message."""
    report = check(imported)
    if not report.passed:
        raise ParityFailed(" ".join(line.strip() for line in report.lines()))
    return report


def random_images(shape: Shape, count: int, seed: int) -> np.ndarray:
    """uint8 (count, height, width, channels): noise, and every other one patches of colour under it, as noise alone
    looks the same to a trained network."""
    channels, height, width = shape
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    side = -(-max(height, width) // 8)
    patches = rng.integers(0, 256, (count, 8, 8, channels), dtype=np.uint8).repeat(side, 1).repeat(side, 2)
    images[1::2] = patches[1::2, :height, :width] // 4 * 3 + images[1::2] // 4
    return images


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """max|d| / max|ref|. Infinite where sizes differ, something is not finite, or the reference is 0 and it is not."""
    if found.size != expected.size or not np.isfinite(found).all() or not np.isfinite(expected).all():
        return np.inf
    difference = float(np.abs(found.reshape(expected.shape) - expected).max())
    scale = float(np.abs(expected).max())
    return difference / scale if scale else (0.0 if difference == 0 else np.inf)


def compare(name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> Row:
    """``found`` against ``expected``, both (batch, ...)."""
    flat, wanted = (logits.reshape(len(logits), -1) for logits in (found, expected))
    same = flat.shape == wanted.shape
    agree = int((flat.argmax(1) == wanted.argmax(1)).sum()) if same else 0
    error = relative_error(flat, wanted)
    return Row(name=name, error=error, tolerance=tolerance, agree=agree, images=len(wanted))


def spread_of(logits: np.ndarray) -> float:
    """How far a logit moves between images at most, over the largest one."""
    scale = float(np.abs(logits).max())
    return float(np.ptp(logits, axis=0).max()) / scale if scale else 0.0
