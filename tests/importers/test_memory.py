"""An import holds little more than the file and the network: measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")

from safetensors.torch import save_file  # noqa: E402 - needs torch

from tests.importers.torchvision_model import TorchvisionGoogLeNet  # noqa: E402

CLASSES = 2200  # so that the file has 30 MB
# The kernel's peak of resident memory is set back after a first import, of a small file, has loaded every module.
PROGRAM = """
import sys
from inception_engine import load_network

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

load_network(sys.argv[1], input_size=64)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
network = load_network(sys.argv[2])
print(status("VmHWM") - before, sum(layer.weight.nbytes for layer in network.layers if hasattr(layer, "weight")))
"""


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_import_takes_at_most_four_times_the_file(suffix: str, tmp_path: Path) -> None:
    for name, model in (
        ("small", TorchvisionGoogLeNet(3, width=8)),
        ("large", TorchvisionGoogLeNet(CLASSES)),
    ):
        state = model.state_dict()
        if suffix == ".pth":
            torch.save(state, tmp_path / f"{name}.pth")
        else:
            save_file(state, tmp_path / f"{name}.safetensors")
    small, large = tmp_path / f"small{suffix}", tmp_path / f"large{suffix}"
    size = large.stat().st_size
    assert 30e6 < size < 33e6
    command = [sys.executable, "-c", PROGRAM, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, weights = map(int, done.stdout.split())
    assert 0.9 * weights < peak <= 4 * size  # what is there at the end was seen, so the measurement works
