"""The crops of an image over which an evaluation averages: 1, 10 or 144.

144 is section 7 of the GoogLeNet paper (arXiv 1409.4842): the image is resized to 4 scales, its shorter side 256, 288,
320 and 352; of each the left, centre and right squares are taken (top, centre and bottom of portraits); of each square
the 4 corner crops and the centre crop of 224 x 224 and the square itself, resized to 224 x 224; and all of them
mirrored: 4 x 3 x 6 x 2. 10 is what that paper sets itself off from, Krizhevsky et al. 2012: the corner crops and the
centre crop of the centre square at 256, and their mirrors; all are among the 144. 1 is what the engine sees of an image
anywhere else: ``preprocess.pixels``.

Other input sizes: the paper's scales are 8, 9, 10 and 11 sevenths of its 224 pixels, and so they are of the input here,
rounded to whole pixels; the shorter side at 1 crop alone is the model's own, ``Preprocess.resize``. The longer side
of an input that is not square counts as its size; the square, resized to that, is cut to the input around its centre.

A box is (left, top, right, bottom) in pixels of the resized image, as Pillow has them. Half pixels are rounded to even,
as the centre crop of ``preprocess.pixels`` does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from inception_engine.errors import ArgumentError
from inception_engine.network import Preprocess, Shape
from inception_engine.preprocess import (
    as_channels,
    centre,
    check_channels,
    resize_shorter,
    shorter_side,
    to_array,
)

Box = tuple[int, int, int, int]

ONE, TEN, ALL = COUNTS = (1, 10, 144)
SEVENTHS = (8, 9, 10, 11)  # of the input's size: 256, 288, 320 and 352 where it is 224


def check_count(count: int) -> None:
    """Raises ArgumentError for a number of crops that is none of the protocols'."""
    if count not in COUNTS:
        raise ArgumentError(f"{count} crops; there is {', '.join(map(str, COUNTS))}")


def views(
    image: Image.Image, count: int, preprocess: Preprocess, input_shape: Shape, what: str = "image"
) -> np.ndarray:
    """The ``count`` crops of a decoded image: uint8 (count, height, width, channels) of ``input_shape``.

    The second half are the mirrors of the first, in the same order. ``what``: how a message calls the image. Raises
    ArgumentError for other counts than 1, 10 and 144, InputShapeError, and ImageTooLarge for images so narrow that
    their longer side becomes too long.
    """
    check_count(count)
    if count == ONE:
        return to_array(centre(image, preprocess, input_shape, what), preprocess.order)[None]
    channels, height, width = input_shape
    check_channels(channels)
    image = as_channels(image, channels)
    crops: list[Image.Image] = []
    for side in _sides(count, height, width):
        resized = resize_shorter(image, side, what)
        found = squares(resized.size)
        for square in found[1:2] if count == TEN else found:
            crops += [resized.crop(box) for box in corners_and_centre(square, height, width)]
            if count == ALL:
                whole = resize_shorter(resized.crop(square), max(height, width), what)
                crops.append(whole.crop(_centre((0, 0, *whole.size), height, width)))
    plain = np.stack([to_array(crop, preprocess.order) for crop in crops])
    return np.concatenate([plain, plain[:, :, ::-1]])


def largest_side(count: int, preprocess: Preprocess, input_shape: Shape) -> int:
    """Pixels of the shorter side at the largest scale of ``views``, for ``Dataset.image``."""
    if count == ONE:
        return shorter_side(preprocess, input_shape)
    return _sides(count, *input_shape[1:])[-1]


def sides(height: int, width: int) -> tuple[int, ...]:
    """The shorter sides, in pixels, to which an image is resized for an input of this size, the smallest first."""
    return tuple(round(max(height, width) * sevenths / 7) for sevenths in SEVENTHS)


def _sides(count: int, height: int, width: int) -> tuple[int, ...]:
    """Those of ``sides`` that 10 or 144 crops are taken of."""
    return sides(height, width)[: 1 if count == TEN else None]


def squares(size: tuple[int, int]) -> tuple[Box, Box, Box]:
    """Left, centre and right of a landscape of this (width, height), top, centre and bottom of a portrait."""
    width, height = size
    side = min(size)
    far = max(size) - side
    starts = (0, round(far / 2), far)
    first, second, third = ((at, 0) if width >= height else (0, at) for at in starts)
    return _box(*first, side, side), _box(*second, side, side), _box(*third, side, side)


def corners_and_centre(square: Box, height: int, width: int) -> Iterator[Box]:
    """Top left, top right, bottom left, bottom right and centre, each of the input's size."""
    left, top, right, bottom = square
    for y in (top, bottom - height):
        for x in (left, right - width):
            yield _box(x, y, width, height)
    yield _centre(square, height, width)


def _centre(square: Box, height: int, width: int) -> Box:
    left, top, right, bottom = square
    return _box(
        left + round((right - left - width) / 2), top + round((bottom - top - height) / 2), width, height
    )


def _box(left: int, top: int, width: int, height: int) -> Box:
    return left, top, left + width, top + height
