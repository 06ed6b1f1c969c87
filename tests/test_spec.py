from __future__ import annotations

import dataclasses

import pytest

from inception_engine.spec import (
    GOOGLENET,
    PRESETS,
    SLIPS,
    TABLE,
    InceptionRow,
    Spec,
    SpecError,
    ops_text,
    params_text,
)
from tests.texts import NO_SPECS


def test_whole_network() -> None:
    assert GOOGLENET.parameters == 6_998_552
    assert GOOGLENET.macs == 1_582_671_872


def test_parameters_are_one_bias_per_convolution_and_class() -> None:
    """7,000-odd biases: the arithmetic of the total, by the table alone."""
    biases = 64 + 64 + 192 + 1000
    for row in TABLE:
        if isinstance(row, InceptionRow):
            biases += row.one + row.three_reduce + row.three + row.five_reduce + row.five + row.pool_proj
    weights = sum(GOOGLENET.cost(row.name).weights for row in TABLE if row.name != "dropout")
    assert weights + biases == GOOGLENET.parameters


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_shapes_are_the_papers(row) -> None:
    if row.name == "dropout":
        return
    channels, height, width = GOOGLENET.layer(row.name).output
    assert (height, width, channels) == row.output


@pytest.mark.parametrize("row", [row for row in TABLE if row.params], ids=lambda row: row.name)
def test_costs_are_the_papers_or_listed_slips(row) -> None:
    """The paper rounds by one unit either way. What is further off is a slip, and every slip is further off."""
    slips = {slip.column: slip for slip in SLIPS if slip.row == row.name}
    cost = GOOGLENET.cost(row.name)
    for column, printed, derived in (
        ("params", row.params, params_text(cost.weights)),
        ("ops", row.ops, ops_text(cost.macs)),
    ):
        agrees = abs(float(printed[:-1]) - float(derived[:-1])) <= 1
        assert agrees == (column not in slips), (column, printed, derived)
        if column in slips:
            assert slips[column].printed == printed
            assert slips[column].derived == derived


def test_slips_name_rows() -> None:
    assert {slip.row for slip in SLIPS} <= {row.name for row in TABLE}
    assert len(SLIPS) == 9


@pytest.mark.parametrize(
    "row", [row for row in TABLE if isinstance(row, InceptionRow)], ids=lambda row: row.name
)
def test_modules_concatenate_their_branches(row: InceptionRow) -> None:
    assert row.channels == row.output[2] == GOOGLENET.layer(row.name).output[0]
    members = [layer.name for layer in GOOGLENET.layers if layer.module == row.name]
    branches = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool", "pool_proj")
    assert members == [f"{row.name}/{branch}" for branch in branches] + [row.name]


def test_inputs_come_before_uses() -> None:
    known = {"input"}
    for layer in GOOGLENET.layers:
        assert known.issuperset(layer.inputs)
        known.add(layer.name)


def test_torchvision_costs_what_torchvision_says() -> None:
    """6,624,904 parameters and 1.498 G multiply-adds, by the documentation of GoogLeNet_Weights.IMAGENET1K_V1."""
    spec = PRESETS["torchvision"]
    assert f"{spec.macs / 1e9:.3f}" == "1.498"
    # Batch norm has a weight and a bias where a folded convolution has a bias; the classifier has one bias per class.
    convolutions = sum(layer.output[0] for layer in spec.layers if layer.kind == "convolution")
    assert spec.parameters + convolutions == 6_624_904


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, (56, 28, 14, 7)),
        ({"pool_padding": "none"}, (55, 27, 13, 6)),
        ({"pool_kernels": (3, 3, 3, 2)}, (56, 28, 14, 7)),
        ({"input_size": 299}, (75, 37, 18, 9)),
        ({"input_size": 33}, (8, 4, 2, 1)),
    ],
    ids=str,
)
def test_pool_sizes(fields, sizes) -> None:
    spec = Spec(**fields)
    assert tuple(spec.layer(f"pool{i}").output[1] for i in (1, 2, 3, 4)) == sizes
    assert spec.layer("avgpool").kernel == sizes[-1]
    assert spec.layer("avgpool").output[1:] == (1, 1)


def test_pool_pads_only_where_needed() -> None:
    assert [GOOGLENET.layer(f"pool{i}").pads for i in (1, 2, 3, 4)] == [(0, 0, 1, 1)] * 4
    assert PRESETS["torchvision"].layer("pool4").pads == (0, 0, 0, 0)


def test_third_branch() -> None:
    layer = Spec(third_branch=3).layer("4b/5x5")
    assert (layer.kernel, layer.pads) == (3, (1, 1, 1, 1))
    assert layer.output == GOOGLENET.layer("4b/5x5").output


@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
def test_norm(norm) -> None:
    names = [layer.name for layer in Spec(norm=norm).layers if layer.kind == "lrn"]
    assert names == (["norm1", "norm2"] if norm == "lrn" else [])
    if norm == "lrn":
        assert GOOGLENET.layer("norm1").inputs == ("pool1",)
        assert GOOGLENET.layer("norm2").inputs == ("conv2",)


@pytest.mark.parametrize(("width", "channels"), [(1.0, 24), (0.5, 16), (0.1, 8), (2.0, 48), (1.4, 32)])
def test_width_rounds_to_eights(width, channels) -> None:
    spec = Spec(width=width, classes=10)
    assert spec.channels(24) == channels == spec.layer("4b/5x5_reduce").output[0]
    assert spec.layer("fc").output == (10, 1, 1)
    assert all(layer.output[0] % 8 == 0 for layer in spec.layers if layer.row not in ("fc", "softmax"))


def test_width_of_one_changes_nothing() -> None:
    counts = {layer.output[0] for layer in GOOGLENET.layers if layer.kind == "convolution"}
    assert all(GOOGLENET.channels(count) == count for count in counts)


def test_naive_module() -> None:
    """3a without reductions: 192 * (64 + 9 * 128 + 25 * 32) weights on 28 x 28, and the input is passed on."""
    naive = GOOGLENET.naive_cost("3a")
    assert naive.weights == 192 * (64 + 9 * 128 + 25 * 32)
    assert naive.macs == naive.weights * 28 * 28
    assert naive.channels == 192 + 64 + 128 + 32
    assert all(
        GOOGLENET.naive_cost(row.name).macs > 2 * GOOGLENET.cost(row.name).macs
        for row in TABLE
        if isinstance(row, InceptionRow)
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "layer"}, "norm"),
        ({"third_branch": 7}, "third_branch"),
        ({"pool_padding": "same"}, "pool_padding"),
        ({"pool_kernels": (3, 3, 3)}, "pool_kernels"),
        ({"pool_kernels": (3, 3, 3, 4)}, "pool_kernels"),
        ({"width": 0.0}, "width"),
        ({"width": float("nan")}, "width"),
        ({"classes": 0}, "classes"),
        ({"input_channels": -1}, "input_channels"),
        ({"input_size": 2.5}, "input_size"),
        ({"input_size": 32, "pool_padding": "none"}, "pool4"),
        ({"input_size": 1}, "input_size"),
    ],
    ids=str,
)
def test_impossible_variants(fields, message) -> None:
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(GOOGLENET, **fields)


@pytest.mark.parametrize(
    "spec", [GOOGLENET, *PRESETS.values(), Spec(width=0.25, classes=5, input_channels=1)]
)
def test_a_spec_is_parsed_from_its_repr(spec: Spec) -> None:
    assert Spec.parsed(repr(spec)) == spec


@pytest.mark.parametrize("text", NO_SPECS, ids=range(len(NO_SPECS)))
def test_other_texts_are_no_specs(text: str) -> None:
    assert Spec.parsed(text) is None


def test_unknown_rows() -> None:
    with pytest.raises(KeyError):
        GOOGLENET.cost("6a")
    with pytest.raises(KeyError):
        GOOGLENET.naive_cost("conv1")
