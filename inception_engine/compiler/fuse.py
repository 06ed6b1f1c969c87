"""Ops that become part of the op before them, when tiles are known."""

from __future__ import annotations

from inception_engine.compiler.lower import Buffer, Lowered, Op
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


def _producer(lowered: Lowered, lrn: Op) -> Op | None:
    """The op that an LRN can be part of."""
    assert lrn.source is not None
    buffer = lrn.source.buffer
    writers = [op for op in lowered.ops if op.target.buffer is buffer]
    readers = [op for op in lowered.ops if op.source is not None and op.source.buffer is buffer]
    producer = writers[0]
    fits = (
        len(writers) == len(readers) == 1
        and producer.kind in (OpKind.CONV, OpKind.MAX_POOL)
        and producer.target == lrn.source
        and producer.tile[1] >= producer.target.padded
        and not producer.part_depth
        and producer.lrn is None
        and all(view.buffer is not buffer for view in lowered.outputs.values())
    )
    return producer if fits else None
