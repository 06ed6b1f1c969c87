"""Table 1 of the paper for any variant, beside the paper's own figures; and the naive module of Fig. 2a beside Fig. 2b.

Parameters are counted as the paper counts them in its table, in units of 1024 weights without biases; ops are
multiply-adds. The totals below the tables count one bias per output as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from inception_engine.spec import (
    SLIPS,
    TABLE,
    ConvolutionRow,
    DropoutRow,
    InceptionRow,
    LayerSpec,
    LinearRow,
    Row,
    Spec,
    ops_text,
    params_text,
)

_COLUMNS = (
    *("type", "patch/stride", "output", "depth"),
    *("#1x1", "#3x3 red", "#3x3", "#5x5 red", "#5x5", "pool proj"),
    *("params", "paper", "ops", "paper"),
)
_NAIVE_COLUMNS = (
    *("module", "input", "", "params", "ops", "output"),
    *("naive:", "params", "ops", "output", "ops saved"),
)
_WIDTH = 125


def render(spec: Spec) -> str:
    """The summary as text, without a newline at the end."""
    slips = ", ".join(f"{slip.row} {slip.column} {slip.derived}" for slip in SLIPS)
    lines = [
        *textwrap.wrap(f"{spec.name}: {_variant(spec)}", _WIDTH),
        "",
        *_align([_COLUMNS, *(_row(row, spec) for row in TABLE)]),
        "",
        f"{spec.parameters:,} parameters (with biases, batch norm folded) and {spec.macs / 1e9:.4f} G multiply-adds "
        "per image, without auxiliary heads",
        *textwrap.wrap(f"* slips of the paper; its own shapes give {slips}", _WIDTH, subsequent_indent="  "),
    ]
    if spec.third_branch != 5:
        lines.append(f"  #5x5 is a {spec.third_branch}x{spec.third_branch} convolution in this variant")
    lines += [
        "",
        "Each module with its 1x1 reductions (Fig. 2b) and without (Fig. 2a, naive), on the same input:",
        "",
        *_align([_NAIVE_COLUMNS, *_naive(spec)]),
    ]
    return "\n".join(lines)


def _variant(spec: Spec) -> str:
    norm = {"lrn": "local response normalisation", "batch": "batch norm", "none": "no normalisation"}[
        spec.norm
    ]
    kernels = "/".join(str(kernel) for kernel in spec.pool_kernels)
    return (
        f"{norm}, third branch {spec.third_branch}x{spec.third_branch}, max-pool kernels {kernels} "
        f"(padding: {spec.pool_padding}), width {spec.width:g}, {spec.classes} classes, "
        f"input {spec.input_channels}x{spec.input_size}x{spec.input_size}"
    )


def _row(row: Row, spec: Spec) -> Sequence[str]:
    if isinstance(row, DropoutRow):
        classifier_input = spec.layer("fc").input
        return (f"{row.name} {row.rate:.0%}", "", _size(classifier_input), "0", *[""] * 10)
    layers = [layer for layer in spec.layers if layer.row == row.name]
    # Beside the convolutions a row may hold a normalisation, which the table does not show.
    main = next(layer for layer in layers if layer.name == row.name)
    window = (
        f"{main.kernel}x{main.kernel}/{main.stride}"
        if main.kind not in ("linear", "softmax", "concat")
        else ""
    )
    cost = spec.cost(row.name)
    params = params_text(cost.weights) if cost.weights else ""
    ops = ops_text(cost.macs) if cost.macs else ""
    return (_name(row), window, _size(main.output), str(_depth(row)), *_widths(row, layers), params,
            _printed(row, "params"), ops, _printed(row, "ops"))  # fmt: skip


def _name(row: Row) -> str:
    return f"inception ({row.name})" if isinstance(row, InceptionRow) else row.name


def _depth(row: Row) -> int:
    """Layers with weights that follow each other."""
    if isinstance(row, ConvolutionRow):
        return 2 if row.reduce else 1
    return 2 if isinstance(row, InceptionRow) else int(isinstance(row, LinearRow))


def _widths(row: Row, layers: Sequence[LayerSpec]) -> list[str]:
    channels = {layer.name: str(layer.output[0]) for layer in layers}
    if isinstance(row, InceptionRow):
        branches = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
        return [channels[f"{row.name}/{branch}"] for branch in branches]
    if isinstance(row, ConvolutionRow) and row.reduce:
        return ["", channels[f"{row.name}_reduce"], channels[row.name], "", "", ""]
    return [""] * 6


def _printed(row: Row, column: str) -> str:
    text = row.params if column == "params" else row.ops
    return text + "*" * any(slip.row == row.name and slip.column == column for slip in SLIPS)


def _naive(spec: Spec) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for row in TABLE:
        if isinstance(row, InceptionRow):
            reduced, naive = spec.cost(row.name), spec.naive_cost(row.name)
            rows.append((row.name, _size(spec.layer(f"{row.name}/1x1").input),
                         "", params_text(reduced.weights), ops_text(reduced.macs), str(reduced.channels),
                         "", params_text(naive.weights), ops_text(naive.macs), str(naive.channels),
                         f"{naive.macs / reduced.macs:.1f}x"))  # fmt: skip
    return rows


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, the first one flush left; a rule below the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])]
