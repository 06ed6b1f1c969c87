"""The schedule, the groups, and dropout that is keyed by the place in the global batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inception_engine.model import GoogLeNet
from inception_engine.spec import Spec
from inception_engine.train.config import Config
from inception_engine.train.distributed import ShardedDropout, World, shard_dropout
from inception_engine.train.optimiser import learning_rate, sgd
from inception_engine.train.step import dropout_seed, losses

SMALL = Spec(width=0.125, classes=3, input_size=32, norm="batch")


def test_four_percent_less_every_eight_epochs() -> None:
    config = Config(learning_rate=0.01)
    rates = [learning_rate(config, step, 10) for step in range(250)]
    assert rates[:80] == [0.01] * 80
    assert rates[80:160] == pytest.approx([0.0096] * 80)
    assert rates[240] == pytest.approx(0.01 * 0.96**3)


def test_warm_up_is_a_line_from_zero() -> None:
    config = Config(learning_rate=0.1, warm_up=0.5)
    rates = [learning_rate(config, step, 10) for step in range(7)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1])


def test_weights_decay_and_nothing_else() -> None:
    model = GoogLeNet(SMALL)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, rest = sgd(model, Config(weight_decay=0.5)).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)
    assert decayed["momentum"] == rest["momentum"] == 0.9
    assert all(
        names[id(p)].endswith(("convolution.weight", "fc.weight", "hidden.weight")) for p in decayed["params"]
    )
    assert all(names[id(p)].endswith(("bias", "norm.weight")) for p in rest["params"])
    assert len(decayed["params"]) + len(rest["params"]) == len(names)


def test_auxiliary_heads_count_three_tenths() -> None:
    torch.manual_seed(0)
    outputs = GoogLeNet(SMALL).train()(torch.randn(4, 3, 32, 32))
    labels = torch.tensor([0, 1, 2, 0])
    main, first, second = (nn.functional.cross_entropy(logits, labels) for logits in outputs)
    total, classifier, logits = losses(outputs, labels, Config())
    torch.testing.assert_close(total, main + 0.3 * first + 0.3 * second)
    assert torch.equal(classifier, main) and logits is outputs.logits


def test_without_auxiliary_heads() -> None:
    model = GoogLeNet(SMALL, auxiliary=False).train()
    assert not [name for name, _ in model.named_parameters() if "auxiliary" in name]
    total, main, _ = losses(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0]), Config())
    assert torch.equal(total, main)


def test_label_smoothing() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    sharp, _, _ = losses(logits, labels, Config())
    smooth, _, _ = losses(logits, labels, Config(label_smoothing=0.3))
    spread = -logits.log_softmax(1).mean()
    torch.testing.assert_close(smooth, 0.7 * sharp + 0.3 * spread)


def test_steps_and_seeds_have_dropout_of_their_own() -> None:
    seeds = {dropout_seed(seed, step) for seed in range(5) for step in range(1000)}
    assert len(seeds) == 5000
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_an_image_meets_the_same_mask_in_any_number_of_processes(size: int) -> None:
    whole = torch.ones(8, 1000)
    torch.manual_seed(3)
    expected = nn.Dropout(0.4).train()(whole)
    assert 0.5 < (expected > 0).float().mean() < 0.7
    for rank in range(size):
        model = nn.Sequential(nn.Dropout(0.4))
        shard_dropout(model, World(rank=rank, size=size, device=torch.device("cpu")))
        assert (type(model[0]) is ShardedDropout) == (size > 1)
        torch.manual_seed(3)
        assert torch.equal(model.train()(whole[rank::size]), expected[rank::size])
        assert torch.equal(model.eval()(whole[rank::size]), whole[rank::size])
