"""Processes that torchrun starts train one model together: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inception_engine.train.averaging import norms
from inception_engine.train.errors import ConfigError, PeerError

# How PyTorch says, in errors of no type of their own, that another process does not answer.
_LOST = re.compile(r"gloo|nccl|connection (closed|reset)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class World:
    """``rank``: the number of this process among ``size``; the first one writes. ``device``: where it computes.
    ``cpus``: a group of the same processes that does not wait for what a GPU computes."""

    rank: int = 0
    size: int = 1
    device: torch.device
    cpus: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Of each value over all processes, in float64."""
        if self.size == 1:
            return list(values)
        return self.summed(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def summed(self, values: Tensor) -> Tensor:
        """``values``, on the device, with those of all processes added to them in place: the same bits in all."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """What the first process gives, in all of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """The process group that torchrun's environment describes, or this process alone. Raises ConfigError, and PeerError
    where another process ended: it says why, and this one is in the middle of something that both must do."""
    size = _number("WORLD_SIZE", "1")
    chosen = _device(device, _number("LOCAL_RANK", "0") if size > 1 else None)
    if size == 1:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:  # of a variable that is missing, or nobody at the address
        text = " ".join(str(error).split())
        raise ConfigError(f"the processes do not find each other: {text}; start them with torchrun") from None
    try:
        cpus = dist.new_group(backend="gloo") if chosen.type == "cuda" else None
        yield World(rank=dist.get_rank(), size=size, device=chosen, cpus=cpus)
    except RuntimeError as error:
        if not _is_of_a_peer(error):
            raise
        raise PeerError("another process of this training ended, and this one with it") from None
    finally:
        dist.destroy_process_group()


def _is_of_a_peer(error: RuntimeError) -> bool:
    """Whether an error says that a collective operation failed; what is wrong here has other words, and types."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and _LOST.search(str(error)) is not None


def _number(variable: str, default: str) -> int:
    text = os.environ.get(variable, default)
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{variable} is {text!r} in the environment, not a number as torchrun sets it")
    return int(text)


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
