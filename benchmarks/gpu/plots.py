"""Pictures of a report: latency and throughput against the batch, modules beside cuDNN. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu.records import Records
from inception_engine.bench import plots


def write(found: Records, path: Path) -> list[Path]:
    """PNGs beside the records, of what was measured. Raises OSError."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rehearsal = any(environment["rehearsal"] for environment in found.environments)
    suffix = " (rehearsal, no measurement)" if rehearsal else ""
    written = []

    def save(figure: Any, name: str) -> None:
        target = path.with_name(f"{path.stem}-{name}.png")
        try:
            plots.save(figure, target)
        finally:
            pyplot.close(figure)
        written.append(target)

    timed = [row for row in found.rows("ours") or found.rows("peers") if row["ok"] and "variant" in row]
    for variant in dict.fromkeys(row["variant"] for row in timed):
        rows = [row for row in timed if row["variant"] == variant]
        for key, label, name in (
            ("p50_us", "µs a run", "latency"),
            ("images_per_s", "images/s", "throughput"),
        ):
            figure, axes = pyplot.subplots(figsize=(7, 4.5))
            for runner in dict.fromkeys(row["name"] for row in rows):
                points = sorted((row["batch"], row[key]) for row in rows if row["name"] == runner)
                axes.plot(*zip(*points, strict=True), marker="o", label=runner)
            axes.set(xscale="log", yscale="log", xlabel="batch", ylabel=label)
            axes.set_title(
                f"GoogLeNet, {variant}, {rows[0]['dtype']}, {found.environments[-1]['gpu']}{suffix}"
            )
            axes.grid(visible=True, which="both", alpha=0.3)
            axes.legend()
            save(figure, f"{variant}-{name}")
    modules = [row for row in found.rows("modules") if row["ok"] and "cudnn_us" in row]
    if modules:
        figure, axes = pyplot.subplots(figsize=(8, 4.5))
        ratios = [row["ratio"] for row in modules]
        errors = [[r[0] - r[1] for r in ratios], [r[2] - r[0] for r in ratios]]
        axes.bar(
            [row["name"].replace(" batch ", "\nb") for row in modules], [r[0] for r in ratios], yerr=errors
        )
        axes.axhline(1, color="black", linewidth=1)
        axes.set(ylabel="time of one launch over cuDNN's")
        axes.set_title(f"Inception modules, {found.environments[-1]['gpu']}{suffix}")
        axes.tick_params(axis="x", labelsize=7)
        save(figure, "modules")
    return written
