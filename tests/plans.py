"""Plan files built by hand: small programs, valid and invalid, for the judges of the loader.

The records are written from the text of runtime/plan_format.h and share nothing with the compiler, so that a
misreading of the format shows up as a disagreement. Records are mutable: `copy` a program before changing it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import SimpleNamespace
from typing import Any

import xxhash

NONE = 0xFFFFFFFF
METADATA, WEIGHTS, PROGRAM = 1, 2, 3
CPU, CUDA = 1, 2
FP32, FP16, BF16 = 1, 2, 3
INPUT, CONV, MAX_POOL, AVERAGE_POOL, LRN, SOFTMAX = 1, 2, 3, 4, 5, 6
RELU, COUNT_INCLUDE_PAD, WINOGRAD, SMALL_PATCHES, THEN_LRN, MAX_POOL_FIRST = 1, 2, 4, 8, 16, 32
NO_WEIGHTS, PANEL_16 = 0, 1
NETWORK, MODULE, LAYER = 1, 2, 3
ELEMENT_BYTES = {FP32: 4, FP16: 2, BF16: 2}
ALIGNMENT = 64
PANEL = 16


class Record(SimpleNamespace):
    """One row of a table; its fields are attributes."""


class Layout:
    """A packed little-endian record; a field is ``name`` (uint32) or ``name:format`` in the letters of `struct`."""

    def __init__(self, fields: str) -> None:
        pairs = [token.partition(":") for token in fields.split()]
        self.names = [name for name, _, _ in pairs]
        self.formats = [kind or "I" for _, _, kind in pairs]
        self.struct = struct.Struct("<" + "".join(self.formats))
        self.bytes = self.struct.size
        self.zeros = {
            name: b"" if "s" in kind else 0 for name, kind in zip(self.names, self.formats, strict=True)
        }

    def new(self, **values: Any) -> Record:
        assert values.keys() <= self.zeros.keys(), values.keys() - self.zeros.keys()
        return Record(**(self.zeros | values))

    def pack(self, record: Record) -> bytes:
        values = vars(record)
        return self.struct.pack(*[values[name] for name in self.names])

    def unpack(self, data: bytes) -> list[Record]:
        return [Record(**dict(zip(self.names, row, strict=True))) for row in self.struct.iter_unpack(data)]


FILE_HEADER = Layout("magic:8s version section_count file_bytes:Q hash:Q reserved:32s")
SECTION = Layout("kind reserved offset:Q bytes:Q reserved2:Q")
HEADER = Layout(
    "target dtype max_batch input_channels input_height input_width buffer_count output_count op_count "
    "launch_count task_count wait_count counter_count string_bytes arena_bytes:Q activation_bytes:Q reserved:56s"
)
BUFFER = Layout("offset:Q rows pitch dtype reserved:12s")
OUTPUT = Layout("buffer channel channels height width name name_bytes reserved:4s")
OP = Layout(
    "kind flags in_buffer in_channel in_channels out_buffer out_channel out_channels out_padded "
    "in_h in_w out_h out_w kernel_h kernel_w stride_h stride_w pad_top pad_left pad_bottom pad_right "
    "tile_rows tile_columns packing lrn_size lrn_alpha:f lrn_beta:f lrn_k:f name name_bytes module module_bytes "
    "weight_offset:Q weight_bytes:Q bias_offset:Q nominal_macs:Q "
    "part_depth part_buffer first_arrival reserved:20s"
)
LAUNCH = Layout("first_task task_count mode name name_bytes reserved:12s")
TASK = Layout("op row column wait_begin wait_count signal part reserved:4s")
WAIT = Layout("counter target")
TABLES = {
    "buffers": BUFFER,
    "outputs": OUTPUT,
    "ops": OP,
    "launches": LAUNCH,
    "tasks": TASK,
    "waits": WAIT,
}
COUNTS = ("buffer_count", "output_count", "op_count", "launch_count", "task_count", "wait_count")


@dataclass(eq=False)
class Program:
    """The tables of one program, and how long the WEIGHTS section is that its ops point into."""

    header: Record
    buffers: list[Record] = field(default_factory=list)
    outputs: list[Record] = field(default_factory=list)
    ops: list[Record] = field(default_factory=list)
    launches: list[Record] = field(default_factory=list)
    tasks: list[Record] = field(default_factory=list)
    waits: list[Record] = field(default_factory=list)
    strings: bytes = b"net"
    weight_bytes: int = ALIGNMENT

    def copy(self) -> Program:
        tables = {name: [Record(**vars(record)) for record in getattr(self, name)] for name in TABLES}
        return Program(
            Record(**vars(self.header)), **tables, strings=self.strings, weight_bytes=self.weight_bytes
        )

    def count(self) -> Program:
        """Writes the lengths of the tables into the header."""
        for name, count in zip(TABLES, COUNTS, strict=True):
            setattr(self.header, count, len(getattr(self, name)))
        self.header.string_bytes = len(self.strings)
        return self

    def section(self) -> bytes:
        tables = b"".join(layout.pack(r) for name, layout in TABLES.items() for r in getattr(self, name))
        return HEADER.pack(self.header) + tables + self.strings

    def wait_lists(self) -> list[list[Record]]:
        return [self.waits[t.wait_begin : t.wait_begin + t.wait_count] for t in self.tasks]

    def set_wait_lists(self, lists: Sequence[list[Record]]) -> None:
        self.waits = []
        for task, waits in zip(self.tasks, lists, strict=True):
            task.wait_begin, task.wait_count = len(self.waits), len(waits)
            self.waits += [Record(**vars(wait)) for wait in waits]

    def signal_counts(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for task in self.tasks:
            if task.signal != NONE:
                counts[task.signal] = counts.get(task.signal, 0) + 1
        return counts

    def retarget(self) -> None:
        """Makes every wait's target the number of signals on its counter."""
        counts = self.signal_counts()
        for wait in self.waits:
            wait.target = counts.get(wait.counter, 0)


def seal(body: bytes, **header: Any) -> bytes:
    """A file header in front of everything behind it, with the right length and hash unless given others."""
    values: dict[str, Any] = {
        "magic": b"INCPLAN\n",
        "version": 1,
        "file_bytes": FILE_HEADER.bytes + len(body),
        "hash": xxhash.xxh64_intdigest(body),
    }
    return FILE_HEADER.pack(FILE_HEADER.new(**(values | header))) + body


def mend_hash(data: bytes) -> bytes:
    """The same file with the hash of what it now holds."""
    (header,) = FILE_HEADER.unpack(data[: FILE_HEADER.bytes])
    header.hash = xxhash.xxh64_intdigest(data[FILE_HEADER.bytes :])
    return FILE_HEADER.pack(header) + data[FILE_HEADER.bytes :]


def plan_file(
    *programs: Program, metadata: bytes = b"{}", weights: bytes | None = None, **header: Any
) -> bytes:
    """The file of a plan whose WEIGHTS section is as long as the longest that its programs want, all zeros."""
    if weights is None:
        weights = bytes(max(program.weight_bytes for program in programs))
    sections = [(METADATA, metadata), *((PROGRAM, p.section()) for p in programs), (WEIGHTS, weights)]
    end = FILE_HEADER.bytes + SECTION.bytes * len(sections)
    records, contents = b"", b""
    for kind, content in sections:
        padding = -end % ALIGNMENT
        records += SECTION.pack(SECTION.new(kind=kind, offset=end + padding, bytes=len(content)))
        contents += bytes(padding) + content
        end += padding + len(content)
    return seal(records + contents, **({"section_count": len(sections)} | header))


def read_sections(data: bytes) -> list[tuple[int, int, int]]:
    """(kind, offset, bytes) of each section."""
    (header,) = FILE_HEADER.unpack(data[: FILE_HEADER.bytes])
    records = SECTION.unpack(data[FILE_HEADER.bytes :][: SECTION.bytes * header.section_count])
    return [(record.kind, record.offset, record.bytes) for record in records]


def read_programs(data: bytes) -> list[Program]:
    """The programs of a file that the loader has accepted."""
    sections = read_sections(data)
    weight_bytes = next(size for kind, _, size in sections if kind == WEIGHTS)
    programs = []
    for kind, offset, size in sections:
        if kind != PROGRAM:
            continue
        (header,) = HEADER.unpack(data[offset : offset + HEADER.bytes])
        end = offset + HEADER.bytes
        tables = {}
        for (name, layout), count in zip(TABLES.items(), COUNTS, strict=True):
            begin, end = end, end + layout.bytes * getattr(header, count)
            tables[name] = layout.unpack(data[begin:end])
        strings = data[end : offset + size]
        programs.append(Program(header, **tables, strings=strings, weight_bytes=weight_bytes))
    return programs


# Geometry of ops, as plan_format.h items 8 and 9 have it.


def is_folded(program: Program, op: Record) -> bool:
    return op.kind == CONV and op.in_channels > program.buffers[op.in_buffer].pitch


def has_lrn(op: Record) -> bool:
    return bool(op.kind == LRN or op.flags & THEN_LRN)


def tile_grid(op: Record, max_batch: int) -> list[tuple[int, int]]:
    """(row, column) of every tile of the op's output, column tiles of a tile row together."""
    rows = max_batch * op.out_h * op.out_w
    return [(r, c) for r in range(0, rows, op.tile_rows) for c in range(0, op.out_padded, op.tile_columns)]


def part_count(op: Record) -> int:
    """Parts of K, and so tasks of each tile."""
    depth = op.kernel_h * op.kernel_w * op.in_channels
    return -(-depth // op.part_depth) if op.part_depth else 1


def task_grid(op: Record, max_batch: int) -> list[tuple[int, int, int]]:
    """(row, column, part) of every task of the op."""
    return [(*tile, part) for tile in tile_grid(op, max_batch) for part in range(part_count(op))]


def buffers_used(op: Record) -> set[int]:
    """What the op reads and writes."""
    read = {op.in_buffer} if op.kind != INPUT else set()
    return {op.out_buffer} | read | ({op.part_buffer} if op.part_depth else set())


def buffers_written(op: Record) -> set[int]:
    return {op.out_buffer} | ({op.part_buffer} if op.part_depth else set())


def lines_read(op: Record, row: int, end: int) -> tuple[int, int]:
    """Lines (image * in_h + y) from the first to the last that output rows [row, end) touch, both inclusive."""
    pixels = op.out_h * op.out_w
    image, y = row // pixels, row % pixels // op.out_w
    first = image * op.in_h + max(0, y * op.stride_h - op.pad_top)
    image, y = (end - 1) // pixels, (end - 1) % pixels // op.out_w
    last = image * op.in_h + min(op.in_h - 1, y * op.stride_h - op.pad_top + op.kernel_h - 1)
    return first, last


def patch_size(op: Record) -> int:
    """Height and width of a patch of Winograd's algorithm."""
    return 4 if op.flags & SMALL_PATCHES else 6


def patch_side(op: Record) -> int:
    """Height and width of the outputs that a patch of Winograd's algorithm makes."""
    return int(patch_size(op) + 1 - op.kernel_h)


def taps(op: Record) -> int:
    """Of a convolution's weights: one behind a pool."""
    return 1 if op.flags & MAX_POOL_FIRST else int(op.kernel_h * op.kernel_w)


def taps_across(op: Record) -> int:
    """Those side by side."""
    return 1 if op.flags & MAX_POOL_FIRST else int(op.kernel_w)


def window_bytes(program: Program, op: Record) -> int:
    """Bytes of a convolution's weights, PANEL_16."""
    panels = -(-op.out_padded // PANEL)
    elements = panels * taps(op) * op.in_channels * PANEL
    return int(elements * ELEMENT_BYTES[program.header.dtype])


class Builder:
    """Adds ops and buffers to a program; `finish` lays out the arena and makes the tasks."""

    def __init__(
        self, shape: tuple[int, int, int], max_batch: int = 1, target: int = CPU, dtype: int = FP32
    ) -> None:
        channels, height, width = shape
        header = HEADER.new(
            target=target,
            dtype=dtype,
            max_batch=max_batch,
            input_channels=channels,
            input_height=height,
            input_width=width,
        )
        self.program = Program(header)

    def buffer(self, rows: int, pitch: int, dtype: int = 0) -> int:
        dtype = dtype or self.program.header.dtype
        self.program.buffers.append(BUFFER.new(rows=rows, pitch=pitch, dtype=dtype))
        return len(self.program.buffers) - 1

    def op(self, kind: int, in_buffer: int, out_buffer: int, **fields: Any) -> int:
        """Appends an op; what is not given is 1 x 1, unpadded, over all channels of its buffers, one tile."""
        program, header = self.program, self.program.header
        pitch = program.buffers[out_buffer].pitch
        op = OP.new(kind=kind, in_buffer=in_buffer, out_buffer=out_buffer, name_bytes=3)
        if kind == INPUT:
            op.in_buffer = NONE
        for name in ("kernel_h", "kernel_w", "stride_h", "stride_w"):
            setattr(op, name, 1)
        if kind == INPUT:
            op.in_h, op.in_w = header.input_height, header.input_width
            op.in_channels = op.out_channels = header.input_channels
        else:
            op.in_channels = program.buffers[in_buffer].pitch
            op.out_channels = pitch if kind == CONV else op.in_channels
        vars(op).update(fields)
        if is_folded(program, op) and kind == CONV:
            source = program.buffers[in_buffer].pitch
            op.out_w = (op.in_w * source - op.in_channels) // (op.stride_w * source) + 1
        else:
            op.out_w = (op.in_w + op.pad_left + op.pad_right - op.kernel_w) // op.stride_w + 1
        op.out_h = (op.in_h + op.pad_top + op.pad_bottom - op.kernel_h) // op.stride_h + 1
        op.out_padded = fields.get("out_padded", op.out_channels)
        panels = -(-op.out_padded // PANEL)
        op.tile_rows = fields.get("tile_rows", header.max_batch * op.out_h * op.out_w)
        op.tile_columns = fields.get("tile_columns", panels * PANEL)
        if kind == CONV:
            op.packing = PANEL_16
            op.weight_bytes = window_bytes(program, op)
            bias = -(-op.out_channels // PANEL) * PANEL * 4
            program.weight_bytes = max(program.weight_bytes, op.weight_bytes, bias)
        elif kind == INPUT:
            op.weight_bytes = 8 * op.in_channels
            program.weight_bytes = max(program.weight_bytes, op.weight_bytes)
        if has_lrn(op):
            op.lrn_size, op.lrn_alpha, op.lrn_beta, op.lrn_k = 5, 1e-4, 0.75, 1.0
        if op.part_depth:
            rows = len(task_grid(op, header.max_batch)) * op.tile_rows
            op.part_buffer = self.buffer(-(-rows // header.max_batch), op.tile_columns, FP32)
        program.ops.append(op)
        return len(program.ops) - 1

    def output(self, buffer: int, height: int, width: int, channel: int = 0, channels: int = 0) -> None:
        channels = channels or self.program.buffers[buffer].pitch
        self.program.outputs.append(
            OUTPUT.new(
                buffer=buffer, channel=channel, channels=channels, height=height, width=width, name_bytes=3
            )
        )

    def finish(self, rng: random.Random | None = None) -> Program:
        """Arena, tasks, waits and launches: the plainest ones, or with ``rng`` any that come to mind."""
        arrange(self.program, rng)
        schedule(self.program, rng)
        return self.program.count()


def buffer_bytes(program: Program, index: int) -> int:
    buffer = program.buffers[index]
    return int(buffer.rows * buffer.pitch * ELEMENT_BYTES[buffer.dtype] * program.header.max_batch)


def fit_arena(program: Program) -> None:
    """The arena ends where its last buffer does."""
    end = max(b.offset + buffer_bytes(program, i) for i, b in enumerate(program.buffers))
    program.header.arena_bytes = -(-end // ALIGNMENT) * ALIGNMENT


def arrange(program: Program, rng: random.Random | None) -> None:
    """Places buffers one behind the other, or, by ``rng``, over buffers that no later op touches."""
    uses: dict[int, list[int]] = {index: [] for index in range(len(program.buffers))}
    for number, op in enumerate(program.ops):
        for buffer in buffers_used(op):
            uses[buffer].append(number)
    read_at_end = {output.buffer for output in program.outputs}
    end = 0
    placed: list[int] = []
    for index in sorted(uses, key=lambda i: uses[i][0]):
        size = -(-buffer_bytes(program, index) // ALIGNMENT) * ALIGNMENT
        live = [b for b in placed if b in read_at_end or uses[b][-1] >= uses[index][0]]
        taken = [
            (program.buffers[b].offset, program.buffers[b].offset + buffer_bytes(program, b)) for b in live
        ]
        offset = end
        if rng and rng.random() < 0.6:
            slots = [s for s in range(0, end, ALIGNMENT) if all(s + size <= a or b <= s for a, b in taken)]
            offset = rng.choice(slots) if slots else end
        program.buffers[index].offset = offset
        placed.append(index)
        end = max(end, offset + size)
    program.header.arena_bytes = end
    program.header.activation_bytes = sum(buffer_bytes(program, b) for b in range(len(program.buffers)))


def overlapping(program: Program, index: int) -> list[int]:
    """Other buffers that share bytes of the arena with the buffer ``index``."""
    begin = program.buffers[index].offset
    end = begin + buffer_bytes(program, index)
    return [
        other
        for other, buffer in enumerate(program.buffers)
        if other != index and buffer.offset < end and begin < buffer.offset + buffer_bytes(program, other)
    ]


@dataclass(eq=False)
class _Draft:
    """A task before it has a number."""

    op: int
    row: int
    column: int
    part: int
    launch: int
    signal: int
    waits: set[int]


def schedule(program: Program, rng: random.Random | None) -> None:
    """One task per tile, a counter per tile row, waits for the tile rows that are read; one launch.

    With ``rng``: counters per tile row, per band of them, per op or shared by two ops; waits for tiles, for the
    whole op or for a JOIN behind it, some left out; several launches; any order of tasks that the waits allow.
    """
    ops, batch = program.ops, program.header.max_batch

    def chance(probability: float) -> bool:
        return rng is not None and rng.random() < probability

    drafts: list[_Draft] = []
    rows_signal: list[
        list[list[int]]
    ] = []  # of each op, of each tile row: the counters of its tiles, from the left
    joins: list[int | None] = []  # of each op: the counter of the JOIN behind it
    launches: list[int] = []
    counters = 0
    cuts = 0.0 if chance(0.4) else 0.35
    for number, op in enumerate(ops):
        launches.append((launches[-1] if launches else 0) + (number > 0 and chance(cuts)))
        launch = launches[number]
        tile_rows = -(-batch * op.out_h * op.out_w // op.tile_rows)
        band = 1 if not rng else rng.choice((1, 1, 2, tile_rows))
        sibling = number > 0 and op.kind != INPUT and ops[number - 1].in_buffer == op.in_buffer
        sibling = sibling and ops[number - 1].kind != INPUT and len(rows_signal[-1]) == tile_rows
        sibling = sibling and launches[number - 1] == launch and joins[-1] is None
        if sibling and chance(0.3):
            across = -(-op.out_padded // op.tile_columns)
            rows_signal.append([[signals[0]] * across for signals in rows_signal[-1]])
        else:
            # Where the column tiles of a row do not share a counter, only readers of the whole op are served.
            across = -(-op.out_padded // op.tile_columns)
            apart = across if chance(0.2) else 1
            rows_signal.append(
                [
                    [counters + row // band * apart + column % apart for column in range(across)]
                    for row in range(tile_rows)
                ]
            )
            counters += ((tile_rows - 1) // band + 1) * apart

        waits_for_op: dict[int, str] = {}  # earlier op: "tiles", "op" or "join"
        for other, writer in enumerate(ops[:number]):
            if launches[other] < launch and not chance(0.2):
                continue
            read = op.kind != INPUT and writer.out_buffer == op.in_buffer
            span = min(op.in_channels, program.buffers[op.in_buffer].pitch) if read else 0
            begin, end = writer.out_channel, writer.out_channel + writer.out_padded
            if read and begin < op.in_channel + span and op.in_channel < end and not chance(0.02):
                waits_for_op[other] = "tiles" if not rng else rng.choice(("tiles", "tiles", "op", "join"))
            shared = {other for buffer in buffers_written(op) for other in overlapping(program, buffer)}
            if buffers_used(writer) & shared and not chance(0.2):
                waits_for_op[other] = "op" if not rng else rng.choice(("op", "join"))
        own = set(chain.from_iterable(rows_signal[number]))
        if op.part_depth:
            op.first_arrival = counters
            counters += len(tile_grid(op, batch))
        for row, column, part in task_grid(op, batch):
            waits: set[int] = set()
            for other, how in waits_for_op.items():
                signals, join = rows_signal[other], joins[other]
                if how == "join" and join is not None:
                    waits.add(join)
                elif how == "tiles":
                    writer = ops[other]
                    first, last = lines_read(op, row, min(row + op.tile_rows, batch * op.out_h * op.out_w))
                    begin, end = first * op.in_w, (last + 1) * op.in_w - 1
                    rows = signals[begin // writer.tile_rows : end // writer.tile_rows + 1]
                    waits |= set(chain.from_iterable(rows))
                else:
                    waits |= set(chain.from_iterable(signals))
            waits -= own
            signal = rows_signal[number][row // op.tile_rows][column // op.tile_columns]
            drafts.append(_Draft(number, row, column, part, launch, signal, waits))
        joins.append(None)
        if chance(0.4):
            drafts.append(_Draft(NONE, 0, 0, 0, launch, counters, own))
            joins[number] = counters
            counters += 1

    if chance(0.5):
        assert rng is not None
        drafts = _shuffled(drafts, rng)
    program.tasks = [
        TASK.new(op=d.op, row=d.row, column=d.column, part=d.part, signal=d.signal) for d in drafts
    ]
    program.set_wait_lists([[WAIT.new(counter=c) for c in sorted(d.waits)] for d in drafts])
    program.retarget()
    program.header.counter_count = counters
    program.launches = []
    for number, draft in enumerate(drafts):
        if number == 0 or draft.launch != drafts[number - 1].launch:
            program.launches.append(LAUNCH.new(first_task=number, mode=NETWORK, name_bytes=3))
        program.launches[-1].task_count += 1


def _shuffled(drafts: list[_Draft], rng: random.Random) -> list[_Draft]:
    """Another order in which every task still stands behind the signals that it waits for."""
    missing: dict[int, int] = {}
    for draft in drafts:
        missing[draft.signal] = missing.get(draft.signal, 0) + 1
    order: list[_Draft] = []
    for launch in sorted({draft.launch for draft in drafts}):
        left = [draft for draft in drafts if draft.launch == launch]
        while left:
            ready = [draft for draft in left if all(not missing.get(counter) for counter in draft.waits)]
            if not ready:
                return drafts
            draft = rng.choice(ready)
            left.remove(draft)
            order.append(draft)
            missing[draft.signal] -= 1
    return order


# The ops of `small_program`, by what they are.
IMAGE, CONV_3X3, NORM, POOL, CONV_1X1, MEAN, CLASSIFIER, PROBABILITIES = range(8)


def small_program(max_batch: int = 2, part_depth: int = 0) -> Program:
    """Each kind of op once or twice: the head of a network, two branches that are concatenated, a classifier.

    4 x 4 x 3 image -> 3 x 3 convolution, 20 channels -> LRN -> 2 x 2 / 2 max-pool beside a 1 x 1 / 2 convolution,
    36 channels -> average pool -> linear layer, 5 channels -> softmax. A tile is two lines of 4 x 4 pixels, or
    one of 2 x 2.
    """
    build = Builder((3, 4, 4), max_batch)
    joined_pitch = 48 if part_depth else 36
    pitches = ((16, 3), (16, 20), (16, 20), (4, joined_pitch), (1, joined_pitch), (1, 5), (1, 5))
    image, hidden, normal, joined, mean, logits, softmax = (build.buffer(*sizes) for sizes in pitches)
    whole = {"in_h": 4, "in_w": 4}
    same = whole | {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}
    half = whole | {"stride_h": 2, "stride_w": 2}
    build.op(INPUT, NONE, image, tile_rows=8)
    build.op(CONV, image, hidden, kernel_h=3, kernel_w=3, tile_rows=8, tile_columns=16, **same)
    build.op(LRN, hidden, normal, tile_rows=8, **whole)
    build.op(MAX_POOL, normal, joined, kernel_h=2, kernel_w=2, tile_rows=2, **half)
    build.op(
        CONV, normal, joined, out_channel=20, out_channels=joined_pitch - 20, tile_rows=2, flags=RELU, **half
    )
    build.op(AVERAGE_POOL, joined, mean, in_h=2, in_w=2, kernel_h=2, kernel_w=2)
    build.op(CONV, mean, logits, in_h=1, in_w=1, part_depth=part_depth)
    build.op(SOFTMAX, logits, softmax, in_h=1, in_w=1)
    build.output(logits, 1, 1)
    build.output(softmax, 1, 1)
    return build.finish()
