"""Backends for the tests, skipped by name where they are not installed, and a count of what was skipped."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from inception_engine.network import Linear, Network, Softmax

Runner = Callable[..., Mapping[str, np.ndarray]]

_PREFIX = "backend "

gc.disable()  # while tests are collected, which imports much, and nothing of it is garbage


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def run_onnxruntime() -> Runner:
    """(network, images, names) -> outputs by layer name, from ONNX Runtime on the exported network."""
    _backend("onnxruntime", "onnxruntime")
    _backend("onnxruntime", "onnx")
    return _runner("onnxruntime", threads=1)


@pytest.fixture(scope="session")
def run_torch() -> Runner:
    """(network, images, names) -> outputs by layer name, from the torch model, of networks that it can be."""
    _backend("torch", "torch")
    return _runner("torch", described="model")


def _runner(backend: str, described: str = "", **options: Any) -> Runner:
    from inception_engine import load

    def run(network: Network, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        with load(network, backend, keep_all=True, **options) as opened:
            assert described in opened.description
            return _as_reference(network, opened.run(images, names))

    return run


def _as_reference(network: Network, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Backends give 1 x 1 images as (batch, channels); the reference does so for classifiers alone."""
    layers = {layer.name: layer for layer in network.layers}
    shapes = network.shapes()
    return {
        name: output if isinstance(layers[name], Linear | Softmax) else output.reshape(-1, *shapes[name])
        for name, output in outputs.items()
    }


@pytest.fixture(scope="session")
def run_engine() -> Runner:
    """(network, images, names, max_batch, target, dtype, **Engine's options) -> outputs by name, every layer kept.

    Without ``names``: of a plan that reuses memory, the logits alone.
    """
    from inception_engine import binding
    from inception_engine.compiler import compile
    from inception_engine.engine import Engine
    from inception_engine.errors import LibraryError

    try:
        binding.library()
    except LibraryError:
        pytest.skip(f"{_PREFIX}engine: the runtime is not built")

    def run(
        network: Network,
        images: np.ndarray,
        names: Sequence[str] = (),
        max_batch: int = 0,
        target: Any = "cpu",
        dtype: str = "fp32",
        **options: Any,
    ) -> Mapping[str, np.ndarray]:
        batch = max_batch or len(images)
        plan = compile(network, targets=(target,), max_batch=batch, dtype=dtype, keep_all=bool(names))
        with Engine(plan, **options) as engine:
            outputs = engine.run(images, outputs=names) if names else {network.logits: engine.run(images)}
        return _as_reference(network, outputs)

    return run


@pytest.fixture(scope="session")
def isas() -> Sequence[str]:
    """The instruction sets of this machine, least first."""
    from inception_engine import binding
    from inception_engine.errors import LibraryError

    try:
        return binding.machine_isas()
    except LibraryError:
        pytest.skip(f"{_PREFIX}engine: the runtime is not built")


def _backend(name: str, module: str):
    return pytest.importorskip(module, reason=f"{_PREFIX}{name}: {module} is not installed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per backend that was skipped, with the number of tests, so that a green run says what it did not run."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in sorted(reasons.items()):
        if reason.startswith(_PREFIX):
            terminalreporter.write_line(f"SKIPPED {reason} ({count} tests)", yellow=True)
