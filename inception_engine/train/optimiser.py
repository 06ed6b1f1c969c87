"""SGD with momentum and the paper's schedule: the learning rate goes down 4 % every 8 epochs (section 6)."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD

from inception_engine.train.config import Config


def sgd(model: nn.Module, config: Config) -> SGD:
    """Over all parameters that are trained. Weights decay; biases and the scales and shifts of norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return SGD(
        [group for group in groups if group["params"]], lr=config.learning_rate, momentum=config.momentum
    )


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Of the step with this number, from 0 on: a staircase of epochs, below a line from 0 in the warm-up."""
    rate = config.learning_rate * config.decay ** (step // steps_per_epoch // config.decay_epochs)
    warm = config.warm_up * steps_per_epoch
    return rate * min(1.0, (step + 1) / warm) if warm else rate
