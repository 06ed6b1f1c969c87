"""`inception import`, and `inception build` on a checkpoint: what they print, write and refuse."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inception_engine import Engine, Network, Plan, cli, googlenet
from inception_engine.importers import torchvision
from inception_engine.spec import PRESETS

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")

from tests.importers.torchvision_model import trained_googlenet  # noqa: E402 - needs torch

Captured = pytest.CaptureFixture[str]
SIZE = ("--input-size", "64")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("checkpoint") / "tuned.pth"
    torch.save({"epoch": 1, "model": trained_googlenet(3, width=8, auxiliary=True).state_dict()}, path)
    return str(path)


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_import(checkpoint: str, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nfox\n")
    target = tmp_path / "a.safetensors"
    options = "--labels", str(tmp_path / "labels.txt"), "--resize", "70"
    status, out, err = run(capsys, "import", checkpoint, "-o", str(target), *SIZE, *options)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{checkpoint}: torchvision's GoogLeNet, 3 classes, batch norm folded"
    for said in (
        "state dict in 'model'",
        "aux1, aux2",
        "transform_input assumed",
        "(127.5, 127.5, 127.5)",
        "to 70",
    ):
        assert said in out
    assert (
        out.count("max|d|/max|ref|") == 2 and "top-1 the same on 4 of 4" in out and "tolerance 1e-04" in out
    )
    assert lines[-1].startswith(f"{target}: ")
    network = Network.load(target)
    assert network.labels == ("cat", "dog", "fox") and network.preprocess.resize == 70
    assert network.metadata["file"] == "tuned.pth" and "weights" not in network.metadata


def test_a_file_whose_name_is_not_text(checkpoint: str, capsys: Captured, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.pth"
    shutil.copy(checkpoint, os.fsdecode(odd))
    plan = tmp_path / "a.plan"
    status, _, err = run(capsys, "build", "--network", os.fsdecode(odd), "-o", str(plan), *SIZE, "--no-check")
    assert (status, err) == (0, "")
    assert Plan.load(plan).metadata["metadata"]["file"] == "\ufffd\ufffd.pth"


@pytest.mark.parametrize("option", ["--input-size", "--resize"])
def test_sizes_that_nobody_means(option: str, checkpoint: str, capsys: Captured, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    status, _, err = run(capsys, "import", checkpoint, "-o", str(target), option, "99999999999")
    assert status == 2 and "1 to 2048" in err and err.count("\n") == 1 and not target.exists()


def test_build_from_a_checkpoint(checkpoint: str, capsys: Captured, tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    options = "--no-transform-input", "--mean", "1,2,3", "--std", "4", "--order", "BGR", "--max-batch", "2"
    status, out, err = run(capsys, "build", "--network", checkpoint, "-o", str(plan), *SIZE, *options)
    assert (status, err) == (0, "")
    assert out.count("max|d|/max|ref|") == 2 and "assumed" not in out and "random" not in out.splitlines()[-1]
    with Engine(plan) as engine:
        assert engine.input_shape == (3, 64, 64) and engine.max_batch == 2 and not engine.random_weights
        assert (engine.preprocess.mean, engine.preprocess.std) == ((1, 2, 3), (4, 4, 4))
        assert engine.preprocess.order == "BGR"


def test_no_check_is_said(checkpoint: str, capsys: Captured, tmp_path: Path) -> None:
    target = str(tmp_path / "a.safetensors")
    status, out, _ = run(capsys, "import", checkpoint, "-o", target, *SIZE, "--no-check")
    assert status == 0 and "not checked against PyTorch" in out and "max|d|" not in out


@pytest.mark.parametrize("command", [("import",), ("build", "--network")], ids=["import", "build"])
def test_failed_parity_writes_nothing(
    command: tuple[str, ...],
    checkpoint: str,
    capsys: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = dataclasses.replace(PRESETS["torchvision"], batch_norm_epsilon=1e-5)
    monkeypatch.setattr(torchvision, "PRESETS", {"torchvision": wrong})
    target = tmp_path / "a"
    target.write_bytes(b"old")
    status, out, err = run(capsys, *command, checkpoint, "-o", str(target), *SIZE)
    assert status == 1
    assert "FAILED" in out and err == f"inception: error: parity failed; {target} is not written\n"
    assert target.read_bytes() == b"old"


def test_control_characters_in_a_file_do_not_reach_the_terminal(capsys: Captured, tmp_path: Path) -> None:
    state = trained_googlenet(3, width=8).state_dict()
    hostile = "\x1b]0;title\x07"
    torch.save({f"{hostile}.{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    arguments = "import", str(tmp_path / "a.pth"), "-o", str(tmp_path / "a"), *SIZE, "--no-check"
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and "title" in out and "\x1b" not in out
    torch.save({**state, hostile * 1000: torch.ones(1)}, tmp_path / "a.pth")
    status, _, err = run(capsys, *arguments)
    assert status == 2 and "title" in err and "\x1b" not in err and len(err) < 1100


def test_a_saved_network_takes_labels(capsys: Captured, tmp_path: Path) -> None:
    googlenet(width=0.1, classes=2, input_size=32).save(tmp_path / "a.safetensors")
    (tmp_path / "labels.json").write_text('["yes", "no"]')
    arguments = str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors")
    assert run(capsys, "import", *arguments, "--labels", str(tmp_path / "labels.json"))[0] == 0
    assert Network.load(tmp_path / "b.safetensors").labels == ("yes", "no")


def test_variant_of_our_own_state_dict(capsys: Captured, tmp_path: Path) -> None:
    from inception_engine.model import GoogLeNet
    from inception_engine.spec import Spec

    torch.save(
        GoogLeNet(Spec(norm="none", width=0.1, classes=4, input_size=64)).state_dict(), tmp_path / "a.pth"
    )
    target = tmp_path / "a.safetensors"
    arguments = "import", str(tmp_path / "a.pth"), "-o", str(target), *SIZE
    status, out, _ = run(capsys, *arguments, "--variant", "plain")
    assert status == 0 and "norm none" in out and "assumed" not in out
    assert "norm1" not in Network.load(target).shapes()
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and "the paper's LRN and pools assumed" in out
    assert "norm1" in Network.load(target).shapes()


MISTAKES = [
    ("import",),
    ("import", "{file}"),
    ("import", "{tmp}/missing.pth", "-o", "{tmp}/x"),
    ("import", "{tmp}", "-o", "{tmp}/x"),
    ("import", "/dev/zero", "-o", "{tmp}/x"),
    ("import", "{text}", "-o", "{tmp}/x"),
    ("import", "{file}", "-o", "{tmp}"),
    ("import", "{file}", "-o", "{file}"),
    ("import", "{file}", "-o", "{tmp}/no/folder/x", "--no-check"),
    ("import", "{file}", "-o", "{tmp}/x", "--labels", "{tmp}/missing"),
    ("import", "{file}", "-o", "{tmp}/x", "--labels", "{text}"),
    ("import", "{file}", "-o", "{tmp}/x", "--mean", "1,two"),
    ("import", "{file}", "-o", "{tmp}/x", "--mean", "1,2"),
    ("import", "{file}", "-o", "{tmp}/x", "--std", "0.229,0.224,0.225"),
    ("import", "{file}", "-o", "{tmp}/x", "--std", "0"),
    ("import", "{file}", "-o", "{tmp}/x", "--mean", "nan"),
    ("import", "{file}", "-o", "{tmp}/x", "--order", "RBG"),
    ("import", "{file}", "-o", "{tmp}/x", "--resize", "0"),
    ("import", "{file}", "-o", "{tmp}/x", "--input-size", "0"),
    ("import", "{file}", "-o", "{tmp}/x", "--input-size", "5"),
    ("import", "{file}", "-o", "{tmp}/x", "--head-activation", "relu"),
    ("import", "{file}", "-o", "{tmp}/x", "--variant", "plain"),
    ("import", "{file}", "-o", "{tmp}/x", "--variant", "resnet"),
    ("build", "-o", "{tmp}/x", "--network", "{file}", "--classes", "5"),
    ("build", "-o", "{tmp}/x", "--network", "{file}", "--seed", "1"),
    ("build", "-o", "{tmp}/x", "--labels", "{text}"),
    ("build", "-o", "{tmp}/x", "--transform-input"),
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_mistakes_are_one_line_and_status_2(
    arguments: tuple[str, ...], checkpoint: str, capsys: Captured, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "text").write_text("one\ntwo")
    before = Path(checkpoint).read_bytes()
    names = {"file": checkpoint, "tmp": str(work), "text": str(tmp_path / "text")}
    status, _, err = run(capsys, *(argument.format(**names) for argument in arguments))
    assert status == 2
    assert err.startswith("inception: error: ") and err.count("\n") == 1 and len(err) < 400
    assert list(work.iterdir()) == [] and Path(checkpoint).read_bytes() == before


def test_without_torch(tmp_path: Path) -> None:
    """safetensors become a network without it; .pth and the check say that it is missing."""
    from safetensors.torch import save_file

    state = trained_googlenet(3, width=8).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    program = (
        "import sys; sys.modules['torch'] = None; from inception_engine.cli import main; sys.exit(main())"
    )

    def done(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments, *SIZE]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    build = "build", "-o", "a.plan", "--network"
    ran = done(*build, "a.safetensors", "--no-check")
    assert ran.returncode == 0, ran.stderr
    with Engine(tmp_path / "a.plan") as engine:
        assert engine.run(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 3)
    for file, message in (
        ("a.safetensors", "the parity check needs PyTorch"),
        ("a.pth", "reading it needs PyTorch"),
    ):
        ran = done(*build, file)
        assert ran.returncode == 2 and message in ran.stderr and ran.stderr.count("\n") == 1
