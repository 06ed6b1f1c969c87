"""Pictures of a run: latency and throughput against the batch; of profiles, layers and the roofline. Needs
matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception_engine.bench.records import OK, Document, Row
from inception_engine.files import check_target, write_atomically

LAYERS = 24  # bars, the longest layers


def write(document: Document, folder: Path) -> list[Path]:
    """PNGs of what was measured, into the folder, which is made if it is not there. Where one of them has no place,
    none is written. Raises OSError."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(exist_ok=True)
    try:
        # A record may come from anywhere: what it says is no path.
        figures = [
            (folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.png", figure)
            for name, figure in _figures(document)
        ]
        for target, _ in figures:
            check_target(target)
        for target, figure in figures:
            save(figure, target)
    finally:
        _close()
    return [target for target, _ in figures]


def save(figure: Any, target: Path) -> None:
    """A figure of matplotlib as PNG, by the rules of ``write_atomically``. Raises OSError."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120, bbox_inches="tight")
    write_atomically(target, [image.getvalue()])


def _close() -> None:
    from matplotlib import pyplot

    pyplot.close("all")


def _figures(document: Document) -> list[tuple[str, Any]]:
    timed = [row for row in document.rows if row.status == OK and row.p50_ms is not None]
    machine = str(document.environment["cpu"] or "unknown CPU")
    figures = []
    for first in dict.fromkeys(_setting(row) for row in timed):
        rows = [row for row in timed if _setting(row) == first]
        name = "-".join(map(str, first))
        title = f"GoogLeNet {first[0]}, {first[1]} on {first[2]}, {first[3]} threads, {first[4]} streams, {machine}"
        figures.append(
            (f"{name}-latency", _against_batch(rows, title, "p50_ms", "ms a call: p50, and to p99"))
        )
        figures.append((f"{name}-throughput", _against_batch(rows, title, "images_per_s", "images/s")))
    for profile in document.profiles:
        name = "-".join(str(profile[key]) for key in ("variant", "dtype", "device", "threads", "batch"))
        title = (
            f"GoogLeNet {profile['variant']}, batch {profile['batch']}, {profile['dtype']} on {profile['device']}, "
            f"{machine}"
        )
        figures.append((f"{name}-layers", _layers(profile, title)))
        if profile["peak"] is not None:
            figures.append((f"{name}-roofline", _roofline(profile, title)))
    return figures


def _setting(row: Row) -> tuple[str, str, str, int, int, str]:
    return row.variant, row.dtype, row.device, row.threads, row.streams, row.input


def _axes(title: str, width: float = 7.0) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, 4.5))
    axes.set_title(title, fontsize=8)
    return figure, axes


def _against_batch(rows: Sequence[Row], title: str, field: str, label: str) -> Any:
    figure, axes = _axes(title)
    for peer in dict.fromkeys(row.label for row in rows):
        points = sorted((row for row in rows if row.label == peer), key=lambda row: row.batch)
        batches, values = [row.batch for row in points], [getattr(row, field) for row in points]
        (line,) = axes.plot(batches, values, marker="o", label=peer)
        if field == "p50_ms":
            axes.fill_between(
                batches, values, [row.p99_ms for row in points], color=line.get_color(), alpha=0.15
            )
        shaky = [(row.batch, getattr(row, field)) for row in points if row.unstable]
        if shaky:
            axes.plot(*zip(*shaky, strict=True), "x", color="black", markersize=9)
    batches = sorted({row.batch for row in rows})
    axes.set(xscale="log", yscale="log", xlabel="batch (crossed: unstable)", ylabel=label)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _layers(profile: dict[str, Any], title: str) -> Any:
    figure, axes = _axes(title, 10.0)
    layers = sorted(profile["layers"], key=lambda layer: -layer["share"])[:LAYERS]
    axes.bar([layer["name"] for layer in layers], [100 * layer["share"] for layer in layers])
    axes.set(ylabel="% of the time of all tasks")
    axes.tick_params(axis="x", labelsize=7, labelrotation=90)
    return figure


def _roofline(profile: dict[str, Any], title: str) -> Any:
    """Executed multiply-adds per byte against those per second: each layer below what the machine can do at most.
    Nominal ones would stand above it where Winograd's algorithm needs fewer."""
    import numpy as np

    figure, axes = _axes(title)
    peak = profile["peak"]
    points = [layer for layer in profile["layers"] if layer["executed"] and layer["ms"]]
    intensities = [layer["executed"] / layer["bytes"] for layer in points]
    rates = [layer["executed"] / layer["ms"] * 1e3 / 1e9 for layer in points]
    around = intensities or [1.0]
    roof = np.geomspace(min(around) / 2, max(around) * 2, 100)
    bound = np.minimum(peak["macs_per_s"], roof * peak["bytes_per_s"])
    axes.plot(roof, bound / 1e9, color="black", label="measured peak and memory rate")
    axes.scatter(
        intensities, rates, s=[10 + 400 * layer["share"] for layer in points], alpha=0.6, label="layers"
    )
    longest = sorted(zip(points, intensities, rates, strict=True), key=lambda point: -point[0]["share"])
    for layer, intensity, rate in longest[:6]:
        axes.annotate(layer["name"], (intensity, rate), fontsize=7)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="executed multiply-adds per byte moved",
        ylabel="G executed multiply-adds/s",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    return figure
