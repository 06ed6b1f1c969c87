"""An engine is run beside ONNX Runtime before it is written, by Polygraphy's comparison, which is kept quiet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_engine import packages
from inception_engine.exporters.errors import ExportError
from inception_engine.parity import BOUNDS

if TYPE_CHECKING:
    from inception_engine.exporters.tensorrt import Build

SEED = 0  # of the images


def check_engine(build: Build, engine: bytes) -> None:
    """Raises ExportError for an engine that does not run, or whose logits are not ONNX Runtime's."""
    from polygraphy.backend.trt import TrtRunner

    from inception_engine.backends.tensorrt import deserialise

    packages.load("onnxruntime")
    difference = disagreement(TrtRunner(lambda: deserialise(engine), name="TensorRT"), build)
    if difference is not None:
        raise ExportError(f"the engine is not written: {difference}")


def disagreement(runner: Any, build: Build) -> str | None:
    """How a Polygraphy runner's logits differ from ONNX Runtime's beyond the bound of the model's dtype, or None.

    Seeded images of mean 0 and deviation 1, at the smallest and the largest batch.
    """
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator, SimpleCompareFunc

    logits = next(iter(build.model.outputs))
    rng = np.random.default_rng(SEED)
    sizes = sorted({build.batches.smallest, build.batches.largest})
    feeds = [{build.model.input_name: rng.standard_normal(build.shape(n), dtype=np.float32)} for n in sizes]
    with polygraphy_errors() as errors:
        onnxruntime = OnnxrtRunner(SessionFromOnnx(build.model.content), name="ONNX Runtime")
        try:
            results = Comparator.run([runner, onnxruntime], data_loader=feeds)
            scale = min(float(np.abs(iteration[logits]).max()) for iteration in results[1][1])
            bound = BOUNDS[build.model.dtype]
            compared = Comparator.compare_accuracy(
                results, compare_func=SimpleCompareFunc(atol=bound * scale, rtol=0, check_error_stat="max")
            )
        except Exception as error:
            raise ExportError(f"the engine did not run: {[*errors, error][0]}") from None
    if compared:
        return None
    worst = max(
        float(np.abs(ours[logits] - theirs[logits]).max()) / scale
        for ours, theirs in zip(results[0][1], results[1][1], strict=True)
    )
    return f"its {logits} differ from ONNX Runtime's by {worst:.1e} of the largest, the bound is {bound:.0e}"


@contextlib.contextmanager
def polygraphy_errors() -> Iterator[list[str]]:
    """Polygraphy and, through it, TensorRT print; within this context nothing is shown and errors are collected."""
    from polygraphy.logger import G_LOGGER

    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    logger, collector = logging.getLogger("Polygraphy"), Collector(logging.ERROR)
    before = G_LOGGER.use_python_logging_system, G_LOGGER.colors, G_LOGGER.letter, logger.propagate
    logger.addHandler(collector)
    G_LOGGER.use_python_logging_system, G_LOGGER.colors, G_LOGGER.letter, logger.propagate = (
        True,
        False,
        False,
        False,
    )
    try:
        yield errors
    finally:
        logger.removeHandler(collector)
        G_LOGGER.use_python_logging_system, G_LOGGER.colors, G_LOGGER.letter, logger.propagate = before
