"""Everything that a step changes, to and from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from inception_engine.model import GoogLeNet
from inception_engine.train.checkpoint import Checkpoint
from inception_engine.train.errors import CheckpointError


@dataclass(eq=False, kw_only=True)
class State:
    """``step``: steps done. ``sums``: of the loss, of right answers and of images, since the last row of the log;
    float64 (3,). Random numbers are none of it: each step draws from a seed of its own."""

    model: GoogLeNet
    optimiser: SGD
    average: AveragedModel | None
    scaler: GradScaler
    sums: Tensor
    step: int = 0

    def checkpoint(self, about: Mapping[str, Any]) -> Checkpoint:
        """``about``: what else the document is to hold."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        if self.average is not None and self.average.n_averaged:
            # Its buffers are those of the model, until batch-norm statistics are measured.
            tensors |= {f"average.{name}": parameter for name, parameter in _averages(self.average).items()}
            tensors["average"] = self.average.n_averaged
        document = {
            **about, "step": self.step, "sums": self.sums.tolist(), "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        return Checkpoint(tensors=tensors, document=document)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError for one of another model."""
        try:
            self.model.load_state_dict(checkpoint.part("model"))
            momenta = checkpoint.part("momentum")
            for name, parameter in self.model.named_parameters():
                if name in momenta:
                    momentum = torch.empty_like(parameter)
                    self.optimiser.state[parameter]["momentum_buffer"] = momentum.copy_(momenta[name])
            if self.average is not None:
                self.average.module.load_state_dict(self.model.state_dict())
                averages = checkpoint.part("average")
                if "average" in checkpoint.tensors:
                    self.average.n_averaged.copy_(checkpoint.tensors["average"])
                    for name, own in _averages(self.average).items():
                        own.copy_(averages[name])
            self.scaler.load_state_dict(checkpoint.document["scaler"])
            self.sums.copy_(torch.tensor(checkpoint.document["sums"], dtype=torch.float64))
            self.step = checkpoint.document["step"]
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint is of another model: {text}") from None


def _averages(average: AveragedModel) -> dict[str, Tensor]:
    return dict(average.module.named_parameters())


def sums(device: torch.device) -> Tensor:
    return torch.zeros(3, dtype=torch.float64, device=device)
