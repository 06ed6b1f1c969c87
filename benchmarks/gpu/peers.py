"""Stage 5: other engines among themselves. Those that compile for minutes come last, each beside one of the others."""

from __future__ import annotations

from benchmarks.gpu.compare import cases, compare
from benchmarks.gpu.runners import PEERS
from benchmarks.gpu.stage import Job

NEEDED = 40.0  # seconds that must be left to begin with one that compiles


def run(job: Job) -> None:
    quick = [peer for peer in PEERS if not peer.compiles]
    for case in cases(job):
        compare(job, case, quick)
    beside = next(peer for peer in quick if peer.graph)
    for case in cases(job):
        for peer in (peer for peer in PEERS if peer.compiles):
            if case.batch not in job.scale.compiled_batches:
                job.row(peer.name, None, "not among this run's batches", **case.labels)
            elif not job.rehearsal and job.left() < NEEDED:
                job.row(peer.name, None, "no time left", **case.labels)
            else:
                compare(job, case, [beside, peer])
