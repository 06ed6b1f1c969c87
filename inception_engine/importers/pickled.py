"""PyTorch's own files (.pth, .pt), which are pickles: what is in one is looked at before torch may read it.

torch.load with ``weights_only`` runs no code of the file, in a torch without known holes. Before that, of both formats
(a zip archive since 1.6, one stream before):

1. the file has at most ``MAX_FILE_BYTES``; an archive's members are stored, not compressed, and no larger together
   than the file, so that nothing unpacks to more than was sent;
2. the pickle has at most ``MAX_PICKLE_BYTES`` (its opcodes can make some 60 times as much of Python objects) and names
   nothing but tensors, storages and dictionaries.
"""

from __future__ import annotations

import os
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

from inception_engine.importers.errors import ImportFailed

MAX_FILE_BYTES = 1 << 31  # GoogLeNet with heads and Adam's state has 160 MB
MAX_PICKLE_BYTES = 1 << 20  # GoogLeNet's has 50 KB, with an optimizer's state some 200 KB
MAX_MEMBERS = 100_000

ZIP_MAGIC = b"PK\x03\x04"
# Protocol 2 and torch's magic number.
PICKLE_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
LEGACY_PICKLES = 5  # magic number, protocol, system, the object, the storages' names; then the storages

# CVE-2025-32434 was fixed in 2.6.0, CVE-2026-24747 (memory corruption by a weights_only load) in 2.10.0.
SAFE_TORCH = (2, 10)

_STORAGES = {
    f"torch {kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
_FLOATS = {f"torch {kind}" for kind in ("float64", "float32", "float16", "bfloat16")}
_INTEGERS = {f"torch {kind}" for kind in ("int64", "int32", "int16", "int8", "uint8", "bool")}
_GLOBALS = _STORAGES | _FLOATS | _INTEGERS | {
    "collections OrderedDict",
    "collections defaultdict",
    "__builtin__ dict",
    "__builtin__ set",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch.storage TypedStorage",
    "torch.storage UntypedStorage",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
}  # fmt: skip
_FOREIGN = {"STACK_GLOBAL", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}  # other ways to name a class
HOW = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"


def load(path: str | os.PathLike[str]) -> Any:
    """The object in a PyTorch file, its tensors on the CPU. Raises ImportFailed and OSError."""
    _check_file(Path(path))
    torch = _safe_torch(path)
    try:
        # A file and not its path: torch takes the names of some paths for formats.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # of storages that are typed no more
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file leads torch to whatever its bytes say
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ImportFailed(f"{path}: truncated or damaged: {first}") from None


def _safe_torch(path: str | os.PathLike[str]) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportFailed(
            f"{path}: reading it needs PyTorch: pip install 'inception-engine[torch]', or save it as safetensors"
        ) from None
    version = torch.__version__
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < SAFE_TORCH:
        needed = ".".join(map(str, SAFE_TORCH))
        raise ImportFailed(
            f"{path}: PyTorch {version} can be attacked by such a file (CVE-2025-32434, CVE-2026-24747); "
            f"{needed} or newer is needed, or safetensors"
        )
    return torch


def _check_file(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ImportFailed(f"{path}: {size:,} bytes, more than {MAX_FILE_BYTES:,}")
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            _check_archive(path, file, size)
        else:
            file.seek(0)
            _check_pickles(path, file, LEGACY_PICKLES)


def _check_archive(path: Path, file: IO[bytes], size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise ImportFailed(f"{path}: an archive of {len(members):,} members")
            names = [member.filename for member in members]
            if any(name.endswith("/constants.pkl") for name in names):
                raise ImportFailed(f"{path}: a TorchScript program, which is code; {HOW}")
            packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ImportFailed(f"{path}: {packed[0]} is compressed; PyTorch writes no such files")
            declared = sum(member.file_size for member in members)
            if declared > size:
                raise ImportFailed(f"{path}: its members declare {declared:,} bytes, it has {size:,}")
            # In any case of letters: torch's reader does not tell them apart.
            pickles = [name for name in names if name.count("/") == 1 and name.lower().endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ImportFailed(f"{path}: an archive that is not of torch.save: no data.pkl in it")
            with archive.open(pickles[0]) as pickle:
                _check_pickles(path, pickle, 1)
    except ImportFailed:
        raise
    except Exception as error:  # a damaged directory leads zipfile to whatever its fields say
        raise ImportFailed(f"{path}: truncated or damaged: {error}") from None


def _check_pickles(path: Path, stream: IO[bytes], count: int) -> None:
    """Walk the opcodes of ``count`` pickles in a row; none is carried out."""
    try:
        for _ in range(count):
            for opcode, argument, _ in pickletools.genops(stream):
                if stream.tell() > MAX_PICKLE_BYTES:
                    raise ImportFailed(f"{path}: its pickle has more than {MAX_PICKLE_BYTES:,} bytes")
                if opcode.name in ("GLOBAL", "INST") and argument not in _GLOBALS:
                    name = str(argument).replace(" ", ".")
                    raise ImportFailed(f"{path}: holds a {name}, which is code and not weights; {HOW}")
                if opcode.name in _FOREIGN:
                    raise ImportFailed(
                        f"{path}: its pickle has a {opcode.name}, which torch.save does not write"
                    )
    except ImportFailed:
        raise
    except (ValueError, EOFError, OverflowError, MemoryError, zipfile.BadZipFile) as error:
        raise ImportFailed(f"{path}: truncated or damaged: {error}") from None
