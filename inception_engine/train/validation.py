"""Validation: one centre crop of each held-out image, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inception_engine.train.distributed import World
from inception_engine.train.loader import Batch

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Scores:
    """``top1``, ``top5``: shares of ``images`` in percent. ``loss``: mean cross-entropy, without label smoothing."""

    loss: float
    top1: float
    top5: float
    images: int


@torch.no_grad()
def validate(
    model: nn.Module, batches: Iterator[Batch], to_input: Callable[[Tensor], Tensor], world: World
) -> Scores:
    """The model, which is left in evaluation mode, on the share of this process; scores of all of them.

    ``to_input``: uint8 images to the network's input.
    """
    model.eval()
    loss = right = among = images = 0.0
    for batch in batches:
        if not len(batch.labels):  # all its images were unreadable
            continue
        labels = batch.labels.to(world.device)
        logits = model(to_input(batch.images))
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices == labels[:, None]
        top &= ~logits.isnan().any(1, keepdim=True)  # to topk, NaN is the largest
        right += top[:, 0].sum().item()
        among += top.sum().item()
        images += len(labels)
    loss, right, among, images = world.sums([loss, right, among, images])
    count = max(images, 1)
    return Scores(loss=loss / count, top1=100 * right / count, top5=100 * among / count, images=int(images))
