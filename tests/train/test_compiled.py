"""`compile: true` by PyTorch's own compiler: kernels that g++ compiles, forward and backward, in the trainer's step.

A network of two layers stands in for GoogLeNet, which takes minutes to compile.
"""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from inception_engine.network import Preprocess
from inception_engine.train.config import Config
from inception_engine.train.distributed import World
from inception_engine.train.errors import ConfigError
from inception_engine.train.optimiser import sgd
from inception_engine.train.state import State, sums
from inception_engine.train.step import Stepper
from tests.tolerances import TRAINING

STEPS = 4


class Small(nn.Module):
    """uint8 images of 8 x 8, normalised, to four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.convolution(x).relu().mean((2, 3)))


def losses(compiled: bool) -> list[float]:
    """Of each of a few steps."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    config = Config(compile=compiled, learning_rate=0.1, average="none", clip=1.0)
    model = Small()
    state = State(
        model=model,  # type: ignore[arg-type]
        optimiser=sgd(model, config),
        average=None,
        scaler=GradScaler("cpu", enabled=False),
        sums=sums(device),
    )
    stepper = Stepper(
        state, config, World(device=device), preprocess=Preprocess(), frozen=[], steps_per_epoch=STEPS
    )
    stepper.train_mode()
    found = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        images = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8, generator=generator)
        state.sums.zero_()
        stepper(images, torch.arange(8) % 4)
        found.append(state.sums[0].item() / 8)
    assert state.step == STEPS
    return found


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile: g++ is not there")
@pytest.mark.skipif(
    not Path(sysconfig.get_path("include"), "Python.h").is_file(),
    reason="torch.compile: Python.h is not there",
)
def test_compiled_it_has_the_losses_that_it_has_uncompiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what it compiles is compiled here
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    plain, compiled = losses(False), losses(True)
    assert len(set(plain)) == STEPS
    for a, b in zip(plain, compiled, strict=True):
        assert abs(a - b) <= TRAINING * a
    assert list(tmp_path.rglob("*.so"))  # it was


def test_without_the_headers_of_python_it_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(ConfigError, match=f"needs Python.h, and {tmp_path} has none"):
        losses(True)
