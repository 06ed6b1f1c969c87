"""A group of cases, the same workload with the same threads on one device: from starting the peers to their rows."""

from __future__ import annotations

import contextlib
import json
import math
import statistics as middle
import sys
import tempfile
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
from inception_engine.bench.rows import begun, status_of, timed_row
from inception_engine.bench.runners import Task
from inception_engine.bench.timing import Clock, Samples, Schedule, measure, settle, statistics
from inception_engine.bench.worker import one_line
from inception_engine.errors import BackendError, EngineError, PackageError
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
        opened = arrivals.STEPS + arrivals.CONFIRMATIONS if method.open_loop else 0
        return 1 + len(group) * (method.starts + method.schedule.rounds + 1 + 1 + opened)

    def run(self, group: Sequence[Case], receive: Callable[[list[Row]], None]) -> None:
        """``receive`` gets a row for each case, in order. What a peer does wrong is the status of its row. Behind the
        rounds Ctrl-C loses only what comes behind them: it is raised when ``receive`` has the rows.

        Raises BackendError where the reference cannot be computed."""
        obstacles = {case: PEERS[case.peer].obstacle(case) for case in group}
        rows = {
            case: Row.of(case, **({} if why is None else {"status": why})) for case, why in obstacles.items()
        }
        possible = [case for case, why in obstacles.items() if why is None]
        if not possible:
            receive(list(rows.values()))
            return
        self.progress("reference")
        expected = _expected(possible[0])
        workers: dict[str, Worker] = {}
        parts: dict[str, dict[str, float]] = {}
        held: dict[str, Held] = {}
        with contextlib.ExitStack() as stack:
            for case in possible:
                try:
                    begins = [self._begin_only(case) for _ in range(self._method.starts - 1)]
                    worker = stack.enter_context(self._living_worker(case))
                    self.progress(f"preparing and checking {case.label}")
                    begins.append(worker.ready())
                    error = self._parity(case, expected, begins[-1])
                except (PeerError, OSError, ValueError) as failure:
                    rows[case] = replace(rows[case], status=status_of(failure))
                    continue
                rows[case] = begun(rows[case], begins, worker.peak_bytes())
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
            try:
                for name in good:
                    parts[name] = self._parts(name, good)
                held = self._open_loop(good, timed, possible[0].streams)
            finally:
                receive([self._row(row, timed, parts, held) for row in rows.values()])

    def _row(
        self,
        row: Row,
        timed: Mapping[str, Samples],
        parts: Mapping[str, Mapping[str, float]],
        held: Mapping[str, Held],
    ) -> Row:
        if row.label not in timed:
            return row
        return timed_row(row, timed, parts.get(row.label, {}), held.get(row.label), self._method.open_loop)

    @contextlib.contextmanager
    def checked(self, case: Case) -> Iterator[Worker]:
        """A worker whose logits are right, for timing it elsewhere. Raises PeerError."""
        with self._living_worker(case) as worker:
            error = self._parity(case, _expected(case), worker.ready())
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
        except native.CompilerMistake as error:
            raise PeerError(str(error)) from None
        except (EngineError, PackageError, native.CompilerError) as error:
            raise PeerError(f"not here: {error}") from None
        except ValueError as error:  # CompileError, ExportError: no kernels for a dtype, no such operator
            raise PeerError(f"not supported: {error}") from None
        except OSError:
            raise
        except Exception as error:  # of a package that is broken
            raise PeerError(one_line(error)) from None
        if command is None:
            command = _python_command(case, str(model), self._artefacts)
        threads = str(case.threads)
        # torch.compile's, so that a first call does not depend on what was compiled before.
        cache = tempfile.mkdtemp(prefix="torchinductor-", dir=self._artefacts.folder)
        environment = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TORCHINDUCTOR_CACHE_DIR": cache,
            **({"TRITON_CACHE_DIR": f"{cache}/triton"} if case.peer == "torch-compile" else {}),
        }
        return Worker(command, self._method.limit, environment)

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

    def _rate(self, name: str, step: int) -> None:
        steps = arrivals.STEPS
        self.progress(
            f"{name}, rate {step + 1} of {steps}" if step < steps else f"{name}, confirming its rate"
        )

    def _parts(self, name: str, workers: Mapping[str, Worker]) -> dict[str, float]:
        """Medians in ms. A peer that fails here was timed before: its parts are not known."""
        self.progress(f"{name}, its parts")
        try:
            _settle(name, workers)
            parts = workers[name].parts(PARTS)
            return {part: middle.median(times) / 1e6 for part, times in parts.items()}
        except PeerError:
            return {}

    def _open_loop(
        self, workers: Mapping[str, Worker], timed: Mapping[str, Samples], streams: int
    ) -> dict[str, Held]:
        """No rate is searched for a peer whose calls are over the bound with nobody before them: it holds none, and at
        the lowest rates that would take long to see."""
        loop = self._method.open_loop
        if loop is None:
            return {}
        hopeful = {
            name: worker
            for name, worker in workers.items()
            if _least_ms(timed[name], streams) <= loop.bound_ms
        }
        found = arrivals.search(
            hopeful,
            {name: statistics(timed[name]).calls_per_s or 0.0 for name in hopeful},
            loop,
            settle=lambda name: _settle(name, workers),
            progress=self._rate,
        )
        return {name: found.get(name, Held()) for name in workers}


def _expected(case: Case) -> Any:
    try:
        return case.workload.expected()
    except Exception as error:  # of a torch that is broken, or has too little memory
        raise BackendError(f"the reference cannot be computed: {one_line(error)}") from None


def _settle(name: str, workers: Mapping[str, Worker]) -> None:
    """As before a turn of the rounds: quiet, and one call that is not counted. Raises PeerError."""
    settle(list(workers.values()), Clock())
    workers[name].time(0, 1, 1)


def _least_ms(samples: Samples, streams: int) -> float:
    """What a call takes at the percentile of the bound with nobody before it, if there are calls enough to tell, else
    the median; of streams that slowed each other, the fastest."""
    if streams > 1:
        return min(map(min, samples.rounds)) / 1e6
    figures = statistics(samples)
    return figures.p99_ms if figures.samples >= arrivals.LEAST_REQUESTS else figures.p50_ms


def _logits(artefacts: Artefacts, case: Case) -> Any:
    return artefacts.folder / f"{case.label.replace('/', '-')}.logits"


def _python_command(case: Case, model: str, artefacts: Artefacts) -> list[str]:
    peer, workload = PEERS[case.peer], case.workload
    network = workload.network
    mean, std = network.preprocess.constants(network.input_shape[0])
    task = Task(
        opener=peer.opener,
        packages=list(peer.packages),
        helpers=list(peer.helpers),
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
            for launch in _ways(peer, device, launches)
        ]
        for workload in workloads
        for device in devices
        for count in threads
        for callers in streams
    ]


def _ways(peer: str, device: str, launches: Sequence[str]) -> list[str]:
    ways = PEERS[peer].launches
    return [way for way in ways if way in launches] if device == "cuda" and ways else [""]
