"""How each engine is called, in its own process, by its own API: what its user would write, with its best settings.

All get the same contract: a NumPy array in host memory in (float32 NCHW, or uint8 NHWC where the case says so),
float32 logits in host memory out. What an engine does to have its own layout or precision is part of its call. What
it can prepare once (folding, packing, graph optimisation, a fixed batch) it does when it is opened. The names of
these functions stand in ``peers``; their packages are imported before they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Task:
    """What a worker is told, as JSON. ``model``, ``images``, ``logits``: paths. ``opener``: "module:function".

    ``packages``: imported first. ``helpers``: imported behind them, and not timed. ``mean``, ``std``: of the network's
    preprocessing, per channel.
    """

    opener: str
    packages: list[str]
    helpers: list[str]
    model: str
    images: str
    logits: str
    shape: list[int]
    input: str
    mean: list[float]
    std: list[float]
    batch: int
    dtype: str
    threads: int
    streams: int
    device: str
    launch: str


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Runner:
    """An opened engine. A call is ``download(compute(upload(images)))``; where there is one memory, ``compute`` alone.

    ``wait``: until the device is idle, for timing a part by itself. ``takes_pixels``: ``compute`` takes uint8, too.
    """

    compute: Callable[[Any], Any]
    upload: Callable[[np.ndarray], Any] | None = None
    download: Callable[[Any], np.ndarray] | None = None
    wait: Callable[[], None] = _nothing
    takes_pixels: bool = False
    close: Callable[[], None] = _nothing


def engine(task: Task) -> Runner:
    """Ours. On a GPU by the ways of ``runners_cuda``."""
    if task.device == "cuda":
        from inception_engine.bench import runners_cuda

        return runners_cuda.engine(task)
    import inception_engine as ie

    opened = ie.Engine(task.model, device=task.device, threads=task.threads)
    return Runner(opened.run, takes_pixels=True, close=opened.close)


def torch(task: Task) -> Runner:
    return _torch(task, channels_last=False)


def torch_channels_last(task: Task) -> Runner:
    return _torch(task, channels_last=True)


def torch_compile(task: Task) -> Runner:
    """Channels last, which its convolutions prefer; max-autotune, one graph, one batch."""
    return _torch(task, channels_last=True, compiled=True)


def _torch(task: Task, channels_last: bool, compiled: bool = False) -> Runner:
    import torch

    from inception_engine.backends.torch import spec_of
    from inception_engine.model import GoogLeNet
    from inception_engine.network import Network

    torch.set_num_threads(task.threads)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[task.dtype]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = Network.load(task.model)
    spec = spec_of(network)
    if spec is None:
        raise ValueError(f"{network.name} is no GoogLeNet of a known spec")
    module = GoogLeNet(spec, auxiliary=False)
    module.load_network(network)
    placed = module.eval().to(task.device, dtype)
    model: Callable[[Any], Any] = placed.to(memory_format=layout)  # type: ignore[call-overload]
    if compiled:
        model = torch.compile(model, fullgraph=True, dynamic=False, mode=_compile_mode(task.device))

    def compute(images: Any) -> Any:
        tensor = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        with torch.inference_mode():
            logits = model(tensor.to(dtype=dtype, memory_format=layout)).float()
        return logits.numpy() if isinstance(images, np.ndarray) else logits

    if task.device == "cpu":
        return Runner(compute)
    from inception_engine.bench import runners_cuda

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # which has ten bits; float32 is what was asked for
    return runners_cuda.on_device(compute)


def _compile_mode(device: str) -> str:
    # On a GPU max-autotune replays CUDA graphs of its own.
    return "max-autotune" if device == "cuda" else "max-autotune-no-cudagraphs"


def onnxruntime(task: Task) -> Runner:
    return _onnxruntime(task, "cuda" if task.device == "cuda" else "cpu")


def onnxruntime_tensorrt(task: Task) -> Runner:
    return _onnxruntime(task, "tensorrt")


def _onnxruntime(task: Task, provider: str) -> Runner:
    """All graph optimisations, sequential, the batch fixed, spinning as it is by default; no other provider steps
    in."""
    import onnxruntime as ort

    from inception_engine.backends.onnx_providers import PROVIDERS

    name, settings = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise RuntimeError(f"not here: onnxruntime {ort.__version__} has no {name}")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("batch", task.batch)
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if provider == "tensorrt":
        settings = {**settings, "trt_fp16_enable": "1" if task.dtype == "fp16" else "0"}
    session = ort.InferenceSession(task.model, options, providers=[(name, settings)], enable_fallback=0)
    if name not in session.get_providers():
        raise RuntimeError(f"onnxruntime could not start its {name}")
    given = session.get_inputs()[0].name
    if provider == "cpu":
        return Runner(lambda images: session.run(None, {given: images})[0])
    from inception_engine.bench import runners_cuda

    return runners_cuda.onnxruntime(session, given)


def openvino(task: Task) -> Runner:
    """Latency hint, one stream, the batch fixed, the precision that is asked for. Callers side by side have a model
    each, which OpenVINO would all pin to the same cores: two of one thread did the work of one."""
    import openvino as ov
    from openvino import properties

    core = ov.Core()
    model = core.read_model(task.model)
    model.reshape([task.batch, *task.shape])
    precision = {"fp32": ov.Type.f32, "fp16": ov.Type.f16, "bf16": ov.Type.bf16}[task.dtype]
    compiled = core.compile_model(
        model,
        "CPU",
        {
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
            properties.hint.inference_precision(): precision,
            properties.inference_num_threads(): task.threads,
            properties.num_streams(): 1,
            properties.hint.enable_hyper_threading(): True,  # else it takes half of the threads that are asked for
            **({} if task.streams == 1 else {properties.hint.enable_cpu_pinning(): False}),
        },
    )
    used = compiled.get_property(properties.hint.inference_precision())
    if used != precision:  # it says what the machine really gives
        raise RuntimeError(f"not supported: OpenVINO takes {used.get_type_name()} here, not {task.dtype}")
    threads = compiled.get_property(properties.inference_num_threads())
    if threads != task.threads:
        raise RuntimeError(f"not supported: OpenVINO takes {threads} threads here, not {task.threads}")
    request = compiled.create_infer_request()
    return Runner(lambda images: request.infer(images, share_inputs=True)[0].astype(np.float32, copy=False))


def tensorrt(task: Task) -> Runner:
    from inception_engine.bench import runners_cuda

    return runners_cuda.tensorrt(task)
