"""An inference engine for GoogLeNet and networks like it.

    import inception_engine as ie

    network = ie.googlenet(seed=0)
    plan = ie.compile(network, max_batch=8)
    with ie.Engine(plan) as engine:
        logits = engine.run(images)

Names are loaded when first used, so that importing the package imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inception_engine.backends import load
    from inception_engine.binding import get_include, get_library
    from inception_engine.classification import Classification, Prediction
    from inception_engine.compiler import compile
    from inception_engine.compiler.plan import Plan
    from inception_engine.engine import Engine
    from inception_engine.errors import EngineError, PlanError
    from inception_engine.fused import FusedInception, fuse
    from inception_engine.importers import load_network
    from inception_engine.importers.errors import ImportFailed
    from inception_engine.jit import TritonExecutor
    from inception_engine.network import Network, NetworkError, Preprocess
    from inception_engine.seeded import googlenet
    from inception_engine.spec import Spec

__all__ = [
    "Classification",
    "Engine",
    "EngineError",
    "FusedInception",
    "ImportFailed",
    "Network",
    "NetworkError",
    "Plan",
    "PlanError",
    "Prediction",
    "Preprocess",
    "Spec",
    "TritonExecutor",
    "compile",
    "fuse",
    "get_include",
    "get_library",
    "googlenet",
    "load",
    "load_network",
]

_MODULES = {
    "Classification": "classification",
    "Engine": "engine",
    "EngineError": "errors",
    "FusedInception": "fused",
    "ImportFailed": "importers.errors",
    "Network": "network",
    "NetworkError": "network",
    "Plan": "compiler.plan",
    "PlanError": "errors",
    "Prediction": "classification",
    "Preprocess": "network",
    "Spec": "spec",
    "TritonExecutor": "jit",
    "compile": "compiler",
    "fuse": "fused",
    "get_include": "binding",
    "get_library": "binding",
    "googlenet": "seeded",
    "load": "backends",
    "load_network": "importers",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("inception-engine")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
