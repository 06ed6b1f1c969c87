"""A few images in folders, and a training of them that takes a second."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY = {
    "variant": "plain",
    "norm": "batch",
    "width": 0.125,
    "input_size": 32,
    "area": (0.5, 1.0),
    "epochs": 2,
    "batch": 8,
    "learning_rate": 0.02,
    "average_from": 1,
    "auxiliary": False,
    "log_every": 2,
    "threads": 1,
    "tensorboard": False,
}


def write_classes(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder of classes with so many images each; a class has a colour, and noise over it."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        colour = rng.integers(0, 200, 3)
        for index in range(count):
            pixels = colour + rng.integers(0, 56, (36, 40, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes: 25 images to train with, which make 3 batches of 8, and 6 held out."""
    return write_classes(tmp_path_factory.mktemp("classes") / "images", {"cat": 12, "dog": 10, "fox": 9})


@pytest.fixture
def configured(images: Path, tmp_path: Path) -> Callable[..., Any]:
    """TINY with these keys in the place of its own, in a new folder unless ``output`` says where."""
    from inception_engine.train.config import Config

    def make(**given: Any) -> Config:
        keys: dict[str, Any] = {**TINY, "data": os.fspath(images), "output": str(tmp_path / "run"), **given}
        return Config(**keys)

    return make


@pytest.fixture(autouse=True)
def _threads():
    """A training sets the number of PyTorch's threads, which is the process's."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
