"""What the loader accepts, the engine runs: as plan_format.h says, with any number of threads and any batch.

Random programs have windows, tiles, slices and orders that no compiler makes. A program is evaluated twice: by the
engine, its memory poisoned with NaN, and here, task by task in float64 with a separate array for each buffer.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inception_engine as ie
from inception_engine import binding
from tests.loader import STATUS, verdict
from tests.plans import (
    AVERAGE_POOL,
    BF16,
    CONV,
    COUNT_INCLUDE_PAD,
    CPU,
    FP16,
    FP32,
    INPUT,
    LRN,
    MAX_POOL,
    MAX_POOL_FIRST,
    NONE,
    PANEL,
    RELU,
    SOFTMAX,
    THEN_LRN,
    Builder,
    Program,
    Record,
    is_folded,
    plan_file,
    small_program,
)
from tests.random_plans import mutated, random_program
from tests.tolerances import TOLERANCES, error

# One mean and deviation for however many channels an image has.
METADATA = b'{"preprocess": {"mean": [0], "std": [1]}}'


def evaluate(program: Program, weights: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """The outputs, float64 (N, C, H, W), for ``images`` (N, C, H, W) and the WEIGHTS section as float32."""
    batch = len(images)
    buffers = [np.full((b.rows * batch, b.pitch), np.nan) for b in program.buffers]
    for task in program.tasks:
        if task.op == NONE:
            continue
        op = program.ops[task.op]
        begin, end = task.column, min(task.column + op.tile_columns, op.out_padded)
        for row in range(task.row, min(task.row + op.tile_rows, batch * op.out_h * op.out_w)):
            values = np.zeros(op.out_padded)
            found = _pixel(program, op, row, buffers, weights, images)
            values[: op.out_channels] = _normalised(op, found) if op.flags & THEN_LRN else found
            buffers[op.out_buffer][row, op.out_channel + begin : op.out_channel + end] = values[begin:end]
    results = []
    for output in program.outputs:
        values = buffers[output.buffer][:, output.channel : output.channel + output.channels]
        results.append(values.reshape(batch, output.height, output.width, -1).transpose(0, 3, 1, 2))
    return results


def _normalised(op: Record, values: np.ndarray) -> np.ndarray:
    below, above = op.lrn_size // 2, (op.lrn_size - 1) // 2
    squares = np.pad(values**2, (below, above))
    sums = np.convolve(squares, np.ones(op.lrn_size), "valid")
    return values * (op.lrn_k + op.lrn_alpha / op.lrn_size * sums) ** -op.lrn_beta


def _pixel(
    program: Program,
    op: Record,
    row: int,
    buffers: list[np.ndarray],
    weights: np.ndarray,
    images: np.ndarray,
) -> np.ndarray:
    """All out_channels of one row of the op's output."""
    image, y, x = row // (op.out_h * op.out_w), row // op.out_w % op.out_h, row % op.out_w
    if op.kind == INPUT:
        inside = op.pad_left <= x < op.pad_left + op.in_w
        return images[image, :, y, x - op.pad_left] if inside else np.zeros(op.in_channels)
    source = buffers[op.in_buffer]
    channels = slice(op.in_channel, op.in_channel + op.in_channels)
    if op.kind == LRN:
        return _normalised(op, source[row, channels])
    if op.kind == SOFTMAX:
        powers = np.exp(source[row, channels] - source[row, channels].max())
        return powers / powers.sum()

    lines, width = source.reshape(-1, op.in_w, source.shape[1]), op.kernel_w
    taps: list[tuple[int, int, np.ndarray]] = []
    for kh in range(op.kernel_h):
        for kw in range(width):
            in_y, in_x = y * op.stride_h + kh - op.pad_top, x * op.stride_w + kw - op.pad_left
            if 0 <= in_y < op.in_h and 0 <= in_x < op.in_w:
                line = lines[image * op.in_h + in_y]
                if is_folded(program, op):
                    begin = in_x * source.shape[1]
                    taps.append((kh, kw, line.reshape(-1)[begin : begin + op.in_channels]))
                else:
                    taps.append((kh, kw, line[in_x, channels]))
    if op.kind == MAX_POOL:
        return np.max([values for _, _, values in taps], axis=0)
    if op.kind == AVERAGE_POOL:
        total = np.sum([values for _, _, values in taps], axis=0)
        if op.flags & COUNT_INCLUDE_PAD:
            high = min(y * op.stride_h + op.kernel_h, op.in_h + op.pad_top + op.pad_bottom) - y * op.stride_h
            wide = min(x * op.stride_w + width, op.in_w + op.pad_left + op.pad_right) - x * op.stride_w
            return total / (high * wide)
        return total / len(taps)
    panels = -(-op.out_channels // PANEL)
    shape = (panels, op.kernel_h, op.kernel_w, op.in_channels, PANEL)
    if op.flags & MAX_POOL_FIRST:
        taps = [(0, 0, np.max([pixel for _, _, pixel in taps], axis=0))]
        shape = (panels, 1, 1, op.in_channels, PANEL)
    if program.header.dtype == BF16:
        bits = weights.view(np.uint16)[op.weight_offset // 2 :][: np.prod(shape)]
        packed = (bits.astype(np.uint32) << 16).view(np.float32).reshape(shape)
    else:
        packed = weights[op.weight_offset // 4 :][: np.prod(shape)].reshape(shape)
    values = weights[op.bias_offset // 4 :][: panels * PANEL].astype(np.float64)
    for kh, kw, pixel in taps:
        values += (pixel[None, :, None] * packed[:, kh, kw]).sum(axis=1).reshape(-1)
    values = np.maximum(values, 0) if op.flags & RELU else values
    return values[: op.out_channels]


@contextmanager
def loaded(data: bytes) -> Iterator[Any]:
    library, engine = binding.library(), ctypes.c_void_p()
    message = binding.message_buffer()
    options = binding.EngineOptions(device=binding.DEVICES.index("cpu"))
    status = library.ie_engine_load_memory(data, len(data), options, engine, message)
    assert STATUS[status] == "IE_OK", message.value
    try:
        yield engine
    finally:
        library.ie_engine_free(engine)


def run(
    engine: Any, program: Program, images: np.ndarray, threads: int = 1, isa: str = "auto"
) -> list[np.ndarray]:
    """All outputs, float32 (N, C, H, W), from a context of its own, in poisoned memory."""
    library, context, message = binding.library(), ctypes.c_void_p(), binding.message_buffer()
    options = binding.ContextOptions(
        threads=threads, isa=binding.ISAS.index(isa), poison=1, timeout_ms=20_000
    )
    assert library.ie_context_create(engine, options, context, message) == 0, message.value
    images = np.ascontiguousarray(images, np.float32)
    outputs = (binding.Output * len(program.outputs))()
    arrays = []
    for index, (output, record) in enumerate(zip(outputs, program.outputs, strict=True)):
        arrays.append(
            np.full((len(images), record.channels, record.height, record.width), np.nan, np.float32)
        )
        output.struct_size, output.index, output.data = ctypes.sizeof(output), index, arrays[-1].ctypes.data
    source = binding.Input(format=binding.FLOAT32_NCHW, batch=len(images), data=images.ctypes.data)
    try:
        # Twice: what the first run left behind must not show.
        for _ in range(2):
            status = library.ie_run(context, source, outputs, len(arrays))
            assert status == 0, library.ie_context_message(context)
    finally:
        library.ie_context_free(context)
    return arrays


def random_weights(program: Program, seed: int) -> np.ndarray:
    """Centred, and small enough that sums of a few hundred products stay near one; so are their halves, as bfloat16."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0, 0.3, program.weight_bytes // 4).astype(np.float32)
    if program.header.dtype == BF16:
        bits = values.view(np.uint32)
        bits[:] = bits & 0xFFFF0000 | bits >> 16
    return values


def random_images(program: Program, seed: int) -> np.ndarray:
    header = program.header
    shape = (header.max_batch, header.input_channels, header.input_height, header.input_width)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def accepted_program(rng: random.Random, dtype: int = FP32) -> Program:
    """A random program for the CPU, of this dtype, that the loader lets pass, mutated or not."""
    while True:
        program = random_program(rng)
        for _ in range(rng.randint(0, 6)):
            candidate = mutated(program, rng)
            program = candidate if verdict(plan_file(candidate)) == "IE_OK" else program
        header = program.header
        if (header.target, header.dtype) == (CPU, dtype) and verdict(plan_file(program)) == "IE_OK":
            return program


@pytest.mark.parametrize("block", range(5))
def test_accepted_programs_in_bfloat16(block: int) -> None:
    """Activations are rounded where their buffer is bfloat16."""
    for seed in range(1000 + 10 * block, 1010 + 10 * block):
        program = accepted_program(random.Random(seed), BF16)
        weights, images = random_weights(program, seed), random_images(program, seed)
        data = plan_file(program, weights=weights.tobytes(), metadata=METADATA)
        expected = evaluate(program, weights, images)
        for isa in binding.machine_isas()[-2:]:
            with loaded(data) as engine:
                found = run(engine, program, images, isa=isa)
                again = run(engine, program, images, threads=3, isa=isa)
            for actual, other, values in zip(found, again, expected, strict=True):
                np.testing.assert_array_equal(actual, other)
                assert error(actual, values) <= TOLERANCES["bf16"].layer


@pytest.mark.parametrize("block", range(10))
def test_accepted_programs_compute_what_their_ops_say(block: int) -> None:
    for seed in range(30 * block, 30 * block + 30):
        compare(accepted_program(random.Random(seed)), seed)


def compare(program: Program, seed: int) -> None:
    """Engine against evaluation; several threads against one; the last image alone against it among others."""
    rng = random.Random(seed)
    weights, images = random_weights(program, seed), random_images(program, seed)
    isa = rng.choice(binding.machine_isas())
    with loaded(plan_file(program, weights=weights.tobytes(), metadata=METADATA)) as engine:
        found = run(engine, program, images, isa=isa)
        for actual, expected in zip(found, evaluate(program, weights, images), strict=True):
            assert error(actual, expected) <= TOLERANCES["fp32"].layer
        again = run(engine, program, images, threads=rng.choice((2, 3, 5)), isa=isa)
        for one, other in zip(found, again, strict=True):
            np.testing.assert_array_equal(one, other)
        last = run(engine, program, images[-1:], threads=2, isa=isa)
        for one, other in zip(found, last, strict=True):
            np.testing.assert_array_equal(one[-1:], other)


def test_the_comparison_notices_one_weight() -> None:
    program = small_program()
    weights, images = random_weights(program, 0), random_images(program, 0)
    with loaded(plan_file(program, weights=weights.tobytes(), metadata=METADATA)) as engine:
        found = run(engine, program, images)
    weights[3] += 0.1
    expected = evaluate(program, weights, images)
    assert error(found[0], expected[0]) > TOLERANCES["fp32"].layer


def test_float16_weights_are_not_read_as_float32() -> None:
    """They are half as long: kernels for float32 would read beyond the end of their section."""
    build = Builder((3, 4, 4), 1, CPU, FP16)
    image, out = build.buffer(16, 3), build.buffer(1, 16)
    for buffer in build.program.buffers:
        buffer.dtype = FP32
    build.op(INPUT, NONE, image)
    build.op(CONV, image, out, in_h=4, in_w=4, kernel_h=4, kernel_w=4)
    build.output(out, 1, 1)
    data = plan_file(build.finish())
    assert verdict(data) == "IE_OK"
    library, engine = binding.library(), ctypes.c_void_p()
    status = library.ie_engine_load_memory(data, len(data), None, engine, binding.message_buffer())
    assert STATUS[status] == "IE_ERROR_NO_PROGRAM"
    assert not engine


def test_programs_of_one_plan_share_their_interface() -> None:
    """A caller sizes its memory by one program; another must not write more into it."""
    small, large, wide = small_program(1), small_program(2), small_program(3)
    wide.outputs[0] = Record(**vars(wide.outputs[0]))
    wide.outputs[0].buffer = wide.ops[0].out_buffer
    wide.outputs[0].channels, wide.outputs[0].height, wide.outputs[0].width = 3, 4, 4
    assert verdict(plan_file(wide)) == "IE_OK"
    with loaded(plan_file(small, large)):
        pass
    library, engine, message = binding.library(), ctypes.c_void_p(), binding.message_buffer()
    data = plan_file(small, large, wide)
    status = library.ie_engine_load_memory(data, len(data), None, engine, message)
    assert STATUS[status] == "IE_PLAN_GEOMETRY"
    assert not engine


# Channels, height and width of the image; what is changed of a window of 3 x 3 of stride 1, unpadded.
POOLS: dict[str, tuple[tuple[int, int, int], dict[str, int]]] = {
    "lines longer than a chunk": ((20, 5, 150), {"pad_left": 2, "pad_right": 1}),
    "lines that chunks cut": ((17, 9, 33), {"tile_rows": 50}),
    "pieces of a very long line": ((2, 1, 8200), {"kernel_h": 1, "kernel_w": 5, "stride_w": 2}),
    "windows that leave out pixels": ((33, 9, 40), {"kernel_w": 2, "stride_w": 5, "stride_h": 4}),
    "one column": ((80, 30, 1), {"kernel_w": 1, "pad_top": 2, "pad_bottom": 2}),
    "as large as the image": ((48, 7, 7), {"kernel_h": 7, "kernel_w": 7}),
    "tiles of some columns": ((40, 6, 12), {"tile_columns": PANEL}),
}


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", POOLS)
def test_a_pool_in_front_of_a_convolution_computes_the_bits_of_two_ops(name: str, dtype: int) -> None:
    """With an LRN behind it, too, which is one op more; from a slice to a slice, of images with infinities and NaNs."""
    (channels, height, width), changed = POOLS[name]
    build = Builder((channels, height, width), 3, CPU, dtype)
    image = build.buffer(height * width, channels + 4)
    build.op(INPUT, NONE, image, out_channel=3)
    window = {"kernel_h": 3, "kernel_w": 3} | changed
    tiles = {name: window.pop(name) for name in ("tile_rows", "tile_columns") if name in window}
    window |= {"in_h": height, "in_w": width, "in_channel": 3, "in_channels": channels}
    columns = {"out_channels": 34, "out_padded": 37}
    normalises = "tile_columns" not in tiles
    pool = build.op(MAX_POOL, image, build.buffer(1, channels), out_channels=channels, **window)
    high, wide = build.program.ops[pool].out_h, build.program.ops[pool].out_w
    pooled = build.program.ops[pool].out_buffer
    build.program.buffers[pooled].rows = high * wide
    outs = [build.buffer(high * wide, 40) for _ in range(3 if normalises else 2)]
    build.op(CONV, pooled, outs[0], in_h=high, in_w=wide, flags=RELU, **columns)
    if normalises:
        fields = {"in_channels": 34, "out_channels": 34, "out_padded": 37, "out_channel": 1}
        build.op(LRN, outs[0], outs[2], in_h=high, in_w=wide, **fields)
    flags = RELU | MAX_POOL_FIRST | (THEN_LRN if normalises else 0)
    build.op(CONV, image, outs[1], flags=flags, out_channel=1, **(window | columns | tiles))
    build.output(outs[-1] if normalises else outs[0], high, wide, channel=int(normalises), channels=37)
    build.output(outs[1], high, wide, channel=1, channels=37)
    program = build.finish()
    assert {op.weight_bytes for op in program.ops if op.kind == CONV} == {
        channels * 48 * (4 // (1 + (dtype == BF16)))
    }
    weights, images = random_weights(program, 0), random_images(program, 0)
    with loaded(plan_file(program, weights=weights.tobytes(), metadata=METADATA)) as engine:
        for isa in binding.machine_isas():
            apart, together = run(engine, program, images, isa=isa)
            np.testing.assert_array_equal(apart.view(np.uint32), together.view(np.uint32))
            assert np.isfinite(apart).all() and apart.any()
            strange = images.copy()
            strange.reshape(-1)[::29], strange.reshape(-1)[5::31] = np.inf, np.nan
            apart, together = run(engine, program, strange[:2], threads=3, isa=isa)
            np.testing.assert_array_equal(apart, together)
            assert np.isnan(apart).any()


@pytest.mark.parametrize("kind", [MAX_POOL, AVERAGE_POOL, CONV])
def test_pixels_between_windows_take_no_time(kind: int, tmp_path: Path) -> None:
    """The proof counts what windows see: of a long line here two columns of pixels, for each panel of outputs. So that
    takes about as long as the copy of the whole image before it, and not a thousand times that.
    """
    lines, width, panels = 16, 2049, 8 if kind == CONV else 1
    build = Builder((1, lines + 1023, width))
    image = build.buffer((lines + 1023) * width, 1)
    out = build.buffer(lines * 2, PANEL * panels if kind == CONV else 1)
    build.op(INPUT, NONE, image)
    fields = {"kernel_h": 1024, "stride_w": 2048, "in_h": lines + 1023, "in_w": width, "tile_columns": PANEL}
    build.op(kind, image, out, flags=MAX_POOL_FIRST if kind == CONV else 0, **fields)
    build.output(out, lines, 2)
    program = build.finish()
    path = tmp_path / "windows.plan"
    path.write_bytes(plan_file(program, metadata=METADATA))
    with ie.Engine(path, threads=1) as engine:
        times = engine.trace(random_images(program, 0), len(program.tasks))
    took = np.bincount([task.op for task in program.tasks], times["end_ns"] - times["begin_ns"])
    assert took[1] < 20 * took[0], took


def test_a_place_of_bfloat16_weights_that_two_shapes_of_windows_read() -> None:
    """As many of them, but 16 columns of nine taps or 144 of one: what is made of one is too short for the other."""
    build = Builder((16, 5, 5), 1, CPU, BF16)
    image, direct, behind = build.buffer(25, 16), build.buffer(25, 16), build.buffer(25, 144)
    build.op(INPUT, NONE, image)
    fields = {"kernel_h": 3, "kernel_w": 3, "in_h": 5, "in_w": 5}
    fields |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
    build.op(CONV, image, direct, **fields)
    build.op(CONV, image, behind, flags=MAX_POOL_FIRST, **fields)
    build.output(direct, 5, 5)
    build.output(behind, 5, 5)
    program = build.finish()
    program.weight_bytes = 2 * program.ops[1].weight_bytes
    weights, images = random_weights(program, 0), random_images(program, 0)
    with loaded(plan_file(program, weights=weights.tobytes(), metadata=METADATA)) as engine:
        found = run(engine, program, images)
    for actual, expected in zip(found, evaluate(program, weights, images), strict=True):
        assert error(actual, expected) <= TOLERANCES["bf16"].layer


def test_a_maximum_of_float32_is_rounded_to_the_dtype_of_its_buffer() -> None:
    """Others need not be: what a maximum pool of bfloat16 chooses from was rounded before."""
    build = Builder((3, 4, 4), dtype=BF16)
    image, pooled = build.buffer(16, 3, FP32), build.buffer(4, 3)
    build.op(INPUT, NONE, image)
    build.op(MAX_POOL, image, pooled, in_h=4, in_w=4, kernel_h=2, kernel_w=2, stride_h=2, stride_w=2)
    build.output(pooled, 2, 2)
    program = build.finish()
    images = random_images(program, 0)
    with loaded(plan_file(program, metadata=METADATA)) as engine:
        (found,) = run(engine, program, images)
    largest = images.reshape(1, 3, 2, 2, 2, 2).max(axis=(3, 5))
    assert not (found.view(np.uint32) & 0xFFFF).any()
    assert 0 < np.abs(found / largest - 1).max() <= 2.0**-8
