"""How much is run."""

from __future__ import annotations

from dataclasses import dataclass

from inception_engine.spec import PRESETS, TABLE, InceptionRow, Spec

MODULES = tuple(row.name for row in TABLE if isinstance(row, InceptionRow))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """``variants``: of the network, by name; the first is the one for parity, traces and repeats, all are timed.

    ``dtypes``, ``parity_batches``: of the parity stage; ``speed_dtype``, ``speed_batches``: of what is timed.
    ``compiled_batches``: at which torch.compile takes part, for it needs minutes for each. ``module_batches``: at which
    single modules are timed; ``kernel_modules`` and ``kernel_batches``: with which both of our kernels are, at the
    paper's sizes. ``rounds`` share ``seconds`` of each call. ``repeats``: of runs that must be equal to
    the bit, at ``repeat_batches``. ``candidates``: of the tuner, at ``tuner_batches``. ``kernel_tests``: whether
    pytest runs the tests that need a GPU.
    """

    variants: tuple[tuple[str, Spec], ...] = (("lrn", PRESETS["lrn"]), ("plain", PRESETS["plain"]))
    modules: tuple[str, ...] = MODULES
    dtypes: tuple[str, ...] = ("fp16", "bf16", "fp32")
    parity_batches: tuple[int, ...] = (1, 2, 3, 8, 32, 256)
    speed_dtype: str = "fp16"
    speed_batches: tuple[int, ...] = (1, 8, 32, 256)
    compiled_batches: tuple[int, ...] = (1, 8, 32, 256)
    module_batches: tuple[int, ...] = (1, 32)
    kernel_modules: tuple[str, ...] = MODULES
    kernel_batches: tuple[int, ...] = (32, 64, 128, 256)
    rounds: int = 9
    seconds: float = 1.0
    repeats: int = 10_000
    repeat_batches: tuple[int, ...] = (1, 32)
    candidates: int = 48
    tuner_batches: tuple[int, ...] = (1, 8, 32)
    kernel_tests: bool = True

    @property
    def spec(self) -> Spec:
        return self.variants[0][1]

    @property
    def variant(self) -> str:
        return self.variants[0][0]


FULL = Scale()
# Parity, traces and ratios in less than eight minutes. One variant: the one that other engines are best at.
QUICK = Scale(
    variants=(("plain", PRESETS["plain"]),),
    compiled_batches=(1, 32),
    kernel_batches=(32, 256),
    rounds=5,
    seconds=0.4,
    repeats=1_000,
    candidates=24,
    tuner_batches=(1, 8, 32),
    kernel_tests=False,
)
# Triton's interpreter takes seconds for the smallest network.
REHEARSED = Scale(
    variants=(("tiny", Spec(name="tiny", norm="none", width=0.02, input_size=32, classes=11)),),
    modules=("3a", "5b"),
    dtypes=("fp16", "fp32"),
    parity_batches=(2,),
    speed_batches=(2,),
    compiled_batches=(2,),
    module_batches=(1,),
    kernel_modules=("5b",),
    kernel_batches=(1,),
    rounds=1,
    seconds=0.0,
    repeats=1,
    repeat_batches=(2,),
    candidates=1,
    tuner_batches=(1,),
    kernel_tests=True,
)
