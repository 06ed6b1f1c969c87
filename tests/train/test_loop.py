"""A whole training: it learns, it goes on bit for bit wherever it was interrupted, and it says what is wrong."""

from __future__ import annotations

import dataclasses
import filecmp
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inception_engine import cli, datasets, files, reference
from inception_engine.network import Network
from inception_engine.preprocess import normalise
from inception_engine.train import checkpoint, keys, loop, output
from inception_engine.train.augment import Augmentation
from inception_engine.train.config import AUGMENTATION, Config, read
from inception_engine.train.distributed import World
from inception_engine.train.errors import CheckpointError, ConfigError, TrainError
from inception_engine.train.loader import Batch, Loader
from inception_engine.train.logs import Logs, Progress, Row
from inception_engine.train.logs import read as read_rows
from inception_engine.train.loop import train
from inception_engine.train.stopping import Stopped
from inception_engine.train.validation import Scores, validate
from tests.tolerances import TOLERANCES, error
from tests.train.conftest import write_classes

ALONE = World(device=torch.device("cpu"))
# A class of the images is a colour.
COLOURS = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "lighting": 0.0}
# The variants of the loop whose state differs: averages, batch norm, both or neither.
KINDS = {
    "polyak, batch norm, auxiliary heads": {"auxiliary": True},
    "exponential": {"average": "exponential", "average_decay": 0.9, "norm": "lrn", "clip": 0.5},
    "no average, bf16": {"average": "none", "precision": "bf16", "label_smoothing": 0.1},
}


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these trainings; one test looks at what is drawn."""
    if request.node.name != "test_what_it_leaves":
        monkeypatch.setattr(Logs, "draw", lambda self: None)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal behind so many steps from now."""
    remaining = [step]

    def counted(self: Progress) -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Progress, "step", counted)


def last_checkpoint(config: Config) -> Path:
    path = checkpoint.newest(Path(config.output) / output.CHECKPOINTS)
    assert path is not None
    return path


def without_times(rows: list[Row]) -> list[Row]:
    return [dataclasses.replace(row, images_per_second=None, waiting=None) for row in rows]


def assert_equal_runs(a: Config, b: Config) -> None:
    """The same network, last checkpoint (but for the place that it names) and log (but for speeds)."""
    first, second = (Path(config.output) for config in (a, b))
    assert filecmp.cmp(first / output.NETWORK, second / output.NETWORK, shallow=False)
    one, two = (checkpoint.read(last_checkpoint(config)) for config in (a, b))
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
    assert one.document["sums"] == two.document["sums"] and one.document["step"] == two.document["step"]
    rows = [without_times(read_rows(folder / "metrics.csv")) for folder in (first, second)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_resumed_in_the_middle_of_an_epoch_it_ends_at_the_same_bits(
    kind: dict[str, object], configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = configured(output=str(tmp_path / "whole"), **kind)
    parted = configured(output=str(tmp_path / "parted"), **kind)
    train(whole, ALONE)
    for step, (steps, number) in {2: (2, signal.SIGTERM), 5: (3, signal.SIGINT)}.items():
        with monkeypatch.context() as patch:
            stop_at(patch, steps, number)
            with pytest.raises(Stopped, match=f"behind step {step}") as caught:
                train(parted, ALONE, resume=True)
        assert caught.value.signal == number
        assert checkpoint.read(last_checkpoint(parted)).document["step"] == step
    train(parted, ALONE, resume=True)
    assert_equal_runs(whole, parted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_the_exit_status(
    number: int,
    configured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """128 and the signal, as shells have it; whoever waits for the training knows that it is not done."""
    file = tmp_path / "config.yaml"
    file.write_text(configured().yaml())
    before = signal.getsignal(number)
    stop_at(monkeypatch, 2, number)
    assert cli.main(["train", "--config", str(file)]) == 128 + number
    out, err = capsys.readouterr()
    name = signal.Signals(number).name
    assert out.endswith(f"stopped by {name} behind step 2, which is saved; --resume goes on\n") and err == ""
    assert signal.getsignal(number) == before


def test_another_seed_ends_at_others(configured, tmp_path: Path) -> None:
    """What the test above would not see if nothing were compared."""
    runs = [configured(output=str(tmp_path / str(seed)), seed=seed, epochs=1) for seed in (0, 1)]
    for config in runs:
        train(config, ALONE)
    with pytest.raises(AssertionError):
        assert_equal_runs(*runs)


def test_workers_and_memory_order_change_no_weights(configured, tmp_path: Path) -> None:
    runs = [configured(output=str(tmp_path / str(workers)), workers=workers, epochs=1) for workers in (0, 2)]
    for config in runs:
        train(config, ALONE)
    assert_equal_runs(*runs)


def test_what_it_leaves(configured, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(epochs=4, tensorboard=True, norm="none", **COLOURS)
    result = train(config, ALONE)
    folder = Path(config.output)
    assert sorted(os.listdir(folder)) == [
        ".lock", "checkpoints", "config.yaml", "curves.png", "metrics.csv", "network.safetensors", "tensorboard",
    ]  # fmt: skip
    assert len(os.listdir(folder / "checkpoints")) == config.keep
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert Config(**read(folder / "config.yaml")) == config
    assert next((folder / "tensorboard").iterdir()).stat().st_size > 500
    network = Network.load(result.path)
    assert network.labels == ("cat", "dog", "fox")
    assert network.preprocess.resize == round(32 * 8 / 7)
    assert network.metadata["weights"].startswith("trained")
    rows = read_rows(folder / "metrics.csv")
    train_rows = [row for row in rows if row.part == "train"]
    assert [row.step for row in train_rows] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert rows[-1].part == "average" and rows[-1].loss < 0.75 * rows[0].loss
    assert [row.step for row in rows if row.part == "validation"] == [3, 6, 9, 12]
    assert [row.step for row in rows if row.part == "average"] == [6, 9, 12]
    assert all(0 <= (row.waiting or 0) <= 1 and (row.images_per_second or 0) > 0 for row in train_rows)
    assert result.scores.images == 6 and result.scores.top5 == 100
    assert "epoch 4, average: loss" in capsys.readouterr().out


def test_folders_whose_names_are_not_text(images: Path, configured, tmp_path: Path) -> None:
    data = os.fsdecode(os.fsencode(tmp_path) + b"/ph\xff")
    os.symlink(images, data)
    config = configured(data=data, epochs=1)
    other = dataclasses.replace(config, output=os.fsdecode(os.fsencode(tmp_path) + b"/o\xff"))
    with pytest.raises(ConfigError, match="not text"):
        train(other, ALONE)
    assert not Path(other.output).exists()
    for resume in (False, True):
        result = train(config, ALONE, resume=resume)
        assert Network.load(result.path).metadata["data"] == "ph\ufffd"


def test_it_fine_tunes_with_frozen_layers(configured, tmp_path: Path) -> None:
    """From a checkpoint, to a class fewer; what is frozen keeps its bits, batch norm's statistics too."""
    first = configured(output=str(tmp_path / "first"), epochs=1)
    train(first, ALONE)
    data = write_classes(tmp_path / "two", {"cat": 12, "owl": 12}, seed=5)
    tuned = configured(
        output=str(tmp_path / "tuned"), data=str(data), start=str(last_checkpoint(first)), freeze="3b", epochs=2,
        width=None, norm=None, input_size=None,
    )  # fmt: skip
    result = train(tuned, ALONE)
    assert result.network.labels == ("cat", "owl")
    before, after = (checkpoint.read(last_checkpoint(config)).part("model") for config in (first, tuned))
    frozen = [name for name in after if name.startswith(("trunk.conv", "trunk.3a", "trunk.3b"))]
    trained = [name for name in after if name.startswith("trunk.5b") and name.endswith("convolution.weight")]
    assert len(frozen) > 60 and len(trained) == 6
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in trained)


def test_the_network_of_a_training_is_a_beginning(configured, tmp_path: Path) -> None:
    """Batch norm is folded in it, and the first step, in training mode, begins at what it computes all the same."""
    first = configured(output=str(tmp_path / "first"), epochs=1, learning_rate=0.001)
    network = train(first, ALONE).network
    tuned = configured(
        output=str(tmp_path / "tuned"), start=str(Path(first.output) / output.NETWORK), epochs=1, log_every=1,
        width=None, norm=None, input_size=None, dropout=0.0, average="none",
    )  # fmt: skip
    train(tuned, ALONE)
    keys = {name: getattr(tuned, name) for name in AUGMENTATION}
    augmentation = Augmentation(input_shape=network.input_shape, preprocess=network.preprocess, **keys)
    batch = next(Loader(datasets.parts(tuned.data)["train"], augmentation, batch=8).epoch(0))
    logits = reference.run(network, normalise(batch.images.numpy(), network.preprocess))[network.logits]
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), batch.labels).item()
    loss = read_rows(Path(tuned.output) / "metrics.csv")[0].loss
    assert abs(loss - expected) < TOLERANCES["fp32"].logits * expected


def test_a_network_that_the_compiler_takes(configured, run_engine, tmp_path: Path) -> None:
    network = train(configured(epochs=1), ALONE).network
    images = np.random.default_rng(0).standard_normal((3, *network.input_shape)).astype(np.float32)
    expected = reference.run(network, images)[network.logits]
    assert error(run_engine(network, images)[network.logits], expected) < TOLERANCES["fp32"].logits


def test_a_training_is_not_overwritten(configured) -> None:
    config = configured(epochs=1)
    train(config, ALONE)
    content = last_checkpoint(config).read_bytes()
    with pytest.raises(ConfigError, match="holds a training: --resume goes on"):
        train(config, ALONE)
    assert last_checkpoint(config).read_bytes() == content


def test_a_finished_training_resumes_to_its_end_or_to_more_epochs(configured) -> None:
    config = configured(epochs=2)
    train(config, ALONE)
    content = (Path(config.output) / output.NETWORK).read_bytes()
    train(config, ALONE, resume=True)
    assert (Path(config.output) / output.NETWORK).read_bytes() == content
    train(dataclasses.replace(config, epochs=3), ALONE, resume=True)
    assert checkpoint.read(last_checkpoint(config)).document["step"] == 9


def test_more_epochs_with_the_default_average_keep_where_it_began(configured, tmp_path: Path) -> None:
    """Nobody gave ``average_from``, which follows from the epochs: 2 of 3, and it would be 4 of 6."""
    config = configured(epochs=3, average_from=None)
    train(config, ALONE)
    more = configured(epochs=6, average_from=None)
    train(more, ALONE, resume=True)
    assert checkpoint.read(last_checkpoint(more)).document["config"]["average_from"] == 2
    assert Config(**read(Path(config.output) / output.CONFIG)).average_from == 2
    given = configured(epochs=6, average_from=2, output=str(tmp_path / "given"))
    train(given, ALONE)
    assert_equal_runs(more, given)
    with pytest.raises(CheckpointError, match="average_from was 2 and is 4"):
        train(configured(epochs=7, average_from=4), ALONE, resume=True)


def test_fewer_epochs_than_are_done(configured) -> None:
    config = configured(epochs=2)
    train(config, ALONE)
    with pytest.raises(
        CheckpointError, match="of step 6, and epochs 1 ends at step 3: give --epochs 2 or more"
    ):
        train(dataclasses.replace(config, epochs=1), ALONE, resume=True)


def test_what_cannot_be_resumed(configured, images: Path, tmp_path: Path) -> None:
    config = configured(epochs=1)
    train(config, ALONE)
    content = last_checkpoint(config).read_bytes()
    three = write_classes(tmp_path / "three", {"cat": 12, "dog": 10, "owl": 9})
    more = write_classes(tmp_path / "more", {"cat": 15, "dog": 10, "fox": 9})
    for changes, message in (
        ({"data": str(three)}, "3 classes and the data 3: fox is gone, owl is new"),
        ({"data": str(more)}, r"of 25 images and the data have \d+"),
        ({"batch": 4}, "batch was 8 and is 4"),
        ({"norm": "none"}, "norm was batch and is none"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(dataclasses.replace(config, **changes), ALONE, resume=True)
    assert last_checkpoint(config).read_bytes() == content


def test_a_loss_that_is_no_number_ends_it(configured) -> None:
    config = configured(learning_rate=1e9, epochs=20, norm="none")
    with pytest.raises(TrainError, match=r"is (nan|inf) at step \d+: begin again.* a lower --learning-rate"):
        train(config, ALONE)
    for path in (Path(config.output) / output.CHECKPOINTS).iterdir():
        checkpoint.read(path)


def test_weights_that_are_no_numbers_are_not_saved(configured) -> None:
    """The last step's: the loss before it is finite, and the log has begun its sums anew."""
    config = configured(learning_rate=3e38, weight_decay=1e3, epochs=1, batch=16)
    with pytest.raises(
        TrainError, match=r"the largest weight is (nan|inf) at step 1: begin again, in another"
    ):
        train(config, ALONE)
    assert list((Path(config.output) / output.CHECKPOINTS).iterdir()) == []
    assert not (Path(config.output) / output.NETWORK).exists()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_whose_loss_is_no_number_ends_it(
    loss: float, configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint to begin again from is the one before; resumed, the validation is done again."""
    config = configured(epochs=2)

    def diverged(*arguments: Any) -> Scores:
        scores = validate(*arguments)
        return (
            scores
            if len(read_rows(Path(config.output) / "metrics.csv")) < 4
            else Scores(loss=loss, top1=50.0, top5=100.0, images=6)
        )

    monkeypatch.setattr(loop, "validate", diverged)
    for resume in (False, True):
        with pytest.raises(
            TrainError,
            match=rf"the validation loss is {loss} at step 6: begin again from .*-000000003\.safet",
        ):
            train(config, ALONE, resume=resume)
    assert not (Path(config.output) / output.NETWORK).exists()


def test_logits_that_are_no_numbers_are_wrong() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    logits = torch.tensor([[2.0, 1.0], [float("nan"), float("nan")], [0.0, float("nan")]])
    batch = Batch(images=logits, labels=torch.tensor([0, 0, 1]), indices=torch.arange(3), waited=0.0)
    scores = validate(Model(), iter([batch]), lambda images: images, ALONE)
    assert scores.top1 == scores.top5 == pytest.approx(100 / 3) and scores.images == 3


def test_a_full_disk_while_saving(
    configured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line, and the checkpoint of the first epoch can be read."""
    config = configured()
    write = files.write_atomically

    def full(path: Path, chunks: list[bytes]) -> None:
        if "0006" in path.name:
            raise OSError(28, "No space left on device", str(path))
        write(path, chunks)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    file = tmp_path / "config.yaml"
    file.write_text(config.yaml())
    assert cli.main(["train", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and "No space left on device; checkpoint-000000003.safetensors is intact" in err
    )
    assert checkpoint.read(last_checkpoint(config)).document["step"] == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "{tmp}/nowhere"}, "nowhere"),
        ({"batch": 50}, "a batch of 50 images, of a data set that has 25"),
        ({"input_size": 4}, "input_size 4"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
        ({"device": "cuda"}, "no GPU"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"start": "{tmp}/none.safetensors", "width": None, "norm": None}, "none.safetensors"),
        ({"output": "{file}/run"}, "Not a directory"),
        ({"area": (0.5, 0.2)}, "area is"),
        ({"resize": 1_000_000}, "after resizing"),
        ({"resize": 1_000_000, "skip_unreadable": True}, "after resizing"),
        ({"interpolations": ("sharp",)}, "interpolations are"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_line(
    given: dict[str, object], message: str, configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if given.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "file").write_text("")
    names = {"tmp": str(tmp_path), "file": str(tmp_path / "file")}
    given = {key: value.format(**names) if isinstance(value, str) else value for key, value in given.items()}
    file = tmp_path / "config.yaml"
    file.write_text(configured(**given).yaml())
    assert cli.main(["train", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("inception: error: ") and err.count("\n") == 1 and message in err


def test_unreadable_images_are_named_or_left_out(
    configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_classes(tmp_path / "damaged", {"cat": 12, "dog": 12})
    for name in ("cat", "dog"):
        for index in range(3):
            (data / name / f"{index}.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    from inception_engine.errors import ImageError

    with pytest.raises(ImageError, match=r"(cat|dog)/[012]\.png"):
        train(configured(data=str(data), output=str(tmp_path / "a")), ALONE)
    train(configured(data=str(data), output=str(tmp_path / "b"), skip_unreadable=True), ALONE)
    out = capsys.readouterr().out
    assert out.count("left out: ") == 6


def test_a_resize_that_cannot_be_is_said_before_the_first_step(
    configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inception_engine.errors import ImageError

    steps: list[int] = []
    monkeypatch.setattr(Progress, "step", lambda self: steps.append(1))
    with pytest.raises(ImageError, match="after resizing"):
        train(configured(resize=1_000_000), ALONE)
    assert not steps


def test_unreadable_images_may_be_left_out_on_resuming(configured, tmp_path: Path) -> None:
    """An image is damaged behind the first epoch; the training goes on without it."""
    data = write_classes(tmp_path / "data", {"cat": 12, "dog": 12})
    config = configured(data=str(data), epochs=1)
    train(config, ALONE)
    for path in data.glob("*/*.png"):
        if path.stem in "0123":
            path.write_bytes(b"no image")
    train(dataclasses.replace(config, epochs=2, skip_unreadable=True), ALONE, resume=True)
    assert checkpoint.read(last_checkpoint(config)).document["config"]["skip_unreadable"]


def test_the_configuration_is_written_for_others_to_use(configured) -> None:
    config = configured(epochs=1)
    train(config, ALONE)
    assert keys.as_yaml(config) == (Path(config.output) / output.CONFIG).read_text()


def test_it_compiles(configured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is given to torch.compile, and what that returns is what runs."""
    asked = []

    def compiled(model, **_: object):
        def run(*arguments):
            asked.append(model)
            return model(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    train(configured(epochs=1, compile=True), ALONE)
    assert len(asked) == 3
