"""FusedInception: a torch module for one Inception module, one launch on CUDA tensors, plain torch elsewhere.

    model = fuse(model.eval())        # torchvision-shaped, or our own GoogLeNet
    print(model)                      # each FusedInception says what it runs on, and why
    logits = model(images)

What a call does on CUDA tensors: one launch of ``walk`` reads ``x`` where it is and writes the result, a dense tensor
of its own; what lies between is in memory that goes back to torch's allocator at once. No copy and no memset if ``x``
is dense, channels last, its channels a multiple of 16 and its address of 16 bytes, as another module's result is.
Otherwise ``x`` is copied first, in two operations if its channels need padding. If a branch's channels are no multiple
of 16, as in no published GoogLeNet, the result is copied, too, out of its padding.

The computation is the custom op ``inception_engine::inception``: torch.compile and torch.export keep it as one node,
and a program that was exported on a CPU takes the launch when it runs on a GPU. A process that loads such a program
imports this module first. Inference only: it has no gradient.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception_engine.folding import folded
from inception_engine.model import Convolution, Inception

# The convolutions of Fig. 2b in the order of ``widths`` and of the packed weights, and those that are concatenated.
CONVOLUTIONS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
OUTPUTS = ("1x1", "3x3", "5x5", "pool_proj")
DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_LAUNCHES = "inception_engine.module_launch"  # needs Triton; imported by the first launch
BRANCHES = {"branch1", "branch2", "branch3", "branch4"}  # torchvision's names

Block = tuple[nn.Conv2d, nn.BatchNorm2d | None]
M = TypeVar("M", bound=nn.Module)


class FusionError(ValueError):
    """The module is not an Inception module that can be fused, or the input does not fit; the message says why."""


class Backend(NamedTuple):
    """``name``: "triton" or "torch". ``reason``: why."""

    name: str
    reason: str


@cache
def backend_for(device: torch.device, dtype: torch.dtype) -> Backend:
    """What runs an Inception module on tensors like these.

    Tensors on the CPU take the Triton kernel only under TRITON_INTERPRET=1, which is for tests, and slow.
    """
    if dtype not in DTYPES:
        return Backend("torch", f"no kernels for {dtype}")
    if importlib.util.find_spec("triton") is None:
        return Backend("torch", "Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") == "1":
        wanted = device.type == "cpu"
        return Backend("triton" if wanted else "torch", "kernels are interpreted on the CPU")
    if device.type != "cuda" or torch.version.hip:
        return Backend("torch", f"{device.type} is not an NVIDIA GPU")
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return Backend("torch", f"compute capability {major}.{minor} is below 8.0")
    return Backend("triton", "one launch per call")


class FusedInception(nn.Module):
    """Drop-in for an Inception module, for inference; batch norm is folded.

    ``forward``: x (batch, in_channels, height, width) of any memory format, float32, float16 or bfloat16 (others run
    in plain torch) -> (batch, channels, height, width) of x's dtype, channels last in memory. On a GPU the first call
    for a size of x and a batch, rounded up to a power of two, compiles and proves a plan, which copies the weights to
    the host: make it before capturing a CUDA graph, and keep the module, its weights where they are, for as long as
    the graph. Calls of one module on several CUDA streams at once are not safe. No call waits for the GPU: that one
    went wrong is said by ``check``, or when its plan is dropped: those for the sizes used last are kept.

    ``weights``: a buffer with all weights and biases, in the dtype and on the device of the original's. ``widths``:
    output channels of CONVOLUTIONS. ``backend``: see there.
    """

    weights: Tensor

    def __init__(self, module: nn.Module) -> None:
        """From an Inception module of ours or of torchvision's shape, which stays as it is.

        torchvision's shape: ``branch1`` a BasicConv2d (``conv``, ``bn``, ReLU), ``branch2`` and ``branch3`` two in a
        row, ``branch4`` a max pool and one. The third kernel may be 3 x 3 or 5 x 5. Raises FusionError for others.
        """
        super().__init__()
        blocks = _blocks(module)
        convolutions = [convolution for convolution, _ in blocks.values()]
        self.in_channels = convolutions[0].in_channels
        self.widths = tuple(convolution.out_channels for convolution in convolutions)
        self.third_kernel = blocks["5x5"][0].kernel_size[0]
        self.channels = sum(output_widths(self.widths))
        like = convolutions[0].weight
        weights = torch.cat([part for block in blocks.values() for part in _folded(*block)])
        self.register_buffer("weights", weights.to(like.device, like.dtype))

    @property
    def backend(self) -> Backend:
        """What runs for tensors of the device and dtype of ``weights``: name ("triton" or "torch") and reason."""
        return backend_for(self.weights.device, self.weights.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise FusionError(f"x is {tuple(x.shape)}, not (batch, {self.in_channels}, height, width)")
        return inception(x, self.weights, self.widths, self.third_kernel)

    def check(self) -> None:
        """Wait for the calls so far. Raises WaitTimeoutError if a wait inside a launch gave up: results are void."""
        if launches := sys.modules.get(_LAUNCHES):
            launches.check(self.weights)

    def refresh(self) -> None:
        """To call if ``weights`` changed unseen: by ``.data``, or as inference tensors. Raises what ``check`` does."""
        if launches := sys.modules.get(_LAUNCHES):
            launches.refresh(self.weights)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.channels}, widths={self.widths}, third_kernel={self.third_kernel}, "
            f"backend={self.backend.name} ({self.backend.reason})"
        )


def fuse(model: M) -> M:
    """Swap all Inception modules inside ``model``, in place, and return it.

    For a copy: ``fuse(copy.deepcopy(model))``. A fused model runs and cannot be trained, and our GoogLeNet's
    ``to_network`` does not find its layers any more. Raises FusionError, and leaves the model as it was, if it is in
    training mode, holds no Inception module, or holds one that cannot be fused.
    """
    if model.training:
        raise FusionError("the model is in training mode: call eval() first")
    fused: dict[str, FusedInception] = {}
    for name, module in model.named_modules():
        if name and _looks_right(module):
            try:
                fused[name] = FusedInception(module).eval()
            except FusionError as error:
                raise FusionError(f"{name}: {error}") from None
    if not fused:
        raise FusionError(f"{type(model).__name__} holds no Inception modules")
    for name, replacement in fused.items():
        model.set_submodule(name, replacement)
    return model


def _looks_right(module: nn.Module) -> bool:
    return isinstance(module, Inception) or dict(module.named_children()).keys() == BRANCHES


def _blocks(module: nn.Module) -> dict[str, Block]:
    """Convolution and batch norm by name. Raises FusionError."""
    if isinstance(module, Inception):
        layers = [module.layers[name] for name in CONVOLUTIONS]
        pool: nn.Module = module.layers["pool"]
    elif _looks_right(module):
        two, three, four = (_two_parts(module, name) for name in ("branch2", "branch3", "branch4"))
        layers = [module.get_submodule("branch1"), *two, *three, four[1]]
        pool = four[0]
    else:
        raise FusionError(f"{type(module).__name__} is not an Inception module")
    blocks = {name: _block(name, layer) for name, layer in zip(CONVOLUTIONS, layers, strict=True)}
    convolutions = {name: convolution for name, (convolution, _) in blocks.items()}
    source = convolutions["1x1"].in_channels
    reduced = {name: convolutions[f"{name}_reduce"].out_channels for name in ("3x3", "5x5")}
    for name, convolution in convolutions.items():
        sizes = {"3x3": (3,), "5x5": (3, 5)}.get(name, (1,))
        _check(name, convolution, reduced.get(name, source), sizes)
    if not isinstance(pool, nn.MaxPool2d) or [
        _pair(value) for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    ] != [(3, 3), (1, 1), (1, 1), (1, 1)]:
        raise FusionError(f"pool: {pool} is not a max pool of 3 x 3 with stride 1 and padding 1")
    return blocks


def _two_parts(module: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    parts = list(module.get_submodule(name).children())
    if len(parts) != 2:
        raise FusionError(f"{name}: has {len(parts)} parts, not 2")
    return parts[0], parts[1]


def _block(name: str, module: nn.Module) -> Block:
    if isinstance(module, Convolution):
        return module.convolution, module.norm
    parts = dict(module.named_children())
    convolution, norm = parts.get("conv"), parts.get("bn")
    if len(parts) != 2 or not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        raise FusionError(
            f"{name}: {type(module).__name__} is not a convolution `conv` and a batch norm `bn`"
        )
    if norm.running_mean is None:
        raise FusionError(f"{name}: the batch norm keeps no statistics")
    return convolution, norm


def _check(name: str, convolution: nn.Conv2d, in_channels: int, sizes: tuple[int, ...]) -> None:
    size = convolution.kernel_size[0]
    plain = nn.Conv2d(in_channels, convolution.out_channels, size, padding=size // 2, device="meta")
    fields = ("in_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    if size not in sizes or any(getattr(convolution, field) != getattr(plain, field) for field in fields):
        raise FusionError(f"{name}: {convolution} is not the convolution of an Inception module")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias with batch norm multiplied in, flat, float64 on the CPU."""

    def double(value: Tensor | None) -> np.ndarray | None:
        return None if value is None else value.detach().cpu().double().numpy()

    weight, bias = convolution.weight.detach().cpu().double(), double(convolution.bias)
    if norm is None:
        return weight.flatten(), torch.zeros(len(weight)).double() if bias is None else torch.from_numpy(bias)
    mean, variance = double(norm.running_mean), double(norm.running_var)
    assert mean is not None and variance is not None
    scale, shift = double(norm.weight), double(norm.bias)
    results = folded(
        weight.numpy(), bias, mean=mean, variance=variance, epsilon=norm.eps, scale=scale, shift=shift
    )
    return torch.from_numpy(results[0]).flatten(), torch.from_numpy(results[1])


@torch.library.custom_op("inception_engine::inception", mutates_args=())
def inception(x: Tensor, weights: Tensor, widths: Sequence[int], third_kernel: int) -> Tensor:
    """An Inception module: x (batch, in_channels, height, width) -> (batch, channels, height, width), channels last.

    ``weights``: for each of CONVOLUTIONS its weight (out, in, kernel, kernel), then its bias, all flat. ``widths``:
    their output channels. ``third_kernel``: of the branch called 5x5. ``backend_for`` says what it runs on.
    """
    if x.numel() and backend_for(x.device, x.dtype).name == "triton":
        from inception_engine.module_launch import launcher  # needs Triton

        return launcher(x, weights, tuple(widths), third_kernel)(x)
    parts = unpacked(weights.to(x.dtype), x.shape[1], widths, third_kernel)

    def convolution(name: str, x: Tensor) -> Tensor:
        weight, bias = parts[name]
        return F.relu_(F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2))

    x = x.contiguous(memory_format=torch.channels_last)
    results = [
        convolution("1x1", x),
        convolution("3x3", convolution("3x3_reduce", x)),
        convolution("5x5", convolution("5x5_reduce", x)),
        convolution("pool_proj", F.max_pool2d(x, 3, 1, 1)),
    ]
    return torch.cat(results, 1, out=empty_result(x, output_widths(widths)))


@inception.register_fake
def _(x: Tensor, weights: Tensor, widths: Sequence[int], third_kernel: int) -> Tensor:
    return empty_result(x, output_widths(widths))


def output_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Those of ``widths`` that belong to OUTPUTS."""
    return tuple(width for name, width in zip(CONVOLUTIONS, widths, strict=True) if name in OUTPUTS)


def unpacked(
    weights: Tensor, in_channels: int, widths: Sequence[int], third_kernel: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight (out, in, kernel, kernel) and bias (out,) of each convolution by name, as views."""
    inputs = in_channels, in_channels, widths[1], in_channels, widths[3], in_channels
    kernels = 1, 1, 3, 1, third_kernel, 1
    shapes = list(zip(widths, inputs, kernels, kernels, strict=True))
    parts = iter(weights.split([size for shape in shapes for size in (math.prod(shape), shape[0])]))
    return {
        name: (next(parts).view(shape), next(parts)) for name, shape in zip(CONVOLUTIONS, shapes, strict=True)
    }


def empty_result(x: Tensor, branches: Sequence[int]) -> Tensor:
    """Memory for a result of so many channels. Its layout is the same whatever runs: torch.compile relies on it."""
    shape = x.shape[0], sum(branches), *x.shape[2:]
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
