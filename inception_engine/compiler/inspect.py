"""What is in a plan: programs, launches, multiply-adds, memory; as a document for JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from inception_engine.compiler.budget import traffic
from inception_engine.compiler.plan import (
    PANEL,
    Dtype,
    LaunchMode,
    OpFlag,
    OpKind,
    Plan,
    Program,
    TargetKind,
)
from inception_engine.errors import PlanMetadata
from inception_engine.kernels.variants import RUN_DEPTH, variant


def report(plan: Plan) -> dict[str, Any]:
    """Everything that ``render`` shows. The top level repeats the first program; ``programs`` has all of them.

    Multiply-adds are per image: ``nominal`` is what the layers take, ``executed`` what the kernels do with padding.
    ``bytes``, of modules and of each of the ``layers``, are what a run of ``max_batch`` images moves at least, an
    image's share of it: see ``budget.Traffic``.
    ``arena_bytes`` and ``activation_bytes`` (all activations without reuse) are for ``max_batch`` images.
    Raises PlanMetadata.
    """
    metadata = plan.metadata
    if not isinstance(metadata, Mapping):
        raise PlanMetadata("the plan's metadata is not a JSON object")
    try:
        programs = [_program(program) for program in plan.programs]
    except UnicodeDecodeError as error:  # the loader carries names unread
        raise PlanMetadata(f"a name in the plan is not text: {error}") from None
    labels = metadata.get("labels")
    return {
        "name": str(metadata.get("name", "")),
        "random_weights": metadata.get("random_weights") is True,
        "labels": len(labels) if isinstance(labels, Sequence) else 0,
        **programs[0],
        "programs": programs,
    }


def executed_macs(program: Program, op: np.void) -> int:
    """Multiply-adds per image that the target's kernels execute for one op.

    Those of the CPU run only rows that exist and whole panels of columns; by Winograd's algorithm whole patches, which
    take fewer multiply-adds than nominal (its transforms are no products of channels and do not count). Those of GPUs
    run whole blocks of rows, whole columns of tiles, and whole steps along K where a kernel exists for such tiles.
    """
    if op["kind"] != OpKind.CONV:
        return 0
    header = program.header
    batch = int(header["max_batch"])
    rows = int(op["out_h"]) * int(op["out_w"]) * batch
    columns = int(op["out_channels"])
    taps = 1 if op["flags"] & OpFlag.MAX_POOL_FIRST else int(op["kernel_h"]) * int(op["kernel_w"])
    depth = taps * int(op["in_channels"])
    if header["target"] == TargetKind.CPU:
        columns = _round_up(columns, PANEL)
        if op["flags"] & OpFlag.WINOGRAD:
            patch = OpFlag(int(op["flags"])).patch
            side = patch + 1 - int(op["kernel_h"])
            patches = -(-int(op["out_h"]) // side) * -(-int(op["out_w"]) // side)
            return patches * patch**2 * columns * int(op["in_channels"])
    else:
        tile = int(op["tile_rows"]), int(op["tile_columns"])
        columns, block, step = _round_up(columns, tile[1]), tile[0], 1
        run = int(op["part_depth"]) or depth
        # Another compiler's plan may have tiles that no kernel has.
        with suppress(ValueError):
            chosen = variant(Dtype(int(header["dtype"])).name.lower(), tile[:1], tile[1:])
            block, step = chosen.block_rows(tile[0]), chosen.block_depth
            if op["in_channels"] % PANEL:  # a folded stem: its steps do not cross from run to run
                run, step = int(op["in_channels"]), RUN_DEPTH
        rows = _round_up(rows, block)
        whole, rest = divmod(depth, run)
        depth = whole * _round_up(run, step) + _round_up(rest, step)
    return rows * columns * depth // batch


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _budget(program: Program, ops: list[np.void]) -> dict[str, int]:
    batch = int(program.header["max_batch"])
    return {**_macs(program, ops), "bytes": sum(traffic(program, op, batch).total for op in ops) // batch}


def _macs(program: Program, ops: list[np.void]) -> dict[str, int]:
    return {
        "nominal": sum(int(op["nominal_macs"]) for op in ops),
        "executed": sum(executed_macs(program, op) for op in ops),
    }


def _program(program: Program) -> dict[str, Any]:
    header, ops = program.header, list(program.ops)
    modules: dict[str, list[np.void]] = {}
    for op in ops:
        # What is in no module (the stem, the pools between, the classifier) stands for itself.
        if op["nominal_macs"] or op["module_bytes"]:
            modules.setdefault(program.text(op, "module") or program.text(op), []).append(op)
    return {
        "target": TargetKind(int(header["target"])).name.lower(),
        "dtype": Dtype(int(header["dtype"])).name.lower(),
        "max_batch": int(header["max_batch"]),
        "input": [int(header[f"input_{side}"]) for side in ("channels", "height", "width")],
        "outputs": [
            {"name": program.text(output), "shape": [int(output[k]) for k in ("channels", "height", "width")]}
            for output in program.outputs
        ],
        "launches": [
            {
                "name": program.text(launch),
                "mode": LaunchMode(int(launch["mode"])).name.lower(),
                "tasks": int(launch["task_count"]),
            }
            for launch in program.launches
        ],
        "ops": len(ops),
        "tasks": len(program.tasks),
        "waits": len(program.waits),
        "macs": _macs(program, ops),
        "modules": [{"name": name, **_budget(program, members)} for name, members in modules.items()],
        "layers": [{"name": program.text(op), **_budget(program, [op])} for op in ops],
        "arena_bytes": int(header["arena_bytes"]),
        "activation_bytes": int(header["activation_bytes"]),
        "weight_bytes": _weight_bytes(ops),
    }


def _weight_bytes(ops: list[np.void]) -> int:
    """Of weights and biases with their padding; what two ops share counts once."""
    pieces = {int(op["weight_offset"]): int(op["weight_bytes"]) for op in ops if op["weight_bytes"]}
    for op in ops:
        if op["kind"] == OpKind.CONV:
            pieces[int(op["bias_offset"])] = _round_up(int(op["out_channels"]), PANEL) * Dtype.FP32.bytes
    return sum(pieces.values())


def render(document: dict[str, Any], layers: bool = False) -> str:
    """``report`` as text, without a newline at the end. ``layers``: each of them instead of each module."""
    lines = [
        f"{document['name'] or 'unnamed network'}: {_count(len(document['programs']), 'program')}, "
        f"{_count(document['labels'], 'label')}"
        + (", weights are random" if document["random_weights"] else "")
    ]
    for number, program in enumerate(document["programs"], 1):
        lines += ["", *_render_program(number, program, layers)]
    return "\n".join(lines)


def _render_program(number: int, program: dict[str, Any], layers: bool) -> list[str]:
    outputs = [f"{output['name']} {_shape(output['shape'])}" for output in program["outputs"]]
    more = f" and {len(outputs) - 4} more" if len(outputs) > 4 else ""
    arena, activations, macs = program["arena_bytes"], program["activation_bytes"], program["macs"]
    share = f"{arena / activations:.1%} of " if activations else ""
    lines = [
        f"program {number}: {program['target']} {program['dtype']}, batch 1 to {program['max_batch']}",
        f"  input          {_shape(program['input'])}",
        f"  outputs        {', '.join(outputs[:4])}{more}",
        f"  launches       {len(program['launches'])}, of {_count(program['tasks'], 'task')} with "
        f"{_count(program['waits'], 'wait')}, of {_count(program['ops'], 'op')}",
    ]
    lines += [
        f"    {launch['name']} ({launch['mode']}): {_count(launch['tasks'], 'task')}"
        for launch in program["launches"]
    ]
    return [
        *lines,
        f"  multiply-adds  {macs['nominal'] / 1e6:,.1f} M nominal, {macs['executed'] / 1e6:,.1f} M executed per "
        f"image{_waste(macs)}",
        f"  arena          {_megabytes(arena)}, {share}the sum of activations, {_megabytes(activations)}",
        f"  weights        {_megabytes(program['weight_bytes'])}",
        "",
        *_render_budget("layer" if layers else "module", program["layers" if layers else "modules"]),
    ]


def _render_budget(what: str, parts: list[dict[str, Any]]) -> list[str]:
    wide = max([16, *(len(part["name"]) + 2 for part in parts)])
    return [
        f"  {what:<{wide}}{'nominal M':>12}{'executed M':>12}  waste{'moved kB':>12}{'macs/byte':>11}",
        *(
            f"  {part['name']:<{wide}}{part['nominal'] / 1e6:>12,.2f}{part['executed'] / 1e6:>12,.2f}"
            f"{_waste(part, 7) or '-':>7}{part['bytes'] / 1e3:>12,.1f}{part['nominal'] / part['bytes']:>11.1f}"
            for part in parts
        ),
    ]


def _waste(macs: dict[str, Any], width: int = 0) -> str:
    """Executed above nominal."""
    if not macs["nominal"]:
        return ""
    percent = f"{macs['executed'] / macs['nominal'] - 1:+.1%}"
    return f"{percent:>{width}}" if width else f" ({percent})"


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
