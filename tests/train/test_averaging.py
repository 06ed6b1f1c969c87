"""The average is the mean of the weights, and its batch-norm statistics are those of its own activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inception_engine.model import Convolution, GoogLeNet
from inception_engine.spec import Spec
from inception_engine.train.averaging import averaged, batch_norm_statistics, norms
from inception_engine.train.config import Config

SMALL = Spec(width=0.125, classes=3, input_size=32, norm="batch")


@pytest.fixture
def model() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(SMALL)


def norms_of(model: Any) -> list[Any]:
    return [*norms(model.trunk)]


def norm_of(model: GoogLeNet, layer: str) -> Any:
    convolution = model.at(layer)
    assert isinstance(convolution, Convolution)
    return convolution.norm


def wandered(model: GoogLeNet, average, steps: int) -> list[dict[str, torch.Tensor]]:
    """The parameters behind each of some random steps, of each of which the average hears."""
    path = []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        average.update_parameters(model)
        path.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    return path


def test_polyak_is_the_mean(model: GoogLeNet) -> None:
    average = averaged(model, Config())
    assert average is not None
    path = wandered(model, average, 4)
    for name, parameter in average.module.named_parameters():
        torch.testing.assert_close(parameter, torch.stack([at[name] for at in path]).mean(0))


def test_exponential(model: GoogLeNet) -> None:
    average = averaged(model, Config(average="exponential", average_decay=0.75))
    assert average is not None
    path = wandered(model, average, 3)
    for name, parameter in average.module.named_parameters():
        expected = 0.75 * (0.75 * path[0][name] + 0.25 * path[1][name]) + 0.25 * path[2][name]
        torch.testing.assert_close(parameter, expected)


def test_none(model: GoogLeNet) -> None:
    assert averaged(model, Config(average="none")) is None


def test_statistics_are_of_the_activations_under_these_weights(model: GoogLeNet) -> None:
    """By hooks: the mean over batches of each norm's input. The model's own statistics are others."""
    average = averaged(model, Config())
    assert average is not None
    wandered(model, average, 3)
    module: Any = average.module
    batches = [torch.randn(6, 3, 32, 32) for _ in range(3)]
    before = [norm.running_mean.clone() for norm in norms_of(module)]
    batch_norm_statistics(module, iter(batches))
    assert not module.training and all(not norm.training and norm.momentum == 0.1 for norm in norms(module))
    seen: dict[int, list[torch.Tensor]] = {}
    for norm in norms_of(module):
        norm.register_forward_pre_hook(lambda norm, x: seen.setdefault(id(norm), []).append(x[0].detach()))
        norm.train()  # the batch's own statistics, as when they were measured
        norm.momentum = 0.0
    measured = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms_of(module)]
    with torch.no_grad():
        for batch in batches:
            module(batch)
    moved = 0
    for norm, (mean, variance), old in zip(norms_of(module), measured, before, strict=True):
        inputs = seen[id(norm)]
        torch.testing.assert_close(mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
        torch.testing.assert_close(variance, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
        moved += not torch.allclose(old, mean, rtol=0.1)
    assert moved > len(measured) / 2


def test_measuring_draws_no_random_numbers_and_leaves_frozen_norms(model: GoogLeNet) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    model.trunk["conv1"].requires_grad_(False)
    before = norm_of(model, "conv1").running_mean.clone()
    batch_norm_statistics(
        model, iter([torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))])
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(norm_of(model, "conv1").running_mean, before)
    assert norm_of(model, "conv2").running_mean.abs().max() > 0


def test_a_model_without_batch_norm_runs_nothing() -> None:
    model = GoogLeNet(Spec(width=0.125, classes=3, input_size=32, norm="none"))

    def images():
        raise AssertionError("asked for images")
        yield

    batch_norm_statistics(model, images())
    assert not model.training
