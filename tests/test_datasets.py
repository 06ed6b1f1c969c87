"""Folders of classes and the digits: what is found, in which order, what is held out, and what is refused."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_engine.datasets import (
    Digits,
    ImageFolder,
    Selection,
    digits,
    opened,
    parts,
    split,
    taken_whole,
)
from inception_engine.errors import DatasetError, ImageDamaged, ImageTooLarge, PackageError
from inception_engine.preprocess import decode

HELD_OUT_FIRST = [8, 19, 29, 44, 49, 61, 63, 65]  # of the digits


def write(path: Path, level: int, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dog/b.png", "dog/a.JPG", "cat/z.png", "cat/deep/er/y.jpeg", "Über/1.png"):
        write(tmp_path / name, len(name))
    (tmp_path / "dog/notes.txt").write_text("not an image")
    (tmp_path / "readme.txt").write_text("not a class")
    for hidden in (".cache/1.png", "dog/._a.jpg", "dog/.thumbs/a.png"):
        write(tmp_path / hidden, 1)
    return tmp_path


def test_a_folder_of_classes(folder: Path) -> None:
    dataset = ImageFolder(folder)
    assert dataset.classes == ("cat", "dog", "Über")
    found = [(os.path.relpath(dataset.name(i), folder), dataset.label(i)) for i in range(len(dataset))]
    assert found == [
        ("cat/z.png", 0),
        ("cat/deep/er/y.jpeg", 0),
        ("dog/a.JPG", 1),
        ("dog/b.png", 1),
        ("Über/1.png", 2),
    ]
    for index in range(len(dataset)):
        assert dataset.image(index) == decode(dataset.name(index))
    assert np.asarray(dataset.image(3)).max() == len("dog/b.png")


@pytest.mark.parametrize("text", [".", "./", "dog/..", "../{name}"])
def test_a_folder_by_a_relative_name(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    dataset = ImageFolder(text.format(name=folder.name))
    assert [dataset.image(i) for i in range(5)] == [ImageFolder(folder).image(i) for i in range(5)]


def test_a_folder_travels_to_other_processes(folder: Path) -> None:
    dataset = ImageFolder(folder)
    other = pickle.loads(pickle.dumps(dataset))
    assert [other.name(i) for i in range(len(other))] == [dataset.name(i) for i in range(len(dataset))]
    assert other.image(0) == dataset.image(0)


def test_a_file_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a" / os.fsdecode(b"\xff.png"), 9)
    dataset = ImageFolder(tmp_path)
    assert np.asarray(dataset.image(0)).max() == 9


def test_labels_can_count_the_classes_of_another_folder(folder: Path) -> None:
    dataset = ImageFolder(folder, classes=("Über", "bird", "cat", "dog"))
    assert [dataset.label(i) for i in range(len(dataset))] == [2, 2, 3, 3, 0]
    with pytest.raises(DatasetError, match=r"cat, Über$"):
        ImageFolder(folder, classes=("dog",))


def test_what_is_no_folder_of_classes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    flat = tmp_path_factory.mktemp("flat")
    write(flat / "a.png", 1)
    (folder / "empty").mkdir()
    (folder / "hollow/deeper").mkdir(parents=True)
    (folder / "hollow/a.gif").touch()
    for path, text in (
        (folder / "missing", "there is no such folder"),
        (folder / "readme.txt", "not a folder"),
        (flat, "holds no folders, of which each would be a class"),
        (folder, "classes without a JPEG or PNG image: empty, hollow"),
    ):
        with pytest.raises(DatasetError) as caught:
            ImageFolder(path)
        assert str(caught.value) == f"{path}: {text}"


def test_many_empty_classes_are_counted(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=r"a, b, c, d, e and 2 more$"):
        ImageFolder(tmp_path)


def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"caf\xe9") / "a.png", 1)
    with pytest.raises(DatasetError, match=r"caf\\udce9"):
        ImageFolder(tmp_path)


def test_an_unreadable_image_is_named_when_it_is_wanted(folder: Path) -> None:
    write(folder / "dog/b.png", 1, (600, 400))
    whole = (folder / "dog/b.png").read_bytes()
    (folder / "dog/b.png").write_bytes(whole[: len(whole) // 2])
    dataset = ImageFolder(folder)
    dataset.image(2)
    with pytest.raises(ImageDamaged, match=r"dog/b\.png: "):
        dataset.image(3)


def test_a_decompression_bomb_is_named_and_not_decoded(folder: Path) -> None:
    write(folder / "dog/b.png", 1)
    content = bytearray((folder / "dog/b.png").read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)  # of the header: width and height
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (folder / "dog/b.png").write_bytes(content)
    with pytest.raises(ImageTooLarge, match=r"dog/b\.png: more than 100,000,000 pixels"):
        ImageFolder(folder).image(3)


def test_an_image_too_thin_to_be_resized_is_named_and_not_decoded(folder: Path) -> None:
    write(folder / "dog/b.png", 1, (1, 100_000))
    (folder / "dog/b.png").write_bytes((folder / "dog/b.png").read_bytes()[:60])
    for dataset in (ImageFolder(folder), Selection(ImageFolder(folder), np.arange(5))):
        with pytest.raises(ImageTooLarge, match=r"dog/b\.png: after resizing 256 x 25600000 pixels"):
            dataset.image(3, 256)
        with pytest.raises(ImageDamaged):  # it will not be resized
            dataset.image(3)


def test_the_digits() -> None:
    dataset = Digits()
    assert len(dataset) == 1797 and dataset.classes == tuple("0123456789")
    image = np.asarray(dataset.image(0))
    assert image.shape == (8, 8) and image.dtype == np.uint8
    # The first row of the first digit in scikit-learn is 0 0 5 13 9 1 0 0, of 16 levels above black.
    assert image[0].tolist() == [round(level * 255 / 16) for level in (0, 0, 5, 13, 9, 1, 0, 0)]
    assert dataset.images.max() == 255 and dataset.label(0) == 0
    assert dataset.name(7) == "digits, image 7"


def test_the_held_out_fifth_of_the_digits() -> None:
    train, held_out = digits("train"), digits("held-out")
    assert len(train) + len(held_out) == 1797
    assert not set(train.indices) & set(held_out.indices)
    everything = np.bincount(Digits().labels)
    held = np.bincount([held_out.label(i) for i in range(len(held_out))])
    assert held.tolist() == [round(count / 5) for count in everything]
    # Figures are about these images: another choice would make them figures about others.
    assert held_out.indices[:8].tolist() == HELD_OUT_FIRST
    assert held_out.name(0) == f"digits, image {HELD_OUT_FIRST[0]}"
    assert held_out.image(0) == Digits().image(HELD_OUT_FIRST[0])


def test_any_data_set_is_split_by_class(tmp_path: Path) -> None:
    for name, count in (("a", 10), ("b", 5), ("c", 2)):
        for number in range(count):
            write(tmp_path / name / f"{number:02}.png", number)
    halves = split(ImageFolder(tmp_path))
    assert [halves["held-out"].label(i) for i in range(len(halves["held-out"]))] == [0, 0, 1]
    assert sorted([*halves["train"].indices, *halves["held-out"].indices]) == list(range(17))


def test_what_a_user_names(tmp_path: Path) -> None:
    for part, classes in (("train", "abc"), ("val", "bc")):
        for name in classes:
            for number in range(5):
                write(tmp_path / "net" / part / name / f"{part}{number}.png", number)
    train, held_out = opened(str(tmp_path / "net"), "train"), opened(str(tmp_path / "net"), "held-out")
    assert len(train) == 15 and "train/a/train0.png" in train.name(0)
    assert len(held_out) == 10 and "val/b/val0.png" in held_out.name(0)
    both = parts(str(tmp_path / "net"))
    assert both["held-out"].label(0) == 1 and both["held-out"].classes == both["train"].classes == (
        "a",
        "b",
        "c",
    )
    plain = str(tmp_path / "net/train")
    assert len(opened(plain, "train")) == len(opened(plain, "held-out")) == 15
    assert [len(part) for part in parts(plain).values()] == [12, 3]
    assert len(opened("digits", "held-out")) == len(parts("digits")["held-out"]) == 359
    write(tmp_path / "half/val/a/0.png", 0)
    assert opened(str(tmp_path / "half"), "held-out").classes == ("a",)
    for refused in (lambda: opened(str(tmp_path / "half"), "train"), lambda: parts(str(tmp_path / "half"))):
        with pytest.raises(DatasetError, match=r"half/train: there is no such folder"):
            refused()
    write(tmp_path / "vehicles/train/0.png", 0)
    write(tmp_path / "vehicles/bus/0.png", 0)
    assert opened(str(tmp_path / "vehicles"), "train").classes == ("bus", "train")
    with pytest.raises(DatasetError, match="too few images"):
        parts(str(tmp_path / "vehicles"))
    write(tmp_path / "net/val/d/0.png", 0)
    with pytest.raises(DatasetError, match="no class that is known: d"):
        parts(str(tmp_path / "net"))


def test_a_folder_that_is_named_digits_stands_before_the_built_in_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(opened("digits", "held-out")) == 359 and not taken_whole("digits")
    for number in range(5):
        write(tmp_path / "digits/a" / f"{number}.png", number)
    assert opened("digits", "held-out").classes == ("a",) and taken_whole("digits")
    assert [len(part) for part in parts("digits").values()] == [4, 1]
    (tmp_path / "digits").rename(tmp_path / "other")
    (tmp_path / "digits").touch()
    for refused in (lambda: opened("digits", "train"), lambda: parts("digits")):
        with pytest.raises(DatasetError, match="digits: not a folder"):
            refused()


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(PackageError, match="sklearn"):
        Digits()
