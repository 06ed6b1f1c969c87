"""The HTTP in front of a Batcher, over aiohttp.

    POST /classify[?top_k=N]   a JPEG or PNG file as the body -> what `inception classify --json` prints for it
    GET  /health               200 when images are taken, else 503: {"status": loading, ready, failing or stopping};
                               failing while the last run of any engine failed; whoever asks then has a black image
                               run by each such engine, and is told what came of it
    GET  /metrics              Prometheus's text format

An error is {"error": one line}: 400 a damaged image, 408 a body that does not come, 413 a body or an image that is too
large, 415 neither JPEG nor PNG, 503 with Retry-After where nothing is taken now, 504 no result in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web

from inception_engine.classification import Classification
from inception_engine.engine import Engine
from inception_engine.errors import EngineError, ImageError, ImageForeign, ImageTooLarge
from inception_engine.preprocess import from_bytes, pixels
from inception_engine.serve.batching import Batcher, QueueClosed, QueueFull
from inception_engine.serve.metrics import CONTENT_TYPE, Metrics
from inception_engine.terminal import printable_line

RETRY_AFTER = 1  # seconds after which a client that was turned away may come back
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``max_wait``: seconds that an image waits for a batch to fill. ``queue``: requests taken and not yet answered.
    ``body``: bytes of one. ``timeout``: seconds for one. ``top_k``: classes in an answer that does not say how many."""

    max_wait: float = 0.005
    queue: int = 64
    body: int = 16 << 20
    timeout: float = 30.0
    top_k: int = 5


class Server:
    """The application, and what it serves from ``begin`` on. ``taken``: requests that were given a place, so far.
    ``status``: as /health says it, of each engine's last run."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics(lambda: self.batcher.length if self.batcher else 0)
        self.batcher: Batcher | None = None
        self.taken = 0
        self._engine: Engine | None = None
        self._trial: asyncio.Task[None] | None = None
        self._stopping = False
        self._decoders = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decoder")
        self.application = web.Application(client_max_size=limits.body, middlewares=[self._answer])
        self.application.router.add_post("/classify", self._classify)
        self.application.router.add_get("/health", self._health)
        self.application.router.add_get("/metrics", self._metrics)

    def begin(self, engines: Sequence[Engine], max_batch: int | None = None) -> None:
        """Take images, for engines that have run. They are the caller's."""
        self._engine = engines[0]
        self.batcher = Batcher(
            [engine.run for engine in engines],
            max_batch=min(engine.max_batch for engine in engines) if max_batch is None else max_batch,
            max_wait=self.limits.max_wait,
            capacity=self.limits.queue,
            observe=self.metrics.run,
        )

    def stop(self) -> None:
        """Take no more requests. Those that were taken go on."""
        self._stopping = True

    def close(self) -> None:
        """Behind the last request: end the threads."""
        if self.batcher is not None:
            self.batcher.close()
        self._decoders.shutdown()

    @property
    def status(self) -> str:
        if self._stopping:
            return "stopping"
        if self.batcher is None:
            return "loading"
        return "ready" if self.batcher.error is None else "failing"

    async def _health(self, _: web.Request) -> web.Response:
        """A load balancer sends no images to what is failing, so that none could end it: whoever asks has one run, by
        those engines that failed; what others make of it says nothing of them.
        Those who ask meanwhile wait for the same one, and it goes on without them."""
        if self.status == "failing":
            if self._trial is None or self._trial.done():
                self._trial = asyncio.create_task(self._try())
            await asyncio.shield(self._trial)
        return _json({"status": self.status}, 200 if self.status == "ready" else 503)

    async def _try(self) -> None:
        """Run a black image in a request's place; the batcher has what came of it. Raises nothing."""
        assert self.batcher is not None and self._engine is not None
        channels, height, width = self._engine.input_shape
        black = np.zeros((height, width, channels), np.uint8)
        # There may be no place, and no result within the time.
        with contextlib.suppress(Exception), self.batcher.place():
            async with asyncio.timeout(self.limits.timeout):
                trials = map(asyncio.wrap_future, self.batcher.retry(black))
                await asyncio.gather(*trials, return_exceptions=True)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _classify(self, request: web.Request) -> web.Response:
        top_k = request.query.get("top_k", str(self.limits.top_k))
        if not (top_k.isascii() and top_k.isdigit() and int(top_k[:9]) > 0):
            return _error(400, f"top_k is {top_k[:20]!r}, not a whole number from 1 on")
        if self._stopping or self.batcher is None or self._engine is None:
            return _busy(self.status)
        try:
            with self.batcher.place() as submit:
                self.taken += 1
                stage = 408, "the image did not come within the time"
                try:
                    async with asyncio.timeout(self.limits.timeout):
                        content = await request.read()  # raises HTTPRequestEntityTooLarge
                        stage = 504, "no result within the time"
                        loop = asyncio.get_running_loop()
                        image = await loop.run_in_executor(self._decoders, self._pixels, content)
                        logits = await asyncio.wrap_future(submit(image))
                except TimeoutError:
                    return _error(*stage)
        except web.RequestPayloadError as error:  # its length or its chunks are not what the header says
            return _error(400, f"the body is damaged: {printable_line(str(error))}")
        except (QueueFull, QueueClosed) as error:
            return _busy(str(error))
        except ImageError as error:
            return _error(_STATUS.get(type(error), 400), str(error))
        except EngineError as error:
            return _error(500, str(error))
        return _json(self._document(self._engine.rank(logits, int(top_k[:9]))), 200)

    def _pixels(self, content: bytes) -> np.ndarray:
        assert self._engine is not None
        return pixels(from_bytes(content), self._engine.preprocess, self._engine.input_shape)

    def _document(self, found: Classification) -> dict[str, Any]:
        assert self._engine is not None
        return {"random_weights": self._engine.random_weights, "results": [found.document()]}

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer is counted, and every error is JSON."""
        begin = time.perf_counter()
        try:
            response = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            response = _error(413, f"the body is larger than {self.limits.body:,} bytes")
        except web.HTTPException as error:
            response = _error(error.status, error.reason)
            response.headers.update({k: v for k, v in error.headers.items() if k == "Allow"})
        except Exception:  # a fault of this program: whoever runs it wants to see where
            traceback.print_exc()
            response = _error(500, "internal error")
        if self._stopping:
            response.force_close()
        known = request.match_info.route.resource
        endpoint = known.canonical if known is not None else "other"
        self.metrics.request(endpoint, response.status, time.perf_counter() - begin)
        return response


_STATUS = {ImageForeign: 415, ImageTooLarge: 413}  # what is not here is 400


def _json(document: Any, status: int) -> web.Response:
    return web.Response(
        text=json.dumps(document, allow_nan=False), status=status, content_type="application/json"
    )


def _error(status: int, line: str) -> web.Response:
    return _json({"error": line}, status)


def _busy(line: str) -> web.Response:
    response = _error(503, line)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response
