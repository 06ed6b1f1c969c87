"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # bounds of latencies
CONTENT_TYPE = CONTENT_TYPE_LATEST
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # bounds of batches


class Metrics:
    """Of one server, in a registry of its own."""

    def __init__(self, length: Callable[[], int]) -> None:
        """``length``: of the queue, asked for when somebody reads."""
        self._registry = CollectorRegistry()
        self.answered: dict[int, int] = {}  # requests for a classification by their status
        self._requests = Counter(
            "inception_requests", "Answered requests", ["endpoint", "status"], registry=self._registry
        )
        self._latency = Histogram(
            "inception_request_seconds", "From a request's header to the answer to it", ["endpoint"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._sizes = Histogram(
            "inception_batch_size", "Images of a run", buckets=SIZES, registry=self._registry
        )
        self._runs = Histogram(
            "inception_run_seconds", "Of a run of the engine", buckets=SECONDS, registry=self._registry
        )
        Gauge("inception_queue_length", "Images that wait for a batch", registry=self._registry).set_function(
            length
        )

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        self._requests.labels(endpoint, status).inc()
        self._latency.labels(endpoint).observe(seconds)
        if endpoint == "/classify":
            self.answered[status] = self.answered.get(status, 0) + 1

    def run(self, images: int, seconds: float) -> None:
        self._sizes.observe(images)
        self._runs.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format, whose type is CONTENT_TYPE."""
        return generate_latest(self._registry)
