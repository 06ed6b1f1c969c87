"""Stage 6: our engines beside the other ones, in the same rounds.

Peers that failed in stage ``peers``, or took no part there, are left out; without that stage all are tried.
"""

from __future__ import annotations

from benchmarks.gpu.compare import cases, compare
from benchmarks.gpu.runners import OURS, PEERS, Runner
from benchmarks.gpu.stage import Job


def run(job: Job) -> None:
    names = [runner.name for runner in OURS]
    rows = job.earlier("peers")
    for case in cases(job):
        timed = {
            row["name"]
            for row in rows
            if row["ok"] and (row["variant"], row["batch"]) == (case.variant, case.batch)
        }
        peers: list[Runner] = [peer for peer in PEERS if peer.name in timed] if rows else list(PEERS)
        compare(job, case, [*OURS, *peers], ours=names)
