"""What may be written over: regular files, and what links to them leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from inception_engine.files import check_target, write_atomically


def make(kind: str, path: Path) -> None:
    """Something that a rename would replace and must not."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "link to a pipe":
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to("pipe")


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "link to a pipe"])
def test_what_is_no_regular_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    make(kind, target)
    before = {path.name: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match="target"):
        check_target(target)
    with pytest.raises(OSError, match="target"):
        write_atomically(target, [b"new"])
    assert {path.name: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()} == before


def test_a_link_stays_and_leads_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")  # which need not exist
    for content in (b"one", b"two"):
        check_target(tmp_path / "link")
        write_atomically(tmp_path / "link", [content])
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize(("name", "message"), [("no/such/file", "no such folder"), ("x" * 300, "too long")])
def test_names_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=message):
        check_target(tmp_path / name)
    with pytest.raises(OSError, match=name):
        write_atomically(tmp_path / name, [b"new"])
