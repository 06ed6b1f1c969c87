"""Counting, the table and the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from inception_engine.evaluate.ensemble import Row
from inception_engine.evaluate.metrics import UNKNOWN, Tally, agreement, softmax
from inception_engine.evaluate.table import PAPER, document, render


def test_softmax_is_exact_for_large_logits_and_nan_stays() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1.0, 2, 5]]))), [[0.125, 0.25, 0.625]])
    np.testing.assert_allclose(softmax(np.array([1e4, 1e4], np.float32)), [0.5, 0.5])
    assert np.isnan(softmax(np.array([np.inf, 0.0]))).any()
    assert np.isnan(softmax(np.array([np.nan, 0.0]))).any()


def test_top_1_and_top_5() -> None:
    tally = Tally(8)
    ranked = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.04, 0.01])
    for label in (0, 0, 4, 5):  # first, first, fifth, sixth
        tally.add(ranked, label)
    assert (tally.top1, tally.top5) == (50, 75)
    assert tally.confusion[0, 0] == 2 and tally.confusion[4, 0] == tally.confusion[5, 0] == 1


def test_equal_probabilities_are_ordered_by_index() -> None:
    tally = Tally(8)
    for label in (0, 4, 5):
        tally.add(np.full(8, 0.125), label)
    assert tally.first == [0, 0, 0]
    assert (tally.hits1, tally.hits5) == (1, 2)


def test_nan_counts_as_wrong() -> None:
    tally = Tally(3)
    tally.add(np.array([np.nan, 0, 0]), 0)
    tally.add(np.array([1.0, 0, 0]), 0)
    assert (tally.top1, tally.top5, tally.unknown, tally.first) == (50, 50, 1, [UNKNOWN, 0])
    assert tally.confusion.sum() == 1


def test_agreement_counts_what_differs() -> None:
    found = agreement("A", [0, 1, 2, UNKNOWN], "B", [0, 2, 2, UNKNOWN])
    assert (found.same, found.images, found.differing) == (2, 4, (1, 3))
    assert str(found) == "A and B name the same first class for 2 of 4 images"
    assert found.document() == {"a": "A", "b": "B", "images": 4, "same": 2, "differing": [1, 3]}
    with pytest.raises(ValueError):
        agreement("A", [0], "B", [0, 1])


def row(models: int, crops: int, hits1: int, hits5: int) -> Row:
    return Row(
        models=models,
        crops=crops,
        cost=models * crops,
        tally=Tally(10, images=1000, hits1=hits1, hits5=hits5),
    )


def test_the_papers_figures() -> None:
    assert [(p.models, p.crops, p.cost, p.top5_error) for p in PAPER] == [
        (1, 1, 1, 10.07), (1, 10, 10, 9.15), (1, 144, 144, 7.89),
        (7, 1, 7, 8.09), (7, 10, 70, 7.62), (7, 144, 1008, 6.67),
    ]  # fmt: skip


def test_the_table_holds_both() -> None:
    rows = [row(1, 1, 700, 900), row(1, 144, 730, 921), row(3, 144, 740, 935)]
    lines = [" ".join(line.split()) for line in render(rows).splitlines()]
    assert lines[0] == "this run | the paper, ILSVRC 2014"
    assert lines[1] == "models crops cost top-1 error top-5 error to base | models cost top-5 error to base"
    assert lines[2:] == [
        "1 1 1 30.00 % 10.00 % base | 1 1 10.07 % base",
        "10 | 1 10 9.15 % -0.92",
        "1 144 144 27.00 % 7.90 % -2.10 | 1 144 7.89 % -2.18",
        "1 | 7 7 8.09 % -1.98",
        "10 | 7 70 7.62 % -2.45",
        "3 144 432 26.00 % 6.50 % -3.50 | 7 1008 6.67 % -3.40",
    ]
    found = document(rows)
    assert [(r["top1"], r["top5"], round(r["to_base"], 9), r["paper_top5_error"]) for r in found] == [
        (70.0, 90.0, 0.0, 10.07), (73.0, 92.1, -2.1, 7.89), (74.0, 93.5, -3.5, 6.67),
    ]  # fmt: skip


@pytest.mark.parametrize("classes", [3, 60])
def test_the_confusion_matrix_is_a_picture(classes: int) -> None:
    pytest.importorskip("matplotlib")
    from inception_engine.evaluate.confusion import png

    confusion = np.diag(np.full(classes, 7))
    plain = png(confusion, [f"class ${index}" for index in range(classes)], "a title")
    confusion[0, 2] = 7
    other = png(confusion, (), "a title")
    pictures = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in (plain, other)]
    assert min(pictures[0].shape[:2]) > 300
    assert not np.array_equal(pictures[0][:300, :300], pictures[1][:300, :300])
