"""`inception serve` before real clients on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import re
import resource
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="serving: aiohttp is not installed")
pytest.importorskip("prometheus_client", reason="serving: prometheus_client is not installed")

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

import inception_engine as ie
from benchmarks import serving as benchmark
from benchmarks.serving import LOST, Answer, load
from inception_engine import cli
from inception_engine.serve import connections
from inception_engine.serve.application import Limits, Server
from tests.serve.conftest import MAX_BATCH, Running

Serving = Callable[..., Running]


def got(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(text: str, name: str) -> float:
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def check(answers: list[Answer], expected: list[Any]) -> int:
    """That every good answer is the engine's own, to the last bit. Returns how many there are."""
    good = [answer for answer in answers if answer.status == 200]
    for answer in good:
        assert answer.document == expected[answer.body]
    return len(good)


def test_under_load_nothing_is_lost_and_every_answer_is_the_engines(
    serving: Serving, bodies: list[bytes], bad: list[tuple[bytes, int]], expected: list[Any]
) -> None:
    """Eight clients at once, bad requests among the good ones; the metrics say what the clients saw."""
    server = serving("--engines", "2", "--max-body", "0.2", "--max-wait-ms", "2")
    assert got(f"{server.url}/health") == (200, '{"status": "ready"}')
    mixed = [*bodies, *(body for body, _ in bad)]
    statuses = [200] * len(bodies) + [status for _, status in bad]
    requests = 24 * len(mixed)
    answers = asyncio.run(load(server.url, mixed, clients=8, requests=requests))
    assert len(answers) == requests
    assert check(answers, expected) == 24 * len(bodies)
    for answer in answers:
        assert answer.status == statuses[answer.body], answer
        if answer.status != 200:
            assert answer.document.keys() == {"error"} and "\n" not in answer.document["error"]
    text = got(f"{server.url}/metrics")[1]
    for status, count in Counter(statuses).items():
        assert (
            metric(text, f'inception_requests_total{{endpoint="/classify",status="{status}"}}') == 24 * count
        )
    assert metric(text, "inception_batch_size_sum") == 24 * len(bodies)
    assert metric(text, f'inception_batch_size_bucket{{le="{MAX_BATCH}.0"}}') == metric(
        text, "inception_batch_size_count"
    )
    assert metric(text, "inception_batch_size_count") < 24 * len(bodies)  # some were run together
    assert metric(text, "inception_queue_length") == 0
    assert metric(text, 'inception_request_seconds_count{endpoint="/classify"}') == requests
    out = server.stop()
    assert f"{24 * len(bodies)} with 200" in out


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["version", "long line", "length", "chunks", "TLS"],
)
def test_what_is_no_http_is_refused_and_leaves_no_traceback(serving: Serving, request_: bytes) -> None:
    server = serving("--timeout", "2")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(request_)
        assert client.recv(64).startswith(b"HTTP/1.")
    assert got(f"{server.url}/health")[0] == 200
    server.stop()  # asserts that nothing was printed


def test_sigterm_in_the_middle_of_load_loses_nothing_that_was_taken(
    serving: Serving, bodies: list[bytes], expected: list[Any]
) -> None:
    """All images that it took came back; what else was sent was refused, or met a closed connection."""
    server = serving("--max-wait-ms", "300")  # of 11 clients, 3 do not fill a batch: some always wait

    async def stopped_in_the_middle() -> tuple[list[Answer], str]:
        loading = asyncio.create_task(load(server.url, bodies, clients=11, requests=1200))
        while '"/classify",status="200"' not in await asyncio.to_thread(
            lambda: got(f"{server.url}/metrics")[1]
        ):
            await asyncio.sleep(0.01)
        out = await asyncio.to_thread(server.stop)
        return await loading, out

    answers, out = asyncio.run(stopped_in_the_middle())
    counts = Counter(answer.status for answer in answers)
    assert len(answers) == 1200 and counts.keys() <= {200, 503, LOST} and counts[LOST] > 0
    assert check(answers, expected) == counts[200] > 0
    assert f"requests taken: {counts[200]}; answered: {counts[200]} with 200" in out


class Gated:
    """An engine whose runs wait for ``gate``."""

    def __init__(self, engine: ie.Engine) -> None:
        self.gate = threading.Event()
        self.engine = engine
        self.run_ = engine.run

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def run(self, images: np.ndarray) -> np.ndarray:
        assert self.gate.wait(30)
        return self.run_(images)


Test = Callable[[Server, Any, aiohttp.ClientSession, str], Awaitable[None]]


@pytest.fixture
def in_process(plan: Path) -> Callable[[Limits, Test], None]:
    """Runs a test with a server that is not ready, an engine whose runs wait, a session and the server's address."""

    def run(limits: Limits, test: Test) -> None:
        async def body() -> None:
            server = Server(limits)
            with ie.Engine(plan, threads=1) as engine:
                gated = Gated(engine)
                async with TestServer(server.application) as at, aiohttp.ClientSession() as session:
                    try:
                        await test(server, gated, session, str(at.make_url("")).rstrip("/"))
                    finally:
                        gated.gate.set()
                server.close()

        asyncio.run(body())

    return run


async def post(session: aiohttp.ClientSession, url: str, body: Any) -> tuple[int, Any, Any]:
    async with session.post(f"{url}/classify?top_k=3", data=body) as response:
        return response.status, await response.json(), response.headers


async def health(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with session.get(f"{url}/health") as response:
        return response.status, (await response.json())["status"]


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_health_and_back_pressure(
    in_process: Callable[[Limits, Test], None], bodies: list[bytes], expected: list[Any]
) -> None:
    """Loading, ready, full, failing, stopping: nothing is taken that is not answered."""

    async def test(server: Server, engine: Gated, session: aiohttp.ClientSession, url: str) -> None:
        assert await health(session, url) == (503, "loading")
        status, document, headers = await post(session, url, bodies[0])
        assert (status, document, headers["Retry-After"]) == (503, {"error": "loading"}, "1")
        server.begin([engine])  # type: ignore[list-item]
        assert server.batcher is not None
        assert await health(session, url) == (200, "ready")
        taken = [asyncio.create_task(post(session, url, bodies[index])) for index in range(3)]
        await until(lambda: server.batcher is not None and server.batcher._held == 3)
        status, document, headers = await post(session, url, bodies[3])
        assert (status, document["error"], headers["Retry-After"]) == (503, "all 3 places are taken", "1")
        engine.gate.set()
        for index, task in enumerate(taken):
            assert (await task)[:2] == (200, expected[index])
        engine.run_ = lambda images: (_ for _ in ()).throw(ie.EngineError("the device is lost"))  # type: ignore
        assert (await post(session, url, bodies[0]))[:2] == (500, {"error": "the device is lost"})
        assert await health(session, url) == (503, "failing")
        engine.run_ = engine.engine.run
        assert (await post(session, url, bodies[0]))[0] == 200
        assert server.status == "ready" and await health(session, url) == (200, "ready")
        server.stop()
        assert await health(session, url) == (503, "stopping")
        assert (await post(session, url, bodies[0]))[0] == 503

    in_process(Limits(queue=3, max_wait=0.0), test)


def test_health_finds_out_whether_what_failed_works_again(
    in_process: Callable[[Limits, Test], None], bodies: list[bytes]
) -> None:
    """Without a request, by one image for all who ask at once, within the time; when ready, by none."""
    runs: list[np.ndarray] = []

    async def test(server: Server, engine: Gated, session: aiohttp.ClientSession, url: str) -> None:
        def failing(images: np.ndarray) -> np.ndarray:
            runs.append(images)
            raise ie.EngineError("the device is lost")

        def working(images: np.ndarray) -> np.ndarray:
            runs.append(images)
            return engine.engine.run(images)

        engine.run_ = failing  # type: ignore[assignment]
        engine.gate.set()
        server.begin([engine])  # type: ignore[list-item]
        assert await health(session, url) == (200, "ready") and runs == []
        assert (await post(session, url, bodies[0]))[0] == 500
        assert await health(session, url) == (503, "failing")
        assert len(runs) == 2 and runs[1].shape == runs[0].shape and not runs[1].any()
        engine.gate.clear()
        asking = [asyncio.create_task(health(session, url)) for _ in range(4)]
        batcher = server.batcher
        assert batcher is not None
        await until(lambda: batcher._held > 0)
        await asyncio.sleep(0.2)
        assert batcher._held == 1
        assert await asyncio.gather(*asking) == 4 * [(503, "failing")]
        assert batcher.length == batcher._held == 0
        engine.gate.set()
        await until(lambda: len(runs) == 3)
        engine.run_ = working  # type: ignore[assignment]
        assert await health(session, url) == (200, "ready")
        assert await health(session, url) == (200, "ready")
        assert len(runs) == 4 and server.taken == 1

    in_process(Limits(queue=9, max_wait=0.0, timeout=2.0), test)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_health_is_that_of_all_engines(
    broken: int, in_process: Callable[[Limits, Test], None], bodies: list[bytes]
) -> None:
    """One fails, whichever it is, while the others answer: it alone is tried, and its success ends it."""
    requests = 60

    async def test(server: Server, engine: Gated, session: aiohttp.ClientSession, url: str) -> None:
        works = False
        failed = 0
        black: list[int] = []

        def run(number: int, images: np.ndarray) -> np.ndarray:
            nonlocal failed
            if not images.any():
                black.append(number)
            if number == broken and not works:
                failed += 1
                raise ie.EngineError("the device is lost")
            return engine.engine.run(images)

        engines = [Gated(engine.engine) for _ in range(3)]
        for number, one in enumerate(engines):
            one.run_ = functools.partial(run, number)  # type: ignore[assignment]
        server.begin(engines, max_batch=1)  # type: ignore[arg-type]
        assert await health(session, url) == (200, "ready") and black == []
        taken = [asyncio.create_task(post(session, url, bodies[0])) for _ in engines]
        engines[broken].gate.set()  # the others hold an image each, so it gets one, too
        await until(lambda: failed > 0)
        for one in engines:
            one.gate.set()
        await asyncio.gather(*taken)
        for _ in range(requests):
            await post(session, url, bodies[0])
            assert await health(session, url) == (503, "failing")
        assert black == requests * [broken]
        works = True
        assert await health(session, url) == (200, "ready") and black[requests:] == [broken]
        assert await health(session, url) == (200, "ready") and len(black) == requests + 1

    in_process(Limits(queue=9, max_wait=0.0), test)


def test_time_limits(in_process: Callable[[Limits, Test], None], bodies: list[bytes]) -> None:
    """A result that does not come, and a body that does not; both give their place back."""

    async def test(server: Server, engine: Gated, session: aiohttp.ClientSession, url: str) -> None:
        server.begin([engine])  # type: ignore[list-item]
        status, document, _ = await post(session, url, bodies[0])
        assert (status, document) == (504, {"error": "no result within the time"})
        status, document, _ = await post(session, url, bodies[0])
        assert status == 504
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 30)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"did not come within the time" in answer
        writer.close()
        assert server.batcher is not None and server.batcher._held == 0

    in_process(Limits(queue=1, timeout=0.3), test)


def test_connections_that_send_no_whole_header_are_closed(serving: Serving, bodies: list[bytes]) -> None:
    """Silent or slow, from the beginning or behind a request; what is used, or waits for its body, stays."""
    server = serving("--idle-timeout", "1")
    address = server.url.removeprefix("http://")
    host, port = address.split(":")
    begin = time.monotonic()
    slow, silent, after = (socket.create_connection((host, int(port)), timeout=30) for _ in range(3))
    used = http.client.HTTPConnection(address, timeout=30)
    used.connect()
    first = used.sock
    with slow, silent, after, socket.create_connection((host, int(port)), timeout=30) as body:
        after.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /hea")
        half = len(bodies[0]) // 2
        head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: {len(bodies[0])}\r\n\r\n"
        body.sendall(head.encode() + bodies[0][:half])
        slow.settimeout(0.1)
        slow.sendall(b"GET /health HTTP/1.1\r\nX: ")
        closed = False
        while not closed:
            assert time.monotonic() < begin + 30
            try:
                slow.sendall(b"a")
                closed = slow.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionError:  # closed before the last byte came
                closed = True
            used.request("GET", "/health")
            assert used.getresponse().read() == b'{"status": "ready"}'
        assert time.monotonic() >= begin + 0.9
        assert silent.recv(1) == b""
        with after.makefile("rb") as answer:
            assert answer.read().endswith(b'{"status": "ready"}')
        used.request("GET", "/health")
        assert used.getresponse().read() == b'{"status": "ready"}' and used.sock is first
        body.sendall(bodies[0][half:])
        assert body.recv(64).startswith(b"HTTP/1.1 200 ")
        used.close()
    server.stop()


def files(server: Running) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_so_many_connections_are_open_and_the_others_wait(serving: Serving) -> None:
    server = serving("--connections", "3")
    host, port = server.url.removeprefix("http://").split(":")
    before = files(server)
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(40)
        ]
        for connection in held:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        for connection in held[:3]:
            assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
        held[3].settimeout(0.5)
        with pytest.raises(TimeoutError):
            held[3].recv(64)
        assert files(server) <= before + 3
        for number, connection in enumerate(held[3:]):
            held[number].close()
            connection.settimeout(30)
            assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
        assert files(server) <= before + 3
    server.stop()


def test_when_files_run_out_it_pauses_and_says_so_once(serving: Serving) -> None:
    server = serving()
    process = server.process
    host, port = server.url.removeprefix("http://").split(":")
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files(server) + 3, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
        time.sleep(2.5)  # several attempts
    assert got(f"{server.url}/health") == (200, '{"status": "ready"}')
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == "inception: note: no connection can be taken now: Too many open files\n"


def test_connections_fit_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1024
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert [connections.most(None, queue) for queue in (1, 64, 300, 1000)] == [512, 512, 600, 896]
    assert connections.most(896, 64) == 896
    message = (
        r"--connections is 897, and of the 1024 files that may be open \(ulimit -n\) 896 are left for them"
    )
    with pytest.raises(ie.EngineError, match=message):
        connections.most(897, 64)
    limit = 100
    assert connections.most(None, 64) == connections.most(1, 64) == 1
    limit = resource.RLIM_INFINITY
    assert connections.most(None, 1000) == 2000 and connections.most(100_000, 1) == 100_000


def test_a_client_that_is_gone_leaves_no_work(serving: Serving, bodies: list[bytes]) -> None:
    """The only place is free again, and its image waits no more, long before the batch would have gone out."""
    server = serving("--queue", "1", "--max-wait-ms", "60000", "--max-batch", "2")

    def queue_becomes(length: int) -> None:
        end = time.monotonic() + 30
        while metric(got(f"{server.url}/metrics")[1], "inception_queue_length") != length:
            assert time.monotonic() < end
            time.sleep(0.01)

    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: {len(bodies[0])}\r\n\r\n"
            connection.sendall(head.encode() + bodies[0])
            queue_becomes(1)
        queue_becomes(0)
    server.stop()


def test_the_load_command_reports_percentiles(
    serving: Serving, bodies: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serving()
    (tmp_path / "a.png").write_bytes(bodies[0])
    command = [server.url, str(tmp_path), "--clients", "3", "--requests", "20"]
    assert benchmark.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by_status"] == {"200": 20} and found["clients"] == 3
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] <= found["p100_ms"]
    assert benchmark.main(command) == 0
    assert re.search(r"^20 requests of 3 clients: 20 with 200\n.* p99 [\d.]+ ms", capsys.readouterr().out)
    assert benchmark.main([server.url, str(tmp_path / "none")]) == 2
    Image.new("RGB", (5, 5)).save(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert benchmark.main(command) == 1
    server.stop()


def test_the_load_command_tells_other_servers_and_addresses(
    bodies: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not answer as ours does is lost, and what is no address is a mistake."""

    async def text(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def no_json(_: web.Request) -> web.Response:
        return web.Response(body=b"{\xff", content_type="application/json")

    async def cut_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.close()
        return response

    async def late(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.json_response({})

    async def statuses(handler: Any) -> list[int]:
        application = web.Application()
        application.router.add_post("/classify", handler)
        async with TestServer(application) as at:
            answers = await load(str(at.make_url("")).rstrip("/"), bodies, clients=2, requests=4)
        assert all(answer.document is None for answer in answers)
        return [answer.status for answer in answers]

    for handler in (text, no_json, cut_off):
        assert asyncio.run(statuses(handler)) == 4 * [LOST], handler
    session = functools.partial(aiohttp.ClientSession, timeout=aiohttp.ClientTimeout(total=0.1))
    monkeypatch.setattr(aiohttp, "ClientSession", session)
    assert asyncio.run(statuses(late)) == 4 * [LOST]
    (tmp_path / "a.png").write_bytes(bodies[0])
    for url in ("127.0.0.1:8000", "localhost:8000", "ftp://localhost", "http://", "http://[::1"):
        assert benchmark.main([url, str(tmp_path)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("benchmarks.serving: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none.plan"], "none.plan: No such file or directory"),
        (["{tmp}/text"], "text"),
        (["{plan}", "--max-batch", "5"], "--max-batch 5, and the plan takes 1 to 4 images"),
        (["{plan}", "--port", "70000"], "--port is 70000, not from 0 to 65535"),
        (["{plan}", "--timeout", "nan"], "--timeout is nan, not from 0.001 to 3600"),
        (["{plan}", "--queue", "0"], "--queue is 0, not from 1 to 100000"),
        (["{plan}", "--connections", "0"], "--connections is 0, not from 1 to 100000"),
        (["{plan}", "--idle-timeout", "0"], "--idle-timeout is 0, not from 0.001 to 3600"),
        (["{plan}", "--device", "tpu"], "unknown device 'tpu'"),
        (["{plan}", "--host", "192.0.2.1"], "192.0.2.1, port 0: Cannot assign requested address\n"),
        (["{plan}", "--host", 70 * "é"], f"cannot listen on {70 * 'é'}, port 0: not the name of a host\n"),
        (["{plan}", "--host", "a..b"], "cannot listen on a..b, port 0: not the name of a host\n"),
        (["{plan}", "--host", "::zz"], "cannot listen on ::zz, port 0: "),
    ],
)
def test_mistakes_are_a_line(
    arguments: list[str], message: str, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no plan")
    words = [word.format(tmp=tmp_path, plan=plan) for word in arguments]
    assert cli.main(["serve", "--port", "0", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("inception: error: ") and err.count("\n") == 1 and message in err
    assert "attempting" not in err  # Python's own words behind the reason


def test_a_port_in_use_and_a_missing_package(
    plan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(plan), "--port", str(port)]) == 2
    message = f"cannot listen on 127.0.0.1, port {port}: Address already in use"
    assert capsys.readouterr().err == f"inception: error: {message}\n"
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert cli.main(["serve", str(plan), "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert "prometheus_client" in err and err.count("\n") == 1
