from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernels.interpreted import submit
from tests.tolerances import TOLERANCES, error

torch = pytest.importorskip("torch", reason="backend model: torch is not installed")

from torch import nn  # noqa: E402 - needs torch

from inception_engine.compiler import compile as compile_network  # noqa: E402
from inception_engine.compiler.plan import Plan  # noqa: E402
from inception_engine.compiler.targets import CUDA  # noqa: E402
from inception_engine.fused import FusedInception, FusionError, backend_for, fuse, unpacked  # noqa: E402
from inception_engine.model import GoogLeNet  # noqa: E402
from inception_engine.module_network import arrange, network  # noqa: E402
from tests import interpreted_fused  # noqa: E402
from tests.torch_modules import (  # noqa: E402
    RAGGED,
    WIDTHS,
    TorchvisionInception,
    TorchvisionNetwork,
    small_googlenet,
    trained,
)

OP = torch.ops.inception_engine.inception.default
MODULES: dict[str, Callable[[], nn.Module]] = {
    "torchvision": lambda: trained(TorchvisionInception(24, WIDTHS)),
    "torchvision, 5x5": lambda: trained(TorchvisionInception(21, RAGGED, third=5)),
    "ours": lambda: small_googlenet(norm="none").trunk["3b"],
    "ours, batch norm": lambda: small_googlenet().trunk["4b"],
}


@pytest.fixture(autouse=True)
def _quiet():
    """One thread, for layers this small lose more by threads than they gain; no gradients; one seed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def found(fused, original, x) -> float:
    """max|d| / max|ref| against the original in float64."""
    expected = copy.deepcopy(original).double()(x.double())
    return error(fused(x).double().cpu().numpy(), expected.cpu().numpy())


@pytest.mark.parity
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
def test_drop_in(make, layout) -> None:
    original = make()
    before = copy.deepcopy(original.state_dict())
    fused = FusedInception(original)
    x = torch.randn(2, fused.in_channels, 9, 6).contiguous(memory_format=layout)
    assert found(fused, original, x) <= TOLERANCES["fp32"].layer
    y = fused(x)
    assert y.shape == original(x).shape == (2, fused.channels, 9, 6)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())


def test_parity_can_fail() -> None:
    """The folding of one batch norm with another epsilon, or one weight, is seen."""
    original: Any = trained(TorchvisionInception(24, WIDTHS))
    x = torch.randn(2, 24, 5, 7)
    fused = FusedInception(original)
    fused.weights[fused.weights.abs().argmax()] *= 1.05
    assert found(fused, original, x) > TOLERANCES["fp32"].layer
    fused = FusedInception(original)
    original.branch3[1].bn.eps = 1e-5
    assert found(fused, original, x) > TOLERANCES["fp32"].layer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes_run_in_the_dtype_of_the_input(dtype) -> None:
    original = trained(TorchvisionInception(24, WIDTHS))
    fused, x = FusedInception(original), torch.randn(1, 24, 4, 4)
    y = fused(x.to(dtype))
    assert y.dtype == dtype
    assert error(y.float().numpy(), original(x).numpy()) < 0.03
    assert FusedInception(copy.deepcopy(original).to(dtype)).weights.dtype == dtype


def test_no_images() -> None:
    assert FusedInception(trained(TorchvisionInception(24, WIDTHS)))(torch.empty(0, 24, 3, 3)).shape == (
        0,
        80,
        3,
        3,
    )


def test_it_says_what_it_runs_on() -> None:
    model = fuse(small_googlenet())
    module = model.trunk["3a"]
    assert isinstance(module, FusedInception)
    assert module.backend == ("torch", "cpu is not an NVIDIA GPU")
    assert str(model).count("backend=torch (cpu is not an NVIDIA GPU)") == 9
    assert backend_for(torch.device("cpu"), torch.float64).reason == "no kernels for torch.float64"


@pytest.mark.parametrize(
    "make", [small_googlenet, lambda: trained(TorchvisionNetwork())], ids=["ours", "torchvision"]
)
@pytest.mark.parity
def test_fuse_swaps_in_place(make) -> None:
    model = make()
    original = copy.deepcopy(model)
    assert fuse(model) is model
    swapped = [name for name, module in model.named_modules() if isinstance(module, FusedInception)]
    modules = {"ours": [f"trunk.{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]}
    assert swapped == modules.get(
        "ours" if isinstance(model, GoogLeNet) else "", ["inception3a", "inception4a"]
    )
    assert not model.training
    assert not any(module.training for module in model.modules())
    x = torch.randn(2, 3, 32, 32)
    assert found(model, original, x) <= TOLERANCES["fp32"].logits
    again = fuse(copy.deepcopy(original))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))


NOT_THE_CONVOLUTION = "Conv2d.* is not the convolution"


@pytest.mark.parametrize(
    ("path", "replacement", "message"),
    [
        ("branch2.1.conv", nn.Conv2d(24, 32, 3, 2, 1), f"3x3: {NOT_THE_CONVOLUTION}"),
        ("branch2.1.conv", nn.Conv2d(24, 32, 3, padding=1, padding_mode="reflect"), NOT_THE_CONVOLUTION),
        ("branch3.1.conv", nn.Conv2d(8, 16, 7, padding=3), f"5x5: {NOT_THE_CONVOLUTION}"),
        ("branch3.1.conv", nn.Conv2d(8, 16, 5, padding=1), NOT_THE_CONVOLUTION),
        ("branch3.1.conv", nn.Conv2d(8, 16, 3, padding=1, groups=8), NOT_THE_CONVOLUTION),
        ("branch3.1.conv", nn.Conv2d(8, 16, 3, padding=2, dilation=2), NOT_THE_CONVOLUTION),
        ("branch1.conv", nn.Conv2d(25, 16, 1), NOT_THE_CONVOLUTION),
        ("branch4.0", nn.AvgPool2d(3, 1, 1), "pool: AvgPool2d.* is not a max pool"),
        ("branch4.0", nn.MaxPool2d(5, 1, 2), "pool: MaxPool2d.* is not a max pool"),
        ("branch3", nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), "branch3: has 3 parts"),
        ("branch1", nn.Sequential(nn.Conv2d(80, 16, 1)), "1x1: Sequential is not a convolution `conv`"),
        ("branch1.bn", nn.BatchNorm2d(16, track_running_stats=False), "1x1: .* keeps no statistics"),
    ],
)
def test_other_modules_are_refused_and_left_alone(path, replacement, message) -> None:
    model = trained(TorchvisionNetwork())
    model.set_submodule(f"inception4a.{path}", replacement.eval())
    with pytest.raises(FusionError, match=f"^inception4a: .*{message}"):
        fuse(model)
    assert not any(isinstance(module, FusedInception) for module in model.modules())


def test_what_cannot_be_fused_is_said() -> None:
    with pytest.raises(FusionError, match="training mode"):
        fuse(TorchvisionNetwork())
    with pytest.raises(FusionError, match="Sequential holds no Inception modules"):
        fuse(nn.Sequential(nn.Conv2d(3, 4, 1)).eval())
    with pytest.raises(FusionError, match="Conv2d is not an Inception module"):
        FusedInception(nn.Conv2d(3, 4, 1))
    fused = FusedInception(trained(TorchvisionInception(24, WIDTHS)))
    for shape in ((1, 23, 5, 5), (24, 5, 5)):
        with pytest.raises(FusionError, match=r"not \(batch, 24, height, width\)"):
            fused(torch.zeros(shape))


def test_the_op_keeps_its_promises() -> None:
    """Schema, no aliasing, and a fake that agrees in shape, dtype and strides, also for sizes that vary."""
    fused = FusedInception(trained(TorchvisionInception(21, RAGGED)))
    for x in (torch.randn(2, 21, 5, 7), torch.randn(1, 21, 1, 1)):
        torch.library.opcheck(OP, (x, fused.weights, fused.widths, fused.third_kernel))


def test_there_is_no_gradient() -> None:
    fused = FusedInception(trained(TorchvisionInception(24, WIDTHS)))
    assert not list(fused.parameters())
    with torch.enable_grad(), pytest.raises(RuntimeError, match="autograd"):
        fused(torch.randn(1, 24, 3, 3, requires_grad=True)).sum().backward()


def test_export_keeps_one_node_per_module() -> None:
    model = fuse(small_googlenet())
    x = torch.randn(2, 3, 32, 32)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))
    assert sum(node.target is OP for node in program.graph.nodes) == 9
    assert {f"trunk.{name}.weights" for name in ("3a", "5b")} <= program.state_dict.keys()
    for images in (x, torch.randn(5, 3, 32, 32)):
        assert torch.equal(program.module()(images), model(images))


def test_compile_has_no_graph_breaks() -> None:
    model = fuse(trained(TorchvisionNetwork()))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 8, 8)
    assert error(compiled(x).numpy(), model(x).numpy()) <= TOLERANCES["fp32"].logits


@pytest.fixture(scope="module")
def interpreted() -> Callable[[str], dict[str, Any]]:
    """What a case gives, from a process in which Triton interprets its kernels on the CPU."""
    pytest.importorskip("triton", reason="backend triton: triton is not installed")
    futures = {case: submit(interpreted_fused.run, case) for case in interpreted_fused.CASES}
    return lambda case: futures[case].result()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ("module", "fp32"),
        ("fp16, channels last", "fp16"),
        ("bf16, one pixel", "bf16"),
        ("a slice of a tensor", "fp32"),
        ("odd channels", "fp32"),
        ("ours", "fp32"),
        ("torchvision's network", "fp32"),
        ("exported and compiled", "fp32"),
        ("weights changed", "fp32"),
        ("several shapes", "fp32"),
    ],
)
def test_launch_on_the_interpreter(interpreted, case, dtype) -> None:
    assert interpreted(case)[dtype] <= TOLERANCES[dtype].layer


def test_a_call_is_one_launch_on_the_interpreter(interpreted) -> None:
    """And nothing else for x as a module gives it; otherwise x is copied."""
    copied = ["copy_", "walk"]
    assert interpreted("layouts") == {
        "dense": ["walk"],
        "one pixel": ["walk"],
        "the second image": ["walk"],
        "nchw": copied,
        "a slice of channels": copied,
        "every other line": copied,
        "unaligned": copied,
        "ragged": ["copy_", "zero_", "walk", "cat"],
    }


def test_nine_launches_on_the_interpreter(interpreted) -> None:
    assert interpreted("chain") == {"modules": 9, "operations": ["walk"] * 9}


def test_a_plan_serves_several_batches_on_the_interpreter(interpreted) -> None:
    assert interpreted("batches") == {
        "made": [1, 1, 1, 2, 3],
        "same": [True] * 5,
        "weights": 1,
        "kept": [1, 2, 4],
    }


def test_lifetimes_on_the_interpreter(interpreted) -> None:
    seen = interpreted("lifetimes")
    assert len(seen) == 11 and all(seen.values()), seen


def test_memory_of_a_call_is_what_lies_between() -> None:
    """The pooled input and the reduces; x and the result live elsewhere. Such a plan is still proven."""
    fused = FusedInception(trained(TorchvisionInception(48, WIDTHS)))
    x = torch.zeros(3, 48, 7, 5)
    alone = network(x, unpacked(fused.weights, 48, fused.widths, 3))
    plan = compile_network(alone, targets=(CUDA,), max_batch=4, dtype="fp16")
    before = plan.programs[0].buffers.copy()
    source, size = arrange(plan)
    (program,) = Plan.from_bytes(plan.to_bytes()).programs
    assert size == 4 * 7 * 5 * 2 * (48 + 32 + 16)  # reduces to 24 and 8 channels, filled up
    assert program.buffers["pitch"].tolist() == before["pitch"].tolist()
    assert program.buffers[source]["pitch"] == 48 and program.buffers[source]["offset"] == size


def test_weights_that_changed_are_seen_on_the_interpreter(interpreted) -> None:
    assert interpreted("weights changed")["control"] > TOLERANCES["fp32"].layer
