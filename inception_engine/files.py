"""Files that appear whole or not at all, and files that grow by whole lines."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def check_target(path: Path, source: str | os.PathLike[str] | None = None) -> None:
    """Whether a file can be written here, and is not ``source``: now, and not when minutes of work are done.

    Raises OSError, whose text and file name make the line that a user sees.
    """
    name = os.fspath(path)
    if path.exists() and not path.is_file():  # a rename would replace a device, too
        raise FileExistsError(errno.EEXIST, "exists and is not a file", name)
    if source is not None and path.exists() and os.path.exists(source) and path.samefile(source):
        raise FileExistsError(errno.EEXIST, "is the file that is read; give another one to write", name)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder to write in", os.fspath(path.parent))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder is not writable", os.fspath(path.parent))


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write ``chunks`` to a temporary file beside ``path``, flush it to the disk, rename it, flush the folder.

    What stood at ``path`` stays until the rename. Raises OSError; then nothing is left behind.
    """
    target = Path(os.path.realpath(path))  # a link stays, and points to the new content
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        error.filename = os.fspath(path)  # and not the temporary file's name
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line at the end of a file, which is made if there is none, in one write: who is killed leaves whole lines.

    Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def _umask() -> int:
    # mkstemp makes files private; a plan is meant to be read by whom the user's umask allows. The mask can
    # only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
