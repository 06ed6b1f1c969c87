"""The command `inception serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from inception_engine.errors import ArgumentError
from inception_engine.terminal import printable_path

if TYPE_CHECKING:
    from inception_engine.engine import Engine
    from inception_engine.serve.application import Server

GRACE = 5.0  # seconds that a request in progress has beyond its own limit, when the server stops

_RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "max_batch": (1, 4096),
    "max_wait_ms": (0, 60_000),
    "engines": (1, 256),
    "threads": (0, 1024),
    "queue": (1, 100_000),
    "connections": (1, 100_000),
    "idle_timeout": (0.001, 3600),
    "max_body": (0.001, 1000),
    "timeout": (0.001, 3600),
    "top_k": (1, 1_000_000),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plan", metavar="PLAN|NETWORK", help="a plan, or whatever `inception import` takes; or digits"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0: a free one (default: 8000)")
    parser.add_argument(
        "--max-batch", type=int, metavar="N", help="images of a run (default: the plan's, or 8)"
    )
    parser.add_argument(
        "--max-wait-ms", type=float, default=5.0, metavar="X",
        help="how long an image waits for others to fill its batch (default: 5)",
    )  # fmt: skip
    parser.add_argument(
        "--engines", type=int, default=1, metavar="N", help="that run batches side by side (default: 1)"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="of each engine (default: all processors, shared)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--queue", type=int, default=64, metavar="N",
        help="requests taken and not yet answered; more are told to come back (default: 64)",
    )  # fmt: skip
    parser.add_argument(
        "--max-body", type=float, default=16.0, metavar="MB", help="of an image file (default: 16)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="seconds for a request (default: 30)"
    )
    parser.add_argument(
        "--connections", type=int, metavar="N",
        help="open at once; more wait (default: 512, or twice --queue, as far as the limit of open files goes)",
    )  # fmt: skip
    parser.add_argument(
        "--idle-timeout", type=float, default=75.0, metavar="S",
        help="seconds in which the whole header of a connection's next request has to come (default: 75)",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="classes of an answer (default: 5)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0. Raises EngineError, OSError, what loading the network raises."""
    from inception_engine import packages
    from inception_engine.serve import connections

    _check(arguments)
    most = connections.most(arguments.connections, arguments.queue)
    for name in ("aiohttp", "prometheus_client"):
        packages.load(name)
    with _listening(arguments.host, arguments.port) as listening:
        asyncio.run(_serve(arguments, listening, most))
    return 0


async def _serve(arguments: argparse.Namespace, listening: socket.socket, most: int) -> None:
    from aiohttp import web
    from aiohttp.log import server_logger

    from inception_engine.serve import connections, engines
    from inception_engine.serve.application import Limits, Server

    server = Server(
        Limits(
            max_wait=arguments.max_wait_ms / 1000,
            queue=arguments.queue,
            body=int(arguments.max_body * 1e6),
            timeout=arguments.timeout,
            top_k=arguments.top_k,
        )
    )
    # A client that is gone cancels its request; one that the server waits for when it stops has all its time.
    runner = web.AppRunner(
        server.application,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=arguments.idle_timeout,  # runs from a connection's beginning, too
        shutdown_timeout=arguments.timeout + GRACE,
    )
    server_logger.addFilter(_is_no_mistake_of_a_client)
    await runner.setup()
    stopped = asyncio.Event()
    _on_signals(stopped)
    loaded: list[Engine] = []
    assert runner.server is not None  # it is set up
    accepting = asyncio.create_task(connections.accept(listening, runner.server, most))
    accepting.add_done_callback(lambda _: stopped.set())  # by a fault of this program, which is raised below
    try:
        host, port = listening.getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        loaded += await asyncio.to_thread(
            engines.load,
            arguments.plan,
            engines=arguments.engines,
            threads=arguments.threads,
            device=arguments.device,
            max_batch=arguments.max_batch,
        )
        server.begin(loaded, arguments.max_batch)
        print(_ready(arguments.plan, loaded, server), flush=True)
        await stopped.wait()
        print("stopping: no more requests are taken, and those that were are answered", flush=True)
    finally:
        server.stop()
        accepting.cancel()
        await asyncio.wait([accepting])
        listening.close()
        await runner.cleanup()
        await asyncio.to_thread(server.close)
        engines.close(loaded)
    if not accepting.cancelled():
        await accepting
    counts = ", ".join(f"{count} with {status}" for status, count in sorted(server.metrics.answered.items()))
    print(f"stopped; requests taken: {server.taken}; answered: {counts or 'none'}", flush=True)


def _is_no_mistake_of_a_client(record: logging.LogRecord) -> bool:
    """What is no HTTP is answered with 400, and is not worth the traceback that aiohttp would print."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _ready(name: str, engines: list[Engine], server: Server) -> str:
    engine = engines[0]
    assert server.batcher is not None
    many = f"{len(engines)} engines" if len(engines) > 1 else "an engine"
    notes = f"; running on the CPU: {engine.note}" if engine.note else ""
    random = "; its weights are random, the classes mean nothing" if engine.random_weights else ""
    where = f"{many} ({engine.device}, {engine.isa}), batches up to {server.batcher.max_batch}"
    return f"ready: {printable_path(name)} on {where}{notes}{random}"


def _on_signals(stopped: asyncio.Event) -> None:
    """The first signal stops the server; a second one finds the system's own handlers, which end it."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Names are looked up here first: create_server adds words of its own to what the lookup says.
        socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=family, backlog=1024)
    except socket.gaierror as error:
        reason = error.strerror
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
    except (UnicodeError, TypeError):  # of a name that cannot be encoded for the lookup
        reason = "not the name of a host"
    raise ArgumentError(f"cannot listen on {host}, port {port}: {reason}")


def _check(arguments: argparse.Namespace) -> None:
    """Raises ArgumentError."""
    for name, (least, most) in _RANGES.items():
        value = getattr(arguments, name)
        if value is not None and not least <= value <= most:
            option = name.replace("_", "-")
            raise ArgumentError(f"--{option} is {value:g}, not from {least:g} to {most:g}")
