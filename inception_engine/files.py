"""Files that appear whole or not at all, and files that grow by whole lines."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path


def check_target(path: Path, source: str | os.PathLike[str] | None = None) -> None:
    """Whether a file can be written here, and is not ``source``: now, and not when minutes of work are done.

    Raises OSError, whose text and file name make the line that a user sees.
    """
    target = _target(path)
    if source is not None and path.exists() and os.path.exists(source) and path.samefile(source):
        raise FileExistsError(
            errno.EEXIST, "is the file that is read; give another one to write", os.fspath(path)
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder to write in", os.fspath(path.parent))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder is not writable", os.fspath(path.parent))


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write ``chunks`` to a temporary file beside ``path``, flush it to the disk, rename it, flush the folder.

    What stood at ``path`` stays until the rename. Raises OSError, for what exists and is no regular file, too; then
    nothing is left behind.
    """
    target = _target(path)
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
    """Add a line at the end of a file, which is made if there is none, in one write where the file takes it all: who is
    killed leaves whole lines. If it does not, the next write says why. Raises OSError, with the file's name."""
    rest = f"{line}\n".encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def _target(path: str | os.PathLike[str]) -> Path:
    """What a rename may replace: a link stays, and points to the new content. Raises OSError for anything else than a
    regular file, which a rename would replace, too, and for a name that cannot be one: a loop of links, too long."""
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a file", name)
    except (FileNotFoundError, NotADirectoryError):  # what is not there can be made, or its folder is not
        pass
    return Path(os.path.realpath(name))


def _umask() -> int:
    # mkstemp makes files private; a plan is meant to be read by whom the user's umask allows. The mask can
    # only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
