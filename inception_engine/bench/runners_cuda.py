"""Engines on a GPU, with the copies to it and from it as parts of their own.

``engine`` has launch modes: ``walk`` and ``module`` are ``ie_run`` from host memory to host memory, which the library
replays as a CUDA graph, by the kernel that runs everything or by those for the modules' sizes; ``stream`` is
``ie_enqueue`` to torch's stream, ``graph`` the same captured as a CUDA graph of the caller's, ``jit`` the plan by
``TritonExecutor``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from inception_engine.bench.runners import Runner, Task


def on_device(compute: Callable[[Any], Any]) -> Runner:
    """``compute`` of tensors, between copies from and to host memory."""
    import torch

    def upload(images: np.ndarray) -> Any:
        return torch.from_numpy(images).pin_memory().to("cuda", non_blocking=True)

    return Runner(compute, upload, lambda logits: logits.cpu().numpy(), torch.cuda.synchronize)


def engine(task: Task) -> Runner:
    import inception_engine as ie

    if task.launch in ("walk", "module"):
        opened = ie.Engine(task.model, device="cuda", specialise=task.launch == "module")
        if task.launch == "module" and not opened.specialised:
            opened.close()
            raise RuntimeError("not here: no module of the plan has a kernel for its sizes in the archive")
        return Runner(opened.run, takes_pixels=True, close=opened.close)
    if task.launch == "jit":
        from inception_engine.compiler.plan import Plan

        return on_device(ie.TritonExecutor(Plan.load(task.model)).enqueue)
    opened = ie.Engine(task.model, device="cuda")
    made = on_device(opened.run) if task.launch == "stream" else _graph(opened.run, task)
    return dataclasses.replace(made, close=opened.close)  # which also keeps what a graph replays


def _graph(run: Callable[[Any], Any], task: Task) -> Runner:
    import torch

    # One call outside the graph: what is made once is made now.
    source = torch.zeros((task.batch, *task.shape), device="cuda")
    run(source)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = run(source)

    def upload(images: np.ndarray) -> Any:
        return source.copy_(torch.from_numpy(images).pin_memory(), non_blocking=True)

    def compute(images: Any) -> Any:
        graph.replay()
        return logits

    return Runner(compute, upload, lambda result: result.cpu().numpy(), torch.cuda.synchronize)


def onnxruntime(session: Any, given: str) -> Runner:
    import onnxruntime as ort

    binding = session.io_binding()
    result = session.get_outputs()[0].name

    def upload(images: np.ndarray) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0)

    def compute(images: Any) -> Any:
        binding.bind_ortvalue_input(given, images)
        binding.bind_output(result, "cuda", 0)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return Runner(compute, upload, lambda logits: logits.numpy(), binding.synchronize_outputs)


def tensorrt(task: Task) -> Runner:
    """Through Polygraphy's runner, whose call is from host memory to host memory."""
    import inception_engine as ie

    opened = ie.load(task.model, "tensorrt", batches=(task.batch,) * 3)  # the model's types are the precision
    return Runner(opened.run, close=opened.close)
