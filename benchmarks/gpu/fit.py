"""Stage 11: the simulator's constants, fitted to the launches of this GPU, and how far off it then is."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import NetworkCase
from benchmarks.gpu.launches import KERNELS
from benchmarks.gpu.runners import jit
from benchmarks.gpu.stage import Job, first_line
from inception_engine.compiler.targets import CUDA, Target, target_for
from inception_engine.files import write_atomically
from inception_engine.simulate import Gpu, SimulationError, fit
from inception_engine.simulate.gpu import Provenance

BEGIN = "h200"  # constants that the search begins with
TRACES = 5


def run(job: Job) -> None:
    """Writes FILE-costs.json beside the records, as inception_engine/simulate/costs has them."""
    scale = job.scale
    with tempfile.TemporaryDirectory() as folder:
        measurements = []
        for batch in scale.speed_batches:
            case = NetworkCase(scale.variant, scale.spec, batch, scale.speed_dtype)
            chosen = target_for(
                "cuda", batch, scale.speed_dtype
            )  # measured beside many short launches, which say more
            for target in dict.fromkeys((CUDA, chosen)):
                name = f"batch {batch}, one launch per {target.launch.name.lower()}"
                path = Path(folder, f"{name}.plan")
                case.plan(target).save(path)
                try:
                    launches = _launch_seconds(job, case, target)
                except Exception as error:
                    job.row(name, False, first_line(error))
                    continue
                measurements.append({"plan": str(path), "batch": batch, "launch_seconds": launches})
                job.row(name, launch_us=[seconds * 1e6 for seconds in launches])
        try:
            # The cost of a launch lies between launches, where a trace has no slice.
            fitted = fit(
                measurements,
                _begin(job),
                ("poll_seconds", "dependency_seconds", "tile_seconds", "block_share"),
            )
        except SimulationError as error:
            job.row("fit", None if job.rehearsal else False, str(error))
            return
    errors = [abs(error) for error in fitted.errors]
    constants = {name: getattr(fitted.gpu, name) for name in fitted.gpu.provenance
                 if fitted.gpu.provenance[name].kind == "fitted"}  # fmt: skip
    job.row("fit", times=len(errors), median_error=statistics.median(errors), largest_error=max(errors),
            median_error_before=statistics.median(map(abs, fitted.before)), **constants)  # fmt: skip
    text = json.dumps(fitted.gpu.document(), indent=2) + "\n"
    write_atomically(job.path.with_name(f"{job.path.stem}-costs.json"), [text.encode()])


def _launch_seconds(job: Job, case: NetworkCase, target: Target) -> list[float]:
    """Of each launch of a plan: the median over some traces of one run."""
    images = case.images(job.device.torch_device)
    with jit(case, job.device, target=target) as prepared:
        prepared.call(images)
        traces = [
            [
                each.seconds
                for each in job.device.operations(lambda: prepared.call(images))
                if each.name in KERNELS
            ]
            for _ in range(1 if job.rehearsal else TRACES)
        ]
        prepared.check()
    return [statistics.median(times) for times in zip(*traces, strict=True)]


def _begin(job: Job) -> Gpu:
    """The known GPU's constants, those that this run measured in their place."""
    gpu = Gpu.load(BEGIN)
    measured: dict[str, Any] = {row["name"]: row["value"] for row in job.earlier("micro") if row["ok"]}
    replaced: dict[str, Any] = {}
    for row, constant in (("peak_flop_per_second", "tensor_flop_per_second"), ("copy_bytes_per_second",
                          "dram_bytes_per_second"), ("graph_node_seconds", "launch_seconds")):  # fmt: skip
        if measured.get(row, 0) > 0:
            replaced[constant] = measured[row]
    if job.device.torch_device.type == "cuda":
        import torch

        replaced["multiprocessors"] = torch.cuda.get_device_properties(
            job.device.torch_device
        ).multi_processor_count
    provenance = dict(gpu.provenance) | {name: Provenance("measured", "tools/gpu") for name in replaced}
    return dataclasses.replace(gpu, provenance=provenance, **replaced)
