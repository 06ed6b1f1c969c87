"""FusedInception on Triton's interpreter: cases that give errors by dtype or what was seen, each with NaN in all fresh
memory.

For ``tests.kernels.interpreted.submit``: TRITON_INTERPRET has to be set before Triton is imported.
"""

from __future__ import annotations

import copy
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from inception_engine.fused import DTYPES, FusedInception, fuse
from inception_engine.model import GoogLeNet
from inception_engine.spec import Spec
from tests.operations import operations
from tests.tolerances import TOLERANCES, error
from tests.torch_modules import (
    RAGGED,
    WIDTHS,
    TorchvisionInception,
    TorchvisionNetwork,
    small_googlenet,
    trained,
)

Case = Callable[[], dict[str, Any]]


def found(fused: nn.Module, original: nn.Module, x: Tensor) -> float:
    """max|d| / max|ref| against the original in float64."""
    expected = copy.deepcopy(original).double()(x.double())
    return error(fused(x).double().cpu().numpy(), expected.cpu().numpy())


def module(
    x: Tensor, widths: tuple[int, int, int, int, int, int] = WIDTHS, third: int = 3
) -> dict[str, float]:
    original = trained(TorchvisionInception(x.shape[1], widths, third))
    fused = FusedInception(original)
    y = fused(x)
    assert y.stride() == torch.empty(y.shape, memory_format=torch.channels_last).stride()
    return {DTYPES[x.dtype]: found(fused, original, x)}


def calls(make: Callable[[], Tensor]) -> list[str]:
    """What the calls of fused modules inside ``make`` do on the device."""
    from inception_engine.module_launch import Launcher

    with operations(Launcher, "__call__") as seen:
        make()
    return seen


def layouts() -> dict[str, list[str]]:
    """By how x lies in memory: what a call does, its result checked."""
    original = trained(TorchvisionInception(32, WIDTHS))
    fused = FusedInception(original)
    dense = torch.randn(2, 32, 3, 5).contiguous(memory_format=torch.channels_last)
    wide = torch.randn(2, 48, 3, 5).contiguous(memory_format=torch.channels_last)
    unaligned = torch.randn(dense.numel() + 1)[1:].view(2, 3, 5, 32).permute(0, 3, 1, 2)
    inputs = {
        "dense": dense,
        "one pixel": dense[:, :, 1:2, 1:2].contiguous(),
        "the second image": dense[1:],
        "nchw": dense.contiguous(),
        "a slice of channels": wide[:, 16:],
        "every other line": dense[:, :, ::2],
        "unaligned": unaligned,
    }
    result = {}
    for name, x in inputs.items():
        before = x.clone()
        result[name] = calls(lambda x=x: fused(x))  # type: ignore[misc]
        assert found(fused, original, x) <= TOLERANCES["fp32"].layer, name
        assert torch.equal(x, before)
    ragged = FusedInception(trained(TorchvisionInception(21, RAGGED)))
    result["ragged"] = calls(lambda: ragged(torch.randn(1, 21, 2, 2)))
    return result


def chain() -> dict[str, Any]:
    """The nine modules of our network, as wide as published and tiny in pixels, one behind the other's pool."""
    model = fuse(trained(GoogLeNet(Spec(norm="none", classes=7, input_size=32))))
    modules = [m for m in model.modules() if isinstance(m, FusedInception)]
    x = torch.randn(1, modules[0].in_channels, 2, 2).contiguous(memory_format=torch.channels_last)

    def run(x: Tensor = x) -> Tensor:
        for i, each in enumerate(modules):
            x = each(x)
            assert x.untyped_storage().nbytes() == 4 * x.numel(), "the result keeps more memory than its own"
            x = nn.functional.max_pool2d(x, 3, 1, 1) if i in (1, 6) else x
        return x

    return {"modules": len(modules), "operations": calls(run)}


def batches() -> dict[str, Any]:
    """Plans that were made for batches one after the other; whether their results are those of exact plans."""
    from inception_engine import module_launch

    original = trained(TorchvisionInception(16, WIDTHS))
    images = torch.randn(4, 16, 3, 3)
    fused, exact = FusedInception(original), FusedInception(original)
    made = []
    results = []
    for batch in (3, 4, 3, 2, 1):
        results.append(fused(images[:batch]))
        made.append(len(module_launch._compiled[fused.weights].launchers))
    with mock.patch.object(module_launch, "planned", lambda batch: batch):
        same = [torch.equal(result, exact(images[: len(result)])) for result in results]
    launchers = module_launch._compiled[fused.weights].launchers.values()
    return {
        "made": made,
        "same": same,
        "weights": len({launcher._weights.data_ptr() for launcher in launchers}),
        "kept": sorted(launcher.max_batch for launcher in launchers),
    }


def lifetimes() -> dict[str, Any]:
    """Launchers that go and launchers that stay."""
    from inception_engine import module_launch
    from inception_engine.errors import WaitTimeoutError

    fused = FusedInception(trained(TorchvisionInception(16, WIDTHS)))
    x, other = torch.randn(1, 16, 1, 1), torch.randn(1, 16, 1, 2)
    result: dict[str, Any] = {}

    def raised(call: Callable[[], object]) -> bool:
        try:
            call()
        except WaitTimeoutError:
            return True
        return False

    def newest() -> module_launch.Launcher:
        return list(module_launch._compiled[fused.weights].launchers.values())[-1]

    with mock.patch.object(module_launch, "PLANS_KEPT", 1):
        before = fused(x)
        newest()._state[0] = 1  # as if a wait had given up
        result["said by check"] = raised(fused.check)
        result["said once"] = not raised(fused.check)
        newest()._state[0] = 1
        result["said when it is dropped"] = raised(lambda: fused(other))
        result["and the next call runs"] = not raised(lambda: fused(other))
        captured = newest()
        captured.captured = True
        fused(x)
    compiled = module_launch._compiled[fused.weights]
    result["kept"] = len(compiled.launchers) == 1
    result["captured stay"] = compiled.captured == [captured]
    captured._state[0] = 1
    result["and are checked"] = raised(fused.check)
    fused.weights.data.mul_(2)
    result["data is not seen"] = torch.equal(before, fused(x))
    fused.refresh()
    result["unless refreshed"] = not torch.equal(before, fused(x))
    result["captured stay then, too"] = compiled.captured == [captured]
    gone = weakref.ref(captured)
    weights = weakref.ref(fused.weights)
    fused.weights = torch.zeros(0)
    del captured, compiled
    gc.collect()
    result["all goes with the weights"] = gone() is None and weights() is None
    return result


def ours() -> dict[str, float]:
    original = small_googlenet().trunk["4b"]
    fused = FusedInception(original)
    return {"fp32": found(fused, original, torch.randn(2, fused.in_channels, 5, 7))}


def network() -> dict[str, float]:
    model = trained(TorchvisionNetwork())
    return {"fp32": found(fuse(copy.deepcopy(model)), model, torch.randn(3, 3, 6, 6))}


def exported() -> dict[str, float]:
    """A program exported with the fake alone takes the launch when it runs; so does a compiled one."""
    original = trained(TorchvisionInception(16, WIDTHS))
    fused, x = FusedInception(original).eval(), torch.randn(1, 16, 4, 4)
    program = torch.export.export(fused, (x,)).module()
    compiled: Any = torch.compile(fused, backend="aot_eager", fullgraph=True)
    return {"fp32": max(found(program, original, x), found(compiled, original, x))}


def changed() -> dict[str, float]:
    """Weights that are changed in place are compiled anew; the result of before is no longer right."""
    original, other = (trained(TorchvisionInception(16, WIDTHS)) for _ in range(2))
    fused, x = FusedInception(original), torch.randn(1, 16, 3, 3)
    before = found(fused, original, x)
    fused.load_state_dict(FusedInception(other).state_dict())
    return {"fp32": max(before, found(fused, other, x)), "control": found(fused, original, x)}


def shapes() -> dict[str, float]:
    """One module, one shape after the other; results stay as they are when the next are computed."""
    original = trained(TorchvisionInception(16, WIDTHS))
    fused = FusedInception(original)
    images = [torch.randn(batch, 16, size, 2) for batch, size in ((1, 2), (2, 3), (1, 2))]
    results = [fused(x) for x in images]
    copies = [result.clone() for result in results]
    errors = [found(fused, original, x) for x in images]
    assert all(torch.equal(a, b) for a, b in zip(results, copies, strict=True))
    return {"fp32": max(errors)}


CASES: dict[str, Case] = {
    "module": lambda: module(torch.randn(2, 16, 9, 9)),
    "fp16, channels last": lambda: module(
        torch.randn(2, 32, 5, 7).half().contiguous(memory_format=torch.channels_last), third=5
    ),
    "bf16, one pixel": lambda: module(torch.randn(3, 16, 1, 1).bfloat16()),
    "a slice of a tensor": lambda: module(torch.randn(2, 40, 5, 7)[:, 3:35:2, :, 1:]),
    "odd channels": lambda: module(torch.randn(2, 21, 5, 7), RAGGED, third=5),
    "layouts": layouts,
    "chain": chain,
    "batches": batches,
    "lifetimes": lifetimes,
    "ours": ours,
    "torchvision's network": network,
    "exported and compiled": exported,
    "weights changed": changed,
    "several shapes": shapes,
}


def run(case: str) -> dict[str, Any]:
    assert os.environ["TRITON_INTERPRET"] == "1"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # then torch.empty fills with NaN
    assert torch.empty(8).isnan().all()
    try:
        with torch.no_grad():
            return CASES[case]()
    finally:
        torch.use_deterministic_algorithms(False)
