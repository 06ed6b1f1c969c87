"""tools/hardening, and what SECURITY.md says of it."""

from __future__ import annotations

import re

import pytest

from tests.hardening import commands
from tests.hardening.__main__ import COMMANDS, main
from tests.hardening.build import HERE


def test_security_md_names_each_command() -> None:
    text = (HERE.parents[1] / "SECURITY.md").read_text()
    table = "".join(re.findall(r"^\| `.*? \|", text, re.M))
    assert set(re.findall(r"`(\w+)`", table)) == set(COMMANDS) - {"corpus"}


def test_a_finding_is_status_1_and_its_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise commands.Failed("target ended with 1\nfinding: two runs differ")

    monkeypatch.setattr(commands, "load_extremes", fail)
    assert main(["extremes"]) == 1
    assert capsys.readouterr().err.endswith("target ended with 1\nfinding: two runs differ\n")
