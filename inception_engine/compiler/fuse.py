"""Ops that become part of another, when tiles are known, so that what lies between them need not leave a cache."""

from __future__ import annotations

from inception_engine.compiler.ops import Buffer, Lowered, Op
from inception_engine.compiler.plan import OpFlag, OpKind


def fuse_lrn(lowered: Lowered) -> list[Buffer]:
    """Each LRN that alone reads what a convolution or a maximum pool writes is computed by that op, tile by tile, while
    the tile is in a cache, and the buffer between them is not needed. Only where tiles have all columns as it is:
    others were cut so that there are enough of them. Returns the buffers that are gone.
    """
    gone = []
    for lrn in [op for op in lowered.ops if op.kind == OpKind.LRN]:
        producer = _producer(lowered, lrn)
        if producer is None:
            continue
        gone.append(producer.target.buffer)
        producer.name = f"{producer.name} + {lrn.name}"
        producer.flags |= OpFlag.THEN_LRN
        producer.lrn, producer.target = lrn.lrn, lrn.target
        lowered.ops.remove(lrn)
        lowered.buffers.remove(gone[-1])
    return gone


def fuse_pools(lowered: Lowered) -> list[Buffer]:
    """Each maximum pool of stride 1 whose output a 1x1 convolution alone reads is computed by that op, tile by tile,
    and the buffer between them is not needed. Only where tiles have all columns as it is: two beside each other would
    both pool all channels, which takes longer than the two ops. So did a pool of stride 2, from which the convolution
    reads little. Returns the buffers that are gone.
    """
    gone = []
    for conv in [op for op in lowered.ops if op.kind == OpKind.CONV]:
        window = conv.kernel, conv.stride, conv.pads
        if window != ((1, 1), (1, 1), (0, 0, 0, 0)) or not _computes_whole_rows(conv):
            continue
        pool = _only_writer(lowered, conv)
        if pool is None or pool.kind != OpKind.MAX_POOL or pool.stride != (1, 1) or pool.flags:
            continue
        if pool.in_channels != conv.in_channels:
            continue
        gone.append(pool.target.buffer)
        conv.name = f"{pool.name} + {conv.name}"
        conv.flags |= OpFlag.MAX_POOL_FIRST
        conv.source, conv.in_size = pool.source, pool.in_size
        conv.kernel, conv.stride, conv.pads = pool.kernel, pool.stride, pool.pads
        lowered.ops.remove(pool)
        lowered.buffers.remove(gone[-1])
    return gone


def _producer(lowered: Lowered, lrn: Op) -> Op | None:
    """The op that an LRN can be part of."""
    producer = _only_writer(lowered, lrn)
    fits = (
        producer is not None
        and producer.kind in (OpKind.CONV, OpKind.MAX_POOL)
        and _computes_whole_rows(producer)
        and producer.lrn is None
    )
    return producer if fits else None


def _computes_whole_rows(op: Op) -> bool:
    """Whether each task makes all columns of its rows."""
    return op.tile[1] >= op.target.padded and not op.part_depth


def _only_writer(lowered: Lowered, reader: Op) -> Op | None:
    """The op that alone writes what ``reader`` reads, all of it, if nobody else reads that."""
    if reader.source is None:
        return None
    buffer = reader.source.buffer
    writers = [op for op in lowered.ops if op.target.buffer is buffer]
    readers = [op for op in lowered.ops if op.source is not None and op.source.buffer is buffer]
    alone = len(writers) == len(readers) == 1 and writers[0].target == reader.source
    kept = any(view.buffer is buffer for view in lowered.outputs.values())
    return writers[0] if alone and not kept else None
