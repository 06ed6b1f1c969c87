"""The constants of one GPU: numbers with a unit in their name, and where each comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inception_engine.compiler.plan import Dtype

COSTS = Path(__file__).parent / "costs"
PROVENANCES = ("measured", "datasheet", "assumed", "fitted")


class SimulationError(ValueError):
    """What was asked for cannot be simulated; the message says why."""


@dataclass(frozen=True)
class Provenance:
    """``kind``: one of PROVENANCES. ``source``: in words."""

    kind: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """``resident_blocks``: workers of a multiprocessor; a launch has no more blocks than all of them, or its tasks.

    Rates are of the whole GPU, but for ``multiprocessor_bytes_per_second``, which is what one multiprocessor can load.
    ``block_share``: the part of its multiprocessor's rates that one block reaches when it has it for itself.

    Seconds that do not depend on a tile's size: ``launch`` before each launch; ``ticket`` to take a task and read its
    record; ``poll`` for every 32 of its waits, which a warp polls at once, reached or not; ``dependency`` from the end
    of a task to the first load of one that waits for it; ``tile`` for start and end: addresses, filling the pipeline,
    draining it, the stores.
    """

    name: str
    multiprocessors: int
    resident_blocks: int
    tensor_flop_per_second: float
    float_flop_per_second: float
    dram_bytes_per_second: float
    l2_bytes: float
    l2_bytes_per_second: float
    multiprocessor_bytes_per_second: float
    block_share: float
    launch_seconds: float
    ticket_seconds: float
    poll_seconds: float
    dependency_seconds: float
    tile_seconds: float
    provenance: Mapping[str, Provenance]

    @classmethod
    def load(cls, name: str) -> Gpu:
        """One of those in costs/. Raises SimulationError for another name."""
        known = sorted(path.stem for path in COSTS.glob("*.json"))
        if name not in known:
            raise SimulationError(f"unknown gpu {name!r}; there is {', '.join(known)}")
        return cls.from_document(json.loads((COSTS / f"{name}.json").read_text(encoding="utf-8")))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Gpu:
        """From {"name", "constants": {name: {"value", "provenance", "source"}}}. Raises SimulationError."""
        constants = document["constants"]
        if set(constants) != set(CONSTANTS):
            odd = sorted(set(constants) ^ set(CONSTANTS))
            raise SimulationError(f"constants of {document['name']}: missing or unknown {', '.join(odd)}")
        for name, entry in constants.items():
            if entry["provenance"] not in PROVENANCES or entry["value"] < 0:
                raise SimulationError(f"constant {name} of {document['name']}: {entry}")
        return cls(
            name=document["name"],
            provenance={
                n: Provenance(entry["provenance"], entry["source"]) for n, entry in constants.items()
            },
            **{n: entry["value"] for n, entry in constants.items()},
        )

    def document(self) -> dict[str, Any]:
        """What ``from_document`` reads."""
        return {
            "name": self.name,
            "constants": {
                n: {
                    "value": getattr(self, n),
                    "provenance": self.provenance[n].kind,
                    "source": self.provenance[n].source,
                }
                for n in CONSTANTS
            },
        }

    @property
    def workers(self) -> int:
        """Blocks that are resident at once."""
        return self.multiprocessors * self.resident_blocks

    @property
    def assumed(self) -> list[str]:
        """Names of the constants that nobody measured."""
        return [n for n in CONSTANTS if self.provenance[n].kind == "assumed"]

    def product_rate(self, dtype: Dtype) -> float:
        """FLOP/s of matrix products; those in float32 use no tensor cores."""
        return self.float_flop_per_second if dtype is Dtype.FP32 else self.tensor_flop_per_second

    def share(self, blocks: int) -> float:
        """The part of a multiprocessor's rates that each of a launch's blocks has."""
        return min(self.block_share, 1 / -(-blocks // self.multiprocessors))

    def load_share(self, blocks: int) -> float:
        """The part of the GPU's rate from L2 that one block of a launch reaches while no other one loads."""
        return self.share(blocks) * self.multiprocessor_bytes_per_second / self.l2_bytes_per_second


CONSTANTS = tuple(field.name for field in dataclasses.fields(Gpu) if field.name not in ("name", "provenance"))
