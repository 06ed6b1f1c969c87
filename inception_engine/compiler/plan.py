"""Plan: what a machine runs, and its file. The format is described in runtime/plan_format.h; this is its mirror."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from inception_engine.files import write_atomically

MAGIC = b"INCPLAN\n"
VERSION = 1
NONE = 0xFFFFFFFF
ALIGNMENT = 64  # of sections, of buffers in the arena, of weights in their section
PANEL = 16  # columns of one weight panel
MAX_FILE_BYTES = 1 << 34  # these are limits of the loader
MAX_TASKS = 1 << 22
MAX_ROWS = 1 << 31  # of a buffer, exclusive, over the whole batch; and pitch
MAX_PITCH = 1 << 24
MAX_ARENA_BYTES = 1 << 36
MAX_PARTS = 64  # of K


class Section(IntEnum):
    METADATA = 1
    WEIGHTS = 2
    PROGRAM = 3


class TargetKind(IntEnum):
    CPU = 1
    CUDA = 2


class Dtype(IntEnum):
    FP32 = 1
    FP16 = 2
    BF16 = 3

    @property
    def bytes(self) -> int:
        return 4 if self is Dtype.FP32 else 2


class OpKind(IntEnum):
    INPUT = 1
    CONV = 2
    MAX_POOL = 3
    AVERAGE_POOL = 4
    LRN = 5
    SOFTMAX = 6


class OpFlag(IntFlag):
    RELU = 1
    COUNT_INCLUDE_PAD = 2
    WINOGRAD = 4
    SMALL_PATCHES = 8
    THEN_LRN = 16
    MAX_POOL_FIRST = 32

    @property
    def patch(self) -> int:
        """Height and width of the patches of a convolution by Winograd's algorithm."""
        return 4 if self & OpFlag.SMALL_PATCHES else 6


class Packing(IntEnum):
    NO_WEIGHTS = 0
    PANEL_16 = 1


class LaunchMode(IntEnum):
    NETWORK = 1
    MODULE = 2
    LAYER = 3


def _record(size: int, *fields: str | tuple[str, str]) -> np.dtype[Any]:
    """A packed little-endian record: names are uint32 unless a type is given; the rest up to ``size`` is reserved."""
    named = [(name, "<u4") if isinstance(name, str) else name for name in fields]
    used = sum(np.dtype(kind).itemsize for _, kind in named)
    if used < size:
        named.append(("reserved", f"V{size - used}"))
    return np.dtype(named)


_U8, _F4 = "<u8", "<f4"
FILE_HEADER = _record(64, ("magic", "S8"), "version", "section_count", ("file_bytes", _U8), ("hash", _U8))
SECTION = _record(32, "kind", "reserved1", ("offset", _U8), ("bytes", _U8))
PROGRAM_HEADER = _record(
    128,
    *("target", "dtype", "max_batch", "input_channels", "input_height", "input_width"),
    *("buffer_count", "output_count", "op_count", "launch_count", "task_count", "wait_count"),
    *("counter_count", "string_bytes", ("arena_bytes", _U8), ("activation_bytes", _U8)),
)
BUFFER = _record(32, ("offset", _U8), "rows", "pitch", "dtype")
OUTPUT = _record(32, "buffer", "channel", "channels", "height", "width", "name", "name_bytes")
OP = _record(
    192,
    *("kind", "flags", "in_buffer", "in_channel", "in_channels"),
    *("out_buffer", "out_channel", "out_channels", "out_padded"),
    *("in_h", "in_w", "out_h", "out_w", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("pad_top", "pad_left", "pad_bottom", "pad_right", "tile_rows", "tile_columns", "packing"),
    *("lrn_size", ("lrn_alpha", _F4), ("lrn_beta", _F4), ("lrn_k", _F4)),
    *("name", "name_bytes", "module", "module_bytes"),
    *(("weight_offset", _U8), ("weight_bytes", _U8), ("bias_offset", _U8), ("nominal_macs", _U8)),
    *("part_depth", "part_buffer", "first_arrival"),
)
LAUNCH = _record(32, "first_task", "task_count", "mode", "name", "name_bytes")
TASK = _record(32, "op", "row", "column", "wait_begin", "wait_count", "signal", "part")
WAIT = _record(8, "counter", "target")

# The tables of a program in file order, with the header field that counts their records.
TABLES = (
    ("buffers", "buffer_count", BUFFER),
    ("outputs", "output_count", OUTPUT),
    ("ops", "op_count", OP),
    ("launches", "launch_count", LAUNCH),
    ("tasks", "task_count", TASK),
    ("waits", "wait_count", WAIT),
)


@dataclass(eq=False, kw_only=True)
class Program:
    """A task table for one target, dtype and maximum batch; ``header`` holds what the tables do not imply."""

    header: np.ndarray  # PROGRAM_HEADER, shape (); the counts are filled in when written
    buffers: np.ndarray
    outputs: np.ndarray
    ops: np.ndarray
    launches: np.ndarray
    tasks: np.ndarray
    waits: np.ndarray
    strings: bytes = b""

    def text(self, record: np.void, name: str = "name") -> str:
        """The string of a record's field ``name`` (or "module")."""
        begin = int(record[name])
        return self.strings[begin : begin + int(record[f"{name}_bytes"])].decode()

    def to_bytes(self) -> bytes:
        header = self.header.copy()
        for table, count, _ in TABLES:
            header[count] = len(getattr(self, table))
        header["string_bytes"] = len(self.strings)
        tables = b"".join(getattr(self, table).tobytes() for table, _, _ in TABLES)
        return header.tobytes() + tables + self.strings

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        header = np.frombuffer(data, PROGRAM_HEADER, 1)[0:1].reshape(()).copy()
        offset = PROGRAM_HEADER.itemsize
        tables: dict[str, np.ndarray] = {}
        for table, count, dtype in TABLES:
            tables[table] = np.frombuffer(data, dtype, int(header[count]), offset).copy()
            offset += tables[table].nbytes
        return cls(header=header, strings=data[offset:], **tables)


@dataclass(eq=False, kw_only=True)
class Plan:
    """Programs, the weights that they share (a uint8 array), and what a user wants to know of the network."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    weights: np.ndarray
    programs: list[Program]

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The file, in pieces, so that the weights are not copied."""
        sections: list[tuple[Section, bytes | memoryview]] = [
            (Section.METADATA, json.dumps(self.metadata, ensure_ascii=False).encode()),
            *((Section.PROGRAM, program.to_bytes()) for program in self.programs),
            (Section.WEIGHTS, self.weights.data),
        ]
        records = np.zeros(len(sections), SECTION)
        end = FILE_HEADER.itemsize + records.nbytes
        body: list[bytes | memoryview] = []
        for record, (kind, content) in zip(records, sections, strict=True):
            padding = -end % ALIGNMENT
            record["kind"], record["offset"], record["bytes"] = kind, end + padding, len(content)
            body += [bytes(padding), content]
            end += padding + len(content)
        body.insert(0, records.tobytes())
        digest = xxhash.xxh64()
        for chunk in body:
            digest.update(chunk)
        header = np.zeros((), FILE_HEADER)
        header["magic"], header["version"], header["section_count"] = MAGIC, VERSION, len(sections)
        header["file_bytes"], header["hash"] = end, digest.intdigest()
        yield header.tobytes()
        yield from body

    def to_bytes(self) -> bytes:
        return b"".join(self.chunks())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; it appears by rename. Raises OSError."""
        write_atomically(path, self.chunks())

    @classmethod
    def from_bytes(cls, data: bytes, *, proven: bool = False) -> Plan:
        """Parse a file's content, after the loader has proven it (skipped if ``proven``). Raises PlanError."""
        from inception_engine.errors import PlanMetadata, raise_for_status

        if not proven:
            from inception_engine.binding import check_plan

            raise_for_status(*check_plan(data))
        count = int(np.frombuffer(data, FILE_HEADER, 1)["section_count"][0])
        metadata: dict[str, Any] = {}
        weights = np.zeros(0, np.uint8)
        programs: list[Program] = []
        for record in np.frombuffer(data, SECTION, count, FILE_HEADER.itemsize):
            begin, size = int(record["offset"]), int(record["bytes"])
            if record["kind"] == Section.METADATA:
                try:
                    metadata = dict(json.loads(data[begin : begin + size]))
                except (TypeError, ValueError, RecursionError) as error:  # the loader carries it unread
                    raise PlanMetadata(f"the plan's metadata is not JSON: {error}") from None
            elif record["kind"] == Section.WEIGHTS:
                weights = np.frombuffer(data, np.uint8, size, begin)
            else:
                programs.append(Program.from_bytes(data[begin : begin + size]))
        return cls(metadata=metadata, weights=weights, programs=programs)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read and prove a file. Raises OSError, and PlanError that names it; what is no plan or too large is not
        read."""
        from inception_engine.errors import PlanError, PlanForeign, PlanLimit

        with Path(path).open("rb") as file:
            try:
                if file.read(len(MAGIC)) != MAGIC:
                    raise PlanForeign("not a plan file")
                if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                    raise PlanLimit("the file is larger than 16 GiB")
                file.seek(0)
                return cls.from_bytes(file.read())
            except PlanError as error:
                raise type(error)(f"{os.fspath(path)}: {error}") from None
