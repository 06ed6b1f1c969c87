"""What tiles compute and move, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inception_engine import Network, compile, googlenet
from inception_engine.compiler.inspect import report
from inception_engine.compiler.plan import Program
from inception_engine.compiler.targets import CUDA_ONE_LAUNCH
from inception_engine.network import LRN, Conv, Linear, MaxPool, Softmax
from inception_engine.simulate import Gpu
from inception_engine.simulate.gpu import COSTS, SimulationError
from inception_engine.simulate.path import compulsory_bytes
from inception_engine.simulate.work import work
from tests.runtime.test_emulation import CUT
from tests.simulate.programs import FREE, SQUARE, toy_gpu

# 9 x 9 pixels are 81 rows: tiles of 64 and 17.
PIXELS, LAST = 81, 17


@pytest.fixture(scope="module")
def program() -> Program:
    """Image 3 x 9 x 9 -> 3x3 convolution, 80 channels -> LRN -> 2x2 / 2 max-pool -> linear, 10 -> softmax."""

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    conv = Conv(name="conv", inputs=("input",), weight=zeros(80, 3, 3, 3), bias=zeros(80), pads=(1, 1, 1, 1))
    layers = (
        conv,
        LRN(name="lrn", inputs=("conv",), size=5, alpha=1e-4, beta=0.75, k=1.0),
        MaxPool(name="pool", inputs=("lrn",), kernel=(2, 2), stride=(2, 2)),
        Linear(name="fc", inputs=("pool",), weight=zeros(10, 80 * 16), bias=zeros(10)),
        Softmax(name="softmax", inputs=("fc",)),
    )
    network = Network(name="tiny", input_shape=(3, 9, 9), layers=layers, logits="fc")
    return compile(network, targets=(SQUARE,), dtype="fp16").programs[0]


def of(program: Program, name: str, values: np.ndarray) -> list[float]:
    """The values of an op's tasks, in the order of rows and then columns."""
    (number,) = [i for i, op in enumerate(program.ops) if program.text(op) == name]
    tasks = [i for i, task in enumerate(program.tasks) if task["op"] == number]
    tasks.sort(key=lambda i: (int(program.tasks[i]["row"]), int(program.tasks[i]["column"])))
    return [float(values[i]) for i in tasks]


def test_bytes_of_tiles(program: Program) -> None:
    moved = work(program, toy_gpu(l2_bytes_per_second=1.0), 1).traffic
    # The folded convolution reads 3 runs of 3 pixels of 4 channels; 80 columns are tiles of 64 and 16.
    convolution = [
        2 * (rows * 36 + columns * 36 + rows * columns) for rows in (64, LAST) for columns in (64, 16)
    ]
    assert of(program, "conv", moved) == convolution
    assert of(program, "lrn", moved) == [2 * 2 * rows * 80 for rows in (64, LAST)]
    # A pool's windows of 2 x 2 do not overlap: four pixels read and one stored.
    assert of(program, "pool", moved) == [2 * 5 * 16 * columns for columns in (64, 16)]
    assert of(program, "fc", moved) == [2 * (1280 + 16 * 1280 + 16)]
    assert of(program, "softmax", moved) == [2 * 2 * 16]
    # float32 pixels; a line of 9 has one zero on either side, and is a tile; a row of the buffer has 4 channels.
    pixels = [11] * 9
    assert of(program, "input", moved) == [rows * (3 * 4 + 4 * 2) for rows in pixels]


def test_arithmetic_of_tiles(program: Program) -> None:
    flops = work(program, toy_gpu(tensor_flop_per_second=1.0), 1).compute
    # Whole tiles of 64 x 64, and whole steps of K; all the tiles of an op are alike.
    (op,) = [op for op in program.ops if program.text(op) == "conv"]
    assert op["tile_rows"] == op["tile_columns"] == 64
    convolution = of(program, "conv", flops)
    assert len(set(convolution)) == 1 and convolution[0] % (2 * 64 * 64) == 0
    assert convolution[0] / (2 * 64 * 64) == 3 * 32  # each run is a step
    vector = work(program, toy_gpu(float_flop_per_second=2.0), 1).compute
    assert of(program, "pool", vector) == [4 * 16 * columns for columns in (64, 16)]
    assert of(program, "lrn", vector) == [(2 * 5 + 8) * rows * 80 for rows in (64, LAST)]


def test_float32_uses_no_tensor_cores() -> None:
    plan = compile(googlenet(0, width=0.1, input_size=32, classes=5), targets="cuda", dtype="fp32")
    slow, fast = (toy_gpu(tensor_flop_per_second=rate, float_flop_per_second=1.0) for rate in (1.0, FREE))
    products = work(plan.programs[0], slow, 1).compute
    assert (products == work(plan.programs[0], fast, 1).compute).all() and products.max() > 0


def test_arithmetic_is_what_inspect_reports() -> None:
    network = googlenet(0, width=0.25, input_size=64, classes=10)
    plan = compile(network, targets="cuda", dtype="fp16", max_batch=3)
    flops = work(plan.programs[0], toy_gpu(tensor_flop_per_second=1.0), 3).compute.sum()
    executed = report(plan)["macs"]["executed"]
    assert flops == pytest.approx(2 * 3 * executed, rel=1e-6)


def test_parts_share_the_work_of_their_tile() -> None:
    """Arithmetic and loads add up to those of a whole K; each part stores its sums, and one reads them all."""
    network = googlenet(0, width=0.25, input_size=64, classes=10)
    whole, cut = (
        compile(network, targets=(target,), dtype="fp16").programs[0] for target in (CUDA_ONE_LAUNCH, CUT)
    )
    gpu = toy_gpu(tensor_flop_per_second=1.0, l2_bytes_per_second=1.0)
    before, after = work(whole, gpu, 1), work(cut, gpu, 1)
    assert after.compute.sum() == pytest.approx(before.compute.sum(), rel=1e-6)
    parts = cut.ops[np.where(after.tile >= 0, cut.tasks["op"], 0)]
    is_part = after.tile >= 0
    sums = 4 * (parts["tile_rows"] * parts["tile_columns"]).astype(np.int64) * is_part
    last = np.array([max(np.flatnonzero(after.tile == tile)) for tile in np.unique(after.tile[is_part])])
    count = np.bincount(after.tile[is_part])
    assert is_part.sum() > 100 and count.max() == 3
    stored = after.gathering[last] - count[after.tile[last]] * sums[last]
    assert (stored >= 0).all() and (stored <= 2 * 64 * 64).all()
    assert after.traffic.sum() + stored.sum() == pytest.approx(before.traffic.sum() + sums.sum(), rel=1e-6)


def test_parts_share_the_memory_of_an_op_that_passes_l2() -> None:
    network = googlenet(0, width=0.25, input_size=64, classes=10)
    plans = (compile(network, targets=(target,), dtype="fp16") for target in (CUDA_ONE_LAUNCH, CUT))
    gpu = toy_gpu(dram_bytes_per_second=1.0, l2_bytes=1.0)
    whole, cut = (work(plan.programs[0], gpu, 1).traffic.sum() for plan in plans)
    assert cut == pytest.approx(whole, rel=1e-6)


def test_compulsory_bytes(program: Program) -> None:
    """Weights in panels of 16 columns, fp16; image, logits and probabilities in float32."""
    weights = 2 * (80 * 36 + 16 * 1280)
    assert compulsory_bytes(program, 1) == weights + 4 * (3 * 9 * 9 + 10 + 10)


@pytest.mark.parametrize("path", sorted(COSTS.glob("*.json")), ids=lambda path: path.stem)
def test_costs_say_where_they_come_from(path) -> None:
    gpu = Gpu.load(path.stem)
    assert Gpu.from_document(gpu.document()) == gpu
    assert all(entry.source for entry in gpu.provenance.values())
    assert gpu.load_share(gpu.workers) < 1 and 0 < gpu.block_share <= 1


def test_costs_are_checked() -> None:
    document = toy_gpu().document()
    with pytest.raises(SimulationError, match="unknown gpu"):
        Gpu.load("../costs/h200")
    document["constants"]["block_share"]["provenance"] = "guessed"
    with pytest.raises(SimulationError, match="block_share"):
        Gpu.from_document(document)
    del document["constants"]["block_share"]
    with pytest.raises(SimulationError, match="missing or unknown block_share"):
        Gpu.from_document(document)
