"""A group of cases, the same workload with the same threads on one device: from starting the peers to their rows."""

from __future__ import annotations

import contextlib
import json
import math
import re
import statistics as middle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from inception_engine.bench import arrivals, native
from inception_engine.bench.arrivals import Held, OpenLoop
from inception_engine.bench.artefacts import Artefacts, read_logits
from inception_engine.bench.cases import DEVICES, PARITY_BOUNDS, Case, Workload
from inception_engine.bench.peers import PEERS
from inception_engine.bench.process import PeerError, Ready, Worker
from inception_engine.bench.records import Row
from inception_engine.bench.runners import Task
from inception_engine.bench.timing import Clock, Samples, Schedule, measure, ratio, round_medians, statistics
from inception_engine.errors import EngineError, PackageError
from inception_engine.parity import error as parity

Progress = Callable[[str], None]
PARTS = 10  # times that each part is timed by itself


@dataclass(frozen=True)
class Method:
    """How a group is measured. ``starts``: fresh processes for the times of loading. ``limit``: seconds for an
    answer."""

    schedule: Schedule = field(default_factory=Schedule)
    open_loop: OpenLoop | None = None
    starts: int = 1
    limit: float = 300.0


class Suite:
    """Runs groups, one after the other. ``cpu_ns``: processor time of the peers that live now.

    ``progress`` is told each step."""

    def __init__(self, artefacts: Artefacts, method: Method) -> None:
        self._artefacts, self._method = artefacts, method
        self.progress: Progress = lambda text: None
        self._living: list[Worker] = []

    def cpu_ns(self) -> int:
        return sum(worker.cpu_ns() for worker in self._living)

    def steps(self, group: Sequence[Case]) -> int:
        """How often ``progress`` is told of a group in which all goes well."""
        method = self._method
        opened = arrivals.STEPS if method.open_loop else 0
        return 1 + len(group) * (method.starts + method.schedule.rounds + 1 + 1 + opened)

    def run(self, group: Sequence[Case]) -> list[Row]:
        """A row for each case, in order. What a peer does wrong is the status of its row."""
        self.progress("reference")
        expected = group[0].workload.expected()
        rows: dict[Case, Row] = {}
        workers: dict[str, Worker] = {}
        with contextlib.ExitStack() as stack:
            for case in group:
                rows[case] = Row.of(case)
                obstacle = PEERS[case.peer].obstacle(case)
                if obstacle is not None:
                    rows[case] = replace(rows[case], status=obstacle)
                    continue
                try:
                    begins = [self._begin_only(case) for _ in range(self._method.starts - 1)]
                    worker = stack.enter_context(self._living_worker(case))
                    self.progress(f"preparing and checking {case.label}")
                    begins.append(worker.ready())
                    error = self._parity(case, expected, begins[-1])
                except (PeerError, OSError, ValueError) as failure:
                    rows[case] = replace(rows[case], status=status_of(failure))
                    continue
                rows[case] = _begun(rows[case], begins, worker.peak_bytes())
                bound = PARITY_BOUNDS[case.workload.dtype]
                if error <= bound:
                    workers[case.label] = worker
                    rows[case] = replace(rows[case], parity=error)
                else:  # NaN, too
                    text = f"parity failed: {error:.1e}, bound {bound:.0e}"
                    rows[case] = replace(
                        rows[case], status=text, parity=error if math.isfinite(error) else None
                    )
            timed = measure(workers, self._method.schedule, clock=Clock(), progress=self._turn)
            good = {name: worker for name, worker in workers.items() if timed[name].error is None}
            parts = {name: self._parts(name, worker) for name, worker in good.items()}
            held = self._open_loop(good, timed)
        return [
            _timed(row, timed, parts.get(case.label, {}), held.get(case.label), self._method.open_loop)
            if case.label in timed
            else row
            for case, row in rows.items()
        ]

    @contextlib.contextmanager
    def checked(self, case: Case) -> Iterator[Worker]:
        """A worker whose logits are right, for timing it elsewhere. Raises PeerError."""
        with self._living_worker(case) as worker:
            error = self._parity(case, case.workload.expected(), worker.ready())
            if not error <= PARITY_BOUNDS[case.workload.dtype]:
                raise PeerError(f"parity failed: {error:.1e}")
            yield worker

    def _begin_only(self, case: Case) -> Ready:
        self.progress(f"starting {case.label}")
        with self._living_worker(case) as worker:
            return worker.ready()

    @contextlib.contextmanager
    def _living_worker(self, case: Case) -> Iterator[Worker]:
        with self._start(case) as worker:
            self._living.append(worker)
            try:
                yield worker
            finally:
                self._living.remove(worker)

    def _start(self, case: Case) -> Worker:
        """Raises PeerError where the model or the program cannot be made."""
        peer = PEERS[case.peer]
        try:
            model = self._artefacts.model(peer.model, case)
            command = c_command(case, model, self._artefacts) if not peer.opener else None
        except (EngineError, PackageError, native.CompilerError) as error:
            raise PeerError(f"not here: {error}") from None
        except ValueError as error:  # CompileError, ExportError: no kernels for a dtype, no such operator
            raise PeerError(f"not supported: {error}") from None
        if command is None:
            command = _python_command(case, str(model), self._artefacts)
        threads = str(case.threads)
        return Worker(command, self._method.limit, {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})

    def _parity(self, case: Case, expected: Any, ready: Ready) -> float:
        logits = read_logits(_logits(self._artefacts, case), ready.shape)
        if case.streams == 1:
            return parity(logits, expected)
        parts = logits.reshape(case.streams, *expected.shape) if logits.size else logits
        errors = [parity(part, expected) for part in parts]
        return math.nan if any(map(math.isnan, errors)) else max(errors)

    def _turn(self, name: str, turn: int) -> None:
        rounds = self._method.schedule.rounds
        self.progress(f"{name}, round {turn} of {rounds}" if turn else f"{name}, warm-up")

    def _parts(self, name: str, worker: Worker) -> dict[str, float]:
        """Medians in ms. A peer that fails here was timed before: its parts are not known."""
        self.progress(f"{name}, its parts")
        try:
            return {part: middle.median(times) / 1e6 for part, times in worker.parts(PARTS).items()}
        except PeerError:
            return {}

    def _open_loop(self, workers: Mapping[str, Worker], timed: Mapping[str, Samples]) -> dict[str, Held]:
        loop = self._method.open_loop
        if loop is None:
            return {}
        rates = {name: statistics(timed[name]).calls_per_s or 0.0 for name in workers}
        return arrivals.search(
            workers,
            rates,
            loop,
            progress=lambda name, step: self.progress(f"{name}, rate {step + 1} of {arrivals.STEPS}"),
        )


def status_of(error: Exception) -> str:
    """A failure as the status of a row; what is only not here, or not to be had, is not called a failure."""
    text = (str(error).splitlines() or [""])[0]
    # A worker says its exceptions' types in front.
    absent = re.match(r"(?:\w+: )?(not (?:here|supported): .*)", text)
    return absent[1] if absent else f"failed: {text}"


def _logits(artefacts: Artefacts, case: Case) -> Any:
    return artefacts.folder / f"{case.label.replace('/', '-')}.logits"


def _python_command(case: Case, model: str, artefacts: Artefacts) -> list[str]:
    peer, workload = PEERS[case.peer], case.workload
    network = workload.network
    mean, std = network.preprocess.constants(network.input_shape[0])
    task = Task(
        opener=peer.opener,
        packages=list(peer.packages),
        model=model,
        images=str(artefacts.images(workload)),
        logits=str(_logits(artefacts, case)),
        shape=list(network.input_shape),
        input=workload.input,
        mean=[float(value) for value in mean],
        std=[float(value) for value in std],
        batch=workload.batch,
        dtype=workload.dtype,
        threads=case.threads,
        streams=case.streams,
        device=case.device,
        launch=case.launch,
    )
    return [sys.executable, "-m", "inception_engine.bench.worker", json.dumps(asdict(task))]


def c_command(case: Case, model: Any, artefacts: Artefacts) -> list[str]:
    """The program ``engine.c``, compiled at need. Raises CompilerError and LibraryError."""
    program = native.build("engine", artefacts.folder, native.engine_flags())
    workload = case.workload
    numbers = [
        workload.batch,
        1 if workload.input == "float32" else 2,
        case.threads,
        case.streams,
        1 + DEVICES.index(case.device),
        {"walk": 1, "module": 2}.get(case.launch, 0),
    ]
    paths = [program, model, artefacts.images(workload), _logits(artefacts, case)]
    return [*map(str, paths), *map(str, numbers)]


def groups(
    workloads: Sequence[Workload],
    peers: Sequence[str],
    devices: Sequence[str],
    threads: Sequence[int],
    streams: Sequence[int],
    launches: Sequence[str],
) -> list[list[Case]]:
    """Cases that are run side by side, for every combination; ``launches``: of those that have them, on a GPU."""
    return [
        [
            Case(peer, workload, count, callers, device, launch)
            for peer in peers
            for launch in (
                [way for way in PEERS[peer].launches if way in launches] or [""] if device == "cuda" else [""]
            )
        ]
        for workload in workloads
        for device in devices
        for count in threads
        for callers in streams
    ]


def _begun(row: Row, begins: Sequence[Ready], peak: int | None) -> Row:
    return replace(
        row,
        import_ms=middle.median(begin.import_ns for begin in begins) / 1e6,
        load_ms=middle.median(begin.load_ns for begin in begins) / 1e6,
        first_ms=middle.median(begin.first_ns for begin in begins) / 1e6,
        starts=len(begins),
        peak_mb=None if peak is None else peak / 1e6,
    )


def _timed(
    row: Row,
    timed: Mapping[str, Samples],
    parts: Mapping[str, float],
    held: Held | None,
    loop: OpenLoop | None,
) -> Row:
    """The row with its figures, or with the failure that ended its timing."""
    samples = timed[row.label]
    if samples.error is not None:
        return replace(row, status=status_of(samples.error))
    figures = statistics(samples)
    row = replace(
        row,
        p50_ms=figures.p50_ms,
        p90_ms=figures.p90_ms,
        p95_ms=figures.p95_ms,
        p99_ms=figures.p99_ms,
        p999_ms=figures.p999_ms,
        images_per_s=None if figures.calls_per_s is None else row.batch * figures.calls_per_s,
        samples=figures.samples,
        rounds_ms=round_medians(samples),
        spread_min=figures.spread[0],
        spread_max=figures.spread[1],
        unstable=figures.unstable or not samples.warm,
        warm=samples.warm,
        includes=_includes(row, parts),
        preprocess_ms=parts.get("preprocess"),
        h2d_ms=parts.get("h2d"),
        compute_ms=parts.get("compute"),
        d2h_ms=parts.get("d2h"),
    )
    if held is not None and loop is not None:
        row = replace(
            row,
            status=row.status if held.error is None else status_of(held.error),
            open_bound_ms=loop.bound_ms,
            open_rate_per_s=held.rate,
            open_p99_ms=held.p99_ms,
            open_requests=held.requests,
        )
    peers = {name: other for name, other in timed.items() if not _ours(name) and other.error is None}
    if not peers:
        return row
    best = min(peers, key=lambda name: statistics(peers[name]).p50_ms)
    median, lowest, highest = ratio(samples, peers[best])
    return replace(row, ratio=median, ratio_min=lowest, ratio_max=highest, best_peer=best)


def _ours(label: str) -> bool:
    return PEERS[label.partition("/")[0]].ours


def _includes(row: Row, parts: Mapping[str, float]) -> str:
    """What a timed call is made of."""
    copies = "h2d" in parts
    compute = ["h2d", "compute", "d2h"] if copies else ["compute"]
    notes = []
    if row.device == "cuda" and not copies:
        notes.append("copies inside")
    if row.input == "uint8":
        if _ours(row.label) and not copies:
            notes.append("preprocessing inside")
        else:
            compute.insert(0, "preprocess")
    return " + ".join(compute) + (f" ({', '.join(notes)})" if notes else "")
