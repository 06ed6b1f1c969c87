"""The programs of runtime/examples, built as their first lines say and run: what they print is what Python computes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import inception_engine as ie
from inception_engine.preprocess import pixels

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "inception_engine" / "runtime" / "examples"
MOST_LINES = 120
WARNINGS = ("-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
SIZE = 64


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that do not pass for random ones, and labels; BGR, so that a swap of colours would show."""
    network = ie.googlenet(width=0.25, input_size=SIZE, classes=10)
    network = dataclasses.replace(
        network,
        metadata={},
        labels=tuple(f"Klasse »{i}«" for i in range(10)),
        preprocess=ie.Preprocess(order="BGR", resize=70, mean=(100.0, 120.0, 90.0), std=(30.0, 20.0, 25.0)),
    )
    path = tmp_path_factory.mktemp("plans") / "labelled.plan"
    ie.compile(network, batches=(1,)).save(path)
    return path


def build(folder: Path, *arguments: object) -> Path:
    program = folder / "program"
    library = Path(ie.get_library())
    place = (f"-I{ie.get_include()}", f"-I{EXAMPLES}", f"-Wl,-rpath,{library.parent}")
    command = [*map(str, arguments), *WARNINGS, *place, "-o", str(program), str(library)]
    libraries = [part for part in command if part.startswith("-l")]
    command = [part for part in command if not part.startswith("-l")] + libraries
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def needs_decoders() -> None:
    source = "#include <stdio.h>\n#include <jpeglib.h>\n#include <png.h>\n"
    command = ["gcc", "-E", "-x", "c", "-"]
    if subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode:
        pytest.skip("backend decoders: the headers of libjpeg and libpng are not installed")


def build_with_decoders(folder: Path, source: Path) -> Path:
    needs_decoders()
    return build(folder, "gcc", "-std=c99", source, EXAMPLES / "picture.c", "-ljpeg", "-lpng", "-lm")


def painting(seed: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise without the finest grain, as a photo has it."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(noise if channels > 1 else noise[..., 0], mode).filter(ImageFilter.GaussianBlur(1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every sort of JPEG and PNG that the example reads."""
    folder = tmp_path_factory.mktemp("images")
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        painting(1, 201, 133).save(folder / f"{subsampling}.jpg", subsampling=subsampling, quality=85)
    painting(2, 133, 201).save(folder / "progressive.jpg", progressive=True)
    painting(3, 99, 77, "L").save(folder / "grey.jpg")
    for orientation in (3, 6):
        turned = Image.Exif()
        turned[0x0112] = orientation
        painting(4, 150, 90).save(folder / f"turned{orientation}.jpg", exif=turned)
        painting(5, 90, 71).save(folder / f"turned{orientation}.png", exif=turned)
    painting(6, 120, 80).save(folder / "rgb.png")
    painting(7, 80, 120, "RGBA").save(folder / "rgba.png")
    painting(8, 75, 74, "L").save(folder / "grey.png")
    painting(9, 75, 100, "LA").save(folder / "grey-alpha.png")
    painting(10, 101, 99).quantize(200).save(folder / "palette.png")
    painting(11, 101, 99).quantize(9).save(folder / "palette-transparent.png", transparency=3)
    painting(12, 81, 82, "L").convert("1").save(folder / "bits.png")
    deep = np.random.default_rng(13).integers(0, 65536, (90, 70), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", ["classify.c", "picture.c", "pool.cpp", "server.c"])
def test_an_example_can_be_read_at_a_glance(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < MOST_LINES


def test_pictures_are_those_of_python_pixel_by_pixel(plan: Path, images: list[Path], tmp_path: Path) -> None:
    program = build_with_decoders(tmp_path, ROOT / "tests" / "c" / "pixels.c")
    made = subprocess.run([program, plan, *images], capture_output=True, check=True).stdout
    each = np.frombuffer(made, np.uint8).reshape(len(images), SIZE, SIZE, 3)
    with ie.Engine(plan) as engine:
        for path, found in zip(images, each, strict=True):
            expected = pixels(path, engine.preprocess, engine.input_shape)
            np.testing.assert_array_equal(found, expected, path.name)


def test_classify_prints_what_the_command_prints(plan: Path, images: list[Path], tmp_path: Path) -> None:
    program = build_with_decoders(tmp_path, EXAMPLES / "classify.c")
    command = Path(sys.executable).parent / "inception"
    asked = [str(plan), *map(str, images)]
    ours = subprocess.run([program, *asked], capture_output=True, text=True, check=True).stdout
    assert (
        ours
        == subprocess.run([command, "classify", *asked], capture_output=True, text=True, check=True).stdout
    )
    assert ours.count("Klasse »") == 5 * len(images)

    unnamed = tmp_path / "random.plan"
    ie.compile(ie.googlenet(width=0.25, input_size=SIZE, classes=4), batches=(1,)).save(unnamed)
    asked = [str(unnamed), str(images[0])]
    ours = subprocess.run([program, *asked], capture_output=True, text=True, check=True).stdout
    assert (
        ours
        == subprocess.run([command, "classify", *asked], capture_output=True, text=True, check=True).stdout
    )
    assert "class 0" in ours and "random" in ours

    (tmp_path / "text.jpg").write_text("no image")
    whole = (images[0].parent / "4:2:0.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    whole = (images[0].parent / "rgb.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    painting(0, 30, 30, "CMYK").save(tmp_path / "cmyk.jpg")
    (tmp_path / "vast.png").write_bytes(whole[:16] + struct.pack(">II", 20_000, 20_000) + whole[24:])
    names = ("text.jpg", "cut.jpg", "cut.png", "cmyk.jpg", "missing.jpg", "vast.png")
    wrong = [tmp_path / name for name in names]
    done = subprocess.run([program, plan, *wrong], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    complaints = [line for line in done.stderr.splitlines() if line.startswith("classify: ")]
    assert [line.split(": ")[1] for line in complaints] == [str(path) for path in wrong]
    assert complaints[-1].endswith("a PNG of more than 100,000,000 pixels")


def test_labels_cannot_forge_a_line(images: list[Path], tmp_path: Path) -> None:
    program = build_with_decoders(tmp_path, EXAMPLES / "classify.c")
    network = dataclasses.replace(
        ie.googlenet(width=0.25, input_size=SIZE, classes=2), labels=("b\n99.9% forged", "\x1b[2J\x7fé")
    )
    ie.compile(network).save(tmp_path / "hostile.plan")
    asked = [str(tmp_path / "hostile.plan"), str(images[0])]
    ours = subprocess.run([program, *asked], capture_output=True, text=True, check=True).stdout
    command = Path(sys.executable).parent / "inception"
    theirs = subprocess.run([command, "classify", *asked], capture_output=True, text=True, check=True).stdout
    assert ours == theirs
    assert "%  b?99.9% forged\n" in ours and "%  ?[2J?é\n" in ours and ours.count("\n") == 4


def test_pool(plan: Path, tmp_path: Path) -> None:
    program = build(tmp_path, "g++", "-std=c++17", EXAMPLES / "pool.cpp", "-pthread")
    printed = subprocess.run([program, plan, "3", "20"], capture_output=True, text=True, check=True).stdout
    with ie.Engine(plan) as engine:
        for line, level in zip(printed.splitlines(), range(20), strict=True):
            logits = engine.run(np.full((1, SIZE, SIZE, 3), level, np.uint8))[0]
            assert line == f"{logits.argmax()} {float(logits.max()):.9g}"
    done = subprocess.run([program, tmp_path, "1", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"pool: .*not a regular file\n", done.stderr)
    done = subprocess.run([program, plan, "0", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "pool: at least one thread\n")


@contextmanager
def running(program: Path, plan: Path, threads: int) -> Iterator[int]:
    """The server; yields its port. It has to end in peace when it is told to."""
    with subprocess.Popen([program, plan, str(threads), "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline().removeprefix("port "))
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
        finally:
            server.kill()


def receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            break
        received += part
    return received


def ask(connection: socket.socket, frame: np.ndarray) -> np.ndarray:
    connection.sendall(struct.pack("<I", frame.nbytes) + frame.tobytes())
    (length,) = struct.unpack("<I", receive(connection, 4))
    return np.frombuffer(receive(connection, length), np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = ("-std=c99", "-D_POSIX_C_SOURCE=200809L")
    return build(tmp_path_factory.mktemp("server"), "gcc", *flags, EXAMPLES / "server.c", "-pthread")


def test_server_ends_while_a_client_goes_on_sending(plan: Path, server: Path) -> None:
    frame, answered = np.zeros((SIZE, SIZE, 3), np.uint8), threading.Event()

    def client() -> None:
        with (
            contextlib.suppress(OSError, struct.error),  # it hangs up
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        ):
            while True:
                ask(connection, frame)
                answered.set()

    with running(server, plan, 1) as port:
        thread = threading.Thread(target=client, daemon=True)
        thread.start()
        assert answered.wait(timeout=30)
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_server(plan: Path, server: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)
    with ie.Engine(plan) as engine:
        expected = np.concatenate([engine.run(frame[None]) for frame in frames])
    answers = np.zeros_like(expected)
    with running(server, plan, 2) as port:

        def client(first: int) -> None:  # three at a time: one waits for its turn
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                for index in range(first, len(frames), 3):
                    answers[index] = ask(connection, frames[index])

        clients = [threading.Thread(target=client, args=(first,)) for first in range(3)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        np.testing.assert_array_equal(answers, expected)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:  # no frame: hung up
            connection.sendall(struct.pack("<I", frames[0].nbytes + 1))
            assert receive(connection, 1) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:  # it goes on
            np.testing.assert_array_equal(ask(connection, frames[0]), expected[0])
