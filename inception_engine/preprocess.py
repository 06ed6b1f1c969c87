"""From an image to the network's input: decode, resize, centre crop, channel order, mean and scale.

One definition for every door. ``pixels`` makes what the engine takes, uint8 (height, width, channels); the plan holds
the mean and scale. ``normalise`` makes float32 (batch, channels, height, width) of it for engines that know no plan.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from inception_engine.errors import (
    ImageDamaged,
    ImageError,
    ImageForeign,
    ImageTooLarge,
    ImageUnreadable,
    InputShapeError,
    InputTypeError,
)
from inception_engine.network import Preprocess, Shape

Source = str | os.PathLike[str] | np.ndarray | Image.Image

MAX_PIXELS = 100_000_000  # of a decoded image: 300 MB as RGB, more than any camera makes
FORMATS = ("JPEG", "PNG")
SUFFIXES = (".jpg", ".jpeg", ".png")


def pixels(source: Source, preprocess: Preprocess, input_shape: Shape) -> np.ndarray:
    """An image file, PIL image or uint8 (height, width, channels) array as the network wants it.

    Returns uint8 (height, width, channels) of ``input_shape`` (channels, height, width): the shorter side resized to
    ``preprocess.resize`` (to the input's longer side if that is larger; bilinear with antialiasing), the centre cut
    out, in the channel order of ``preprocess``. Everything is converted to RGB first, or to grey for one channel.
    Raises ImageError, and InputTypeError or InputShapeError for what is no image at all.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise InputShapeError(f"images have 1 or 3 channels, the network's input has {channels}")
    image = _convert(_open(source), "L" if channels == 1 else "RGB", _describe(source))
    side = max(preprocess.resize, height, width)
    # As torchvision's Resize and CenterCrop, with which published weights were evaluated.
    shorter = min(image.size)
    size = side * image.width // shorter, side * image.height // shorter
    _check_size(size, f"{_describe(source)}: after resizing")
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    cropped = np.asarray(resized.crop((left, top, left + width, top + height)))
    cropped = cropped.reshape(height, width, channels)
    return np.ascontiguousarray(cropped[..., ::-1] if preprocess.order == "BGR" else cropped)


def normalise(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """(pixel - mean) / std: uint8 (batch, height, width, channels) to float32 (batch, channels, height, width)."""
    mean, std = preprocess.constants(images.shape[-1])
    return np.ascontiguousarray(((images.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Files as they are; of folders, every JPEG and PNG file in them and below, by name, sorted."""
    for path in map(Path, paths):
        if path.is_dir():
            for folder, folders, files in os.walk(path):
                folders.sort()
                yield from (Path(folder, name) for name in sorted(files) if name.lower().endswith(SUFFIXES))
        else:
            yield path


def _describe(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "image"


def _check_size(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageTooLarge(f"{what} {size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}")


def _open(source: Source) -> Image.Image:
    """Only the header of a file is read yet, so that its size is known before anything is allocated for it."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8:
            raise InputTypeError(f"an image of dtype {source.dtype}; give uint8 (height, width, channels)")
        if source.ndim != 3 or source.shape[2] not in (1, 3) or source.size == 0:
            raise InputShapeError(f"an image of shape {source.shape}; give (height, width, 1 or 3 channels)")
        return Image.fromarray(source if source.shape[2] == 3 else source[:, :, 0])
    if not isinstance(source, str | os.PathLike):
        raise InputTypeError(f"{type(source).__name__} is neither a path nor an image")
    try:
        # A pipe or a device would be waited for, or never end.
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise ImageUnreadable(f"{source}: not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; _check_size refuses them
            return Image.open(source, formats=FORMATS)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageForeign(f"{source}: neither JPEG nor PNG") from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"{source}: more than {MAX_PIXELS:,} pixels") from None
    except OSError as error:
        raise ImageUnreadable(f"{source}: {error.strerror or error}") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        raise ImageDamaged(f"{source}: damaged: {_one_line(error)}") from None


def _convert(image: Image.Image, mode: str, what: str) -> Image.Image:
    """Decode, turn as the camera was held (EXIF), and convert to 8 bits of RGB or grey."""
    _check_size(image.size, f"{what}:")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd palettes and EXIF data that Pillow copes with
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):  # 16 bits: Pillow's conversion cuts off at 255 instead of scaling
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return turned.convert(mode)
    except Exception as error:  # as above: SyntaxError, struct.error, zlib.error, ...
        raise ImageDamaged(f"{what}: damaged: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
