"""What the README says can be done is done here, in its order: Python, command line, C."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inception_engine import binding
from inception_engine.bench.report import RATIO_COLUMNS
from tests.importers.torchvision_model import trained_googlenet

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = ["tools/bench", "tools/test", "tools/check", "tools/setup", ".ci/run"]
SCRIPTS += [
    "tools/hardening",
    "tools/train-digits",
    "tools/digits-table",
    "tools/train-kills",
    "tools/abi",
    "tools/wheel",
]
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no block of {language}"
    return found


CONSOLE = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo and a fine-tuned checkpoint, where the README's Python has run."""
    folder = tmp_path_factory.mktemp("readme")
    torch.save(trained_googlenet(3, width=4, auxiliary=True).state_dict(), folder / "tuned.pth")
    (folder / "classes.txt").write_text("cat\ndog\nfox\n")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    run([sys.executable, "-c", "\n".join(blocks("python"))], folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_writes_a_plan(workplace: Path) -> None:
    assert (workplace / "googlenet.plan").stat().st_size > 0


@pytest.mark.parametrize("command", CONSOLE)
def test_command_line(command: str, workplace: Path) -> None:
    assert run(command.split(), workplace).strip() or "-o" in command.split()


def test_the_fine_tuned_model_knows_its_classes(workplace: Path) -> None:
    build, classify = CONSOLE[:2]
    assert "parity with PyTorch" in run(build.split(), workplace)
    printed = run(classify.split(), workplace)
    assert all(name in printed for name in ("cat", "dog", "fox"))
    assert "random" not in printed


def test_c_program_agrees_with_python(workplace: Path) -> None:
    (workplace / "program.c").write_text(blocks("c")[0])
    library = binding.library_path().parent
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/inception_engine/runtime/include"]
    run(["gcc", *flags, "program.c", "-o", "program", f"-L{library}", "-linception_engine"], workplace)
    printed = run(["env", f"LD_LIBRARY_PATH={library}", "./program"], workplace)
    python = (
        "import numpy as np, inception_engine as ie\n"
        "images = np.zeros((1, 3, 224, 224), np.float32)\n"
        "print('%f' % ie.Engine('googlenet.plan').run(images)[0, 0])"
    )
    assert printed == run([sys.executable, "-c", python], workplace)


def test_the_table_is_from_a_real_run() -> None:
    """The block behind tools/bench has columns of `--format ratios`, no time, and a row for each of the engine's
    cases."""
    table = README.split("<!-- tools/bench: begin -->")[1].split("<!-- tools/bench: end -->")[0]
    head, rule = table.splitlines()[(line := _line(table, "variant ")) : line + 2]
    widths = [len(dashes) for dashes in rule.split()]
    columns = []
    for width in widths:
        columns.append(head[:width].strip())
        head = head[width + 2 :]
    assert columns == [column for column in RATIO_COLUMNS if column in columns]
    assert {"peer", "parity", "ratio to best peer", "images/s", "peak memory"} <= set(columns)
    for peer in ("engine", "engine-c", "torch", "torch-channels-last", "onnxruntime", "openvino"):
        rows = [line for line in table.splitlines() if line.split()[2:3] == [peer]]
        assert len(rows) == 4
        assert all(re.search(r" (ok|unstable|unstable from warm-up on)$", row) for row in rows)
    assert " ms" not in table


def _line(text: str, begin: str) -> int:
    return next(number for number, line in enumerate(text.splitlines()) if line.startswith(begin))


def test_the_two_commands_come_first() -> None:
    first = README.split("```")[0]
    assert "tools/bench" in first
    assert "tools/test" in first


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_can_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def paths_in_readme() -> Iterator[str]:
    yield from re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    yield from re.findall(r"\btools/[\w-]+", README)
    folder = ""
    layout = next(block for block in blocks("text") if block.startswith("inception_engine/ "))
    for line in layout.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        yield folder + name if line.startswith(" ") else name


@pytest.mark.parametrize("path", sorted(set(paths_in_readme())))
def test_path_exists(path: str) -> None:
    assert (ROOT / path).exists()
