"""The float64 reference: the oracle, slow and without options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inception_engine import packages
from inception_engine.backends.base import Backend, network_face, refuse
from inception_engine.backends.sources import Source
from inception_engine.network import Network


class ReferenceBackend(Backend):
    name = "reference"

    def __init__(self, source: Source, keep_all: bool = False) -> None:
        super().__init__()
        if not isinstance(source, Network):
            raise refuse(self.name, "networks", source)
        torch = packages.load("torch")
        self.network = source
        description = f"float64 reference, torch {torch.__version__}, {source.name}"
        self.face = network_face(source, description, keep_all, dtype="fp64")

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        from inception_engine import reference

        layers = {name: self.network.logits if name == "logits" else name for name in names}
        results = reference.run(self.network, images, keep=set(layers.values()))
        return {name: results[layer] for name, layer in layers.items()}
