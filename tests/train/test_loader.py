"""The loader: the same batches with any number of processes, and one clear line whatever happens to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_engine.datasets import ImageFolder
from inception_engine.errors import ArgumentError, ImageDamaged, ImageTooLarge, LoaderError
from inception_engine.network import Preprocess
from inception_engine.preprocess import decode, pixels
from inception_engine.train import loader as module
from inception_engine.train.augment import Augmentation, augment, generator
from inception_engine.train.loader import AHEAD, Batch, Loader, measure
from inception_engine.train.samples import order

pytest.importorskip("torch")

SHAPE = (3, 8, 8)
AUGMENTATION = Augmentation(input_shape=SHAPE, preprocess=Preprocess(resize=9, order="BGR"))
COUNT, BATCH = 22, 4  # images, of which the last two fill no batch


class Noise:
    """A data set without files. ``touched`` is called in the process that decodes, before it does."""

    classes = ("even", "odd")

    def __init__(self, count: int = COUNT, touched: Callable[[int], None] = lambda index: None) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 10, 12, 3), dtype=np.uint8)
        self.touched = touched

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int, side: int | None = None) -> Image.Image:
        self.touched(index)
        return decode(self.pixels[index])

    def label(self, index: int) -> int:
        return index % 2

    def name(self, index: int) -> str:
        return f"noise {index}"


def contents(made: list[Batch]) -> list[tuple[bytes, list[int], list[int], tuple[str, ...]]]:
    return [(b.images.numpy().tobytes(), b.labels.tolist(), b.indices.tolist(), b.skipped) for b in made]


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


_others: set[int] = set()  # of tests before


@pytest.fixture(autouse=True)
def _no_children_of_other_tests() -> None:
    _others.update(children())


def processes() -> set[int]:
    """Of the loader."""
    return children() - _others


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_any_number_of_processes_gives_the_same_batches() -> None:
    results = []
    for workers in (0, 1, 3):
        with Loader(Noise(), AUGMENTATION, batch=BATCH, seed=5, workers=workers) as loader:
            results.append(contents([batch for epoch in (0, 1, 7) for batch in loader.epoch(epoch)]))
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 3 * (COUNT // BATCH)
    assert not processes()


def test_a_batch() -> None:
    torch = pytest.importorskip("torch")
    dataset = Noise()
    batch = next(Loader(dataset, AUGMENTATION, batch=BATCH, seed=5).epoch(2))
    assert batch.images.dtype == torch.uint8 and batch.images.shape == (BATCH, 8, 8, 3)
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.labels.tolist() == [index % 2 for index in batch.indices.tolist()]
    assert batch.waited > 0 and batch.skipped == ()
    for image, index in zip(batch.images.numpy(), batch.indices.tolist(), strict=True):
        expected = augment(dataset.image(index), AUGMENTATION, generator(5, 2, index))
        np.testing.assert_array_equal(image, expected)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert sorted(order(5, 0, COUNT)) == list(range(COUNT))
    assert order(5, 0, COUNT).tolist() == order(5, 0, COUNT).tolist()
    orders = {tuple(order(seed, epoch, COUNT)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    first = [order(5, epoch, 10)[0] for epoch in range(2000)]
    assert np.abs(np.bincount(first, minlength=10) - 200).max() < 4 * 200**0.5


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    def by_index(size: int) -> dict[int, bytes]:
        made = Loader(Noise(), AUGMENTATION, batch=size, seed=5).epoch(1)
        return {
            index: image.tobytes()
            for batch in made
            for index, image in zip(batch.indices.tolist(), batch.images.numpy(), strict=True)
        }

    small, large = by_index(2), by_index(11)
    assert small == large and len(small) == COUNT


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_taken_up_at_any_batch(workers: int) -> None:
    with Loader(Noise(), AUGMENTATION, batch=BATCH, seed=5, workers=workers) as loader:
        whole = contents(list(loader.epoch(3)))
        for start in range(len(whole) + 1):
            assert contents(list(loader.epoch(3, start))) == whole[start:]


def test_ranks_share_each_batch() -> None:
    def rank(number: int, world: int) -> list[Batch]:
        return list(Loader(Noise(), AUGMENTATION, batch=BATCH, rank=number, world=world).epoch(0))

    for one, first, second in zip(rank(0, 1), rank(0, 2), rank(1, 2), strict=True):
        np.testing.assert_array_equal(one.images[0::2], first.images)
        np.testing.assert_array_equal(one.images[1::2], second.images)
        assert one.indices[0::2].tolist() == first.indices.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_in_order_is_validation(workers: int) -> None:
    dataset = Noise()
    with Loader(dataset, AUGMENTATION, batch=BATCH, workers=workers) as loader:
        made = list(loader.in_order())
    assert [index for batch in made for index in batch.indices.tolist()] == list(range(COUNT))
    assert [len(batch.images) for batch in made] == [4, 4, 4, 4, 4, 2]
    for index, image in enumerate(np.concatenate([batch.images.numpy() for batch in made])):
        expected = pixels(dataset.pixels[index], AUGMENTATION.preprocess, SHAPE)
        np.testing.assert_array_equal(image, expected)


def test_ranks_without_a_part_of_the_last_batch_do_not_get_it() -> None:
    parts = [
        [b.indices.tolist() for b in Loader(Noise(5), AUGMENTATION, batch=4, rank=rank, world=2).in_order()]
        for rank in (0, 1)
    ]
    assert parts == [[[0, 2], [4]], [[1, 3]]]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """20 images, of which number 3 and number 12 are cut off in the middle."""
    rng = np.random.default_rng(1)
    for index in range(20):
        path = tmp_path / "ab"[index // 10] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
        if index in (3, 12):
            path.write_bytes(path.read_bytes()[:600])
    return tmp_path


def test_an_image_too_thin_for_validation_is_refused_before_it_is_decoded(damaged: Path) -> None:
    """In training, too, where a patch of it could be cut out."""
    for path in (damaged / "a/03.png", damaged / "b/12.png"):
        Image.new("L", (1, 2_000_000)).save(path)
        path.write_bytes(path.read_bytes()[:60])  # its header, and next to none of its pixels
    dataset = ImageFolder(damaged)
    with Loader(dataset, AUGMENTATION, batch=BATCH) as loader:
        for batches in (loader.epoch(0), loader.in_order()):
            with pytest.raises(ImageTooLarge, match=r"/(a/03|b/12)\.png: after resizing 9 x 18000000 pixels"):
                list(batches)
    with Loader(dataset, AUGMENTATION, batch=BATCH, skip_unreadable=True) as loader:
        for made in (list(loader.epoch(0)), list(loader.in_order())):
            skipped = [line for batch in made for line in batch.skipped]
            assert len(skipped) >= 2 and all("after resizing" in line for line in skipped)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named(damaged: Path, workers: int) -> None:
    with Loader(ImageFolder(damaged), AUGMENTATION, batch=BATCH, workers=workers) as loader:
        with pytest.raises(ImageDamaged, match=r"/(a/03|b/12)\.png: damaged: [^\n]*$"):
            list(loader.epoch(0))
        with pytest.raises(ImageDamaged, match=r"a/03\.png"):  # its processes go on
            list(loader.in_order())
    assert not processes()


def test_unreadable_images_are_left_out_when_asked(damaged: Path) -> None:
    results = []
    for workers in (0, 2):
        with Loader(
            ImageFolder(damaged), AUGMENTATION, batch=5, seed=1, workers=workers, skip_unreadable=True
        ) as loader:
            assert loader.batches == 4
            made, validation = list(loader.epoch(0)), list(loader.in_order())
        results.append((contents(made), contents(validation)))
    assert results[0] == results[1]
    said = sorted({line.split(": ")[0] for batch in made for line in batch.skipped})
    assert said == [str(damaged / "a/03.png"), str(damaged / "b/12.png")]
    shown = [index for batch in made for index in batch.indices.tolist()]
    assert len(shown) == 20 and {3, 12}.isdisjoint(shown)  # others took their place: batches stay whole
    assert len(set(shown)) == 18
    assert [index for batch in validation for index in batch.indices.tolist()] == [
        index for index in range(20) if index not in (3, 12)
    ]
    assert [len(batch.skipped) for batch in validation] == [1, 0, 1, 0]


def test_when_no_image_can_be_read(damaged: Path) -> None:
    for path in damaged.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:600])
    with Loader(ImageFolder(damaged), AUGMENTATION, batch=BATCH, workers=1, skip_unreadable=True) as loader:
        with pytest.raises(LoaderError, match=r"100 images in a row cannot be used; the last: .*\.png"):
            list(loader.epoch(0))
        assert [len(batch.images) for batch in loader.in_order()] == [0] * 5


def die(index: int) -> None:
    if index == 17:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_an_error_and_not_a_wait() -> None:
    with Loader(Noise(touched=die), AUGMENTATION, batch=BATCH, workers=2) as loader:
        with pytest.raises(LoaderError, match="died"):
            list(loader.epoch(0))
        wait_until(lambda: not processes())
        assert len(next(loader.epoch(1, loader.batches - 1)).images) == BATCH  # others take their place


def run_on(loader: Loader) -> None:
    for epoch in range(10, 1000):
        list(loader.epoch(epoch))


def test_a_process_that_is_killed_while_it_waits() -> None:
    with Loader(Noise(), AUGMENTATION, batch=BATCH, workers=2) as loader:
        list(loader.epoch(0))
        os.kill(min(processes()), signal.SIGKILL)
        with pytest.raises(LoaderError, match="died"):
            run_on(loader)


def hang(index: int) -> None:
    time.sleep(600)


def test_storage_that_gives_no_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    loader = Loader(Noise(touched=hang), AUGMENTATION, batch=BATCH, workers=2)
    with loader, pytest.raises(LoaderError, match="took more than"):
        list(loader.epoch(0))
    wait_until(lambda: not processes())


def test_processes_last_and_get_no_signals_of_the_group() -> None:
    handled = signal.signal(signal.SIGTERM, lambda *_: None)  # as a trainer that wants to save first
    try:
        with Loader(Noise(), AUGMENTATION, batch=BATCH, workers=2) as loader:
            list(loader.epoch(0))
            first = processes()
            assert len(first) == 2
            unfinished = loader.epoch(1)
            next(unfinished)
            list(loader.epoch(2))
            assert processes() == first
            assert all(os.getpgid(pid) != os.getpgrp() for pid in first)
            os.kill(min(first), signal.SIGTERM)  # meant for it alone: the trainer's handler is not its own
            with pytest.raises(LoaderError, match="died"):
                run_on(loader)
    finally:
        signal.signal(signal.SIGTERM, handled)


def test_memory_is_bounded() -> None:
    decoded = multiprocessing.Value("i", 0)

    def count(index: int) -> None:
        with decoded.get_lock():
            decoded.value += 1

    with Loader(Noise(400, count), AUGMENTATION, batch=BATCH, workers=2) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        before = -1
        while before != decoded.value:  # until the processes have nothing to do
            before = decoded.value
            time.sleep(0.3)
        assert before == AHEAD * 2 * BATCH
        del epoch


ORPHANS = """
import os, sys, time
sys.path[:0] = [{tests!r}]
import multiprocessing
from test_loader import AUGMENTATION, Loader, Noise
loader = Loader(Noise(), AUGMENTATION, batch=4, workers=2)
list(loader.epoch(0))
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


def test_processes_end_with_a_parent_that_is_killed() -> None:
    script = ORPHANS.format(tests=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2 and all(runs(pid) for pid in children)
        parent.kill()
    wait_until(lambda: not any(map(runs, children)))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_waiting_is_measured() -> None:
    dataset = Noise(touched=lambda index: time.sleep(0.01))
    made = list(Loader(dataset, AUGMENTATION, batch=BATCH).epoch(0))
    assert all(batch.waited >= BATCH * 0.01 for batch in made)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_alone_is_measured(workers: int) -> None:
    with Loader(Noise(), AUGMENTATION, batch=BATCH, workers=workers) as loader:
        found = measure(loader, images=50)
    assert 50 <= found.images < 50 + BATCH
    assert found.per_second == found.images / found.seconds > 0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"batch": 0}, "batch of 0"),
        ({"batch": 23}, "batch of 23 images, of a data set that has 22"),
        ({"workers": -1}, "-1 processes"),
        ({"workers": 100_000}, "100000 processes"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"batch": 3, "world": 2}, "3 images cannot be shared evenly by 2"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_arguments_out_of_range(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        Loader(Noise(), AUGMENTATION, **{"batch": BATCH, **wrong})
