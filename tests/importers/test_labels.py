from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from inception_engine import Engine, ImportFailed, NetworkError, compile, googlenet, load_network
from inception_engine.importers.labels import read_labels

GOOD = {
    "lines": "tench\n goldfish \nshark\n\n",
    "windows": "\ufefftench\r\ngoldfish\r\nshark",
    "list": json.dumps(["tench", "goldfish", "shark"]),
    "by index": json.dumps({"1": "goldfish", "0": "tench", "2": "shark"}),
    "keras": json.dumps({"0": ["n01440764", "tench"], "1": ["n1", "goldfish"], "2": ["n2", "shark"]}),
    "class_to_idx": json.dumps({"shark": 2, "tench": 0, "goldfish": 1}),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_labels(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "labels", 3) == ("tench", "goldfish", "shark")


BAD = {
    "too few": (b"tench\nshark", "2 labels for 3 classes"),
    "nothing": (b"", "0 labels for 3 classes"),
    "latin-1": ("Käfer".encode("latin-1"), "not text in UTF-8"),
    "no JSON": (b'["tench", ', "no labels"),
    "numbers": (b"[1, 2, 3]", "1 is not a name"),
    "a gap": (b'{"0": "a", "1": "b", "3": "c"}', "not 0 to 2"),
    "no index": (b'{"a": "b"}', "no labels"),
    "deep": (b"[" * 100_000, "no labels"),
    "nested": (b'[["a"], ["b"], ["c"]]', "is not a name"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_bad_labels(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(ImportFailed, match=message) as caught:
        read_labels(tmp_path / "labels", 3)
    assert str(caught.value).startswith(f"{tmp_path / 'labels'}: ")


def test_labels_and_preprocessing_are_kept_in_network_and_plan(tmp_path: Path) -> None:
    googlenet(width=0.1, classes=3, input_size=32).save(tmp_path / "a.safetensors")
    (tmp_path / "labels.txt").write_text(GOOD["lines"])
    network = load_network(
        tmp_path / "a.safetensors",
        labels=tmp_path / "labels.txt",
        mean=[1, 2, 3],
        std=[4],
        order="BGR",
        resize=40,
    )
    network.save(tmp_path / "b.safetensors")
    compile(load_network(tmp_path / "b.safetensors")).save(tmp_path / "b.plan")
    with Engine(tmp_path / "b.plan") as engine:
        assert engine.labels == ("tench", "goldfish", "shark")
        # A number for each channel, where one stood for all.
        assert engine.preprocess == dataclasses.replace(network.preprocess, std=(4, 4, 4))
        assert (engine.preprocess.mean, engine.preprocess.std) == ((1, 2, 3), (4, 4, 4))
        assert (engine.preprocess.order, engine.preprocess.resize) == ("BGR", 40)


def test_names_that_no_file_can_hold(tmp_path: Path) -> None:
    """Half of a surrogate pair is valid JSON and no text: refused where the network is made."""
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(["\ud800", "b"]))
    labels = read_labels(file, 2)
    network = googlenet(width=0.1, input_size=32, classes=2)
    with pytest.raises(NetworkError, match="is not text"):
        dataclasses.replace(network, labels=labels)


@pytest.mark.parametrize("content", ['{"0": "a", "00": ["x", "b"]}', '{"a": true, "b": false}'])
def test_odd_dictionaries_are_a_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text(content)
    with pytest.raises(ImportFailed):
        read_labels(file, 2)


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("a\u2028b\nc\x0bd\n", encoding="utf-8")
    assert read_labels(file, 2) == ("a\u2028b", "c\x0bd")


def test_a_device_is_no_file_of_labels() -> None:
    with pytest.raises(ImportFailed, match="not a file"):
        read_labels("/dev/zero", 2)
