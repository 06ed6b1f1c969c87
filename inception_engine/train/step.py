"""One step: forward with the auxiliary heads, loss, backward, update, average."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional as F

from inception_engine.model import Outputs
from inception_engine.network import Preprocess
from inception_engine.preprocess import normalise
from inception_engine.train import averaging, distributed
from inception_engine.train.config import Config
from inception_engine.train.distributed import World
from inception_engine.train.errors import ConfigError
from inception_engine.train.optimiser import learning_rate
from inception_engine.train.state import State

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """``frozen``: layers that stay in evaluation mode. ``steps_per_epoch``: for the schedule."""

    def __init__(
        self,
        state: State,
        config: Config,
        world: World,
        *,
        preprocess: Preprocess,
        frozen: Sequence[nn.Module],
        steps_per_epoch: int,
    ) -> None:
        """Raises ConfigError for what several processes, or this machine, cannot do."""
        self.state, self.config, self.world = state, config, world
        self.preprocess, self.frozen, self.steps_per_epoch = preprocess, frozen, steps_per_epoch
        self.average_begins = averaging.begins(config, steps_per_epoch)
        forward = distributed.together(state.model, world)
        self.forward = _compiled(forward) if config.compile else forward

    def train_mode(self) -> None:
        self.state.model.train()
        for layer in self.frozen:
            layer.eval()

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """``images``: uint8 (batch, height, width, channels), ``labels``: int64 (batch,), those of this process."""
        state, config = self.state, self.config
        rate = learning_rate(config, state.step, self.steps_per_epoch)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(dropout_seed(config.seed, state.step))
        x, labels = self.input(images), labels.to(self.world.device)
        with torch.autocast(
            self.world.device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32"
        ):
            outputs = self.forward(x)
            total, main, logits = losses(outputs, labels, config)
        state.optimiser.zero_grad(set_to_none=True)
        state.scaler.scale(total).backward()
        if config.clip:
            state.scaler.unscale_(state.optimiser)
            nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        state.step += 1
        if state.average is not None and state.step > self.average_begins:
            state.average.update_parameters(state.model)
        with torch.no_grad():
            right = (logits.argmax(1) == labels).sum()
            count = len(labels)
            state.sums += torch.stack(
                [main.double() * count, right.double(), right.new_tensor(count).double()]
            )

    def input(self, images: Tensor) -> Tensor:
        return to_input(images, self.preprocess, self.config, self.world)


def to_input(images: Tensor, preprocess: Preprocess, config: Config, world: World) -> Tensor:
    """Of uint8 (batch, height, width, channels): normalised float32 (batch, channels, height, width) on the device, in
    the memory order asked for."""
    x = normalise(images.to(world.device, non_blocking=True), preprocess)
    return x.contiguous(
        memory_format=torch.channels_last if config.channels_last else torch.contiguous_format
    )


def losses(outputs: Tensor | Outputs, labels: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """(total with the auxiliary heads', the classifier's own, its logits). Cross-entropies, means over the batch."""
    smoothing = config.label_smoothing
    logits = outputs if isinstance(outputs, Tensor) else outputs.logits
    main = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    total = main
    for auxiliary in () if isinstance(outputs, Tensor) else outputs[1:]:
        total = total + config.auxiliary_weight * F.cross_entropy(
            auxiliary, labels, label_smoothing=smoothing
        )
    return total, main, logits


def dropout_seed(seed: int, step: int) -> int:
    """Of torch's generator in a step. A digest, as the generator of the CPU takes 32 bits alone."""
    return xxhash.xxh32(f"{seed} {step}".encode()).intdigest()


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """What it compiles to, for CPUs and GPUs, includes Python's headers; without them the first step would fail."""
    headers = sysconfig.get_path("include")
    if not Path(headers, "Python.h").is_file():
        raise ConfigError(
            f"compile: PyTorch's compiler needs Python.h, and {headers} has none; on Debian and Ubuntu: apt install "
            "python3-dev"
        )
    return torch.compile(forward)
