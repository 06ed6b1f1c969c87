"""From an image to the network's input: decode, resize, cut out, channel order, mean and scale.

One definition for every door: the engine, the other backends, training and evaluation call these functions and have
none of their own. ``pixels`` makes what the engine takes, uint8 (height, width, channels), of any source. Its steps
are ``decode``, ``centre`` and ``to_array``, and those of ``centre`` are ``as_channels`` and ``resize_shorter``, for
those who cut otherwise. The plan holds the mean and scale; ``normalise`` makes float32 (batch, channels, height,
width) for engines that know no plan.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

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

if TYPE_CHECKING:
    import torch

Source = str | os.PathLike[str] | np.ndarray | Image.Image

MAX_PIXELS = 100_000_000  # of a decoded image: 300 MB as RGB, more than any camera makes
FORMATS = ("JPEG", "PNG")
ORIENTATION, UPRIGHT = ExifTags.Base.Orientation, 1  # of EXIF
SUFFIXES = (".jpg", ".jpeg", ".png")
GREY_MODES = ("1", "L", "LA", "La")  # Pillow's, of 8 bits and fewer


def pixels(source: Source, preprocess: Preprocess, input_shape: Shape) -> np.ndarray:
    """An image file, PIL image or uint8 (height, width, channels) array as the network wants it.

    Returns uint8 (height, width, channels) of ``input_shape`` (channels, height, width): the shorter side resized to
    ``preprocess.resize`` (to the input's longer side if that is larger; bilinear with antialiasing), the centre cut
    out, in the channel order of ``preprocess``. Everything is converted to RGB first, or to grey for one channel.
    Raises ImageError, and InputTypeError or InputShapeError for what is no image at all.
    """
    check_channels(input_shape[0])
    image = decode(source, shorter_side(preprocess, input_shape))
    return to_array(centre(image, preprocess, input_shape, _describe(source)), preprocess.order)


def decode(source: Source, side: int | None = None) -> Image.Image:
    """The picture of ``pixels``'s source: turned as the camera was held (EXIF), of mode "L" if it is grey, else "RGB".

    Transparency is dropped, and of 16 bits the upper 8 stay. ``side``: pixels to which the shorter side will be resized
    (``shorter_side``); what is too thin for that is refused, and not decoded. Raises what ``pixels`` raises.
    """
    image, what = _open(source), _describe(source)
    if side is not None:
        # By the header: of an image of few bytes and one column, the pixels alone would take gigabytes and a minute.
        _resized(image.size, side, what)
    return _convert(image, what)


def from_bytes(content: bytes, what: str = "image") -> Image.Image:
    """The image that a file's content holds, for ``pixels``; only its header is read yet. ``what``: how a message calls
    it. Raises ImageForeign, ImageTooLarge and ImageDamaged."""
    return _header(io.BytesIO(content), what)


def check_channels(channels: int) -> None:
    """Raises InputShapeError if a network of so many input channels takes no images."""
    if channels not in (1, 3):
        raise InputShapeError(f"images have 1 or 3 channels, the network's input has {channels}")


def as_channels(image: Image.Image, channels: int) -> Image.Image:
    """A decoded image as grey (1) or RGB (3); itself if it is that already."""
    return _as_mode(image, "L" if channels == 1 else "RGB")


def shorter_side(preprocess: Preprocess, input_shape: Shape) -> int:
    """Pixels of the shorter side to which ``pixels`` and ``centre`` resize an image."""
    return max(preprocess.resize, *input_shape[1:])


def resize_shorter(image: Image.Image, side: int, what: str = "image") -> Image.Image:
    """Its shorter side made ``side`` pixels, its longer one in proportion, rounded down; bilinear with antialiasing.

    As torchvision's Resize, with which published weights were evaluated: rows first, then columns, each rounded to 8
    bits. The order is written out, for Pillow 13 takes the other for some shapes. ``what``: how a message calls the
    image. Raises ImageTooLarge.
    """
    width, height = _resized(image.size, side, what)
    narrow = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return narrow.resize((width, height), Image.Resampling.BILINEAR)


def centre(
    image: Image.Image, preprocess: Preprocess, input_shape: Shape, what: str = "image"
) -> Image.Image:
    """The centre of a decoded image, resized by its shorter side, as a picture of the size of the input and its mode.

    ``what``: how a message calls the image. Raises ImageTooLarge, and InputShapeError for an input that is no image.
    """
    channels, height, width = input_shape
    check_channels(channels)
    resized = resize_shorter(as_channels(image, channels), shorter_side(preprocess, input_shape), what)
    # As torchvision's CenterCrop.
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def to_array(image: Image.Image, order: str) -> np.ndarray:
    """A picture's pixels: uint8 (height, width, channels), contiguous; of three, in the channel order ``order``."""
    array = np.asarray(image).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(array[..., ::-1] if order == "BGR" else array)


@overload
def normalise(images: np.ndarray, preprocess: Preprocess) -> np.ndarray: ...
@overload
def normalise(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor: ...


def normalise(images: Any, preprocess: Preprocess) -> Any:
    """(pixel - mean) / std: uint8 (batch, height, width, channels) to float32 (batch, channels, height, width).

    NumPy gives NumPy, contiguous. A torch tensor gives a tensor on its device, whose memory stays channels last.
    """
    mean, std = preprocess.constants(images.shape[-1])
    if (torch := sys.modules.get("torch")) is not None and isinstance(images, torch.Tensor):
        mean, std = (torch.from_numpy(values).to(images.device) for values in (mean, std))
        return ((images.float() - mean) / std).permute(0, 3, 1, 2)
    return np.ascontiguousarray(((images.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Files as they are; of folders, every JPEG and PNG file in them and below, by name, sorted.

    A path that cannot be looked at is taken for a file, whose own error it will be. Raises OSError for a folder that
    cannot be read: images would be missing in silence."""
    for path in map(Path, paths):
        if os.path.isdir(path):
            for folder, folders, files in os.walk(path, onerror=_raise):
                folders.sort()
                yield from (Path(folder, name) for name in sorted(files) if name.lower().endswith(SUFFIXES))
        else:
            yield path


def _raise(error: OSError) -> NoReturn:
    raise error


def _describe(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "image"


def _resized(size: tuple[int, int], side: int, what: str) -> tuple[int, int]:
    """Width and height with ``side`` as the shorter one. Raises ImageTooLarge."""
    shorter = min(size)
    width, height = side * size[0] // shorter, side * size[1] // shorter
    _check_size((width, height), f"{what}: after resizing")
    return width, height


def _check_size(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageTooLarge(f"{what} {size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}")


def _open(source: Source) -> Image.Image:
    """Only the header of a file is read yet, so that its size is known before anything is allocated for it."""
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise InputShapeError(f"an image of {source.width} x {source.height} pixels")
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
    except ImageError:
        raise
    except OSError as error:
        raise ImageUnreadable(f"{source}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path
        raise ImageDamaged(f"{source}: damaged: {_one_line(error)}") from None
    return _header(source, os.fspath(source))


def _header(file: str | os.PathLike[str] | io.BytesIO, what: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; _check_size refuses them
            image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageForeign(f"{what}: neither JPEG nor PNG") from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"{what}: more than {MAX_PIXELS:,} pixels") from None
    except OSError as error:
        raise ImageUnreadable(f"{what}: {error.strerror or error}") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        raise ImageDamaged(f"{what}: damaged: {_one_line(error)}") from None
    if 0 in image.size:
        raise ImageDamaged(f"{what}: damaged: it has no pixels")
    return image


def _convert(image: Image.Image, what: str) -> Image.Image:
    """Decode, turn, and convert to 8 bits of RGB or grey."""
    _check_size(image.size, f"{what}:")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd palettes and EXIF data that Pillow copes with
            image.load()  # before EXIF is looked at, which may lie behind the pixels
            if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:  # exif_transpose would copy all others
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits: Pillow's conversion cuts off at 255 instead of scaling
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return _as_mode(image, "L" if image.mode in GREY_MODES else "RGB")
    except Exception as error:  # as above: SyntaxError, struct.error, zlib.error, ...
        raise ImageDamaged(f"{what}: damaged: {_one_line(error)}") from None


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert would copy


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
