"""FusedInception on a GPU: what it launches there, repeats, graphs, threads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="backend model: torch is not installed")

from torch import nn  # noqa: E402 - needs torch

from inception_engine.fused import FusedInception, fuse  # noqa: E402
from inception_engine.model import GoogLeNet  # noqa: E402
from inception_engine.seeded import googlenet  # noqa: E402
from inception_engine.spec import Spec  # noqa: E402
from tests.interpreted_fused import found  # noqa: E402
from tests.tolerances import TOLERANCES, error  # noqa: E402
from tests.torch_modules import WIDTHS, TorchvisionInception, trained  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="backend cuda: there is no CUDA device")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    """And no TensorFloat-32 in the original, whose error is that of half precision."""
    torch.manual_seed(0)
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        yield
    torch.backends.cudnn.allow_tf32 = kept


def original() -> GoogLeNet:
    """With seeded weights: those of a new model let activations grow beyond what half precision holds."""
    spec = Spec(norm="batch", classes=7)
    model = GoogLeNet(spec)
    model.load_network(googlenet(seed=0, spec=spec))
    return model.eval()


def on_device(call: Callable[[], object]) -> list[str]:
    """Kernels, copies and memsets of a call, from a profiler trace."""
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    return [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]


def check_all(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FusedInception):
            module.check()


@pytest.mark.parity
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)
def test_nine_launches_on_a_gpu(dtype, request) -> None:
    """The logits are those of the original. A trace holds one kernel of ours per module, and of the modules alone,
    each on what it was given in the network, nothing else at all."""
    unfused = original().cuda()
    model: Any = fuse(copy.deepcopy(unfused)).to(dtype)
    model = model.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 224, 224, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    assert found(model, unfused, x) <= TOLERANCES[request.node.callspec.id].logits
    calls = []
    hooks = [
        module.register_forward_hook(lambda module, given, _: calls.append((module, given[0])))
        for module in model.modules()
        if isinstance(module, FusedInception)
    ]
    assert on_device(lambda: model(x)).count("walk") == 9
    for hook in hooks:
        hook.remove()
    assert on_device(lambda: [module(given) for module, given in calls]) == ["walk"] * 9
    check_all(model)


def test_repeats_give_the_same_bits_on_a_gpu() -> None:
    fused = FusedInception(trained(TorchvisionInception(192, (64, 96, 128, 16, 32, 32)))).cuda().half()
    x = torch.randn(4, 192, 28, 28, device="cuda").half().contiguous(memory_format=torch.channels_last)
    first = fused(x)
    differ = torch.stack([(fused(x) != first).any() for _ in range(1000)])
    fused.check()
    assert not differ.any() and first.isfinite().all()


def test_a_graph_repeats_a_fused_network_on_a_gpu() -> None:
    model = fuse(original()).cuda().half()
    static, others = (torch.randn(2, 3, 224, 224, device="cuda").half() for _ in range(2))
    images = static.clone()
    expected = model(images), model(others)  # plans are made outside of the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = model(static)
    first: list[Any] = []
    for i in range(100):
        static.copy_(others if i % 2 else images)
        graph.replay()
        if i < 2:
            first.append(logits.clone())
            distance = error(first[i].float().cpu().numpy(), expected[i].float().cpu().numpy())
            assert distance <= TOLERANCES["fp16"].logits
        assert torch.equal(logits, first[i % 2])
    assert not torch.equal(*first)
    check_all(model)


def test_two_threads_with_a_module_and_a_stream_each_on_a_gpu() -> None:
    def work(seed: int) -> bool:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            fused, x = modules[seed], inputs[seed]
            same = [torch.equal(fused(x), expected[seed]) for _ in range(200)]
            fused.check()
        return all(same)

    modules = [FusedInception(trained(TorchvisionInception(192, WIDTHS))).cuda() for _ in range(2)]
    inputs = [torch.randn(2, 192, 28, 28, device="cuda") for _ in range(2)]
    expected = [fused(x) for fused, x in zip(modules, inputs, strict=True)]
    torch.cuda.synchronize()
    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(work, range(2)))
