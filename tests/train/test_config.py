"""The keys of a training: the same in YAML, as options and as printed; and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from inception_engine import cli
from inception_engine.train import keys
from inception_engine.train.augment import Augmentation
from inception_engine.train.config import AUGMENTATION, VARIANT, Config, read
from inception_engine.train.errors import ConfigError
from inception_engine.train.loader import MOST_WORKERS

# A value other than the default of every key, as an option has it.
OTHERS: dict[str, tuple[str | None, Any]] = {
    "data": ("pictures", "pictures"), "output": ("there", "there"), "seed": ("3", 3), "workers": ("2", 2),
    "skip_unreadable": (None, True), "variant": ("plain", "plain"), "norm": ("batch", "batch"),
    "third_branch": ("3", 3), "pool_kernels": ("3,3,3,2", (3, 3, 3, 2)), "pool_padding": ("none", "none"),
    "width": ("0.5", 0.5), "input_size": ("96", 96), "input_channels": ("1", 1), "mean": ("1,2.5,3", (1.0, 2.5, 3.0)),
    "std": ("1,2,3", (1.0, 2.0, 3.0)), "resize": ("120", 120), "crop": (None, False), "area": ("0.2,0.5", (0.2, 0.5)),
    "aspect": ("1,1", (1.0, 1.0)), "interpolations": ("area,cubic", ("area", "cubic")), "mirror": (None, False),
    "brightness": ("0", 0.0), "contrast": ("0.25", 0.25), "saturation": ("1", 1.0), "lighting": ("0.5", 0.5),
    "auxiliary": (None, False), "auxiliary_weight": ("0.1", 0.1), "dropout": ("0", 0.0),
    "auxiliary_dropout": ("0.5", 0.5), "epochs": ("7", 7), "batch": ("9", 9), "learning_rate": ("1e-3", 1e-3),
    "momentum": ("0.5", 0.5), "decay": ("0.5", 0.5), "decay_epochs": ("2", 2), "warm_up": ("0.5", 0.5),
    "weight_decay": ("1e-5", 1e-5), "clip": ("1", 1.0), "label_smoothing": ("0.1", 0.1),
    "average": ("exponential", "exponential"), "average_from": ("2", 2), "average_decay": ("0.9", 0.9),
    "average_batches": ("5", 5), "device": ("cpu", "cpu"), "threads": ("1", 1), "precision": ("bf16", "bf16"),
    "channels_last": (None, True), "compile": (None, True), "validate_every": ("2", 2), "save_every": ("10", 10),
    "keep": ("3", 3), "log_every": ("5", 5), "tensorboard": (None, False),
}  # fmt: skip
WITH_START: dict[str, tuple[str | None, Any]] = {
    "start": ("net.safetensors", "net.safetensors"),
    "freeze": ("4a", "4a"),
}


def options(cases: dict[str, tuple[str | None, Any]]) -> list[str]:
    words = []
    for name, (text, value) in cases.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}", text] if text is not None else [f"--{flag}" if value else f"--no-{flag}"]
    return words


def parsed(words: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    keys.add_options(parser, Config)
    return keys.given_options(parser.parse_args(words), Config)


def test_every_key_is_an_option_and_a_key_of_yaml(tmp_path: Path) -> None:
    names = {field.name for field in dataclasses.fields(Config)}
    assert names == OTHERS.keys() | WITH_START.keys()
    for cases in (OTHERS, WITH_START):
        expected = {name: value for name, (_, value) in cases.items()}
        assert all(getattr(Config(), name) != value for name, value in expected.items())
        given = parsed(options(cases))
        assert given == expected
        config = Config(**given)
        file = tmp_path / "config.yaml"
        file.write_text(config.yaml())
        assert Config(**read(file)) == config


def test_options_stand_before_the_file_and_the_file_before_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("batch: 32\nepochs: 5\nlearning_rate: 1e-4\n")  # a string to YAML 1.1
    assert cli.main(["train", "--config", str(file), "--epochs", "6", "--print-config"]) == 0
    file.write_text(capsys.readouterr().out)
    config = Config(**read(file))
    assert config == Config(batch=32, epochs=6, learning_rate=1e-4)


@pytest.mark.parametrize(
    "name",
    ["\U0001f436/ä\uffff", "\\ud83d\\udc36", 'a "b" \\U0001f436', "a\x7f\x85\u2028\ufeffb\tc\nd", "\udcff"],
    ids=ascii,
)
def test_every_name_comes_back_as_printed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond 16 bits, what looks like an escape, lines within, and bytes that are no UTF-8, as options bring them."""
    file = tmp_path / "config.yaml"
    assert cli.main(["train", "--output", name, "--print-config"]) == 0
    file.write_text(capsys.readouterr().out)
    assert read(file)["output"] == name


def test_the_papers_figures_are_the_defaults() -> None:
    config = Config()
    assert (config.momentum, config.decay, config.decay_epochs) == (0.9, 0.96, 8)
    assert (config.auxiliary_weight, config.dropout, config.auxiliary_dropout) == (0.3, 0.4, 0.7)
    assert (config.variant, config.average) == ("lrn", "polyak")


def test_the_defaults_of_augmentation_are_its_own() -> None:
    own = {field.name: field.default for field in dataclasses.fields(Augmentation)}
    assert {name: getattr(Config(), name) for name in AUGMENTATION} == {
        name: own[name] for name in AUGMENTATION
    }
    assert own.keys() - set(AUGMENTATION) == {"input_shape", "preprocess"}


def test_the_most_workers_are_the_loaders() -> None:
    (field,) = (field for field in dataclasses.fields(Config) if field.name == "workers")
    assert field.metadata[keys.MOST] == MOST_WORKERS


def test_the_variant() -> None:
    assert repr(Config().spec(1000)) == repr(Config(variant="lrn").spec(1000))
    config = Config(variant="torchvision", width=0.5, input_size=96, pool_padding="none", input_channels=1)
    spec = config.spec(7)
    assert (spec.norm, spec.third_branch, spec.pool_kernels) == ("batch", 3, (3, 3, 3, 2))
    assert (spec.width, spec.input_size, spec.pool_padding, spec.input_channels, spec.classes) == (
        0.5, 96, "none", 1, 7,
    )  # fmt: skip
    assert set(VARIANT) <= {field.name for field in dataclasses.fields(type(spec))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 0.1", "there is no key lr"),
        ("batch: 0", "batch is 0, not from 1 on"),
        ("batch: many", "batch is 'many', not a whole number"),
        ("batch: true", "batch is 'True', not a whole number"),
        ("batch: 2.5", "batch is '2.5', not a whole number"),
        ("epochs: 3.0", "epochs is '3.0', not a whole number"),
        ("input_channels: 2", "input_channels is '2', not 1 or 3"),
        ("mirror: 1", "mirror is '1', not true or false"),
        ("learning_rate: .nan", "learning_rate is 'nan', not a finite number"),
        ("learning_rate: fast", "--learning-rate is 'fast', not a finite number"),
        ("workers: 2000", "workers is 2000, not from 0 to 1024"),
        ("std: [1.0, 0.0, 2.0]", "std is 1.0,0.0,2.0: pixels are divided by it, give more than 0"),
        ("std: [-1.0]", "std is -1.0: pixels"),
        ("dropout: 1.5", "dropout is 1.5, not from 0 to 0.99"),
        ("area: 0.5", "area is '0.5', not a list of finite numbers, as X,X"),
        ("area: []", "area is '', not a list"),
        ("interpolations: [1, 2]", "interpolations is '1', not text"),
        ("precision: fp8", "precision is 'fp8', not fp32 or bf16 or fp16"),
        ("variant: resnet", "unknown variant 'resnet'"),
        ("freeze: 4a", "give start, too"),
        ("- a\n- b", "no keys in it"),
        ("a: [", "not YAML"),
        ("output: 2024-99-99", "not YAML: month must be in 1..12"),
        ('output: "a\\0b"', "output is 'a\\x00b', which is no text that a file could be named by"),
        ('output: "a\\ud800b"', "output is 'a\\ud800b', which is no text"),
        pytest.param("area: " + 5000 * "[", "not YAML: lists in lists", id="deep"),
        ("", "no keys in it"),
    ],
)
def test_mistakes_in_yaml(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert cli.main(["train", "--config", str(file), "--print-config"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("inception: error: ") and err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "many"],
        ["--area", "1,b"],
        ["--precision", "fp8"],
        ["--average-decay", "2"],
        ["--learning-rate", "nan"],
        ["--input-channels", "2"],
        ["--nonsense"],
    ],
)
def test_mistakes_in_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *words, "--print-config"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("inception: error: ") and err.count("\n") == 1
    assert words[0] in err or words[0][2:].replace("-", "_") in err


def test_the_help_says_which_digits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "digits: scikit-learn's, unless a file or folder here has that name" in out


def test_only_what_changes_no_result_may_differ_on_resuming() -> None:
    before = keys.as_document(Config())
    free = dataclasses.replace(Config(), workers=3, keep=5, device="cpu", channels_last=True, save_every=7)
    assert keys.differences(Config, before, keys.as_document(free)) == []
    changed = dataclasses.replace(Config(), batch=7, area=(0.1, 1.0))
    assert keys.differences(Config, before, keys.as_document(changed)) == [
        "area was 0.08,1.0 and is 0.1,1.0",
        "batch was 256 and is 7",
    ]


def test_more_epochs_do_not_move_the_average_unnoticed() -> None:
    before, more = keys.as_document(Config(epochs=90)), keys.as_document(Config(epochs=120))
    assert keys.differences(Config, before, more) == ["average_from was 60 and is 80"]
    with pytest.raises(ConfigError):
        Config(average_from=-1)


def test_only_a_file_is_read() -> None:
    with pytest.raises(ConfigError, match="not a file"):  # a pipe would be waited for
        read(os.devnull)
