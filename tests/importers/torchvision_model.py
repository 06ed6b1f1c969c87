"""torchvision's GoogLeNet by its published structure (torchvision is no dependency), with statistics, any width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.torch_modules import BasicConv2d, TorchvisionInception, Widths

MODULES: dict[str, Widths] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Stem(BasicConv2d):
    """As BasicConv2d with a stride."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 7, padding=3)
        self.conv.stride = (2, 2)


class InceptionAux(nn.Module):
    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv = BasicConv2d(in_channels, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, classes)


class TorchvisionGoogLeNet(nn.Module):
    """In evaluation mode alone: the auxiliary heads have weights and are not run. ``width`` divides channel counts."""

    def __init__(
        self,
        classes: int = 1000,
        *,
        width: int = 1,
        auxiliary: bool = False,
        transform_input: bool = False,
        third: int = 3,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.transform_input = transform_input
        self.conv1 = Stem(channels, 64 // width)
        self.conv2 = BasicConv2d(64 // width, 64 // width, 1)
        self.conv3 = BasicConv2d(64 // width, 192 // width, 3, padding=1)
        inputs = 192 // width
        for name, widths in MODULES.items():
            one, three_reduce, three, five_reduce, five, projection = (count // width for count in widths)
            if name in ("inception4b", "inception4e") and auxiliary:
                setattr(self, "aux1" if name == "inception4b" else "aux2", InceptionAux(inputs, classes))
            narrow = one, three_reduce, three, five_reduce, five, projection
            setattr(self, name, TorchvisionInception(inputs, narrow, third))
            inputs = one + three + five + projection
        self.fc: nn.Module = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.transform_input:
            channels = [
                x[:, c : c + 1] * (IMAGENET_STD[c] / 0.5) + (IMAGENET_MEAN[c] - 0.5) / 0.5 for c in range(3)
            ]
            x = torch.cat(channels, 1)
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        for name in MODULES:
            if name == "inception4a":
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            if name == "inception5a":
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            x = getattr(self, name)(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


def trained_googlenet(classes: int = 7, *, seed: int = 0, **options) -> TorchvisionGoogLeNet:
    """With seeded weights, and batch norms with the statistics that noise has: unlike with random statistics, images
    still matter at the logits, which a single wrong weight then moves. Variances are small enough to show epsilon."""
    torch.manual_seed(seed)
    model = TorchvisionGoogLeNet(classes, **options)
    channels = model.conv1.conv.in_channels
    for module in model.modules():
        if isinstance(module, BasicConv2d):
            nn.init.kaiming_normal_(module.conv.weight)
            module.conv.weight.data *= 10 ** torch.empty(len(module.conv.weight), 1, 1, 1).uniform_(-1.5, 0)
            nn.init.uniform_(module.bn.weight, 0.5, 1.5)
            nn.init.uniform_(module.bn.bias, -0.5, 0.5)
            module.bn.momentum = None  # the mean over all batches: of one, its own
    patches = torch.randn(16, channels, 8, 8).repeat_interleave(12, 2).repeat_interleave(12, 3)
    with torch.no_grad():
        model.train()(0.8 * patches + 0.6 * torch.randn(patches.shape))
    return model.eval()


def to_tensor_and_normalise(pixels: Tensor) -> Tensor:
    """uint8 (batch, height, width, 3) as torchvision's ToTensor and Normalize with ImageNet's constants give it."""
    x = pixels.permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std
