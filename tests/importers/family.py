"""The family as torch modules, written from the published tables: widths can be scaled, weights are random.

GoogLeNet as torchvision publishes it (arXiv 1409.4842 with batch norm, 3x3 in the third branch, pools rounded up),
BN-Inception (arXiv 1502.03167, figure 5) and Inception-v3 (arXiv 1512.00567, torchvision's published layout).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Pair,
        stride: int = 1,
        padding: int | Pair = 0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """An Inception module: branches side by side on one input. ``out``: channels of the concatenation."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def transform_input(x: Tensor) -> Tensor:
    """From ImageNet's normalisation to -1..1, as torchvision does it inside the model."""
    constants = ((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))
    channels = [
        torch.unsqueeze(x[:, i], 1) * (std / 0.5) + (mean - 0.5) / 0.5
        for i, (std, mean) in enumerate(constants)
    ]
    return torch.cat(channels, 1)


class Network(nn.Module):
    """``trunk``: layers and modules, one after the other; then the average of all pixels, dropout, a linear layer."""

    def __init__(self, trunk: dict[str, nn.Module], features: int, classes: int, transform: bool) -> None:
        super().__init__()
        for name, layer in trunk.items():
            self.add_module(name, layer)
        self.trunk = list(trunk)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(features, classes)
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        if self.transform:
            x = transform_input(x)
        for name in self.trunk:
            x = self.get_submodule(name)(x)
        return self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))


def googlenet(width: float = 1.0, classes: int = 1000, transform: bool = False, seed: int = 0) -> Network:
    """torchvision's GoogLeNet in evaluation: its auxiliary heads are gone."""
    torch.manual_seed(seed)

    def w(channels: int) -> int:
        return max(1, round(channels * width))

    trunk: dict[str, nn.Module] = {
        "conv1": BasicConv2d(3, w(64), 7, stride=2, padding=3),
        "maxpool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        "conv2": BasicConv2d(w(64), w(64), 1),
        "conv3": BasicConv2d(w(64), w(192), 3, padding=1),
        "maxpool2": nn.MaxPool2d(3, 2, ceil_mode=True),
    }
    inputs = w(192)
    for name, widths in _GOOGLENET.items():
        if isinstance(widths, int):
            trunk[name] = nn.MaxPool2d(widths, 2, ceil_mode=True)
            continue
        one, three_reduce, three, five_reduce, five, projection = map(w, widths)
        trunk[name] = Branches(
            BasicConv2d(inputs, one, 1),
            nn.Sequential(
                BasicConv2d(inputs, three_reduce, 1), BasicConv2d(three_reduce, three, 3, padding=1)
            ),
            nn.Sequential(BasicConv2d(inputs, five_reduce, 1), BasicConv2d(five_reduce, five, 3, padding=1)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), BasicConv2d(inputs, projection, 1)),
        )
        inputs = one + three + five + projection
    return _trained(Network(trunk, inputs, classes, transform))


_GOOGLENET: dict[str, int | Sequence[int]] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": 3,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": 2,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}

# 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; pool and its projection. No 1x1 and no projection: stride 2.
BN_INCEPTION: dict[str, tuple[int, int, int, int, int, str, int]] = {
    "3a": (64, 64, 64, 64, 96, "avg", 32),
    "3b": (64, 64, 96, 64, 96, "avg", 64),
    "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "avg", 128),
    "4b": (192, 96, 128, 96, 128, "avg", 128),
    "4c": (160, 128, 160, 128, 160, "avg", 128),
    "4d": (96, 128, 192, 160, 192, "avg", 128),
    "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "avg", 128),
    "5b": (352, 192, 320, 192, 224, "max", 128),
}


def bn_inception(width: float = 1.0, classes: int = 1000, seed: int = 0) -> Network:
    """224 x 224 in; five grid sizes: 112, 56, 28, 14, 7. Averages in the modules count the padding, as Caffe's do."""
    torch.manual_seed(seed)

    def w(channels: int) -> int:
        return max(1, round(channels * width))

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
        return BasicConv2d(inputs, outputs, kernel, stride, kernel // 2, eps=1e-5)

    trunk: dict[str, nn.Module] = {
        "conv1": conv(3, w(64), 7, 2),
        "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        "conv2_reduce": conv(w(64), w(64), 1),
        "conv2": conv(w(64), w(192), 3),
        "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
    }
    inputs = w(192)
    for name, (one, three_reduce, three, double_reduce, double, pool, projection) in BN_INCEPTION.items():
        stride = 1 if one else 2
        kind = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
        pooled: nn.Module = kind(3, stride, 1) if one else nn.MaxPool2d(3, 2, ceil_mode=True)
        branches = [
            nn.Sequential(conv(inputs, w(three_reduce), 1), conv(w(three_reduce), w(three), 3, stride)),
            nn.Sequential(
                conv(inputs, w(double_reduce), 1),
                conv(w(double_reduce), w(double), 3),
                conv(w(double), w(double), 3, stride),
            ),
            nn.Sequential(pooled, conv(inputs, w(projection), 1)) if projection else pooled,
        ]
        if one:
            branches.insert(0, conv(inputs, w(one), 1))
        trunk[f"inception_{name}"] = Branches(*branches)
        inputs = (w(one) if one else 0) + w(three) + w(double) + (w(projection) if projection else inputs)
    return _trained(Network(trunk, inputs, classes, transform=False))


def inception_v3(width: float = 1.0, classes: int = 1000, transform: bool = False, seed: int = 0) -> Network:
    """299 x 299 in, no smaller than 75 x 75. Convolutions of 1x7 and 7x1, averages, branches that split again."""
    torch.manual_seed(seed)

    def w(channels: int) -> int:
        return max(1, round(channels * width))

    def conv(
        inputs: int, outputs: int, kernel: int | Pair, stride: int = 1, *, valid: bool = False
    ) -> nn.Module:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        return BasicConv2d(
            inputs, outputs, (height, width), stride, 0 if valid else (height // 2, width // 2)
        )

    def chain(inputs: int, *layers: tuple[int, int | Pair]) -> list[nn.Module]:
        convolutions = []
        for outputs, kernel in layers:
            convolutions.append(conv(inputs, w(outputs), kernel))
            inputs = w(outputs)
        return convolutions

    def averaged(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(inputs, w(outputs), 1))

    trunk: dict[str, nn.Module] = {
        "Conv2d_1a": conv(3, w(32), 3, 2, valid=True),
        "Conv2d_2a": conv(w(32), w(32), 3, valid=True),
        "Conv2d_2b": conv(w(32), w(64), 3),
        "maxpool1": nn.MaxPool2d(3, 2),
        "Conv2d_3b": conv(w(64), w(80), 1, valid=True),
        "Conv2d_4a": conv(w(80), w(192), 3, valid=True),
        "maxpool2": nn.MaxPool2d(3, 2),
    }
    inputs = w(192)
    for name, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
        trunk[f"Mixed_{name}"] = Branches(
            conv(inputs, w(64), 1),
            nn.Sequential(*chain(inputs, (48, 1), (64, 5))),
            nn.Sequential(*chain(inputs, (64, 1), (96, 3), (96, 3))),
            averaged(inputs, pool),
        )
        inputs = 2 * w(64) + w(96) + w(pool)
    trunk["Mixed_6a"] = Branches(
        conv(inputs, w(384), 3, 2, valid=True),
        nn.Sequential(*chain(inputs, (64, 1), (96, 3)), conv(w(96), w(96), 3, 2, valid=True)),
        nn.MaxPool2d(3, 2),
    )
    inputs += w(384) + w(96)
    for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        trunk[f"Mixed_{name}"] = Branches(
            conv(inputs, w(192), 1),
            nn.Sequential(*chain(inputs, (c, 1), (c, (1, 7)), (192, (7, 1)))),
            nn.Sequential(*chain(inputs, (c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7)))),
            averaged(inputs, 192),
        )
        inputs = 4 * w(192)
    trunk["Mixed_7a"] = Branches(
        nn.Sequential(*chain(inputs, (192, 1)), conv(w(192), w(320), 3, 2, valid=True)),
        nn.Sequential(
            *chain(inputs, (192, 1), (192, (1, 7)), (192, (7, 1))), conv(w(192), w(192), 3, 2, valid=True)
        ),
        nn.MaxPool2d(3, 2),
    )
    inputs += w(320) + w(192)
    for name in ("7b", "7c"):
        split = ((384, (1, 3)), (384, (3, 1)))
        trunk[f"Mixed_{name}"] = Branches(
            conv(inputs, w(320), 1),
            nn.Sequential(*chain(inputs, (384, 1)), Branches(*(chain(w(384), layer)[0] for layer in split))),
            nn.Sequential(
                *chain(inputs, (448, 1), (384, 3)), Branches(*(chain(w(384), layer)[0] for layer in split))
            ),
            averaged(inputs, 192),
        )
        inputs = w(320) + 4 * w(384) + w(192)
    return _trained(Network(trunk, inputs, classes, transform))


def _trained(network: Network) -> Network:
    """In evaluation mode; batch norms have statistics of their own, which keep values of the order of 1."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()
