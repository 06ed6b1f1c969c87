"""PyTorch, of a network: the model where the network is one that it can be, the reference's operations otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inception_engine import packages
from inception_engine.backends.base import Backend, network_face, refuse
from inception_engine.backends.sources import Source
from inception_engine.errors import BackendError
from inception_engine.network import Layer, Network, Softmax
from inception_engine.seeded import assemble
from inception_engine.spec import Spec, SpecError

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class TorchBackend(Backend):
    name = "torch"

    def __init__(
        self,
        source: Source,
        keep_all: bool = False,
        *,
        device: str = "cpu",
        threads: int = 0,
        channels_last: bool = False,
        dtype: str = "fp32",
    ) -> None:
        """``device``: torch's name. ``threads``: of the whole process while this is open; 0 leaves them. A network that
        is not a GoogLeNet of the spec in its metadata, layer by layer, is run by the reference's operations in float32,
        on the CPU, with none of the options."""
        super().__init__()
        if not isinstance(source, Network):
            raise refuse(self.name, "networks", source)
        torch = packages.load("torch")
        if dtype not in _DTYPES:
            raise BackendError(f"unknown dtype {dtype!r}; there is {', '.join(_DTYPES)}")
        self.network = source
        self._threads: int | None = None
        spec = spec_of(source)
        self._model: Any = None
        if spec is not None:
            self._prepare(torch, spec, device, channels_last, dtype)
        elif (device, channels_last, dtype) != ("cpu", False, "fp32"):
            raise BackendError(
                f"{source.name} is no GoogLeNet of a known spec: torch runs it in fp32 on the cpu alone"
            )
        how = "model" if spec is not None else "reference operations"
        layout = ", channels last" if channels_last else ""
        self.face = network_face(
            source,
            f"torch {torch.__version__}, {how}, {device}, {dtype}{layout}, {source.name}",
            keep_all,
            dtype=dtype,
        )
        if threads:
            self._threads = torch.get_num_threads()
            torch.set_num_threads(threads)

    def _prepare(self, torch: Any, spec: Spec, device: str, channels_last: bool, dtype: str) -> None:
        from inception_engine.model import GoogLeNet

        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        try:
            self._device = torch.device(device)
            self._dtype = getattr(torch, _DTYPES[dtype])
            model = GoogLeNet(spec)
            model.load_network(self.network)
            self._model = model.eval().to(self._device, self._dtype).to(memory_format=self._layout)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:  # no such device, torch without CUDA
            raise BackendError(f"torch: {str(error).splitlines()[0]}") from None

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        if self._model is None:
            return self._reference(images, names)
        import torch

        kept: dict[str, Any] = {}
        probabilities = [
            layer.name for layer in self.network.layers if isinstance(layer, Softmax)
        ]  # no module of it
        hooks = [
            self._model.at(name).register_forward_hook(
                lambda module, inputs, output, name=name: kept.__setitem__(name, output)
            )
            for name in names
            if name not in ("logits", *probabilities)
        ]
        try:
            # cuDNN would take float32 as TensorFloat-32, which has ten bits.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                tensor = torch.from_numpy(images).to(self._device, self._dtype, memory_format=self._layout)
                kept["logits"] = self._model(tensor)
                kept |= {name: torch.softmax(kept["logits"], 1) for name in probabilities if name in names}
        except (
            RuntimeError
        ) as error:  # an operation that torch lacks for the dtype, memory that the GPU lacks
            raise BackendError(f"torch: {str(error).splitlines()[0]}") from None
        finally:
            for hook in hooks:
                hook.remove()
        return {name: kept[name].float().cpu().numpy() for name in names}

    def _reference(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        from inception_engine import reference

        layers = {name: self.network.logits if name == "logits" else name for name in names}
        results = reference.run(self.network, images, dtype="float32", keep=set(layers.values()))
        return {name: results[layer].astype(np.float32) for name, layer in layers.items()}

    def close(self) -> None:
        super().close()
        self._model = None
        if self._threads is not None:
            packages.load("torch").set_num_threads(self._threads)
            self._threads = None


def spec_of(network: Network) -> Spec | None:
    """The spec that the network's metadata names, if the network is what that spec describes but for its weights."""
    spec = Spec.parsed(network.metadata.get("spec", ""))
    if spec is None:
        return None
    weights = {layer.name: layer for layer in network.layers}
    try:
        expected = assemble(spec, lambda layer: (weights[layer.name].weight, weights[layer.name].bias))  # type: ignore[attr-defined]
    except (SpecError, KeyError, AttributeError, ValueError):
        return None
    same = len(expected.layers) == len(network.layers) and all(map(_same, expected.layers, network.layers))
    return (
        spec
        if same and (expected.logits, expected.input_shape) == (network.logits, network.input_shape)
        else None
    )


def _same(one: Layer, other: Layer) -> bool:
    """Whether two layers differ in nothing but the values of their weights."""
    if type(one) is not type(other):
        return False
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            mine, theirs = mine.shape, theirs.shape
        if mine != theirs:
            return False
    return True
