"""Files that are made to attack: refused by what they declare, before torch reads them."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from inception_engine import ImportFailed, load_network
from inception_engine.importers import pickled

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pth"


def refused(path: Path, message: str) -> None:
    with pytest.raises(ImportFailed, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def archive(path: Path, pickle_bytes: bytes, compression: int = zipfile.ZIP_STORED, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": pickle_bytes, "version": b"3", **members}.items():
            file.writestr(f"archive/{name}", content)


class Marker:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_is_not_run(legacy: bool, path: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    torch.save({"a": Marker(evil)}, path, _use_new_zipfile_serialization=not legacy)
    refused(path, "holds a posix.mkdir, which is code and not weights")
    assert not evil.exists()
    torch.load(path, weights_only=False)  # what it would have done
    assert evil.exists()


def test_a_plain_pickle_is_refused(path: Path, tmp_path: Path) -> None:
    path.write_bytes(pickle.dumps(Marker(tmp_path / "evil")))
    refused(path, "a pickle that is not of torch.save")
    assert not (tmp_path / "evil").exists()


def test_newer_protocols_are_refused(path: Path) -> None:
    archive(path, pickle.dumps({"size": torch.Size([1])}, protocol=4))
    refused(path, "STACK_GLOBAL")


def test_a_compressed_bomb(path: Path) -> None:
    archive(path, bytes(10_000_000), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    refused(path, "archive/data.pkl is compressed")


def test_members_that_declare_more_than_the_file_has(path: Path) -> None:
    archive(path, pickle.dumps({}, protocol=2), data=bytes(1000))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last member in the central directory
    content[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(content)
    refused(path, "its members declare 1,073,7")


def test_a_name_that_is_half_of_the_file(path: Path) -> None:
    """zipfile quotes a member's header: the line stays a line."""
    archive(path, bytes(30_000))
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, 26, 20_000)  # the length of the first member's name in its header
    path.write_bytes(content)
    refused(path, r"truncated or damaged: File name in directory .*\.\.\.$")
    with pytest.raises(ImportFailed) as raised:
        load_network(path)
    assert len(str(raised.value)) <= 1000


def test_a_long_pickle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_PICKLE_BYTES", 1 << 14)
    archive(path, b"\x80\x02" + b"]" * (pickled.MAX_PICKLE_BYTES + 1) + b".")
    refused(path, "pickle has more than")
    path.write_bytes(pickled.PICKLE_MAGIC + b"." + b"\x80\x02" + b"]" * (pickled.MAX_PICKLE_BYTES + 1) + b".")
    refused(path, "pickle has more than")


def test_a_huge_file_is_not_read(path: Path) -> None:
    for magic in (pickled.ZIP_MAGIC, pickled.PICKLE_MAGIC):
        path.write_bytes(magic)
        os.truncate(path, pickled.MAX_FILE_BYTES + 1)
        refused(path, "bytes, more than")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_other_archives(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "<xml/>")
    refused(path, "no data.pkl")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    refused(path, "TorchScript")


@pytest.mark.parametrize("version", ["2.5.1", "2.9.1+cu126", "1.13.0"])
def test_a_torch_with_holes_is_refused(version: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1)}, path)
    monkeypatch.setattr(torch, "__version__", version)
    refused(path, f"PyTorch {version.replace('+', '.')} can be attacked.*CVE-2026-24747.*2.10 or newer")
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    refused(path, "no GoogLeNet")


def test_what_is_no_checkpoint(path: Path, tmp_path: Path) -> None:
    for content, message in (
        (b"neither", "neither a PyTorch checkpoint"),
        (b"INCPLAN\n" + bytes(100), "a plan, compiled already"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\xff\xd8\xff\xe0", "neither a PyTorch checkpoint"),
    ):
        path.write_bytes(content)
        refused(path, message)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a file")
    with pytest.raises(FileNotFoundError, match="missing"):
        load_network(tmp_path / "missing.pth")


def test_damaged_bytes_never_raise_anything_else(path: Path) -> None:
    """Every byte of a small checkpoint's pickle and directory, one after the other."""
    torch.save({"conv1.conv.weight": torch.ones(2, 3)}, path)
    content = path.read_bytes()
    pickle_begin = content.index(b"\x80\x02")
    places = [
        *range(pickle_begin, pickle_begin + 180),
        *range(content.rindex(b"PK\x01\x02") - 200, len(content)),
    ]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ImportFailed):
            load_network(path)
