"""A stand-in for the package tensorrt that keeps what it is asked to build, for Polygraphy's lazy import to find.

It has the names that TensorRT 10 and 11 have of what Polygraphy uses here: what 11 dropped is missing from 11. An
"engine" is the ONNX model behind a mark, and TrtRunner, which needs a GPU, is replaced by one that runs that model on
ONNX Runtime.
"""

from __future__ import annotations

import enum
import importlib.machinery
import sys
import types
from typing import Any

import onnx
import pytest

MARK = b"engine of "


class Flags10(enum.IntEnum):
    FP16, INT8, BF16, OBEY_PRECISION_CONSTRAINTS, TF32, REFIT, DIRECT_IO = range(7)


class Flags11(enum.IntEnum):
    TF32, REFIT, DIRECT_IO = range(3)


class Builds:
    """What was asked for: of the network, the profiles and the builder's configuration."""

    def __init__(self) -> None:
        self.network_flags: list[int] = []
        self.models: list[bytes] = []
        self.profiles: list[dict[str, tuple[Any, Any, Any]]] = []
        self.flags: list[str] = []
        self.cleared: list[str] = []
        self.limits: dict[str, int] = {}
        self.caches_read: list[bytes] = []
        self.deserialised: list[bytes] = []
        self.error: str | None = None  # that the parser reports
        self.builds = True
        self.spoil = False  # the engine computes something else


def install(monkeypatch: pytest.MonkeyPatch, version: str) -> Builds:
    """Put the stand-in into ``sys.modules``; Polygraphy is imported anew, as it holds on to what it imported."""
    builds = Builds()
    for name in [name for name in sys.modules if name.partition(".")[0] == "polygraphy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorrt", _module(version, builds))
    import polygraphy.backend.trt as polygraphy_trt

    # The modules of this import must not outlive the test either.
    for name in [name for name in sys.modules if name.partition(".")[0] == "polygraphy"]:
        module = sys.modules.pop(name)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(polygraphy_trt, "TrtRunner", _runner(builds))
    return builds


def _runner(builds: Builds) -> Any:
    def make(engine: Any, name: str) -> Any:
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

        def model() -> bytes:
            content: bytes = engine().content
            if not builds.spoil:
                return content
            proto = onnx.load_model_from_string(content)
            bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "fc.bias")
            values = onnx.numpy_helper.to_array(bias).copy()
            values[3] += 1
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
            return proto.SerializeToString()

        return OnnxrtRunner(SessionFromOnnx(model), name=name)

    return make


def _module(version: str, builds: Builds) -> types.ModuleType:
    eleven = int(version.partition(".")[0]) >= 11

    class CreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 0 if eleven else 1

    verbosity = enum.IntEnum("verbosity", ["LAYER_NAMES_ONLY", "NONE", "DETAILED"], start=0)
    pools = enum.IntEnum("pools", ["WORKSPACE"], start=0)

    class DeviceType:
        GPU, DLA = "GPU", "DLA"

    class Logger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class ILogger:
        pass

    class Input:
        is_shape_tensor = False
        dtype = "float32"

        def __init__(self, name: str, shape: tuple[int, ...]) -> None:
            self.name, self.shape = name, shape

    class Network:
        num_layers = num_outputs = 0

        def __init__(self, flags: int) -> None:
            self.inputs: list[Input] = []
            builds.network_flags.append(flags)

        @property
        def num_inputs(self) -> int:
            return len(self.inputs)

        def get_input(self, index: int) -> Input:
            return self.inputs[index]

        def __len__(self) -> int:
            return 0

        def __getitem__(self, index: int) -> Any:
            raise IndexError(index)

    class Parser:
        def __init__(self, network: Network, logger: Any) -> None:
            self.network = network

        def parse(self, content: bytes) -> bool:
            builds.models.append(content)
            graph = onnx.load_model_from_string(content).graph
            (image,) = graph.input
            sizes = [d.dim_value or -1 for d in image.type.tensor_type.shape.dim]
            self.network.inputs.append(Input(image.name, tuple(sizes)))
            return builds.error is None

        @property
        def num_errors(self) -> int:
            return int(builds.error is not None)

        def get_error(self, index: int) -> str:
            return str(builds.error)

    class Profile:
        def __init__(self) -> None:
            self.shapes: dict[str, tuple[Any, Any, Any]] = {}
            builds.profiles.append(self.shapes)

        def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
            self.shapes[name] = smallest, best, largest

    class Cache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
            return True

        def serialize(self) -> memoryview:
            return memoryview(self.content[:9] + b"measured;")

    class Config:
        profiling_verbosity: Any = None
        DLA_core, default_device_type, num_optimization_profiles = -1, "GPU", 1

        def add_optimization_profile(self, profile: Profile) -> int:
            return 0

        def set_flag(self, flag: Any) -> None:
            builds.flags.append(flag.name)

        def clear_flag(self, flag: Any) -> None:
            builds.cleared.append(flag.name)

        def get_flag(self, flag: Any) -> bool:
            return flag.name in builds.flags

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            builds.limits[pool.name] = size

        def get_memory_pool_limit(self, pool: Any) -> int:
            return builds.limits.get(pool.name, 1 << 40)

        def create_timing_cache(self, content: bytes) -> Cache:
            builds.caches_read.append(content)
            return Cache(content)

        def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> None:
            self.cache = cache

        def get_timing_cache(self) -> Cache:
            return self.cache

    class Builder:
        def __init__(self, logger: Any) -> None:
            pass

        def create_network(self, flags: int) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            return MARK + builds.models[-1] if builds.builds else None

    class Engine:
        def __init__(self, content: bytes) -> None:
            self.content = content

    class Runtime:
        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            builds.deserialised.append(content)
            return Engine(content.removeprefix(MARK)) if content.startswith(MARK) else None

    module = types.ModuleType("tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    names: dict[str, Any] = {
        "__version__": version,
        "NetworkDefinitionCreationFlag": CreationFlag,
        "BuilderFlag": Flags11 if eleven else Flags10,
        "ProfilingVerbosity": verbosity,
        "MemoryPoolType": pools,
        "DeviceType": DeviceType,
        "Logger": Logger,
        "ILogger": ILogger,
        "OnnxParser": Parser,
        "Builder": Builder,
        "Runtime": Runtime,
        "ICudaEngine": Engine,
        "init_libnvinfer_plugins": lambda logger, namespace: None,
    }
    vars(module).update(names)
    return module
