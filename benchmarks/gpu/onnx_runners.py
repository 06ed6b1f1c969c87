"""ONNX Runtime and TensorRT, on the exported network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from benchmarks.gpu.cases import NetworkCase
from benchmarks.gpu.device import Device
from benchmarks.gpu.runners import Prepared
from inception_engine.exporters.onnx import LOGITS, to_onnx

INPUT = "input"


class PeerError(RuntimeError):
    """Another engine is there but cannot be used; the message says why."""


@contextlib.contextmanager
def onnxruntime(case: NetworkCase, device: Device) -> Iterator[Prepared]:
    """Inputs and outputs bound to device memory. Raises PeerError where the package has no CUDA provider."""
    import onnxruntime as ort

    on_gpu = device.torch_device.type == "cuda"
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        raise PeerError(f"onnxruntime {ort.__version__} has no {provider}")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("batch", case.batch)
    settings = {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"} if on_gpu else {}
    if on_gpu:  # its work is ordered with torch's, and timed by the same events
        settings["user_compute_stream"] = str(torch.cuda.current_stream().cuda_stream)
    model = to_onnx(case.network) if case.dtype == "fp32" else in_half(to_onnx(case.network))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[(provider, settings)])
    if session.get_providers()[0] != provider:  # it falls back to the CPU where its libraries are missing
        raise PeerError(f"onnxruntime could not start its {provider}")
    kind, index = device.torch_device.type, device.torch_device.index or 0
    logits = torch.empty(case.batch, case.spec.classes, device=device.torch_device)
    binding = session.io_binding()
    binding.bind_output(LOGITS, kind, index, np.float32, tuple(logits.shape), logits.data_ptr())

    def call(images: Tensor) -> Tensor:
        binding.bind_input(INPUT, kind, index, np.float32, tuple(images.shape), images.data_ptr())
        session.run_with_iobinding(binding)
        return logits

    yield Prepared(call)


@contextlib.contextmanager
def tensorrt(case: NetworkCase, device: Device) -> Iterator[Prepared]:
    """Built for exactly this batch. Raises PeerError."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    model = to_onnx(case.network) if case.dtype == "fp32" else in_half(to_onnx(case.network))
    if not parser.parse(model.SerializeToString()):
        raise PeerError(f"tensorrt {trt.__version__}: {parser.get_error(0).desc()}")
    shape = (case.batch, *case.network.input_shape)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, shape, shape, shape)
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise PeerError(f"tensorrt {trt.__version__} built no engine")
    engine = trt.Runtime(logger).deserialize_cuda_engine(content)
    context = engine.create_execution_context()
    context.set_input_shape(INPUT, shape)
    logits = torch.empty(case.batch, case.spec.classes, device=device.torch_device)
    context.set_tensor_address(LOGITS, logits.data_ptr())

    def call(images: Tensor) -> Tensor:
        context.set_tensor_address(INPUT, images.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise PeerError("tensorrt did not run")
        return logits

    yield Prepared(call)


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and all between in float16; float32 images in and float32 logits out."""
    graph = model.graph
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            graph.initializer[index].CopyFrom(numpy_helper.from_array(half, tensor.name))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}/half" if name in (INPUT, LOGITS) else name for name in names]
    graph.node.insert(0, helper.make_node("Cast", [INPUT], [f"{INPUT}/half"], to=TensorProto.FLOAT16))
    graph.node.append(helper.make_node("Cast", [f"{LOGITS}/half"], [LOGITS], to=TensorProto.FLOAT))
    onnx.checker.check_model(model, full_check=True)
    return model
