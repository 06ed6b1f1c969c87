"""Load on `inception serve`: several clients that post images one after the other, and how long answers take.

    inception serve googlenet.plan --port 8000 &
    python -m benchmarks.serving http://127.0.0.1:8000 photos --clients 16 --requests 1000

A client has a connection of its own and sends its next image when the last one is answered. Needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from inception_engine.preprocess import find_images

LOST = 0  # the status of a request without an answer, or with one that no such server gives


@dataclass(frozen=True, kw_only=True)
class Answer:
    """To the request with the ``body`` of this index. ``document``: the JSON; None where it was lost."""

    body: int
    status: int
    seconds: float
    document: Any


async def load(url: str, bodies: Sequence[bytes], *, clients: int, requests: int) -> list[Answer]:
    """``requests`` in all, each with the next of ``bodies``, in the order in which they were answered."""
    numbers = iter(range(requests))
    answers: list[Answer] = []

    async def client() -> None:
        async with aiohttp.ClientSession() as session:
            for number in numbers:
                answer = await _post(session, f"{url}/classify", bodies, number % len(bodies))
                answers.append(answer)

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def _post(session: aiohttp.ClientSession, url: str, bodies: Sequence[bytes], which: int) -> Answer:
    begin = time.perf_counter()
    status, document = LOST, None
    try:
        async with session.post(url, data=bodies[which]) as response:
            document, status = await response.json(), response.status
    except (aiohttp.ClientError, TimeoutError, ValueError):
        pass  # no connection, one that ended too soon, no answer within aiohttp's time, or what is no JSON
    return Answer(body=which, status=status, seconds=time.perf_counter() - begin, document=document)


def summary(answers: Sequence[Answer], seconds: float, clients: int) -> dict[str, Any]:
    """Counts by status, and of the good answers images a second and percentiles of their latencies in milliseconds."""
    good = [1000 * answer.seconds for answer in answers if answer.status == 200]
    percentiles = {
        f"p{percent}_ms": round(float(np.percentile(good, percent)), 2) if good else None
        for percent in (50, 90, 99, 100)
    }
    return {
        "requests": len(answers),
        "clients": clients,
        "by_status": {str(key): count for key, count in sorted(Counter(a.status for a in answers).items())},
        "images_per_second": round(len(good) / seconds, 1),
        **percentiles,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description="Put load on `inception serve`.")
    parser.add_argument("url", help="http://ADDRESS:PORT")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG or PNG file, or a folder of them")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument(
        "--requests", type=int, default=400, metavar="N", help="of all together (default: 400)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    try:
        bodies = [path.read_bytes() for path in itertools.islice(find_images(options.images), 1000)]
        if not bodies or options.clients < 1 or options.requests < 1:
            raise OSError("no images" if not bodies else "--clients and --requests take 1 or more")
        at = urlsplit(options.url)  # raises ValueError
        if at.scheme not in ("http", "https") or not at.hostname:
            raise ValueError(f"{options.url} is not http://ADDRESS:PORT")
    except (OSError, ValueError) as error:
        print(f"benchmarks.serving: error: {error}", file=sys.stderr)
        return 2
    begin = time.perf_counter()
    answers = asyncio.run(
        load(options.url.rstrip("/"), bodies, clients=options.clients, requests=options.requests)
    )
    found = summary(answers, time.perf_counter() - begin, options.clients)
    if options.json:
        print(json.dumps(found))
    else:
        statuses = ", ".join(f"{count} with {status}" for status, count in found["by_status"].items())
        print(f"{found['requests']} requests of {found['clients']} clients: {statuses}")
        print(
            f"{found['images_per_second']} images/s; latency p50 {found['p50_ms']} ms, p90 {found['p90_ms']} ms, "
            f"p99 {found['p99_ms']} ms, longest {found['p100_ms']} ms"
        )
    return 0 if set(found["by_status"]) == {"200"} else 1


if __name__ == "__main__":
    sys.exit(main())
