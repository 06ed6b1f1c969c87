"""What a training leaves to be looked at: rows in metrics.csv and for TensorBoard, curves as PNG, a progress bar.

One process writes them. Rows are whole lines, written at once; those that a killed training wrote behind its last
checkpoint are removed when it goes on, which writes them again.
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from inception_engine import packages
from inception_engine.files import write_atomically
from inception_engine.terminal import printable_line

ROWS, CURVES, EVENTS = "metrics.csv", "curves.png", "tensorboard"
Part = Literal["train", "validation", "average"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """``part``: "train": since the row before, augmented and with dropout; "validation": of this step's weights;
    "average": of their average. ``step``: steps done; ``epoch``: with its fraction. ``top1``, ``top5``: percent.
    ``images_per_second`` of all processes; ``waiting``: share of the time in which the network waited for images."""

    part: Part
    step: int
    epoch: float
    loss: float
    top1: float
    top5: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    waiting: float | None = None


COLUMNS = [field.name for field in fields(Row)]


class Logs:
    """In ``folder``, which exists. ``step``: what was done before; rows behind it are removed."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        """Raises OSError, and PackageError where TensorBoard is wanted and not installed."""
        self.path = folder / ROWS
        self.rows = [row for row in read(self.path) if row.step <= step]
        self._rewrite()
        self._events: Any = None
        if tensorboard:
            packages.load("tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1 if step else None)

    def add(self, row: Row) -> None:
        """Raises OSError."""
        self.rows.append(row)
        with _naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line(row))
        for name in COLUMNS[3:] if self._events is not None else ():
            if (value := getattr(row, name)) is not None:
                self._events.add_scalar(f"{row.part}/{name}", value, row.step)

    def has(self, part: Part, step: int) -> bool:
        return any(row.part == part and row.step == step for row in reversed(self.rows))

    def draw(self) -> None:
        """Write the curves. Raises OSError."""
        draw(self.rows, self.path.with_name(CURVES))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _rewrite(self) -> None:
        lines = [",".join(COLUMNS) + "\n", *map(_line, self.rows)]
        write_atomically(self.path, ["".join(lines).encode()])


def read(path: Path) -> list[Row]:
    """The rows of a file; a last line that was cut off is passed over. Empty if there is no file. Raises OSError."""
    if not path.is_file():  # a pipe would be waited for; writing refuses it
        return []
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    rows = []
    for values in csv.DictReader(whole.splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            rows.append(_row(values))
    return rows


def _row(values: dict[str, str]) -> Row:
    """Raises ValueError and TypeError for a line that is not whole."""
    numbers = {name: float(values[name]) if values[name] else None for name in COLUMNS[2:]}
    return Row(part=values["part"], step=int(values["step"]), **numbers)  # type: ignore[arg-type]


def _line(row: Row) -> str:
    text = io.StringIO()
    values = asdict(row).values()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    return text.getvalue()


def draw(rows: list[Row], path: Path) -> None:
    """Loss and top-1 error over epochs, and the learning rate. Raises PackageError and OSError."""
    packages.load("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for part in ("train", "validation", "average"):
        chosen = [row for row in rows if row.part == part]
        epochs = [row.epoch for row in chosen]
        style = "-" if part == "train" else ".-"
        panels[0].plot(epochs, [row.loss for row in chosen], style, label=part, linewidth=1)
        panels[1].plot(epochs, [100 - row.top1 for row in chosen], style, label=part, linewidth=1)
        if part == "train":
            panels[2].plot(epochs, [row.learning_rate for row in chosen], linewidth=1)
    for panel, what in zip(panels, ("loss", "top-1 error, %", "learning rate"), strict=True):
        panel.set(xlabel="epoch", ylabel=what)
        panel.grid(alpha=0.3)
    panels[0].legend()
    panels[1].set_yscale("symlog", linthresh=1)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    write_atomically(path, [image.getvalue()])


class Pace:
    """Images and seconds between two rows."""

    def __init__(self) -> None:
        self.begin, self.images, self.waited = time.perf_counter(), 0, 0.0

    def add(self, images: int, waited: float) -> None:
        self.images += images
        self.waited += waited

    def taken(self) -> tuple[float, float]:
        """(images a second, share of the time spent waiting for them) since the last call."""
        seconds = max(time.perf_counter() - self.begin, 1e-9)
        result = self.images / seconds, self.waited / seconds
        self.begin, self.images, self.waited = time.perf_counter(), 0, 0.0
        return result


class Progress:
    """On a terminal a bar: steps, time left, images a second, share of waiting. Elsewhere ``say`` alone."""

    def __init__(self, steps: int, done: int, *, shown: bool) -> None:
        silent = not (shown and sys.stderr.isatty())
        self.bar = tqdm(total=steps, initial=done, unit=" steps", dynamic_ncols=True, disable=silent)
        self.shown = shown

    def step(self) -> None:
        self.bar.update()

    def row(self, row: Row) -> None:
        waiting = f"{row.waiting:.0%}"
        self.bar.set_postfix_str(
            f"epoch {row.epoch:.1f}, loss {row.loss:.3f}, {row.images_per_second:.0f} images/s, waiting {waiting}"
        )

    def say(self, text: str) -> None:
        """A line on standard output, above the bar, in which names of files and classes may stand."""
        if self.shown:
            tqdm.write(printable_line(text), file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self.bar.close()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError of writing carries no name; a user wants to know which file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
