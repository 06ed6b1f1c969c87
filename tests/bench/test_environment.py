from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from inception_engine.bench.environment import OtherProcesses, _git, environment


def test_environment_names_machine_versions_and_command() -> None:
    content = environment(["--batch", "1", "--json", "a file"])
    assert content["command"] == "inception-bench --batch 1 --json 'a file'"
    assert content["cores"] >= 1 and content["memory_bytes"] > 1 << 20
    assert content["versions"]["numpy"].count(".") >= 1
    assert json.dumps(content, allow_nan=False)


def test_a_hosts_own_name_of_its_kernel_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-13-cloud-amd64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert environment([])["os"] == f"{platform.system()} 6.1.0, glibc 2.36"


def test_other_processes_are_counted_and_our_own_work_is_not() -> None:
    living = 0
    others = OtherProcesses(lambda: living)
    assert others._start is not None
    wall, busy, own = others._start
    # Ten seconds ago; five of work since, of which three were ours and one a peer's that still lives.
    others._start = (wall - 10.0, busy - 5.0, own - 3.0)
    assert others.cores() == pytest.approx(0.2, abs=0.05)
    living = 1_000_000_000
    assert others.cores() == pytest.approx(0.1, abs=0.05)


def test_git_names_the_commit_only_where_the_package_is_tracked(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "records.py"
    source.write_text("")
    assert _git(tmp_path) is None
    git("init", "--quiet")
    assert _git(tmp_path) is None  # in a checkout, but not of it
    git("add", ".")
    git("commit", "--quiet", "--message", "m")
    assert _git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    source.write_text("changed")
    assert _git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
