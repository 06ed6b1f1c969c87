"""Polyak averaging (section 6: "to create the final model used at inference time"), by torch's ``AveragedModel``.

Batch norm's running statistics are of activations under the weights of one step. Under the average of weights they are
others, which no average of statistics gives: they are measured, on data that runs through the averaged model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inception_engine.train.config import Config


def averaged(model: nn.Module, config: Config) -> AveragedModel | None:
    """A copy of the model that ``update_parameters`` moves towards it, on the same device. None without averaging."""
    if config.average == "none":
        return None
    exponential = config.average == "exponential"
    return AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay) if exponential else None
    )


def begins(config: Config, steps_per_epoch: int) -> int:
    """The number of steps behind which the average begins."""
    assert config.average_from is not None
    return config.average_from * steps_per_epoch


def norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def batch_norm_statistics(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Set running statistics to their means over batches of normalised images (batch, channels, height, width), of
    several processes over all of theirs. The model is left in evaluation mode.

    Norms with frozen scales keep theirs. A model without batch norm runs nothing.
    """
    moving = [norm for norm in norms(model) if norm.weight.requires_grad]
    if not moving:
        model.eval()
        return
    momenta = [norm.momentum for norm in moving]
    model.eval()  # frozen norms, and dropout
    for norm in moving:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in images:
        model(batch)
    model.eval()
    for norm, momentum in zip(moving, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var) if dist.is_initialized() else ():
            assert statistic is not None
            dist.all_reduce(statistic)
            statistic /= dist.get_world_size()
