"""A small network, images that it can and cannot take, and what the engine says of them."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inception_engine as ie

INCEPTION = Path(sys.executable).parent / "inception"
LABELS = ("cat", "dog", "fox", "owl", "elk")
MAX_BATCH = 4


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "small.plan"
    network = ie.googlenet(seed=7, width=0.125, input_size=32, classes=len(LABELS))
    preprocess = replace(network.preprocess, resize=36)
    ie.compile(replace(network, labels=LABELS, preprocess=preprocess), max_batch=MAX_BATCH).save(path)
    return path


@pytest.fixture(scope="session")
def bodies() -> list[bytes]:
    """Image files of several sizes, modes and formats."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(12):
        height, width = rng.integers(20, 90, 2)
        shape = (height, width) if index % 4 == 3 else (height, width, 3)
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        file = io.BytesIO()
        image.save(file, format="PNG" if index % 2 else "JPEG")
        found.append(file.getvalue())
    return found


@pytest.fixture(scope="session")
def bad(bodies: list[bytes]) -> list[tuple[bytes, int]]:
    """What is no image, with the status that says so: damaged, foreign, empty, too large a file, too many pixels."""
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, format="PNG")
    return [
        (bodies[1][: len(bodies[1]) // 2], 400),
        (b"GIF89a" + bytes(50), 415),
        (b"", 415),
        (bytes(300_000), 413),
        (bomb.getvalue(), 413),
    ]


@pytest.fixture(scope="session")
def expected(plan: Path, bodies: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What `Engine.classify` says of each image's file, as JSON, but for the path, which a server does not know."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    with ie.Engine(plan) as engine:
        for index, body in enumerate(bodies):
            (folder / f"{index}.png").write_bytes(body)
            (result,) = engine.classify(folder / f"{index}.png", top_k=3)
            found.append({"random_weights": True, "results": [{**result.document(), "path": None}]})
    assert len({str(document) for document in found}) == len(bodies)
    return found


@dataclass(eq=False)
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def stop(self) -> str:
        """By SIGTERM. Returns what it printed from when it was ready."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0 and err == "", err
        return out


@pytest.fixture
def serving(plan: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers of the plan, with these options, and waits until they are ready."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Running:
        command = [
            str(INCEPTION),
            "serve",
            str(plan),
            "--port",
            "0",
            "--threads",
            "1",
            "--top-k",
            "3",
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line + process.stderr.read()
        line = process.stdout.readline()
        assert line.startswith(f"ready: {plan} on "), line + process.stderr.read()
        return Running(process, match[1])

    yield start
    for process in started:
        process.kill()
        process.communicate()
