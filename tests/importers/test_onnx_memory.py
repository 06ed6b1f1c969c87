"""What an import takes beside what is there before it, at its peak: at most four times the file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")

from inception_engine.exporters.onnx import to_onnx
from inception_engine.seeded import googlenet
from tests.importers.caffe import caffe_model

SCRIPT = textwrap.dedent(
    """
    import re, sys
    from pathlib import Path
    from inception_engine.importers.onnx import from_onnx

    def kilobytes(name):
        return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    small, large, extra = sys.argv[1:]
    from_onnx(small)  # what modules and libraries take comes before the measurement
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = kilobytes("VmRSS")
    network = from_onnx(large)
    wasted = [Path(large).read_bytes() for _ in range(int(extra))]
    print((kilobytes("VmHWM") - before) * 1024, network.parameters())
    """
)


@pytest.mark.parametrize("kind", ["initializers", "constants and batch norm"])
def test_a_file_of_30_megabytes(kind: str, tmp_path: Path) -> None:
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    if kind == "initializers":
        for path, width in ((small, 0.05), (large, 1.0)):
            to_onnx(googlenet(width=width), path)
    else:
        for path, width in ((small, 0.05), (large, 1.0)):
            path.write_bytes(caffe_model(googlenet(width=width), 9, scale=True))
    size = large.stat().st_size
    assert 27e6 < size < 32e6

    def taken(extra: int) -> int:
        result = subprocess.run([sys.executable, "-c", SCRIPT, str(small), str(large), str(extra)],
                                capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
        peak, parameters = map(int, result.stdout.split())
        assert parameters * 4 > 0.95 * size
        return peak

    assert size < taken(0) <= 4 * size
    if kind == "initializers":
        assert taken(4) > 4 * size  # the control: four more copies of the file would be seen
