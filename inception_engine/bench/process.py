"""The parent's end of a worker: starts the process, asks it, ends it. A crash, a hang or an error is a PeerError."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

SLOWER = 2  # times the slowest call that was seen: so long each call of a number that was asked for may take
QUIT_SECONDS = 5.0  # to free what it holds, before it is killed


class PeerError(Exception):
    """A peer failed; the message says how, in one line."""


@dataclass(frozen=True)
class Turn:
    """Calls of one turn, in ns: each call's time, and how long all took together, streams side by side."""

    ns: list[int]
    wall_ns: int


@dataclass(frozen=True)
class Ready:
    """How a worker began, in ns, and the shape of the logits that it wrote."""

    import_ns: int
    load_ns: int
    first_ns: int
    shape: tuple[int, ...]


class Worker:
    """A process of its own session, so that what it starts ends with it.

    ``command``: gets the descriptor for answers as its last argument. ``limit``: seconds for an answer, besides the
    time that a command takes by itself: what is asked for in seconds, or in calls as slow as those before. Raises
    PeerError where the process cannot be started.
    """

    def __init__(
        self, command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self._limit = limit
        self._slowest, self._is_first = 0.0, True  # call, in seconds; the only one
        self._buffer = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._answers, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs],
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            os.close(self._answers)
            self._log.close()
            raise PeerError(f"{command[0]}: {error.strerror}") from None
        finally:
            os.close(theirs)

    def ready(self) -> Ready:
        """Waits for the first answer."""
        answer = self._answer(self._limit)
        self._slowest = answer["first_ns"] / 1e9
        return Ready(answer["import_ns"], answer["load_ns"], answer["first_ns"], tuple(answer["shape"]))

    def time(self, seconds: float, least: int, most: int) -> Turn:
        longest = max(seconds, self._calls(least))
        answer = self._ask(f"time {round(seconds * 1e9)} {least} {most}", longest)
        slowest = max(answer["ns"]) / 1e9
        # A first call may compile for minutes, which says nothing of the others.
        self._slowest = slowest if self._is_first else max(self._slowest, slowest)
        self._is_first = False
        return Turn(answer["ns"], answer["wall_ns"])

    def arrivals(self, at_ns: Sequence[int], bound_ns: int, most: int, first: int) -> list[int]:
        """Latencies of requests at these times, in ns; fewer where more than ``most`` of those behind the ``first``
        took longer than the bound."""
        text = " ".join(map(str, (bound_ns, most, first, *at_ns)))
        # Others than these are answered in time, and who was being served then takes a call more.
        longest = (at_ns[-1] + bound_ns) / 1e9 + self._calls(first + most + 2)
        latencies: list[int] = self._ask(f"arrivals {text}", longest)["ns"]
        return latencies

    def parts(self, count: int) -> dict[str, list[int]]:
        parts: dict[str, list[int]] = self._ask(f"parts {count}", self._calls(count + 1))["parts"]
        return parts

    def _calls(self, count: int) -> float:
        """Seconds that so many calls may take."""
        return SLOWER * self._slowest * count

    def cpu_ns(self) -> int:
        """Processor time of all its threads; 0 where it has ended."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{self._process.pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return 0

    def peak_bytes(self) -> int | None:
        """The most memory that the process had at once, shared libraries with it; None where the system does not
        say."""
        with contextlib.suppress(OSError):
            with open(f"/proc/{self._process.pid}/status", encoding="ascii", errors="replace") as file:
                found = re.search(r"^VmHWM:\s*(\d+) kB", file.read(), re.MULTILINE)
            return int(found[1]) * 1024 if found else None
        return None

    def close(self) -> None:
        """Ends the process and all that it started. Twice is once."""
        if self._log.closed:
            return
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            with self._process.stdin as commands:
                if self._process.poll() is None:
                    commands.write(b"quit\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(QUIT_SECONDS)
        self._kill()
        os.close(self._answers)
        self._log.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # its session is gone
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ask(self, command: str, seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()
        except OSError:
            raise PeerError(self._end()) from None
        return self._answer(seconds + self._limit)

    def _answer(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            rest = end - time.monotonic()
            if rest <= 0 or not select.select([self._answers], [], [], rest)[0]:
                self._kill()
                raise PeerError(f"no answer within its limit of {self._limit:g} s: ended")
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise PeerError(self._end())
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _end(self) -> str:
        """How a process ended that should not have: its signal or status, and the last line that it wrote."""
        try:
            status = self._process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            return "closed its answers and went on: ended"
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last}" if last else how

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
