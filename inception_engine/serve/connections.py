"""Which connections a server takes: so many at once, and none while the system has no file for one.

aiohttp and asyncio take whatever comes; where that fails, asyncio writes a hundred tracebacks and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from inception_engine.errors import ArgumentError

if TYPE_CHECKING:
    from aiohttp import web

USUAL = 512  # connections; with a long queue two for each of its places
OWN_FILES = 128  # that this process has or opens beside connections: plans, packages, devices
_LOOK = 0.02  # seconds until a server that is full looks for room again
_PAUSE = 1.0  # seconds until the next attempt where none can be taken
_QUIET = 60.0  # seconds without a failure, after which the next one is told


def most(wanted: int | None, queue: int) -> int:
    """How many connections may be open at once: ``wanted``, or what suits ``queue`` requests, as far as the system's
    limit of open files goes. Raises ArgumentError where ``wanted`` lies beyond it."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = sys.maxsize if files == resource.RLIM_INFINITY else max(1, files - OWN_FILES)
    if wanted is None:
        return min(max(USUAL, 2 * queue), room)
    if wanted > room:
        raise ArgumentError(
            f"--connections is {wanted}, and of the {files} files that may be open (ulimit -n) {room} are left for them"
        )
    return wanted


async def accept(listening: socket.socket, server: web.Server, most: int) -> NoReturn:
    """Give the server every connection that comes, until this is cancelled. While ``most`` are open, others wait in the
    system's queue, where they cost no file."""
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    failed = -math.inf
    while True:
        while len(server.connections) >= most:
            await asyncio.sleep(_LOOK)
        try:
            connection, _ = await loop.sock_accept(listening)
            await loop.connect_accepted_socket(server, connection)
        except ConnectionAbortedError:  # it is gone already
            pass
        except OSError as error:
            before, failed = failed, loop.time()
            if failed - before > _QUIET:
                reason = os.strerror(error.errno) if error.errno else str(error)
                note = f"inception: note: no connection can be taken now: {reason}"
                with contextlib.suppress(OSError):  # nobody reads it, or the disk is full
                    print(note, file=sys.stderr, flush=True)
            await asyncio.sleep(_PAUSE)
