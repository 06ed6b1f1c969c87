"""Processes that torchrun starts train one model together: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inception_engine.train.averaging import norms
from inception_engine.train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class World:
    """``rank``: the number of this process among ``size``; the first one writes. ``device``: where it computes."""

    rank: int = 0
    size: int = 1
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Of each value over all processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def from_first(self, value: Any) -> Any:
        """What the first process gives, in all of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """The process group that torchrun's environment describes, or this process alone. Raises ConfigError."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else None)
    if size == 1:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, device=chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or name == "cuda:":
        raise ConfigError(f"device is {name!r}, not auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(f"device is {name}, and PyTorch {torch.__version__} finds no GPU on this machine")
    if local_rank is not None and number:
        raise ConfigError(f"device is {name}: each of torchrun's processes takes a GPU of its own; give cuda")
    index = int(number or local_rank or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(f"there is no cuda:{index}: this machine has {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", index)


def together(model: nn.Module, world: World) -> nn.Module:
    """The model whose gradients are means over all processes. Raises ConfigError for batch norm between CPUs."""
    if world.size == 1:
        return model
    if norms(model) and world.device.type == "cpu":
        raise ConfigError(
            "batch norm over several processes needs GPUs: PyTorch's SyncBatchNorm does not run on CPUs; train the "
            "variant lrn or plain, or one process"
        )
    ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model), device_ids=ids)


class ShardedDropout(nn.Dropout):
    """Dropout of the global batch: every process draws the mask of all images and takes the rows of its own, every
    ``size``-th. With the same seed, an image meets the same mask whatever the number of processes."""

    def __init__(self, share: float, world: World) -> None:
        super().__init__(share)
        self.world = world

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        whole = x.new_empty((len(x) * self.world.size, *x.shape[1:]))
        mask = whole.bernoulli_(1 - self.p)[self.world.rank :: self.world.size]
        return x * mask.div_(1 - self.p)


def shard_dropout(model: nn.Module, world: World) -> None:
    """Put ``ShardedDropout`` in the place of every dropout; of one process nothing changes."""
    if world.size == 1:
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ShardedDropout(child.p, world))
