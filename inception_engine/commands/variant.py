"""Options for the variant of the network, and the Spec that they make."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from inception_engine.commands import values
from inception_engine.commands.errors import CommandError

if TYPE_CHECKING:
    from inception_engine.spec import Spec

# Fields of a Spec that have an option of their own: those that a file's tensors do not show, and those that they do.
_UNSEEN_FIELDS = ("norm", "pool_padding", "pool_kernels")
_SEEN_FIELDS = ("third_branch", "width", "classes")
_FIELDS = (*_UNSEEN_FIELDS, *_SEEN_FIELDS, "input_size")


def add_options(parser: argparse.ArgumentParser) -> None:
    """For a network that is made: all of them."""
    group = parser.add_argument_group("variant of the network")
    _add_unseen(group)
    group.add_argument("--third-branch", type=int, metavar="K", help="kernel of the 5x5 branch: 5 or 3")
    group.add_argument("--width", type=float, metavar="X", help="multiplies channel counts")
    group.add_argument("--classes", type=int, metavar="N")


def add_options_of_a_file(parser: argparse.ArgumentParser) -> None:
    """For a network that is read: what a file's tensors do not show."""
    _add_unseen(parser.add_argument_group("variant of the network, for state dicts of this package's model"))


def _add_unseen(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--variant", "--preset", metavar="NAME", help="lrn (the paper's, default), plain or torchvision"
    )
    group.add_argument("--norm", help="lrn, batch or none")
    group.add_argument("--pool-padding", help="ceil (56/28/14/7 pixels) or none (55/27/13/6)")
    group.add_argument(
        "--pool-kernels", type=_kernels, metavar="A,B,C,D", help="of the four max-pools between the modules"
    )
    group.add_argument("--input-size", type=int, metavar="N", help="height and width in pixels")


def _kernels(text: str) -> tuple[int, ...]:
    return tuple(values.numbers(text))


def spec(arguments: argparse.Namespace) -> Spec:
    """What the options say, of either kind. Raises CommandError and SpecError."""
    import dataclasses

    from inception_engine.spec import PRESETS

    name = arguments.variant or "lrn"
    if name not in PRESETS:
        raise CommandError(f"unknown variant {name!r}; there is {', '.join(PRESETS)}")
    given = {field: getattr(arguments, field, None) for field in _FIELDS}
    return dataclasses.replace(
        PRESETS[name], **{field: value for field, value in given.items() if value is not None}
    )


def spec_of_a_file(arguments: argparse.Namespace) -> Spec | None:
    """What is said of the variant of a file's network, or None. Raises SpecError, and CommandError for what the file's
    tensors say."""
    for field in ("seed", *_SEEN_FIELDS):
        if getattr(arguments, field, None) is not None:
            raise CommandError(f"--{field.replace('_', '-')} changes nothing in a network read from a file")
    given = any(getattr(arguments, field) is not None for field in ("variant", *_UNSEEN_FIELDS))
    return spec(arguments) if given else None
