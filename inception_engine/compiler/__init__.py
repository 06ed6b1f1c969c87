"""The compiler: Network -> Plan.

lower      layers become ops on buffers; fusion is a choice of where each layer writes
targets    what is known of a machine: tile sizes, alignment, launches
fuse       an LRN becomes part of the op before it, a pool part of the convolution behind it
schedule   ops become tasks with counters; arena  where buffers live
pack       weights in the order in which kernels read them
plan       the result and its file
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from inception_engine.compiler import pack, plan
from inception_engine.compiler.errors import CompileError
from inception_engine.compiler.lower import lower
from inception_engine.compiler.ops import Lowered, Op
from inception_engine.compiler.plan import NONE, Dtype, OpFlag, Packing, Plan, Program, TargetKind
from inception_engine.compiler.schedule import Schedule, schedule
from inception_engine.compiler.targets import TARGETS, Target, target_for
from inception_engine.network import Network

__all__ = ["CompileError", "compile"]

MAX_BATCH = 4096


def compile(  # noqa: A001 - ie.compile is the public name
    network: Network,
    *,
    targets: str | Sequence[str | Target] = ("cpu",),
    batches: Sequence[int] | None = None,
    max_batch: int = 1,
    dtype: str = "fp32",
    keep_all: bool = False,
) -> Plan:
    """Compile a network to a plan with one program per target and batch.

    ``targets``: names, or Target values where another tiling than a name's is wanted.
    ``batches``: maximum batches, one program each (default: ``max_batch`` alone); an engine takes the smallest that
    fits. ``dtype``: "fp32" or "bf16"; for the target "cuda" also "fp16". ``keep_all``: every layer becomes an output
    and no memory is reused, for comparing layer by layer. Raises CompileError for unknown targets, dtypes and
    batches out of range, and for graphs outside the kernels' reach.
    """
    if not isinstance(network, Network):
        raise CompileError(f"compile takes a Network, not {type(network).__name__}")
    given = list(batches) if isinstance(batches, Iterable) else [max_batch if batches is None else batches]
    if not all(isinstance(size, int | np.integer) for size in given):
        raise CompileError(f"batches {given}: give whole numbers")
    sizes = sorted(set(map(int, given)))
    if not sizes or sizes[0] < 1 or sizes[-1] > MAX_BATCH:
        raise CompileError(f"batches {list(sizes)}: give one or more between 1 and {MAX_BATCH}")
    targets = (targets,) if isinstance(targets, str) else targets
    if not targets:
        raise CompileError("no target given")
    prepared: list[tuple[Lowered, Schedule, Target, int]] = []
    for wanted in dict.fromkeys(targets):
        if not isinstance(wanted, Target) and wanted not in TARGETS:
            raise CompileError(f"unknown target {wanted!r}; there is {', '.join(TARGETS)}")
        for batch in sizes:
            target = wanted if isinstance(wanted, Target) else target_for(wanted, batch, dtype)
            if dtype not in target.dtypes:
                raise CompileError(
                    f"target {target.name} has no kernels for dtype {dtype!r}; it has {', '.join(target.dtypes)}"
                )
            lowered = lower(network, target, keep_all=keep_all)
            scheduled = schedule(
                lowered,
                target,
                batch=batch,
                element=Dtype[dtype.upper()].bytes,
                reuse=target.reuse and not keep_all,
            )
            prepared.append((lowered, scheduled, target, batch))
    store = pack.WeightStore()
    for lowered, _, target, _ in prepared:
        _store_made(lowered, Dtype[dtype.upper()], target, store)
    programs = [
        _program(network, lowered, scheduled, target, Dtype[dtype.upper()], batch, store)
        for lowered, scheduled, target, batch in prepared
    ]
    metadata = {
        "name": network.name,
        "labels": list(network.labels),
        "preprocess": dataclasses.asdict(network.preprocess),
        "random_weights": network.metadata.get("weights") == "random",
        "metadata": dict(network.metadata),
    }
    return Plan(metadata=metadata, weights=store.section(), programs=programs)


class _Strings:
    """The string table of a program."""

    def __init__(self) -> None:
        self.data = b""
        self._known: dict[str, tuple[int, int]] = {}

    def put(self, record: np.void, field: str, text: str) -> None:
        if text not in self._known:
            encoded = text.encode()
            self._known[text] = len(self.data), len(encoded)
            self.data += encoded
        record[field], record[f"{field}_bytes"] = self._known[text]


def _program(
    network: Network,
    lowered: Lowered,
    scheduled: Schedule,
    target: Target,
    dtype: Dtype,
    batch: int,
    store: pack.WeightStore,
) -> Program:
    strings = _Strings()
    buffer_index = {buffer: i for i, buffer in enumerate(lowered.buffers)}
    buffers = np.zeros(len(lowered.buffers), plan.BUFFER)
    for record, buffer in zip(buffers, lowered.buffers, strict=True):
        record["offset"], record["rows"] = scheduled.offsets[buffer], buffer.rows
        record["pitch"], record["dtype"] = buffer.pitch, Dtype.FP32 if buffer.is_parts else dtype

    outputs = np.zeros(len(lowered.outputs), plan.OUTPUT)
    for record, (name, view) in zip(outputs, lowered.outputs.items(), strict=True):
        record["buffer"], record["channel"] = buffer_index[view.buffer], view.channel
        record["channels"] = view.channels
        record["height"], record["width"] = view.buffer.height, view.buffer.width
        strings.put(record, "name", name)

    ops = np.zeros(len(lowered.ops), plan.OP)
    for record, op in zip(ops, lowered.ops, strict=True):
        _fill_op(record, op, dtype, target, store)
        record["in_buffer"] = buffer_index[op.source.buffer] if op.source else NONE
        record["out_buffer"] = buffer_index[op.target.buffer]
        if op.parts is not None:
            record["part_depth"], record["first_arrival"] = op.part_depth, op.first_arrival
            record["part_buffer"] = buffer_index[op.parts]
        strings.put(record, "name", op.name)
        strings.put(record, "module", op.module)

    op_index = {op: i for i, op in enumerate(lowered.ops)}
    tasks = np.zeros(len(scheduled.tasks), plan.TASK)
    waits: list[tuple[int, int]] = []
    for record, task in zip(tasks, scheduled.tasks, strict=True):
        record["op"] = NONE if task.op is None else op_index[task.op]
        record["row"], record["column"], record["part"] = task.row, task.column, task.part
        record["signal"] = task.signal
        record["wait_begin"], record["wait_count"] = len(waits), len(task.waits)
        waits += [(counter, scheduled.signals[counter]) for counter in task.waits]

    launches = np.zeros(len(scheduled.launches), plan.LAUNCH)
    for record, launch in zip(launches, scheduled.launches, strict=True):
        record["first_task"], record["task_count"] = launch.first_task, launch.task_count
        record["mode"] = launch.mode
        strings.put(record, "name", launch.name or network.name)

    header = np.zeros((), plan.PROGRAM_HEADER)
    header["target"], header["dtype"], header["max_batch"] = target.kind, dtype, batch
    header["input_channels"], header["input_height"], header["input_width"] = network.input_shape
    header["counter_count"], header["arena_bytes"] = len(scheduled.signals), scheduled.arena_bytes
    header["activation_bytes"] = sum(
        batch * b.rows * b.pitch * dtype.bytes for b in lowered.buffers if not b.is_parts
    )
    return Program(
        header=header,
        buffers=buffers,
        outputs=outputs,
        ops=ops,
        launches=launches,
        tasks=tasks,
        waits=np.array(waits, plan.WAIT),
        strings=strings.data,
    )


def _fill_op(record: np.void, op: Op, dtype: Dtype, target: Target, store: pack.WeightStore) -> None:
    record["kind"], record["flags"] = op.kind, op.flags
    record["in_channel"] = op.source.channel if op.source else 0
    record["in_channels"] = op.in_channels
    record["out_channel"], record["out_channels"] = op.target.channel, op.target.extent
    record["out_padded"] = op.target.padded
    record["in_h"], record["in_w"] = op.in_size
    record["out_h"], record["out_w"] = op.out_size
    record["kernel_h"], record["kernel_w"] = op.kernel
    record["stride_h"], record["stride_w"] = op.stride
    record["pad_top"], record["pad_left"], record["pad_bottom"], record["pad_right"] = op.pads
    record["tile_rows"], record["tile_columns"] = op.tile
    record["nominal_macs"] = op.macs
    if op.lrn is not None:
        record["lrn_size"], record["lrn_k"] = op.lrn.size, op.lrn.k
        record["lrn_alpha"], record["lrn_beta"] = op.lrn.alpha, op.lrn.beta
    if op.weight is not None:
        is_conv = op.bias is not None
        weight = _panels(op, dtype) if is_conv else op.weight
        record["packing"] = Packing.PANEL_16 if is_conv else Packing.NO_WEIGHTS
        made = _made_weights(op, dtype, target) if is_conv else ()
        record["weight_offset"], record["weight_bytes"] = store.add(weight, made), weight.nbytes
    if op.bias is not None:
        record["bias_offset"] = store.add(pack.padded_bias(op.bias))


def _store_made(lowered: Lowered, dtype: Dtype, target: Target, store: pack.WeightStore) -> None:
    """Store the weights of which a CPU makes others, side by side: then it gives their memory back, in whole pages."""
    for op in lowered.ops:
        if op.weight is not None and op.bias is not None and (made := _made_weights(op, dtype, target)):
            store.add(_panels(op, dtype), made)


def _panels(op: Op, dtype: Dtype) -> np.ndarray:
    """A convolution's weights as kernels read them. Raises CompileError."""
    assert op.weight is not None
    try:
        return pack.panels(op.weight, dtype)
    except OverflowError as error:
        raise CompileError(f"layer {op.name}: {error}") from None


def _made_weights(op: Op, dtype: Dtype, target: Target) -> tuple[int, ...]:
    """The way in which a CPU makes other weights of a convolution's: what prove_made_weights of the proof compares."""
    patch = op.flags.patch if op.flags & OpFlag.WINOGRAD else 0
    if target.kind != TargetKind.CPU or not (patch or dtype is not Dtype.FP32):
        return ()
    return patch, op.taps, op.taps_across, op.in_channels
