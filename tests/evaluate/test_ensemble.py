"""Averages over crops and models, what they cost, and how batches are filled, with models whose answers are known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inception_engine as ie
from inception_engine.backends.base import Backend
from inception_engine.datasets import ImageFolder
from inception_engine.errors import BackendError, DatasetError, ImageError, ImageTooLarge
from inception_engine.evaluate.crops import views
from inception_engine.evaluate.ensemble import CROPS_AT_ONCE, Ensemble, evaluate
from inception_engine.evaluate.metrics import Agreement, agreement, softmax
from inception_engine.network import Preprocess
from inception_engine.preprocess import pixels
from tests.evaluate.models import AS_IT_IS, CLASSES, Brightness, Greys
from tests.tolerances import TOLERANCES

DATA = Greys([0, 3, 7, 5, 2])


def test_costs_are_the_papers() -> None:
    models = [Brightness() for _ in range(7)]
    rows = evaluate(Ensemble(models), DATA, counts=(1, 10, 144))
    assert [(row.models, row.crops, row.cost) for row in rows] == [
        (1, 1, 1), (1, 10, 10), (1, 144, 144), (7, 1, 7), (7, 10, 70), (7, 144, 1008),
    ]  # fmt: skip
    for model in models:  # what was counted is what ran
        assert sum(model.runs) == len(DATA) * (1 + 10 + 144)


def test_every_image_is_right_where_the_answers_are() -> None:
    (row,) = evaluate(Ensemble([Brightness()]), DATA)
    assert (row.tally.images, row.tally.top1, row.tally.top5) == (5, 100, 100)
    assert row.tally.first == DATA.labels
    assert row.tally.confusion.sum() == row.tally.confusion.trace() == 5
    wrong = Greys(DATA.labels)
    wrong.label = lambda index: 0  # type: ignore[method-assign]
    (row,) = evaluate(Ensemble([Brightness()]), wrong)
    assert row.tally.top1 == 20


def test_softmax_is_averaged_and_not_logits() -> None:
    """One model is sure of a class, two are unsure of another: averaged logits and softmaxes name different ones."""

    class Says(Brightness):
        def __init__(self, *logits: float) -> None:
            super().__init__()
            self.logits = np.array([*logits, *[-50.0] * (CLASSES - 2)], np.float32)

        def _run(self, images, names):
            return {name: np.tile(self.logits, (len(images), 1)) for name in names}

    models = [Says(20, 0), Says(0, 4), Says(0, 4)]
    ((_, probabilities),) = Ensemble(models).probabilities(Greys([0]), 10)
    expected = np.stack([softmax(model.logits) for model in models])
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)
    assert np.stack([model.logits for model in models]).mean(axis=0).argmax() == 0
    assert probabilities.mean(axis=0).argmax() == 1
    assert evaluate(Ensemble(models), Greys([1]), (10,))[-1].tally.top1 == 100
    assert evaluate(Ensemble(models), Greys([1]), (10,))[0].tally.top1 == 0


def test_crops_are_averaged_over_images_of_a_real_network() -> None:
    """The engine's averages are those of one crop at a time, whatever the batch and the models beside it."""
    network = ie.googlenet(width=0.1, input_size=32, classes=CLASSES)
    wider = ie.googlenet(seed=1, width=0.2, input_size=40, classes=CLASSES)
    wider = dataclasses.replace(wider, preprocess=Preprocess(resize=48, order="BGR"))
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(3)]
    data = Greys([0, 1, 2])
    data.image = lambda index, side=None: images[index]  # type: ignore[method-assign]
    with ie.load(network, max_batch=7) as first, ie.load(wider, "torch", threads=1) as second:
        found = list(Ensemble([first, second]).probabilities(data, 10))
        assert [index for index, _ in found] == [0, 1, 2]
        for index, probabilities in found:
            for model, mean in zip((first, second), probabilities, strict=True):
                preprocess = model.face.preprocess
                assert preprocess is not None
                crops = views(images[index], 10, preprocess, model.input_shape)
                alone = np.stack([softmax(model.run(crop[None])[0]) for crop in crops])
                np.testing.assert_allclose(mean, alone.mean(axis=0), rtol=1e-5)
                assert np.abs(mean - alone[0]).max() > 1e-4  # one crop is not the average


@pytest.mark.parametrize(
    ("batch", "count"), [(16, 1), (16, 10), (16, 144), (64, 10), (5, 144), (63, 10), (256, 10)]
)
def test_batches_are_filled(batch: int, count: int) -> None:
    model = Brightness(batches=(1, batch))
    ensemble = Ensemble([model])
    (row,) = evaluate(ensemble, Greys([1] * 100), (count,))
    assert row.cost == count
    assert max(model.runs) == batch
    assert ensemble._images_at_once(count) * count <= 2 * CROPS_AT_ONCE
    assert len(model.runs) <= 1 + 1.01 * math.ceil(100 * count / batch)  # nearly all were full


def test_a_backend_of_one_batch_size_is_padded() -> None:
    model = Brightness(batches=(6, 6))
    (row,) = evaluate(Ensemble([model]), DATA, (10,))
    assert (row.cost, row.tally.top1, set(model.runs)) == (10, 100, {6})


def test_probabilities_are_not_softmaxed_again() -> None:
    model = Brightness(scale=1, output="probabilities")
    ((_, probabilities),) = Ensemble([model]).probabilities(Greys([4]), 10)
    assert probabilities[0].tolist() == np.eye(CLASSES)[4].tolist()


def test_images_that_cannot_be_read_end_it_or_are_left_out() -> None:
    data = Greys([0, 1, 2, 3], damaged=[1, 3])
    with pytest.raises(ImageError, match="grey 1: damaged"):
        evaluate(Ensemble([Brightness()]), data, (1, 10))
    met: list[str] = []
    progress: list[None] = []
    rows = evaluate(
        Ensemble([Brightness()]),
        data,
        (1, 10),
        unreadable=lambda error: met.append(str(error)),
        progress=lambda: progress.append(None),
    )
    assert met == ["grey 1: damaged", "grey 3: damaged"] * 2
    assert len(progress) == 8
    assert [(row.tally.images, row.cost, row.tally.first) for row in rows] == [
        (2, 1, [0, 2]),
        (2, 10, [0, 2]),
    ]
    with pytest.raises(BackendError, match="no images to evaluate on"):
        evaluate(Ensemble([Brightness()]), Greys([0], damaged=[0]), unreadable=lambda error: None)


def test_classes_are_told_by_name_or_order() -> None:
    names = [str(CLASSES - 1 - index) for index in range(CLASSES)]
    by_name = Ensemble([Brightness(labels=names)])
    assert by_name.classes_of(DATA) == ([7, 6, 5, 4, 3, 2, 1, 0], True)
    classes, _ = by_name.classes_of(DATA)
    mirrored = [CLASSES - 1 - label for label in DATA.labels]
    data = Greys(DATA.labels)
    data.label = lambda index: mirrored[index]  # type: ignore[method-assign]
    (row,) = evaluate(by_name, data, classes=classes)
    assert row.tally.top1 == 100
    assert Ensemble([Brightness()]).classes_of(DATA) == (list(range(CLASSES)), False)
    words = [f"class {name}" for name in names]
    assert Ensemble([Brightness(labels=words)]).classes_of(DATA) == (list(range(CLASSES)), False)
    fewer = Greys([0])
    fewer.classes = ("6", "2")
    assert by_name.classes_of(fewer) == ([1, 5], True)
    fewer.classes = ("2", "cat")
    with pytest.raises(DatasetError, match="none called 'cat'"):
        by_name.classes_of(fewer)
    with pytest.raises(DatasetError, match="2 classes and the network 8, without labels"):
        Ensemble([Brightness()]).classes_of(fewer)
    fewer.classes = ("dog", "cat")
    with pytest.raises(DatasetError, match="other names"):
        by_name.classes_of(fewer)


def agree(a: Backend, b: Backend, dataset: Any) -> Agreement:
    """On how many images two models name the same first class."""
    first = [evaluate(Ensemble([model]), dataset, (1,))[0].tally.first for model in (a, b)]
    return agreement(a.description, first[0], b.description, first[1])


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_the_engine_agrees_with_torch_but_where_two_classes_are_too_close(dtype: str) -> None:
    """A first class differs only where the two largest logits are no further apart than the precision can tell."""
    pytest.importorskip("torch", reason="backend torch: torch is not installed")
    network, other = (ie.googlenet(seed=seed, width=0.15, input_size=32, classes=CLASSES) for seed in (0, 1))
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(40)]
    data = Greys([0] * len(images))
    data.image = lambda index, side=None: images[index]  # type: ignore[method-assign]
    with ie.load(network, "torch", threads=1) as torch, ie.load(network, emulate=True, dtype=dtype) as engine:
        found = agree(engine, torch, data)
        logits = torch.run(
            np.stack([pixels(image, network.preprocess, network.input_shape) for image in images])
        )
        assert len(set(logits.argmax(axis=1))) >= 4  # it names several classes
        second, first = np.partition(logits, -2, axis=1)[:, -2:].T
        close = first - second <= 2 * TOLERANCES[dtype].logits * np.abs(logits).max()
        assert found.images == 40 and set(found.differing) <= set(np.flatnonzero(close))
        assert close.sum() < 20
        assert (found.a, found.b) == (engine.description, torch.description)
        with ie.load(other) as control:
            assert len(agree(control, torch, data).differing) > 20


@pytest.mark.parametrize("count", [1, 10, 144])
def test_images_too_thin_are_refused_before_they_are_decoded(count: int, tmp_path: Path) -> None:
    for index in range(CLASSES):
        (tmp_path / str(index)).mkdir()
        Image.new("L", (6, 6)).save(tmp_path / str(index) / "a.png")
    thin = tmp_path / "3" / "a.png"
    Image.new("L", (1, 5_000_000)).save(thin)
    thin.write_bytes(thin.read_bytes()[:60])  # its header, and next to none of its pixels
    ensemble = Ensemble([Brightness(), Brightness(input_shape=(3, 9, 5))])
    with pytest.raises(ImageTooLarge, match=r"3/a\.png: after resizing"):
        list(ensemble.probabilities(ImageFolder(tmp_path), count))
    skipped: list[ImageError] = []
    found = list(ensemble.probabilities(ImageFolder(tmp_path), count, skipped.append))
    assert [index for index, _ in found] == [0, 1, 2, 4, 5, 6, 7]
    assert [type(error) for error in skipped] == [ImageTooLarge]


def test_models_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(BackendError, match="no models"):
        Ensemble([])
    with pytest.raises(BackendError, match="other: has 9 classes, the first model 8"):
        Ensemble([Brightness(), Brightness(classes=9, description="other")])
    with pytest.raises(BackendError, match="other: its labels are not those of brightness"):
        Ensemble([Brightness(labels="abcdefgh"), Brightness(labels="hgfedcba", description="other")])
    with pytest.raises(BackendError, match="does not say how images are normalised"):
        Ensemble([Brightness(preprocess=None)])
    Ensemble(
        [Brightness(), Brightness(labels="abcdefgh"), Brightness(preprocess=AS_IT_IS, input_shape=(3, 9, 5))]
    )
