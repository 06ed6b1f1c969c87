"""A training from its beginning, or its last checkpoint, to a trained network.

A checkpoint is written at the end of each epoch, before validation, and a validation that is missing from the log is
done first when training goes on. So whenever it is interrupted, it goes on to the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from inception_engine import datasets, packages
from inception_engine.errors import ImageError
from inception_engine.files import write_atomically
from inception_engine.model import GoogLeNet
from inception_engine.network import Network
from inception_engine.train import averaging, checkpoint, resuming, start
from inception_engine.train.augment import Augmentation
from inception_engine.train.checkpoint import Checkpoint
from inception_engine.train.config import Config
from inception_engine.train.distributed import World, shard_dropout
from inception_engine.train.errors import ConfigError, TrainError
from inception_engine.train.keys import as_document
from inception_engine.train.loader import Loader
from inception_engine.train.logs import Logs, Pace, Part, Progress, Row
from inception_engine.train.optimiser import sgd
from inception_engine.train.output import CONFIG, NETWORK, Output
from inception_engine.train.samples import SUBSTITUTES, Recipe, Task
from inception_engine.train.state import State, sums
from inception_engine.train.step import Stepper, to_input
from inception_engine.train.stopping import Signals, Stopped
from inception_engine.train.validation import Scores, validate

VALIDATION_BATCH = 256  # images at once, of all processes together
DRAW_EVERY = 60.0  # seconds between drawings of the curves


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """``network``: what was written to ``path``; scores of its weights, or of their average, on the held-out images.
    ``last``: scores of the weights of the last step."""

    network: Network
    path: Path
    scores: Scores
    last: Scores


def train(config: Config, world: World, *, resume: bool = False) -> Result:
    """Train as configured, in ``config.output``. ``resume``: go on from the last checkpoint there, if there is one.

    Raises Stopped, TrainError, CheckpointError, ConfigError; SpecError, NetworkError, ImportFailed and
    EngineError of the network, the file to start from, the data and packages that are missing; OSError.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.precision == "fp16" and world.device.type == "cpu":
        raise ConfigError("precision fp16 needs a GPU; bf16 runs on CPUs, too")
    for name in ("matplotlib", *(["tensorboard"] if config.tensorboard else [])):
        packages.load(name)  # now, and not when hours of work are done
    output = Output(Path(config.output))
    if not _is_text(config.output):  # neither safetensors nor TensorBoard opens it
        raise ConfigError(
            f"output is {config.output!r}, and no checkpoint is read from a name that is not text"
        )
    with contextlib.ExitStack() as stack:
        stack.callback(output.release)
        saved = world.from_first(output.find(resume) if world.first else None)
        return _Training(config, world, saved, output, stack).run()


class _Training:
    """Everything that ``train`` needs at once. What must be closed is left to ``stack``."""

    def __init__(
        self,
        config: Config,
        world: World,
        saved: Checkpoint | None,
        output: Output,
        stack: contextlib.ExitStack,
    ) -> None:
        about = None if saved is None else saved.document
        if about is not None:
            config = resuming.settled(about, config)
        self.config, self.world, self.output = config, world, output
        parts = datasets.parts(config.data)
        self.classes = parts["train"].classes
        if about is not None:
            resuming.check_same(about, config, self.classes, len(parts["train"]))
            spec, preprocess = start.spec_from(about["spec"]), start.preprocess_from(about["preprocess"])
            beginning = start.Beginning(
                model=GoogLeNet(spec, auxiliary=config.auxiliary), preprocess=preprocess
            )
        else:
            beginning = start.begin(config, self.classes)
        self.preprocess = beginning.preprocess
        model = beginning.model.to(world.device)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _set_dropout(model, config)
        frozen = start.freeze(model, config.freeze)
        self.train_loader, self.held_out_loader = (
            stack.enter_context(self._loader(parts, part, model)) for part in ("train", "held-out")
        )
        _prepare_one(parts["held-out"], self.held_out_loader.augmentation, config)
        shard_dropout(model, world)
        self.steps_per_epoch = self.train_loader.batches
        self.steps = config.epochs * self.steps_per_epoch
        if about is not None:
            resuming.check_not_beyond(about, config, self.steps_per_epoch)
        self.about: dict[str, Any] = {
            "format": 1,
            "config": as_document(config),
            "classes": self.classes,
            "images": len(parts["train"]),
            "spec": start.as_json(model.spec),
            "preprocess": start.as_json(self.preprocess),
        }
        if saved is None and beginning.folded:  # before batch norm is made one of several processes
            first = next(self.train_loader.epoch(0))
            x = to_input(first.images, self.preprocess, config, world)
            start.unfold_batch_norm(model, x, world)
        self.state = State(
            model=model,
            optimiser=sgd(model, config),
            average=None,
            scaler=GradScaler(world.device.type, enabled=config.precision == "fp16"),
            sums=sums(world.device),
        )
        self.stepper = Stepper(
            self.state, config, world,
            preprocess=self.preprocess, frozen=frozen, steps_per_epoch=self.steps_per_epoch,
        )  # fmt: skip
        self.state.average = averaging.averaged(model, config)
        if saved is not None:
            self.state.restore(saved)
        self.saved_step = self.state.step
        self.logs: Logs | None = None
        if world.first:
            output.claim()
            write_atomically(output.folder / CONFIG, [config.yaml().encode()])
            self.logs = Logs(output.folder, self.state.step, tensorboard=config.tensorboard)
            stack.callback(self.logs.close)
        self.progress = Progress(self.steps, self.state.step, shown=world.first)
        stack.callback(self.progress.close)
        self.signals = stack.enter_context(Signals())
        self.skipped: set[str] = set()
        self.drawn = time.monotonic()
        for note in beginning.notes:
            self.progress.say(note)

    def _loader(self, parts: Any, part: datasets.Part, model: Any) -> Loader:
        config, world, dataset = self.config, self.world, parts[part]
        augmentation = config.augmentation(model.spec.layers[0].input, self.preprocess)
        batch = config.batch if part == "train" else min(VALIDATION_BATCH, len(dataset))
        if part == "held-out":
            batch = max(batch // world.size, 1) * world.size
        return Loader(
            dataset, augmentation, batch=batch, seed=config.seed, workers=config.workers, rank=world.rank,
            world=world.size, skip_unreadable=config.skip_unreadable,
        )  # fmt: skip

    def run(self) -> Result:
        state, config = self.state, self.config
        last: Scores | None = None
        average: Scores | None = None
        while True:
            epoch, done = divmod(state.step, self.steps_per_epoch)
            if done == 0 and state.step:
                at_end = state.step >= self.steps
                if at_end or (epoch % config.validate_every == 0 and self._unlogged()):
                    last = self._validate("validation", state.model)
                    average = self._validate_average()
                    self._draw(always=at_end)
                if at_end:
                    assert last is not None
                    return self._finish(last, average)
            self._epoch(epoch, done)

    def _epoch(self, epoch: int, done: int) -> None:
        """The rest of an epoch behind its first ``done`` steps, with the checkpoint at its end."""
        state, config = self.state, self.config
        self.stepper.train_mode()
        pace = Pace()
        for batch in self.train_loader.epoch(epoch, done):
            self.stepper(batch.images, batch.labels)
            self._complain(batch.skipped)
            pace.add(len(batch.labels), batch.waited)
            self.progress.step()
            if state.step % config.log_every == 0 or state.step % self.steps_per_epoch == 0:
                self._log(pace)
            if config.save_every and state.step % config.save_every == 0:
                self._save()
            self._stop_if_asked()
        self._save()

    def _log(self, pace: Pace) -> None:
        """Raises TrainError where the loss is not a number."""
        state = self.state
        speed, waiting = pace.taken()
        loss, right, images, speed, waiting = self.world.sums([*state.sums.tolist(), speed, waiting])
        self._check_finite(loss)
        state.sums.zero_()
        row = Row(
            part="train", step=state.step, epoch=state.step / self.steps_per_epoch, loss=loss / images,
            top1=100 * right / images, learning_rate=state.optimiser.param_groups[0]["lr"],
            images_per_second=speed, waiting=waiting / self.world.size,
        )  # fmt: skip
        if self.logs:
            self.logs.add(row)
        self.progress.row(row)

    def _check_finite(self, value: float, what: str = "the loss") -> None:
        """Raises TrainError, which names the last checkpoint of an earlier step: one of this step has diverged, too."""
        if math.isfinite(value):
            return
        step = self.state.step
        last = checkpoint.newest(self.output.checkpoints, before=step)
        again = "begin again" if last is None else f"begin again from {last} with --start"
        raise TrainError(
            f"{what} is {value} at step {step}: {again}, in another --output and with a lower --learning-rate, "
            "a --warm-up or --clip; a training is not resumed with another rate"
        )

    def _save(self) -> None:
        """Raises CheckpointError, and TrainError where there is nothing worth saving."""
        self._check_finite(self.state.sums[0].item())
        # The last step may have made them so, and no loss has been computed with them yet.
        self._check_finite(_largest(self.state.model), "the largest weight")
        if self.world.first and self.saved_step != self.state.step:
            whole = self.state.checkpoint(self.about)
            checkpoint.write(self.output.checkpoints, whole, self.config.keep)
        self.saved_step = self.state.step

    def _stop_if_asked(self) -> None:
        """Raises Stopped. Several processes must agree, and do so at every step: schedulers do not wait for long."""
        if number := self.signals.agreed(self.world):
            self._save()
            raise Stopped(number, self.state.step)

    def _averaging(self) -> bool:
        return self.state.average is not None and bool(self.state.average.n_averaged)

    def _unlogged(self) -> bool:
        """Whether a validation of this step is missing from the log, in all processes."""
        parts: tuple[Part, ...] = ("validation", "average") if self._averaging() else ("validation",)
        missing = self.logs is not None and not all(self.logs.has(part, self.state.step) for part in parts)
        return bool(self.world.from_first(missing))

    def _validate(self, part: Part, model: nn.Module) -> Scores:
        """Raises TrainError where the loss is not a number."""
        batches = self._watched(self.held_out_loader.in_order(), self.held_out_loader.batches)
        scores = validate(model, batches, self.stepper.input, self.world)
        self._check_finite(scores.loss, "the validation loss")
        row = Row(
            part=part, step=self.state.step, epoch=self.state.step / self.steps_per_epoch,
            loss=scores.loss, top1=scores.top1, top5=scores.top5,
        )  # fmt: skip
        if self.logs and not self.logs.has(part, self.state.step):
            self.logs.add(row)
        what = "average" if part == "average" else "weights"
        self.progress.say(
            f"epoch {row.epoch:.0f}, {what}: loss {scores.loss:.4f}, top-1 {scores.top1:.2f} %, "
            f"top-5 {scores.top5:.2f} % of {scores.images} images held out"
        )
        return scores

    def _validate_average(self) -> Scores | None:
        average = self.state.average
        if average is None or not self._averaging():
            return None
        epoch = (self.state.step - 1) // self.steps_per_epoch
        epoch_again = self._watched(self.train_loader.epoch(epoch), self.steps_per_epoch)
        batches = itertools.islice(epoch_again, self.config.average_batches)
        averaging.batch_norm_statistics(average.module, (self.stepper.input(b.images) for b in batches))
        return self._validate("average", average.module)

    def _watched(self, batches: Iterator[Any], whole: int) -> Iterator[Any]:
        """Batches outside of steps, when all is saved: a signal ends them at once. Raises Stopped.

        ``whole``: how many of them every process has; at a last, smaller one, some are not there to agree.
        """
        for index, batch in enumerate(batches):
            together = index < whole or self.world.size == 1
            if together and (number := self.signals.agreed(self.world)):
                raise Stopped(number, self.state.step)
            self._complain(batch.skipped)
            yield batch

    def _complain(self, skipped: tuple[str, ...]) -> None:
        for line in skipped:
            if line not in self.skipped:
                self.skipped.add(line)
                self.progress.say(f"left out: {line}")

    def _draw(self, *, always: bool) -> None:
        if self.logs and (always or time.monotonic() - self.drawn > DRAW_EVERY):
            self.logs.draw()
            self.drawn = time.monotonic()

    def _finish(self, last: Scores, average: Scores | None) -> Result:
        model = self.state.model
        if average is not None and self.state.average is not None:
            averaged = self.state.average.module
            assert isinstance(averaged, GoogLeNet)
            model = averaged
        scores = average or last
        network = dataclasses.replace(
            model.to_network(),
            labels=self.classes,
            preprocess=self.preprocess,
            metadata={
                "spec": repr(model.spec),
                "weights": "trained by inception train",
                # A folder's name may be the system's own, and a file holds text alone.
                "data": os.fsencode(Path(self.config.data).name).decode(errors="replace"),
                "seed": str(self.config.seed),
                "epochs": str(self.config.epochs),
                "average": self.config.average if average is not None else "none",
                "top1": f"{scores.top1:.2f} % of {scores.images} images held out",
            },
        )
        path = self.output.folder / NETWORK
        if self.world.first:
            network.save(path)
        return Result(network=network, path=path, scores=scores, last=last)


def _is_text(name: str) -> bool:
    """Whether a name is more than bytes that the system takes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@torch.no_grad()
def _largest(model: nn.Module) -> float:
    """Of the absolute values of all weights; NaN where one of them is."""
    return torch.stack([parameter.detach().abs().amax() for parameter in model.parameters()]).amax().item()


def _prepare_one(held_out: datasets.Dataset, augmentation: Augmentation, config: Config) -> None:
    """An image as validation sees it, so that a resize that cannot be is not found behind an epoch's work.

    Raises ImageError; none for an image that is to be left out, unless all that are looked at fail alike.
    """
    recipe = Recipe(dataset=held_out, augmentation=augmentation, seed=config.seed, skip_unreadable=False)
    looked_at = range(min(SUBSTITUTES, len(held_out)) if config.skip_unreadable else 1)
    for index in looked_at:
        try:
            recipe.prepare(Task(indices=np.array([index]), epoch=None))
        except ImageError:
            if index == looked_at[-1]:
                raise
        else:
            return


def _set_dropout(model: Any, config: Config) -> None:
    model.dropout.p = config.dropout
    for head in model.auxiliary.values():
        head.dropout.p = config.auxiliary_dropout
