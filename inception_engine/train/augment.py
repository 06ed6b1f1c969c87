"""What training shows instead of an image: a part of it, distorted (section 6 of the paper).

A patch whose size is spread evenly between 8 % and 100 % of the image's area, whose aspect ratio is between 3/4 and
4/3, is resized by bilinear, area, nearest or cubic interpolation with equal probability, mirrored half of the time,
and distorted photometrically after Howard, "Some Improvements on Deep Convolutional Neural Network Based Image
Classification" (2013), which the paper cites: contrast, brightness and colour by Pillow's enhancers, each by a factor
between 0.5 and 1.5, in random order, then the lighting noise of Krizhevsky et al. (2012), section 4.1.

``draw`` takes every decision, ``apply`` carries it out. Random numbers come from a counter: those of a sample are a
function of (seed, epoch, index) and of nothing else, neither the order of work nor the number of processes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from PIL import Image, ImageEnhance

from inception_engine.errors import ArgumentError
from inception_engine.network import Preprocess, Shape
from inception_engine.preprocess import as_channels, centre, check_channels, shorter_side, to_array

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "cubic": Image.Resampling.BICUBIC,
}
_ENHANCERS = {
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "saturation": ImageEnhance.Color,
}
# Principal components of the RGB values (0..1) of ImageNet's training images: eigenvalues, and eigenvectors as columns,
# as facebook's fb.resnet.torch published them.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class Stream(IntEnum):
    """What random numbers are for: each has its own of the same seed, epoch and index."""

    AUGMENTATION = 0
    ORDER = 1
    SUBSTITUTE = 2


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to images, for a network with input ``input_shape`` that is fed by ``preprocess``.

    ``crop``: cut patches whose share of the image's area is in ``area`` and whose width over height, as a multiple of
    the input's, is in ``aspect``; without it, the centre crop of validation. ``interpolations``: one of these resizes
    a patch. ``mirror``: half of the images, left to right (never for digits or text). ``brightness``, ``contrast``,
    ``saturation``: the factor is within 1 plus or minus this; 0 is off. ``lighting``: standard deviation of the
    lighting noise, as a multiple of each principal component; 0 is off. For grey input there is neither saturation nor
    lighting.
    """

    input_shape: Shape = (3, 224, 224)
    preprocess: Preprocess = field(default_factory=Preprocess)
    crop: bool = True
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolations: tuple[str, ...] = tuple(INTERPOLATIONS)
    mirror: bool = True
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    lighting: float = 0.1

    def __post_init__(self) -> None:
        """Raises ArgumentError for a value out of range, InputShapeError for a network that takes no images."""
        check_channels(self.input_shape[0])
        if not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise ArgumentError(
                f"area is {self.area}, not two shares of the image above 0, up to 1, in order"
            )
        if not (len(self.aspect) == 2 and 0 < self.aspect[0] <= self.aspect[1] < math.inf):
            raise ArgumentError(f"aspect is {self.aspect}, not two positive ratios in order")
        strange = [name for name in self.interpolations if name not in INTERPOLATIONS]
        if strange or not self.interpolations:
            known = ", ".join(INTERPOLATIONS)
            raise ArgumentError(f"interpolations are {self.interpolations}; give one or more of {known}")
        for name in _ENHANCERS:
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}, not within 0 and 1")
        if not 0 <= self.lighting < math.inf:
            raise ArgumentError(f"lighting is {self.lighting}, not 0 or positive")

    @property
    def side(self) -> int:
        """Pixels of the shorter side of validation's images, for ``Dataset.image``: what is too thin for validation is
        not trained with, though a patch could be cut out of it."""
        return shorter_side(self.preprocess, self.input_shape)

    def off(self) -> Augmentation:
        """The same with every switch off: what validation sees."""
        return dataclasses.replace(
            self, crop=False, mirror=False, brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0
        )


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is done to one image. ``box``: the patch (left, top, right, bottom) in pixels, fractions among them; None:
    the centre crop. ``enhancements``: (which, factor) in their order. ``lighting``: what is added to R, G and B, of
    0..255.
    """

    box: tuple[float, float, float, float] | None
    interpolation: str
    mirrored: bool
    enhancements: tuple[tuple[str, float], ...]
    lighting: tuple[float, ...]


def generator(seed: int, epoch: int, index: int, stream: Stream = Stream.AUGMENTATION) -> np.random.Generator:
    """Random numbers of one sample: Philox 4x64, its key (seed, epoch), its counter (0, 0, stream, index) at first."""
    return np.random.Generator(bits(seed, epoch, index, stream))


def bits(seed: int, epoch: int, index: int, stream: Stream) -> np.random.Philox:
    """What ``generator`` draws from."""
    key, counter = np.array([seed, epoch], np.uint64), np.array([0, 0, stream, index], np.uint64)
    return np.random.Philox(key=key, counter=counter)


def augment(
    image: Image.Image, augmentation: Augmentation, random: np.random.Generator, what: str = "image"
) -> np.ndarray:
    """A decoded image as the network sees it in training: uint8 (height, width, channels) of the input's shape.

    ``what``: how a message calls the image. Raises ImageTooLarge.
    """
    return apply(image, augmentation, draw(augmentation, image.size, random), what)


def draw(augmentation: Augmentation, size: tuple[int, int], random: np.random.Generator) -> Drawn:
    """Decide what is done to an image of ``size`` (width, height).

    Every decision takes its numbers whether it is switched on or not: what one switch does is the same without the
    others.
    """
    _, height, width = augmentation.input_shape
    aspect = augmentation.aspect[0] * width / height, augmentation.aspect[1] * width / height
    box = _patch(size, augmentation.area, aspect, random.random(4))
    interpolation = augmentation.interpolations[int(random.random() * len(augmentation.interpolations))]
    mirrored = bool(random.random() < 0.5)
    names = [list(_ENHANCERS)[position] for position in random.permutation(len(_ENHANCERS))]
    factors = {name: 1 + getattr(augmentation, name) * random.uniform(-1, 1) for name in _ENHANCERS}
    noise = random.standard_normal(len(_EIGENVALUES))
    enhancements = tuple((name, factors[name]) for name in names if getattr(augmentation, name))
    lighting = 255 * _EIGENVECTORS @ (_EIGENVALUES * augmentation.lighting * noise)
    grey = augmentation.input_shape[0] == 1
    return Drawn(
        box=box if augmentation.crop else None,
        interpolation=interpolation,
        mirrored=mirrored and augmentation.mirror,
        enhancements=tuple(one for one in enhancements if not (grey and one[0] == "saturation")),
        lighting=() if grey or not augmentation.lighting else tuple(map(float, lighting)),
    )


def _patch(
    size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float], uniform: np.ndarray
) -> tuple[float, float, float, float]:
    """A patch of an image of ``size`` (width, height); ``uniform``: four numbers in [0, 1).

    First its area, evenly, so that sizes are spread as the paper says; then its width over height, evenly among those
    with which it fits; then its place, evenly. Nothing is drawn and thrown away, which would favour small patches. An
    image more elongated than ``aspect`` has no patch of all of its area: there the largest that fits is the upper
    bound, and the lower one where even that is too much.
    """
    width, height = size
    shape = width / height
    closest = min(max(shape, aspect[0]), aspect[1])
    largest = min(shape / closest, closest / shape)
    low, high = min(area[0], largest), min(area[1], largest)
    share = low + (high - low) * uniform[0]
    low, high = max(aspect[0], share * shape), min(aspect[1], shape / share)
    ratio = low + (high - low) * uniform[1]
    patch_width = min(math.sqrt(share * width * height * ratio), width)
    patch_height = min(math.sqrt(share * width * height / ratio), height)
    left, top = (width - patch_width) * uniform[2], (height - patch_height) * uniform[3]
    return left, top, min(left + patch_width, width), min(top + patch_height, height)


def apply(image: Image.Image, augmentation: Augmentation, drawn: Drawn, what: str = "image") -> np.ndarray:
    """What was drawn, done to a decoded image: uint8 (height, width, channels). Raises ImageTooLarge."""
    channels, height, width = augmentation.input_shape
    if drawn.box is None:
        image = centre(image, augmentation.preprocess, augmentation.input_shape, what)
    else:
        filtering = INTERPOLATIONS[drawn.interpolation]
        image = as_channels(image, channels).resize((width, height), filtering, drawn.box)
    if drawn.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name, factor in drawn.enhancements:
        image = _ENHANCERS[name](image).enhance(factor)
    if drawn.lighting:
        levels = np.arange(256) + np.array(drawn.lighting)[:, None]
        image = image.point(np.clip(np.rint(levels), 0, 255).astype(int).ravel().tolist())
    return to_array(image, augmentation.preprocess.order)
