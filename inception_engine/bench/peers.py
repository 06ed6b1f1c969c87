"""Who is run: our engine and the engines that people would use instead, one row each in ``PEERS``.

What each does is in ``runners`` under its opener's name; ``engine-c`` is a program in C, which ``native`` compiles.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

from inception_engine.bench.cases import Case

# Ways to give a GPU its work; ``runners_cuda`` says what they are.
LAUNCHES = ("walk", "module", "stream", "graph", "jit")

_RUNNERS = "inception_engine.bench.runners"
_ALL = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Peer:
    """``opener``: "module:function" for ``worker``; empty: the program ``engine.c``. ``model``: the artefact that it
    loads.

    ``packages`` must be installed. ``helpers``: modules of ours that open it, which its user would not have: the time
    of their imports is in none of its figures. ``dtypes``: by device. ``launches``: its ways to give a GPU work.
    ``ours``: it is our engine, and no peer to be compared with. ``slow``: it compiles for minutes, so it is run when
    asked for alone.
    """

    name: str
    what: str
    opener: str
    model: str
    packages: tuple[str, ...]
    helpers: tuple[str, ...] = ()
    dtypes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"cpu": ("fp32",)})
    launches: tuple[str, ...] = ()
    ours: bool = False
    slow: bool = False

    def obstacle(self, case: Case) -> str | None:
        """Why this peer cannot be run here at all, or None."""
        dtype = case.workload.dtype
        if case.device not in self.dtypes:
            return f"not supported: {case.device}"
        if dtype not in self.dtypes[case.device]:
            return f"not supported: {dtype} on {case.device}"
        if case.device == "cuda" and gpus() == 0:
            return "not here: no CUDA device"
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        return f"not installed: {', '.join(missing)}" if missing else None


def gpus() -> int:
    """How many GPUs the CUDA driver shows; 0 without a driver."""
    import ctypes

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if ready else 0


# What the compiler has no kernels for is a row that says so, in the compiler's words.
_OURS = {"cpu": _ALL, "cuda": _ALL}
_TORCH = {"cpu": _ALL, "cuda": _ALL}
_ONNX = {"cpu": ("fp32", "fp16"), "cuda": ("fp32", "fp16")}
_NVIDIA = {"cuda": ("fp32", "fp16")}

_BY_TORCH = ("inception_engine.backends.torch", "inception_engine.model")
_BY_ONNXRUNTIME = ("inception_engine.backends.onnx_providers",)

ENGINE = "engine"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            ENGINE,
            "ours, from Python",
            f"{_RUNNERS}:engine",
            "plan",
            ("inception_engine.engine",),
            dtypes=_OURS,
            launches=LAUNCHES,
            ours=True,
        ),
        Peer(
            "engine-c", "ours, from C", "", "plan", (), dtypes=_OURS, launches=("walk", "module"), ours=True
        ),
        Peer("torch", "PyTorch eager", f"{_RUNNERS}:torch", "network", ("torch",), _BY_TORCH, _TORCH),
        Peer(
            "torch-channels-last",
            "PyTorch eager, weights and images channels last",
            f"{_RUNNERS}:torch_channels_last",
            "network",
            ("torch",),
            _BY_TORCH,
            _TORCH,
        ),
        Peer(
            "torch-compile",
            "torch.compile, max-autotune",
            f"{_RUNNERS}:torch_compile",
            "network",
            ("torch",),
            _BY_TORCH,
            _TORCH,
            slow=True,
        ),
        Peer(
            "onnxruntime",
            "ONNX Runtime, CPU or CUDA provider",
            f"{_RUNNERS}:onnxruntime",
            "onnx",
            ("onnxruntime",),
            _BY_ONNXRUNTIME,
            _ONNX,
        ),
        Peer(
            "onnxruntime-tensorrt",
            "ONNX Runtime, TensorRT provider",
            f"{_RUNNERS}:onnxruntime_tensorrt",
            "onnx",
            ("onnxruntime",),
            _BY_ONNXRUNTIME,
            _NVIDIA,
            slow=True,
        ),
        Peer("openvino", "OpenVINO", f"{_RUNNERS}:openvino", "onnx", ("openvino",), dtypes={"cpu": _ALL}),
        Peer(
            "tensorrt", "TensorRT", f"{_RUNNERS}:tensorrt", "onnx", ("tensorrt", "polygraphy"), dtypes=_NVIDIA
        ),
    )
}
