"""Torch modules to fuse: an Inception module and a small network in torchvision's shape, and ours, with statistics.

Written against torchvision's published structure (BasicConv2d, Inception, GoogLeNet), which is not a dependency.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception_engine.model import GoogLeNet
from inception_engine.spec import Spec

Widths = tuple[int, int, int, int, int, int]
WIDTHS: Widths = (16, 24, 32, 8, 16, 16)  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
RAGGED: Widths = (8, 11, 19, 5, 7, 24)  # nothing is a multiple of 16


class BasicConv2d(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class TorchvisionInception(nn.Module):
    """``third``: kernel of the third branch; torchvision's is 3, the paper's 5."""

    def __init__(self, in_channels: int, widths: Widths, third: int = 3) -> None:
        super().__init__()
        one, three_reduce, three, five_reduce, five, projection = widths
        self.branch1 = BasicConv2d(in_channels, one, 1)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, three_reduce, 1), BasicConv2d(three_reduce, three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, five_reduce, 1),
            BasicConv2d(five_reduce, five, third, padding=third // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), BasicConv2d(in_channels, projection, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]
        return torch.cat(branches, 1)


class TorchvisionNetwork(nn.Module):
    """Two Inception modules between a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = BasicConv2d(3, 24, 3, padding=1)
        self.inception3a = TorchvisionInception(24, WIDTHS)
        self.maxpool3 = nn.MaxPool2d(2, stride=2)
        self.inception4a = TorchvisionInception(sum(WIDTHS[i] for i in (0, 2, 4, 5)), WIDTHS)
        self.fc = nn.Linear(sum(WIDTHS[i] for i in (0, 2, 4, 5)), 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inception4a(self.maxpool3(self.inception3a(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def trained(module: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms that have seen something: unfolded or badly folded ones do not pass."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            assert child.running_mean is not None and child.running_var is not None
            nn.init.uniform_(child.running_mean, -0.5, 0.5)
            nn.init.uniform_(child.running_var, 0.01, 2)  # small ones show the epsilon
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.bias, -0.5, 0.5)
    return module.eval()


def small_googlenet(norm: str = "batch", input_size: int = 32) -> GoogLeNet:
    """Ours, a quarter as wide: branches of 8 and 24 channels."""
    model = trained(GoogLeNet(Spec(norm=norm, width=0.25, classes=7, input_size=input_size)))  # type: ignore[arg-type]
    assert isinstance(model, GoogLeNet)
    return model
