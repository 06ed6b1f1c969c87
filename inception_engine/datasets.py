"""Labelled images: folders of them, one per class, and the handwritten digits that scikit-learn brings.

A ``Dataset`` knows where its images are and decodes one when asked; it holds no decoded files. Decoding is
``preprocess.decode``, as everywhere. What becomes of an image then is the caller's: training augments it, evaluation
cuts crops out of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from inception_engine import packages
from inception_engine.errors import DatasetError
from inception_engine.preprocess import decode, find_images

Part = Literal["train", "held-out"]

DIGITS = "digits"  # the name of the built-in data set, where no file or folder has it
HELD_OUT = 5  # one image of so many of each class is held out where the data themselves do not say which
_FOLDERS = {"train": "train", "held-out": "val"}  # of the ImageNet layout
_PARTS = {"train", "val", "test"}  # folders that are no classes, where there are no others
_SEED = 1797  # of which images are held out: one choice for ever
_MANY = 5  # classes that a message names


class Dataset(Protocol):
    """Images with labels. ``classes``: their names; a label is an index of it."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def image(self, index: int, side: int | None = None) -> Image.Image:
        """Decoded: RGB, or L if it is grey, turned as the camera was held. ``side``: pixels to which the caller will
        resize its shorter side; an image too thin for that is not decoded. Raises ImageError, which names the file."""

    def label(self, index: int) -> int: ...

    def name(self, index: int) -> str:
        """What a message calls the image."""


class ImageFolder:
    """A folder with one folder per class, sorted by name; in each, at any depth, JPEG and PNG files, sorted too.

    What a name begins with a dot is passed over. Files are looked at when their image is asked for. Names are held as
    bytes in one piece, not as a million objects, so that processes forked from this one share them.
    """

    def __init__(self, path: str | os.PathLike[str], classes: Sequence[str] | None = None) -> None:
        """``classes``: those that labels are to count, for a folder that has only some of them; default: its own.

        Raises DatasetError: no folder, no classes in it, classes without images, or others than ``classes``; OSError.
        """
        self.path = Path(path)
        found = _class_folders(self.path)
        self.classes = tuple(found if classes is None else classes)
        if strange := [name for name in found if name not in set(self.classes)]:
            raise DatasetError(f"{self.path}: no class that is known: {_some(strange)}")
        names: list[bytes] = []
        labels: list[int] = []
        empty = []
        for name in found:
            folder = os.fspath(self.path / name)
            inner = (os.fspath(file)[len(folder) + 1 :] for file in find_images([folder]))
            files = [os.fsencode(f"{name}/{file}") for file in inner if "/." not in f"/{file}"]
            names += files
            labels += [self.classes.index(name)] * len(files)
            if not files:
                empty.append(name)
        if empty:
            raise DatasetError(f"{self.path}: classes without a JPEG or PNG image: {_some(empty)}")
        self.labels = np.array(labels, np.int64)
        self._names = b"".join(names)
        self._ends = np.cumsum([0, *map(len, names)])

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int, side: int | None = None) -> Image.Image:
        return decode(self.name(index), side)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def name(self, index: int) -> str:
        file = self._names[self._ends[index] : self._ends[index + 1]]
        return os.path.join(self.path, os.fsdecode(file))


class Selection:
    """Some images of a data set, as a data set. ``indices``: which, in this order."""

    def __init__(self, dataset: Dataset, indices: np.ndarray) -> None:
        self.dataset, self.indices = dataset, indices
        self.classes = dataset.classes

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int, side: int | None = None) -> Image.Image:
        return self.dataset.image(int(self.indices[index]), side)

    def label(self, index: int) -> int:
        return self.dataset.label(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.dataset.name(int(self.indices[index]))


class Digits:
    """scikit-learn's handwritten digits: 1797 grey images of 8 x 8 pixels, whose 17 levels become 0..255."""

    classes = tuple("0123456789")

    def __init__(self) -> None:
        """Raises PackageError where scikit-learn is not installed."""
        packages.load("sklearn")
        from sklearn.datasets import load_digits

        data = load_digits()
        self.images = np.round(data.images * (255 / 16)).astype(np.uint8)
        self.labels = data.target.astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int, side: int | None = None) -> Image.Image:
        return decode(self.images[index][..., None], side)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def name(self, index: int) -> str:
        return f"{DIGITS}, image {index}"


def digits(part: Part) -> Selection:
    """The digits to train with, or the fifth that is held out."""
    return split(Digits())[part]


def split(dataset: Dataset) -> dict[Part, Selection]:
    """A data set in two: of every class a fifth is held out, rounded, the same one always. Order is kept.

    The choice is the order of Philox's raw numbers, which are the same on every machine and in every version of NumPy.
    """
    labels = np.array([dataset.label(index) for index in range(len(dataset))], np.int64)
    keys = np.random.Philox(key=_SEED).random_raw(len(labels))
    held_out = np.zeros(len(labels), bool)
    for label in range(len(dataset.classes)):
        (members,) = np.nonzero(labels == label)
        chosen = np.argsort(keys[members], kind="stable")[: round(len(members) / HELD_OUT)]
        held_out[members[chosen]] = True
    return {
        "train": Selection(dataset, np.flatnonzero(~held_out)),
        "held-out": Selection(dataset, np.flatnonzero(held_out)),
    }


def opened(text: str, part: Part) -> Dataset:
    """What a user names: "digits", or a folder, whose part is its folder `train` or `val` where it is laid out so.

    A file or folder that is named digits stands before the built-in ones, as for `inception classify`. A folder of
    classes is taken whole, whatever ``part``. Raises DatasetError, PackageError and OSError.
    """
    if _is_built_in(text):
        return digits(part)
    return ImageFolder(_part_of(text, part) if _is_parted(text) else text)


def parts(text: str) -> dict[Part, Dataset]:
    """What a user names, to train with and to validate on: as ``opened``, but a folder of classes is split.

    Labels of both count the classes of "train". Raises DatasetError, PackageError and OSError.
    """
    if _is_built_in(text):
        return {**split(Digits())}
    if _is_parted(text):
        train = ImageFolder(_part_of(text, "train"))
        return {"train": train, "held-out": ImageFolder(_part_of(text, "held-out"), train.classes)}
    found = split(ImageFolder(text))
    if not len(found["held-out"]):
        raise DatasetError(
            f"{text}: too few images: of a class, one in {HELD_OUT} is held out to validate on"
        )
    return {**found}


def held_out(text: str) -> Dataset:
    """What a training of what a user names does not learn from: of ``parts``, or of a folder that has ``val`` and no
    ``train``, that one. Raises DatasetError, PackageError and OSError."""
    if _is_parted(text) and not _part_of(text, "train").is_dir():
        return opened(text, "held-out")
    return parts(text)["held-out"]


def taken_whole(text: str) -> bool:
    """Whether ``opened`` takes all images of what a user names, those included that ``parts`` gives to a training."""
    return not _is_built_in(text) and not _is_parted(text)


def _is_built_in(text: str) -> bool:
    return text == DIGITS and not Path(text).exists()


def _is_parted(text: str) -> bool:
    """Whether a folder is laid out as ImageNet: `train` and `val` in it, or no folders but such."""
    if all(Path(text, folder).is_dir() for folder in _FOLDERS.values()):
        return True
    return Path(text).is_dir() and _PARTS.issuperset(_class_folders(Path(text)))


def _part_of(text: str, part: Part) -> Path:
    return Path(text, _FOLDERS[part])


def _class_folders(path: Path) -> list[str]:
    if not path.is_dir():
        raise DatasetError(f"{path}: {'not a folder' if path.exists() else 'there is no such folder'}")
    found = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not found:
        raise DatasetError(f"{path}: holds no folders, of which each would be a class")
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes that are no text, which no network can hold as a label
            raise DatasetError(f"{path}: the name of the folder {name!r} is not text") from None
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MANY
    return ", ".join(names[:_MANY]) + (f" and {more} more" if more > 0 else "")
