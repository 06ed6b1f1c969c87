"""What is run: the seeded networks, single modules of them, seeded images, and their float64 references.

As in inception_engine.bench.cases five images are distinct and fill every batch, so that a large batch's reference
costs five images.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inception_engine import reference
from inception_engine.bench.cases import DISTINCT_IMAGES, SEED
from inception_engine.compiler import compile as compile_network
from inception_engine.compiler.plan import Plan
from inception_engine.compiler.targets import Target
from inception_engine.model import GoogLeNet
from inception_engine.network import INPUT, Network, Preprocess
from inception_engine.seeded import googlenet
from inception_engine.spec import Spec
from tests.tolerances import TOLERANCES, error

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@functools.cache
def network(spec: Spec) -> Network:
    return googlenet(seed=SEED, spec=spec)


@dataclass(frozen=True)
class NetworkCase:
    """``variant``: the spec's name in records."""

    variant: str
    spec: Spec
    batch: int
    dtype: str

    @property
    def labels(self) -> dict[str, Any]:
        """For a row."""
        return {"variant": self.variant, "batch": self.batch, "dtype": self.dtype}

    @property
    def network(self) -> Network:
        return network(self.spec)

    def images(self, device: torch.device) -> Tensor:
        """(batch, channels, height, width) float32, mean 0 and deviation 1."""
        return torch.from_numpy(_images(self.network.input_shape)[_repeated(self.batch)]).to(device)

    def plan(self, target: Target | None = None) -> Plan:
        """``target``: None for what the compiler takes for the batch. Not to be changed: it is kept for the next."""
        return _plan(self, target)

    def model(self) -> GoogLeNet:
        """In float32 on the CPU, for inference."""
        model = GoogLeNet(self.spec)
        model.load_network(self.network)
        return model.eval()

    def error(self, logits: Tensor) -> float:
        """max|d| / max|ref|; infinite where shapes differ or anything is not finite."""
        distinct = _logits(self.spec, min(self.batch, DISTINCT_IMAGES))
        return error(logits.double().cpu().numpy(), distinct[_repeated(self.batch)])

    @property
    def bound(self) -> float:
        return TOLERANCES[self.dtype].logits


@dataclass(frozen=True)
class ModuleCase:
    """An Inception module alone, on normal noise as its input, after ReLU."""

    name: str
    spec: Spec
    batch: int
    dtype: str

    @property
    def module(self) -> nn.Module:
        """Float32, on the CPU."""
        return _model(self.spec).trunk[self.name]

    @property
    def network(self) -> Network:
        """The module and nothing else; its input is the image."""
        layers = [layer for layer in network(self.spec).layers if layer.module == self.name]
        inside = {layer.name for layer in layers}
        return Network(
            name=self.name,
            input_shape=self.spec.layer(f"{self.name}/1x1").input,
            layers=tuple(
                dataclasses.replace(layer, inputs=tuple(i if i in inside else INPUT for i in layer.inputs))
                for layer in layers
            ),
            logits=layers[-1].name,
            preprocess=Preprocess(mean=(0.0,), std=(1.0,)),
        )

    @property
    def pixels(self) -> int:
        """Of the batch's input."""
        _, height, width = self.spec.layer(f"{self.name}/1x1").input
        return self.batch * height * width

    @property
    def macs(self) -> int:
        """Nominal multiply-adds of the batch."""
        return self.batch * sum(layer.macs for layer in self.spec.layers if layer.row == self.name)

    def x(self, device: torch.device) -> Tensor:
        """(batch, channels, height, width) of ``dtype``, channels last."""
        x = self._distinct(self.batch)[_repeated(self.batch)]
        return x.to(device).contiguous(memory_format=torch.channels_last)

    def _distinct(self, batch: int) -> Tensor:
        shape = self.spec.layer(f"{self.name}/1x1").input
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(DISTINCT_IMAGES, *shape, generator=generator).relu()
        return x[: min(batch, DISTINCT_IMAGES)].to(TORCH_DTYPES[self.dtype])

    def error(self, y: Tensor) -> float:
        """As NetworkCase.error, against the module in float64 on the same rounded x."""
        with torch.no_grad():
            expected = copy.deepcopy(self.module).double()(self._distinct(self.batch).double()).numpy()
        return error(y.double().cpu().numpy(), expected[_repeated(self.batch)])

    @property
    def bound(self) -> float:
        return TOLERANCES[self.dtype].layer


def _repeated(batch: int) -> np.ndarray:
    return np.arange(batch) % DISTINCT_IMAGES


@functools.cache
def _images(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal((DISTINCT_IMAGES, *shape), dtype=np.float32)


@functools.cache
def _logits(spec: Spec, count: int) -> np.ndarray:
    net = network(spec)
    return reference.run(net, _images(net.input_shape)[:count])[net.logits]


@functools.lru_cache(2)
def _plan(case: NetworkCase, target: Target | None) -> Plan:
    return compile_network(case.network, targets=(target or "cuda",), dtype=case.dtype, batches=(case.batch,))


@functools.cache
def _model(spec: Spec) -> GoogLeNet:
    return NetworkCase("", spec, 1, "fp32").model()
