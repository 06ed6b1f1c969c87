"""The `inception` command: what it prints, and one line with exit status 2 for every mistake."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
from PIL import Image

from inception_engine import Engine, Network, Plan, cli, googlenet
from inception_engine import compile as ie_compile
from inception_engine.commands import summary
from inception_engine.compiler.plan import FILE_HEADER

SMALL = ("--width", "0.1", "--input-size", "32", "--classes", "10")
COMMAND = (sys.executable, "-c", "import sys; from inception_engine.cli import main; sys.exit(main())")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.plan"
    assert cli.main(["build", "-o", str(path), *SMALL, "--batches", "1,4"]) == 0
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = [folder / f"{index:02}.{'jpg' if index % 2 else 'png'}" for index in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from inception_engine.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as exit: assert exit.code == 0\n"
        "heavy = {'numpy', 'torch', 'triton', 'onnx', 'onnxruntime', 'PIL', 'tqdm'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("summary", "import", "build", "inspect", "simulate", "train", "classify"):
        assert command in done.stdout


def test_summary(capsys: Captured) -> None:
    status, out, err = run(capsys, "summary")
    assert (status, err) == (0, "")
    assert "6,998,552 parameters" in out and "1.5827 G" in out


def test_summary_of_a_variant(capsys: Captured) -> None:
    status, out, _ = run(capsys, "summary", "--preset", "torchvision", "--width", "0.5", "--classes", "7")
    assert status == 0 and "batch norm" in out and "width 0.5" in out and "1x1x7" in out


def test_build_says_that_weights_are_random(capsys: Captured, tmp_path: Path) -> None:
    status, out, err = run(capsys, "build", "-o", str(tmp_path / "a.plan"), *SMALL, "--seed", "5")
    assert (status, err) == (0, "")
    assert "random (seed 5)" in out
    assert Plan.load(tmp_path / "a.plan").metadata["random_weights"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["a.plan"]


def test_build_of_a_variant(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "a.plan"
    assert run(capsys, "build", "-o", str(path), *SMALL, "--variant", "plain", "--max-batch", "3")[0] == 0
    program = Plan.load(path).programs[0]
    assert int(program.header["max_batch"]) == 3
    assert not any(program.text(op).startswith("norm") for op in program.ops)
    with Engine(path) as engine:
        assert engine.input_shape == (3, 32, 32) and engine.outputs["logits"] == (10, 1, 1)


def test_build_from_a_network_file(tmp_path: Path, capsys: Captured) -> None:
    network = googlenet(seed=3, width=0.1, input_size=32, classes=10)
    trained = Network(
        name="trained",
        input_shape=network.input_shape,
        layers=network.layers,
        logits=network.logits,
        labels=tuple("abcdefghij"),
    )
    trained.save(tmp_path / "a.safetensors")
    status, out, _ = run(
        capsys, "build", "-o", str(tmp_path / "a.plan"), "--network", str(tmp_path / "a.safetensors")
    )
    assert status == 0 and "trained" in out and "random" not in out
    with Engine(tmp_path / "a.plan") as engine:
        assert engine.labels == tuple("abcdefghij") and not engine.random_weights


def test_inspect(plan: Path, capsys: Captured) -> None:
    status, out, err = run(capsys, "inspect", str(plan))
    assert (status, err) == (0, "")
    assert "program 2: cpu fp32, batch 1 to 4" in out and "weights are random" in out
    status, out, err = run(capsys, "inspect", str(plan), "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert set(document["launches"][0]) >= {"name", "mode", "tasks"}
    assert document["macs"]["executed"] >= document["macs"]["nominal"] > 0
    assert document["arena_bytes"] > 0 and document["activation_bytes"] > 0 and document["weight_bytes"] > 0
    assert [program["max_batch"] for program in document["programs"]] == [1, 4]


def test_inspect_measures_shares_of_the_machine(
    plan: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inception_engine.commands.inspect.SECONDS", 0.0)
    limits = {"macs_per_s": 1e9, "bytes_per_s": 1e9}
    monkeypatch.setattr("inception_engine.bench.peak.measure", lambda threads, _: limits)
    status, out, err = run(capsys, "inspect", str(plan), "--measure", "--threads", "1", "--json")
    assert (status, err) == (0, "")
    for program in json.loads(out)["programs"]:
        found = program["measured"]
        assert found["threads"] == 1 and found["run_ms"] > 0
        assert [layer["name"] for layer in found["layers"]] == [layer["name"] for layer in program["layers"]]
        for layer, counted in zip(found["layers"], program["layers"], strict=True):
            assert layer["executed"] == counted["executed"] * program["max_batch"]
            assert layer["of_peak"] == pytest.approx(layer["executed"] / layer["ms"] / 1e6)
    status, out, err = run(capsys, "inspect", str(plan), "--measure")
    assert (status, err) == (0, "")
    assert "peak: 1.0 G multiply-adds/s, 1.0 GB/s from memory, measured in this run" in out
    assert re.search(r"^program 2, batch 4, \d+ threads?: [\d.]+ ms a run", out, re.MULTILINE)
    assert run(capsys, "inspect", str(plan), "--threads", "1")[0] == 2


@pytest.mark.parametrize(
    ("found", "replacement", "wrong"),
    [
        (b'{"name"', b'["name"', "not JSON"),
        (b'"googlenet"', b'"google\xffet"', "not JSON"),
        (b"probabilities", b"prob\xffbilities", "not text"),
    ],
)
def test_inspect_survives_what_the_loader_does_not_read(
    plan: Path, capsys: Captured, tmp_path: Path, found: bytes, replacement: bytes, wrong: str
) -> None:
    body = plan.read_bytes()[FILE_HEADER.itemsize :]
    assert found in body
    body = body.replace(found, replacement)
    header = np.frombuffer(plan.read_bytes(), FILE_HEADER, 1).copy()
    header["hash"] = xxhash.xxh64_intdigest(body)
    (tmp_path / "a.plan").write_bytes(header.tobytes() + body)
    status, out, err = run(capsys, "inspect", str(tmp_path / "a.plan"))
    assert (status, out) == (2, "")
    assert err.startswith(f"inception: error: {tmp_path / 'a.plan'}: ") and wrong in err


def test_names_that_a_terminal_cannot_show(plan: Path, photos: list[str], tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe4.png")
    shutil.copy(photos[0], name)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [*COMMAND, "classify", str(plan), name]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stderr == b"" and b"\\udcff\\udce4.png" in done.stdout


def test_control_characters_in_a_plan_do_not_reach_the_terminal(
    photos: list[str], tmp_path: Path, capsys: Captured
) -> None:
    network = googlenet(width=0.25, classes=2, input_size=64)
    hostile = dataclasses.replace(network, name="\x1b[2J\nnet", labels=("\x1b]0;title\x07", "a\r\nb"))
    ie_compile(hostile).save(tmp_path / "hostile.plan")
    for command in (("inspect",), ("classify",)):
        status, out, _ = run(
            capsys, *command, str(tmp_path / "hostile.plan"), *photos[: command == ("classify",)]
        )
        assert status == 0
        assert "?" in out
        assert all(c.isprintable() or c == "\n" for c in out)
        assert not {"b", "net: 1 program, 2 labels, weights are random"} & set(out.splitlines())
        assert "?[2J?net: 1 program" in out if command == ("inspect",) else "%  a??b\n" in out


def test_no_name_in_a_network_reaches_the_terminal_as_it_is(tmp_path: Path, capsys: Captured) -> None:
    network = googlenet(width=0.1, classes=2, input_size=32)
    metadata = {"weights": "random", "seed": "1\nIts weights are good"}
    hostile = dataclasses.replace(network, name="\x1b[2J\nnet", metadata=metadata)
    hostile.save(tmp_path / "net.safetensors")
    status, out, _ = run(
        capsys, "build", "-o", str(tmp_path / "a.plan"), "--network", str(tmp_path / "net.safetensors")
    )
    first, second = out.splitlines()
    assert status == 0 and first.startswith(f"{tmp_path / 'a.plan'}: ?[2J?net, 1 program")
    assert second.startswith("Its weights are random (seed 1?Its weights are good)")


def test_no_image_in_a_folder_forges_a_line(
    plan: Path, photos: list[str], tmp_path: Path, capsys: Captured
) -> None:
    name = "a\n  99.99%  cat\x1b[2J.png"
    shutil.copy(photos[0], tmp_path / name)
    status, out, _ = run(capsys, "classify", str(plan), str(tmp_path), "--top-k", "1")
    assert status == 0 and out.splitlines()[1:-1] == [f"{tmp_path}/a?  99.99%  cat?[2J.png"]
    status, out, _ = run(capsys, "classify", str(plan), str(tmp_path), "--json")
    assert json.loads(out)["results"][0]["path"] == str(tmp_path / name)


def test_classify(plan: Path, photos: list[str], capsys: Captured) -> None:
    status, out, err = run(capsys, "classify", str(plan), *photos[:3], "--top-k", "2")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert "random" in lines[0]
    assert lines[1::3] == photos[:3]
    with Engine(plan) as engine:
        (best,) = engine.classify(photos[0], top_k=1)
    assert lines[2].split() == [f"{best.top[0].probability:.2%}", "class", str(best.top[0].index)]


def test_classify_as_json_goes_on_after_bad_files(
    plan: Path, photos: list[str], capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / "text.jpg"), str(tmp_path / "missing.png")]
    arguments = (photos[0], bad[0], photos[1], bad[1], photos[2])
    status, out, err = run(capsys, "classify", "--json", str(plan), *arguments)
    document = json.loads(out)
    assert status == 2
    assert [line.split(": ")[:3] for line in err.splitlines()] == [
        ["inception", "error", path] for path in bad
    ]
    assert document["random_weights"] is True
    results = document["results"]
    assert [result["path"] for result in results] == list(arguments)
    assert [result["error"] is None for result in results] == [True, False, True, False, True]
    for result in results[::2]:
        probabilities = [entry["probability"] for entry in result["top"]]
        assert len(probabilities) == 5 and probabilities == sorted(probabilities, reverse=True)
        assert result["nan"] is False


def test_classify_a_folder_without_a_plan(
    photos: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    import inception_engine

    small = googlenet(width=0.1, input_size=32)
    monkeypatch.setattr(inception_engine, "googlenet", lambda: small)
    status, out, err = run(capsys, "classify", str(Path(photos[0]).parent), "--top-k", "1")
    assert status == 0
    assert err == "inception: note: no plan given; compiling GoogLeNet with random weights\n"
    assert out.splitlines()[1::2] == photos


def test_classify_the_built_in_digits(capsys: Captured) -> None:
    pytest.importorskip("sklearn", reason="backend digits: scikit-learn is not installed")
    assert cli.main(["classify", "digits"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    assert len(shown) == 10 and all(
        re.fullmatch(r"digits, image \d+, a \d: \d, [\d.]+%", line) for line in shown
    )
    found = re.fullmatch(r"(\d+) of the 359 digits held out of training are right: [\d.]+%", last)
    assert found is not None and 100 * int(found[1]) / 359 >= 98.5
    assert cli.main(["classify", "digits", "--json", "--top-k", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    right = sum(result["top"][0]["label"] == result["digit"] for result in document["results"])
    assert (document["right"], document["images"], right) == (int(found[1]), 359, int(found[1]))
    assert all(len(result["top"]) == 2 for result in document["results"])


def test_classify_images_with_the_built_in_digits(photos: list[str], capsys: Captured) -> None:
    assert cli.main(["classify", "digits", photos[0]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert cli.main(["classify", "digits", "--ray", "results"]) == 2
    assert "give them after digits" in capsys.readouterr().err


def test_classify_says_that_the_output_is_nan(photos: list[str], capsys: Captured, tmp_path: Path) -> None:
    network = googlenet(width=0.1, input_size=32, classes=10)
    broken = next(layer for layer in network.layers if layer.name == "fc")
    broken.bias[3] = np.nan  # type: ignore[attr-defined]
    network.save(tmp_path / "a.safetensors")
    path = str(tmp_path / "a.plan")
    assert cli.main(["build", "-o", path, "--network", str(tmp_path / "a.safetensors")]) == 0
    status, out, _ = run(capsys, "classify", path, photos[0])
    assert status == 0 and "NaN" in out and "%" not in out
    _, out, _ = run(capsys, "classify", path, photos[0], "--json")
    assert json.loads(out)["results"][0] == {"path": photos[0], "error": None, "nan": True, "top": []}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_many_images_have_a_progress_bar_on_a_terminal(
    plan: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for paths, shown in ((photos, True), (photos[:2], False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert cli.main(["classify", str(plan), *paths]) == 0
        assert (f"/{len(paths)}" in terminal.getvalue()) == shown
    assert run(capsys, "classify", str(plan), *photos)[2] == ""


MISTAKES = [
    (),
    ("nonsense",),
    ("summary", "--norm", "group"),
    ("summary", "--variant", "resnet"),
    ("summary", "--third-branch", "4"),
    ("summary", "--width", "wide"),
    ("summary", "--width", "-1"),
    ("summary", "--input-size", "3"),
    ("build",),
    ("build", "-o", "{tmp}/x.plan", "--dtype", "fp64"),
    ("build", "-o", "{tmp}/x.plan", "--target", "tpu"),
    ("build", "-o", "{tmp}/x.plan", "--target", ""),
    ("build", "-o", "{tmp}/x.plan", "--batches", "1,two"),
    ("build", "-o", "{tmp}/x.plan", "--batches", "0"),
    ("build", "-o", "{tmp}/x.plan", "--max-batch", "-3"),
    ("build", "-o", "{tmp}/x.plan", "--max-batch", "2", "--batches", "2"),
    ("build", "-o", "{tmp}/x.plan", "--seed", "-1"),
    ("build", "-o", "{tmp}/x.plan", "--classes", "0"),
    ("build", "-o", "{tmp}/x.plan", "--network", "{tmp}/missing.safetensors"),
    ("build", "-o", "{tmp}/x.plan", "--network", "{text}"),
    ("build", "-o", "{tmp}/x.plan", "--network", "{text}", "--width", "0.5"),
    ("build", "-o", "{tmp}/no/folder/x.plan", *SMALL),
    ("build", "-o", "{tmp}", *SMALL),
    ("build", "-o", "/dev/null", *SMALL),
    ("inspect",),
    ("inspect", "{tmp}/missing.plan"),
    ("inspect", "{tmp}"),
    ("inspect", "/dev/zero"),
    ("inspect", "{text}"),
    ("inspect", "{truncated}"),
    ("inspect", "--json", "{changed}"),
    ("classify",),
    ("classify", "{plan}"),
    ("classify", "{plan}", "{tmp}"),
    ("classify", "{plan}", "{photo}", "--top-k", "0"),
    ("classify", "{plan}", "{photo}", "--device", "tpu"),
    ("classify", "{plan}", "{photo}", "--device", "cuda"),
    ("classify", "{plan}", "{photo}", "--threads", "-1"),
    ("classify", "{plan}", "{photo}", "--threads", "many"),
    ("classify", "{plan}", "{text}"),
    ("classify", "{tmp}/missing.plan", "{photo}"),
    ("classify", "{text}", "{photo}"),
    ("classify", "{changed}", "{photo}"),
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_mistakes_are_one_line_and_status_2(
    arguments: tuple[str, ...], plan: Path, photos: list[str], capsys: Captured, tmp_path: Path
) -> None:
    content = bytearray(plan.read_bytes())
    inputs = tmp_path / "inputs"
    work = tmp_path / "work"
    inputs.mkdir()
    work.mkdir()
    (inputs / "text").write_text("neither a plan nor an image")
    (inputs / "truncated").write_bytes(content[:1000])
    content[-1] ^= 1
    (inputs / "changed").write_bytes(content)
    names = {name: str(inputs / name) for name in ("text", "truncated", "changed")}
    names |= {"tmp": str(work), "plan": str(plan), "photo": photos[0]}
    status, _, err = run(capsys, *(argument.format(**names) for argument in arguments))
    assert status == 2
    assert err.startswith("inception: error: ") and err.count("\n") == 1 and len(err) < 400
    assert "Traceback" not in err and "object at" not in err
    assert list(work.iterdir()) == []


def test_a_failing_disk_leaves_the_old_plan(
    plan: Path, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.plan"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    status, _, err = run(capsys, "build", "-o", str(path), *SMALL)
    assert status == 2 and err == f"inception: error: cannot write {path}: No space left on device\n"
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_interrupted_quietly(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(summary, "run", interrupt)
    assert run(capsys, "summary") == (130, "", "")


def test_a_closed_pipe_is_quiet(plan: Path) -> None:
    command = subprocess.Popen(
        [*COMMAND, "inspect", str(plan)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == ""
    command.stderr.close()
    assert command.wait() == 141


def test_what_is_no_mistake_of_the_user_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(summary, "run", defect)
    with pytest.raises(ZeroDivisionError):
        cli.main(["summary"])


def test_bench_is_reached(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.bench_main(["--peers", "nobody"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("inception-bench: error: ")


@pytest.mark.parametrize("command", [("summary",), ("inspect", "PLAN", "--json")])
def test_a_closed_output_is_no_error(plan: Path, command: tuple[str, ...]) -> None:
    arguments = [*COMMAND, *(str(plan) if part == "PLAN" else part for part in command)]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *arguments], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_field_of_a_variant_has_an_option(capsys: Captured) -> None:
    status, out, _ = run(capsys, "summary", "--pool-padding", "none", "--pool-kernels", "3,3,3,2")
    assert status == 0
    assert "13x13x" in out and "3/3/3/2" in out


def test_a_huge_file_that_is_no_plan_is_not_read(tmp_path: Path, capsys: Captured) -> None:
    for name, content, message in (("a", b"", "not a plan file"), ("b", b"INCPLAN\n", "larger than 16 GiB")):
        with (tmp_path / name).open("wb") as file:
            file.write(content)
            file.truncate(1 << 40)
        status, _, err = run(capsys, "inspect", str(tmp_path / name))
        assert status == 2
        assert message in err


def test_a_link_is_written_through(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    arguments = ("--width", "0.25", "--input-size", "64", "--classes", "5")
    assert run(capsys, "build", "-o", str(tmp_path / "link"), *arguments)[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").stat().st_size > 0


@pytest.mark.parametrize(
    "command",
    [["build"], ["import", "FILE"], ["export", "onnx", "FILE"], ["export", "tensorrt", "FILE", "--trtexec"]],
)
def test_where_nothing_can_be_written_is_said_first(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the file is even read."""
    file, target = tmp_path / "net.safetensors", tmp_path / "no folder" / "out"
    file.write_bytes(b"of no format")
    status = cli.main([str(file) if word == "FILE" else word for word in command] + ["-o", str(target)])
    assert status == 2
    assert (
        capsys.readouterr().err == f"inception: error: {target.parent}: there is no such folder to write in\n"
    )


def test_a_name_that_is_too_long_does_not_disturb_the_others(
    plan: Path, photos: list[str], capsys: Captured
) -> None:
    status, out, err = run(capsys, "classify", str(plan), "x" * 300 + ".png", photos[0])
    assert status == 2 and photos[0] in out
    assert "File name too long" in err and err.count("\n") == 1
