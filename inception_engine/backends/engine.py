"""Our own engine, of a network that is compiled here or of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inception_engine.backends.base import Backend, Face, refuse
from inception_engine.backends.sources import PlanFile, Source
from inception_engine.compiler import compile
from inception_engine.compiler.plan import Dtype, Plan, TargetKind
from inception_engine.engine import Engine
from inception_engine.errors import BackendError, FileError
from inception_engine.network import Network

_SYNONYMS = ("logits", "probabilities")  # a plan's names for two of its layers


class EngineBackend(Backend):
    name = "engine"

    def __init__(
        self,
        source: Source,
        keep_all: bool = False,
        *,
        device: str = "auto",
        threads: int = 0,
        isa: str = "auto",
        max_batch: int | None = None,
        dtype: str | None = None,
        emulate: bool = False,
    ) -> None:
        """``device``, ``threads``, ``isa``: as of Engine. ``max_batch`` (8) and ``dtype`` ("fp32"): of a network, as of
        ``compile``. A plan has the layers and dtype that it was compiled with. ``emulate``: the CPU walks a GPU's
        program, slowly; a network is compiled for a GPU then, half precision too."""
        super().__init__()
        if not isinstance(source, Network | Plan | PlanFile):
            raise refuse(self.name, "networks and plans", source)
        if isinstance(source, Network):
            target = "cuda" if emulate or device.startswith("cuda") else "cpu"
            plan = compile(
                source, targets=target, max_batch=max_batch or 8, dtype=dtype or "fp32", keep_all=keep_all
            )
        else:
            for option, given in (("keep_all", keep_all), ("max_batch", max_batch), ("dtype", dtype)):
                if given:
                    raise BackendError(f"{option} is of a network; a plan is what it was compiled to be")
            plan = _load(source) if isinstance(source, PlanFile) else source
        self.engine = Engine(plan, device=device, threads=threads, isa=isa, emulate=emulate)
        engine = self.engine
        dtypes = _dtypes(plan, TargetKind[engine.device.upper()])
        where = f"{engine.device} {engine.isa}" + (" walking a GPU's program" if emulate else "")
        self.face = Face(
            description=f"inception engine, {where}, {'/'.join(dtypes)}, {engine.name}",
            input_shape=engine.input_shape,
            outputs=engine.outputs,
            layers=tuple(name for name in engine.outputs if name not in _SYNONYMS),
            dtype=dtypes[-1],
            batches=(1, engine.max_batch),
            preprocess=engine.preprocess,
            labels=engine.labels,
            random_weights=engine.random_weights,
        )

    def run(self, images: Any, outputs: Any = None) -> Any:
        """As ``Engine.run``: tensors too, and tensors on its GPU."""
        return self.engine.run(images, outputs)

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        return self.engine.run(images, names)

    def close(self) -> None:
        super().close()
        self.engine.close()


def _load(source: PlanFile) -> Plan:
    try:
        return Plan.load(source.path)
    except OSError as error:
        raise FileError(f"{source.path}: {error.strerror}") from None


def _dtypes(plan: Plan, device: TargetKind) -> list[str]:
    """Of the programs that the device runs, the coarsest last."""
    programs = [program for program in plan.programs if program.header["target"] == device]
    found = {Dtype(int(program.header["dtype"])) for program in programs or plan.programs}
    return [dtype.name.lower() for dtype in sorted(found)]
