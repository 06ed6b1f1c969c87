"""Whether a checkpoint is one of the same training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from inception_engine.train.config import Config
from inception_engine.train.errors import CheckpointError
from inception_engine.train.keys import as_document, differences

NAMED = 3  # classes that a message names


def settled(document: Mapping[str, Any], config: Config) -> Config:
    """With the checkpoint's ``average_from`` where none was given: more epochs do not move it."""
    before = document["config"].get("average_from")
    return dataclasses.replace(config, average_from=before) if config.derived else config


def check_not_beyond(document: Mapping[str, Any], config: Config, steps_per_epoch: int) -> None:
    """Raises CheckpointError where a checkpoint is of more epochs than are asked for."""
    step = document["step"]
    if step > config.epochs * steps_per_epoch:
        raise CheckpointError(
            f"the checkpoint is of step {step}, and epochs {config.epochs} ends at step "
            f"{config.epochs * steps_per_epoch}: give --epochs {-(-step // steps_per_epoch)} or more"
        )


def check_same(document: Mapping[str, Any], config: Config, classes: Sequence[str], images: int) -> None:
    """Raises CheckpointError where a checkpoint's document is of other classes, data or keys."""
    before = list(document["classes"])
    if before != list(classes):
        gone = [f"{name} is gone" for name in before if name not in classes]
        new = [f"{name} is new" for name in classes if name not in before]
        which = ", ".join([*gone[:NAMED], *new[:NAMED]]) or "their order differs"
        raise CheckpointError(
            f"the checkpoint has {len(before)} classes and the data {len(classes)}: {which}; "
            "--start CHECKPOINT in another --output trains a new classifier"
        )
    if document["images"] != images:
        raise CheckpointError(
            f"the checkpoint is of {document['images']} images and the data have {images}: the order would be another"
        )
    if changed := differences(Config, document["config"], as_document(config)):
        raise CheckpointError(f"{changed[0]}: a training is resumed with what it began with")
