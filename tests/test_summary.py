from __future__ import annotations

import pytest

from inception_engine.spec import GOOGLENET, PRESETS, SLIPS, TABLE, InceptionRow, Spec, ops_text, params_text
from inception_engine.summary import render


def cells(text: str, start: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(start))


def test_a_module_beside_the_paper() -> None:
    assert cells(render(GOOGLENET), "inception (4b)") == [
        *("inception", "(4b)", "14x14x512", "2", "160", "112", "224", "24", "64", "64"),
        *("438K", "437K", "88M", "88M"),
    ]


def test_slips_are_marked_and_nothing_else() -> None:
    text = render(GOOGLENET)
    for row in TABLE:
        if row.params:
            name = f"inception ({row.name})" if isinstance(row, InceptionRow) else row.name
            marked = {cell[:-1] for cell in cells(text, name + " ") if cell.endswith("*")}
            assert marked == {slip.printed for slip in SLIPS if slip.row == row.name}
    for slip in SLIPS:
        assert slip.derived in text


def test_totals() -> None:
    text = render(GOOGLENET)
    assert "6,998,552 parameters" in text
    assert "1.5827 G multiply-adds" in text


def test_naive_module() -> None:
    naive = GOOGLENET.naive_cost("5a")
    assert cells(render(GOOGLENET), "5a") == [
        *("5a", "7x7x832", "1018K", "51M", "832"),
        *(params_text(naive.weights), ops_text(naive.macs), "1536", "5.1x"),
    ]


@pytest.mark.parametrize(
    "spec",
    [*PRESETS.values(), Spec(width=0.3, classes=10, input_size=64, norm="batch", third_branch=3)],
    ids=str,
)
def test_every_variant_has_every_row(spec) -> None:
    text = render(spec)
    for row in TABLE:
        assert row.name in text
    assert f"{spec.parameters:,} parameters" in text
    assert f"{spec.classes} classes" in " ".join(text.split())
    assert ("3x3 convolution in this variant" in text) == (spec.third_branch == 3)
    width = {len(line) for line in text.splitlines()}
    assert max(width) <= 130
