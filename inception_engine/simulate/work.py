"""What each task computes and moves, from its op's geometry; in seconds of a whole GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inception_engine.compiler.inspect import executed_macs
from inception_engine.compiler.plan import NONE, Dtype, OpKind, Program
from inception_engine.simulate.gpu import Gpu

_LRN_OPERATIONS = 8  # of one element besides its squares: logarithm, power and what scales them
_SOFTMAX_OPERATIONS = 8  # of one element: two comparisons, two exponentials, sum, division
_IMAGE_BYTES = Dtype.FP32.bytes  # of the caller's pixels


@dataclass(frozen=True)
class Work:
    """Of every task, shape (tasks,): ``compute``, seconds at the rate of the whole GPU's arithmetic; ``traffic``,
    seconds at the rate of its L2 or, for ops larger than L2, of its memory if that takes longer; ``runs``, bool: false
    for a JOIN and for a tile of images that the batch does not have. ``gathering``: seconds, as of traffic, in which
    the last of a tile's parts adds them up. ``tile``: the tile of a part, counted over the program, or -1.
    """

    compute: np.ndarray
    traffic: np.ndarray
    runs: np.ndarray
    gathering: np.ndarray
    tile: np.ndarray


def work(program: Program, gpu: Gpu, batch: int) -> Work:
    """Work of the program's tasks in a run of ``batch`` images.

    A product runs whole tiles and steps of K, whatever exists of them. It loads the pixels of its windows and its
    weights from L2 for every tile. What pools, LRN and softmax read again within a tile is taken to lie in the
    multiprocessor's own cache.
    """
    tasks = program.tasks
    runs = tasks["op"] != NONE
    op = np.where(runs, tasks["op"], 0)
    costs = [_tile(program, record, gpu, batch) for record in program.ops]
    row, column = tasks["row"].astype(np.int64), tasks["column"].astype(np.int64)
    rows = np.minimum(_column(costs, "rows")[op] - row, _column(costs, "tile_rows")[op])
    runs &= rows > 0
    rows = np.where(runs, rows, 0)
    columns = np.minimum(_column(costs, "columns")[op] - column, _column(costs, "tile_columns")[op])
    columns = np.where(runs, columns, 0)

    # Of a product that is cut along K: the share of it that the task's part has.
    depth, parts = _column(costs, "depth")[op], _column(costs, "parts")[op]
    part_depth = np.minimum(
        _column(costs, "part_depth")[op], depth - tasks["part"] * _column(costs, "part_depth")[op]
    )
    share = part_depth / depth
    is_part = runs & (parts > 1)
    sums = is_part * _column(costs, "tile_rows")[op] * _column(costs, "tile_columns")[op] * Dtype.FP32.bytes

    flops = _column(costs, "tile_flops")[op] * runs * share
    area = rows * columns
    vector = area * _column(costs, "operations")[op]
    moved = area * _column(costs, "area_bytes")[op]
    read = rows * _column(costs, "row_bytes")[op] + columns * _column(costs, "column_bytes")[op]
    moved = np.where(is_part, sums, moved) + read * share
    dtype = Dtype(int(program.header["dtype"]))
    # One operation per lane and clock, where the datasheet counts a multiply and an add.
    compute = flops / gpu.product_rate(dtype) + vector / (gpu.float_flop_per_second / 2)
    return Work(
        compute=compute,
        traffic=np.maximum(
            moved / gpu.l2_bytes_per_second, area * share * _column(costs, "memory_seconds")[op]
        ),
        runs=runs,
        gathering=(sums * parts + is_part * area * _column(costs, "area_bytes")[op])
        / gpu.l2_bytes_per_second,
        tile=np.where(is_part, _tiles(program, op), -1),
    )


def _tiles(program: Program, op: np.ndarray) -> np.ndarray:
    """A number for the tile of each task, the same for its parts."""
    tasks = program.tasks
    places = np.stack([op, tasks["row"].astype(np.int64), tasks["column"].astype(np.int64)])
    numbers: np.ndarray = np.unique(places, axis=1, return_inverse=True)[1]
    return numbers.reshape(-1)


def _column(costs: list[dict[str, float]], name: str) -> np.ndarray:
    return np.array([cost[name] for cost in costs])


def _tile(program: Program, op: np.void, gpu: Gpu, batch: int) -> dict[str, float]:
    """Of one op: its size, and what a tile costs by its rows, its columns, and by each of its elements."""
    element = Dtype(int(program.header["dtype"])).bytes
    names = *_SIZES, "kind", "weight_bytes", "lrn_size", "part_depth"
    n: dict[str, Any] = {name: int(op[name]) for name in names}
    max_rows, rows = (
        n["out_h"] * n["out_w"] * int(images) for images in (program.header["max_batch"], batch)
    )
    columns = n["out_padded"]
    window = n["kernel_h"] * n["kernel_w"]
    tiles = -(-max_rows // n["tile_rows"]) * -(-columns // n["tile_columns"])
    cost = dict.fromkeys(("tile_flops", "operations", "row_bytes", "column_bytes"), 0.0)
    area_bytes = float(element)  # of the tile's stores
    read = 0.0  # bytes of the whole op's input
    if n["kind"] == OpKind.INPUT:
        cost["row_bytes"] = n["in_channels"] * _IMAGE_BYTES
        read = batch * n["in_h"] * n["in_w"] * n["in_channels"] * _IMAGE_BYTES
    else:
        pitch = int(program.buffers[int(op["in_buffer"])]["pitch"])
        read = batch * n["in_h"] * n["in_w"] * min(n["in_channels"], pitch) * element
    if n["kind"] == OpKind.CONV:
        depth = window * n["in_channels"]
        cost["tile_flops"] = 2 * executed_macs(program, op) * int(program.header["max_batch"]) / tiles
        cost["row_bytes"] = cost["column_bytes"] = depth * element
    elif n["kind"] in (OpKind.MAX_POOL, OpKind.AVERAGE_POOL):
        cost["operations"] = window
        area_bytes += element * min(window, n["stride_h"] * n["stride_w"])
    elif n["kind"] == OpKind.LRN:
        cost["operations"] = 2 * n["lrn_size"] + _LRN_OPERATIONS
        area_bytes += element
    elif n["kind"] == OpKind.SOFTMAX:
        cost["operations"] = _SOFTMAX_OPERATIONS
        area_bytes += element
    footprint = read + rows * columns * element + n["weight_bytes"]
    spilt = footprint if footprint > gpu.l2_bytes else 0
    cost["memory_seconds"] = spilt / gpu.dram_bytes_per_second / (rows * columns)
    depth = window * n["in_channels"]
    part_depth = n["part_depth"] or depth
    return cost | {
        "depth": depth,
        "part_depth": part_depth,
        "parts": -(-depth // part_depth),
        "area_bytes": area_bytes,
        "rows": rows,
        "columns": columns,
        "tile_rows": n["tile_rows"],
        "tile_columns": n["tile_columns"],
    }


_SIZES = (
    *("in_channels", "in_h", "in_w", "out_h", "out_w", "out_padded"),
    *("kernel_h", "kernel_w", "stride_h", "stride_w", "tile_rows", "tile_columns"),
)
