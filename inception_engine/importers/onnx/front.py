"""The file's own normalisation at the front: what stands between its input and the first layer.

A value per channel ``scale * input[source] + shift``. It becomes part of ``Preprocess`` and not of the first
convolution: the zeros that a convolution pads with lie behind it, so a shift is not a bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inception_engine.importers.errors import ImportFailed
from inception_engine.network import Preprocess

# By the pixel value that becomes 0: ImageNet's means are 103 to 124 of 255 and 0.4 to 0.5 of 1.
_PIXELS_FROM = 10.0
_PIXEL_SCALE = (
    0.05  # 1/255 and 1/58; scales for inputs of 0 to 1 are above 1, those between normalisations near 0.5
)


@dataclass(frozen=True)
class Front:
    """Channels of the image, each ``scale * input[source] + shift``; (batch, channels, height, width), or with
    ``channels_last``, or with ``single``, one channel without its dimension: (batch, height, width)."""

    source: tuple[int, ...]
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    channels_last: bool = False
    single: bool = False

    @property
    def channels(self) -> int:
        return len(self.source)

    def affine(self, scale: np.ndarray, shift: np.ndarray) -> Front:
        """``scale`` and ``shift``: float64 (channels,)."""
        return Front(
            self.source,
            tuple(float(s * a) for s, a in zip(self.scale, scale, strict=True)),
            tuple(float(s * a + b) for s, a, b in zip(self.shift, scale, shift, strict=True)),
            self.channels_last,
            self.single,
        )

    def chosen(self, channels: np.ndarray | slice) -> Front:
        pick = np.arange(self.channels)[channels].reshape(-1)
        return Front(
            tuple(self.source[i] for i in pick),
            tuple(self.scale[i] for i in pick),
            tuple(self.shift[i] for i in pick),
            self.channels_last,
        )

    @property
    def reversed(self) -> bool:
        return self.channels > 1 and self.source == tuple(reversed(range(self.channels)))

    def check(self, channels: int) -> None:
        """Whether a Network can take these channels of an image that has so many. Raises ImportFailed."""
        if self.source != tuple(range(channels)) and not (channels == 3 and self.source == (2, 1, 0)):
            raise ImportFailed(
                f"the first layer reads channels {list(self.source)} of an input of {channels}; "
                "their order, or its reverse, is supported"
            )
        values = np.array([*self.scale, *self.shift], np.float32)
        if 0 in self.scale or not np.isfinite(values).all():
            raise ImportFailed("normalisation at the front of the graph: a factor is 0 or not finite")

    def preprocess(self, file: Preprocess | None) -> Preprocess:
        """How pixels become what the first layer reads, where ``file`` says how they become the file's input."""
        before = file or self.guess()[0]
        mean, std = (value.astype(np.float64) for value in before.constants(self.channels))
        pick = list(self.source)
        scale, shift = np.array(self.scale), np.array(self.shift)
        if (scale == 1).all() and (shift == 0).all() and not self.reversed:
            return before
        std_behind = std[pick] / scale
        mean_behind = mean[pick] - shift * std_behind
        order = before.order
        if self.reversed:
            order = "BGR" if order == "RGB" else "RGB"
        rounded = [tuple(float(str(np.float32(v))) for v in values) for values in (mean_behind, std_behind)]
        return Preprocess(mean=rounded[0], std=rounded[1], order=order, resize=before.resize)

    def guess(self) -> tuple[Preprocess, str]:
        """The file does not say what its input is; the normalisation in it tells pixels from others. In words, too."""
        scale, shift = np.abs(np.array(self.scale)), np.array(self.shift)
        zero = np.abs(shift / scale)
        if zero.max() >= _PIXELS_FROM or scale.max() <= _PIXEL_SCALE:
            return Preprocess(mean=(0.0,), std=(1.0,)), "pixels of 0 to 255"
        if scale.min() > 1 and zero.max() <= 1:
            return Preprocess(mean=(0.0,), std=(255.0,)), "pixels of 0 to 1"
        imagenet = "pixels normalised by ImageNet's mean and deviation"
        return Preprocess.default(self.channels), imagenet if self.channels == 3 else "pixels of -1 to 1"
