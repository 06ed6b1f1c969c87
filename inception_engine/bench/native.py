"""Small programs in C that measure, compiled when they are needed by the machine's own compiler."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SECONDS = 120.0  # for a compiler


class CompilerError(Exception):
    """There is no C compiler, or it refuses; one line."""


class CompilerMistake(CompilerError):
    """``CC`` is no command, so nobody can say whether there is a compiler; or it does not take our program."""


def build(name: str, folder: Path, flags: Sequence[str] = ()) -> Path:
    """Compile ``name.c`` of this package to ``folder/name``, once. Raises CompilerError."""
    program = folder / name
    if program.exists():
        return program
    try:
        compiler = shlex.split(os.environ.get("CC", "cc"))
    except ValueError as error:
        raise CompilerMistake(f"CC is no command: {error}") from None
    if not compiler or shutil.which(compiler[0]) is None:
        raise CompilerError(f"no C compiler ({' '.join(compiler) or 'CC is empty'})")
    source = Path(__file__).with_name(f"{name}.c")
    command = [*compiler, "-std=c11", "-O3", "-pthread", str(source), "-o", str(program), *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{compiler[0]}: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CompilerMistake(f"{compiler[0]}: {lines[0] if lines else f'status {done.returncode}'}")
    return program


def engine_flags() -> list[str]:
    """What a program takes to use the installed library. Raises LibraryError where that is not there, and
    CompilerError where its header is not."""
    import inception_engine
    from inception_engine import binding

    library = binding.library_path()
    # A checkout has the header among the sources, an installed package beside the library.
    folders = [
        Path(folder) / place
        for folder in inception_engine.__path__
        for place in ("include", "runtime/include")
    ]
    headers = next((folder for folder in folders if (folder / "inception_engine.h").is_file()), None)
    if headers is None:
        raise CompilerError("inception_engine.h is missing; install the package to have it")
    return [f"-I{headers}", str(library), f"-Wl,-rpath,{library.parent}"]
