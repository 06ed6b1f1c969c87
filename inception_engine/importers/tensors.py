"""The tensors of a checkpoint, asked for by name and shape: what is missing, misshapen, not finite or left over fails.

Conversion is layer by layer: batch norm is folded in float64 and rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from inception_engine.folding import folded
from inception_engine.importers.checkpoint import Checkpoint
from inception_engine.importers.errors import ImportFailed

Dimensions = tuple[int | None, ...]  # None: any size
Weights = tuple[np.ndarray, np.ndarray]


class Block(NamedTuple):
    """Names of a convolution and of its batch norm, or "" where there is none."""

    convolution: str
    norm: str = ""


class Tensors:
    """``take`` and what is built on it raise ImportFailed; ``finish`` does for tensors that nobody took."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.path = checkpoint.path
        self.left = dict(checkpoint.tensors)

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def under(self, prefix: str) -> list[str]:
        """The names, in the file's order, that nobody took yet."""
        return [name for name in self.left if name.startswith(f"{prefix}.")]

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ImportFailed where there is no such tensor."""
        if name not in self.left:
            raise ImportFailed(f"{self.path}: there is no {name}")
        return self.left[name].shape

    def take(self, name: str, dimensions: Dimensions) -> np.ndarray:
        """A floating-point tensor of that shape, finite."""
        shape = self.shape(name)
        fits = [size > 0 if d is None else size == d for size, d in zip(shape, dimensions, strict=False)]
        if len(shape) != len(dimensions) or not all(fits):
            wanted = ", ".join("any" if size is None else str(size) for size in dimensions)
            raise ImportFailed(f"{self.path}: {name} has shape {shape}, not ({wanted})")
        tensor = self.left.pop(name)
        if tensor.dtype.kind != "f":
            raise ImportFailed(f"{self.path}: {name} is {tensor.dtype}, not a floating-point type")
        if not np.isfinite(tensor).all():
            raise ImportFailed(f"{self.path}: {name} holds NaN or infinity")
        return tensor

    def convolution(self, block: Block, inputs: int, kernel: int, epsilon: float) -> Weights:
        """Weight (out, inputs, kernel, kernel) and bias (out,), float32, batch norm folded."""
        weight = self.take(f"{block.convolution}.weight", (None, inputs, kernel, kernel))
        count = (len(weight),)
        bias_name = f"{block.convolution}.bias"
        bias = self.take(bias_name, count) if bias_name in self or not block.norm else None
        if not block.norm:
            assert bias is not None
            return self._rounded(block.convolution, weight, bias)
        scale, shift, mean, variance = (
            self.take(f"{block.norm}.{name}", count)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        self.left.pop(f"{block.norm}.num_batches_tracked", None)
        if (variance < 0).any():
            raise ImportFailed(f"{self.path}: {block.norm}.running_var is negative")
        return self._rounded(
            block.convolution,
            *folded(weight, bias, mean=mean, variance=variance, epsilon=epsilon, scale=scale, shift=shift),
        )

    def linear(self, name: str, inputs: int) -> Weights:
        """Weight (out, inputs) and bias (out,), float32; a bias that is not there is 0."""
        weight = self.take(f"{name}.weight", (None, inputs))
        bias = f"{name}.bias"
        return self._rounded(
            name, weight, self.take(bias, (len(weight),)) if bias in self else np.zeros(len(weight))
        )

    def _rounded(self, name: str, weight: np.ndarray, bias: np.ndarray) -> Weights:
        with np.errstate(over="ignore"):
            single = weight.astype(np.float32), bias.astype(np.float32)
        if not all(np.isfinite(values).all() for values in single):
            raise ImportFailed(f"{self.path}: {name}: weights beyond the range of float32")
        return single

    def finish(self, ignored: Iterable[str] = ()) -> list[str]:
        """Those of ``ignored``, names of modules, that were there. Raises ImportFailed for all other tensors left."""
        present = [prefix for prefix in ignored if self.under(prefix)]
        for name in self.left:
            if not name.startswith(tuple(f"{prefix}." for prefix in present)):
                raise ImportFailed(f"{self.path}: {name} is not of this architecture")
        return present
