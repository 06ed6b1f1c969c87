"""The folder that a training writes to: one training at a time, and nothing that is not a training's is overwritten.

The file ``.lock`` in it says that a training wrote here, and is locked while one does. It stays: to remove a file that
another process may be about to lock would let both go on.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from inception_engine.terminal import printable_line
from inception_engine.train import checkpoint
from inception_engine.train.checkpoint import Checkpoint
from inception_engine.train.errors import ConfigError
from inception_engine.train.logs import CURVES, ROWS

CHECKPOINTS, CONFIG, NETWORK, LOCK = "checkpoints", "config.yaml", "network.safetensors", ".lock"
MARK = b"inception train"  # what the lock begins with; the number of the process follows


class Output:
    """``folder``, which need not exist, and of which nothing is made or changed before ``claim``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / CHECKPOINTS
        self._lock: int | None = None

    def find(self, resume: bool) -> Checkpoint | None:
        """The last checkpoint that can be read, if there are any.

        Raises ConfigError where there are some and ``resume`` is not asked for, where another process trains, and where
        files are in the way; CheckpointError where no checkpoint can be read.
        """
        there = checkpoint.newest(self.checkpoints) is not None
        if there and not resume:
            raise self._holds_a_training()
        if not there:
            self._check_files()
        if there or (self.folder / LOCK).exists():  # else it is made with the rest
            self._take_lock()
        found, complaints = checkpoint.read_newest(self.checkpoints)
        for complaint in complaints:
            print(f"{printable_line(complaint)}; going on from the one before")
        return found

    def claim(self) -> None:
        """Make the folder, and keep all others from training there. Raises ConfigError and OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._take_lock()
            if checkpoint.newest(self.checkpoints):  # of another that began, and ended, since ``find``
                raise self._holds_a_training()
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.clear_unfinished(self.checkpoints)

    def release(self) -> None:
        """Let others train there."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_files(self) -> None:
        """Where there are no checkpoints: whether what a training writes may be written. Raises ConfigError."""
        network = self.folder / NETWORK
        if network.exists():  # a training's own has checkpoints beside it
            raise ConfigError(
                f"{network} would be overwritten, and there is no checkpoint to go on from: give another --output"
            )
        lock = self.folder / LOCK
        ours = lock.is_file() and lock.read_bytes().startswith(MARK)
        for name in () if ours else (CONFIG, ROWS, CURVES, LOCK):
            if os.path.lexists(self.folder / name):
                raise ConfigError(
                    f"{self.folder / name} is of no training, and would be overwritten: give another --output"
                )

    def _take_lock(self) -> None:
        """The system's lock for processes: it ends with this one, however that ends, and processes forked from this one
        that live a moment longer do not hold it. Raises ConfigError and OSError."""
        path = self.folder / LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%s, process %d\n" % (MARK, os.getpid()))
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            raise ConfigError(
                f"another process trains in {self.folder}: wait for its end, or give another --output"
            ) from None
        except OSError as error:
            os.close(descriptor)
            error.filename = os.fspath(path)
            raise
        self._lock = descriptor

    def _holds_a_training(self) -> ConfigError:
        return ConfigError(
            f"{self.folder} holds a training: --resume goes on with it, --output names another place"
        )
