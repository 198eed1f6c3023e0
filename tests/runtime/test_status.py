import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flowvis.errors import SystemRefused
from flowvis.runtime import component, http, scrape, status
from flowvis.runtime.component import Supervisor
from flowvis.runtime.http import MAX_REQUEST_BYTES
from flowvis.runtime.status import StatusServer
from waiting import PATIENCE_S, until


@contextlib.asynccontextmanager
async def serving(**options: object) -> AsyncIterator[StatusServer]:
    registry = CollectorRegistry()
    Counter("things", "Things", registry=registry).inc(3)
    server = StatusServer(registry, **options)  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: StatusServer, request: str, host: str = "127.0.0.1") -> tuple[int, str, str]:
    """Return status, head and body of the answer."""
    reader, writer = await asyncio.open_connection(host, server.port)
    writer.write(request.encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]) if head else 0, head, body


def get(path: str, *headers: str) -> str:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""])


async def test_metrics_in_both_formats_over_both_families() -> None:
    async with serving() as server:
        code, head, body = await ask(server, get("/metrics?x=1"))
        assert code == 200
        assert "text/plain; version=" in head
        assert "things_total 3.0" in body
        assert "flowvis_loop_lag_seconds" in body
        assert f"Content-Length: {len(body)}" in head
        accept = "Accept: application/openmetrics-text; version=1.0.0"
        code, head, body = await ask(server, get("/metrics", accept), "::1")
        assert "application/openmetrics-text" in head
        assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text; version=x", "application/openmetrics-text; version=1;q=", "="],
)
async def test_no_accept_header_fails_a_scrape(accept: str) -> None:
    async with serving() as server:
        code, head, body = await ask(server, get("/metrics", f"Accept: {accept}"))
    assert code == 200
    assert "text/plain; version=0.0.4; charset=utf-8" in head
    assert "things_total 3.0" in body


async def test_health_and_readiness() -> None:
    problems = {"store": "", "table": ""}
    checks = {name: lambda name=name: problems[name] for name in problems}
    async with serving(ready=checks) as server:
        assert (await ask(server, get("/readyz")))[::2] == (200, "ok\n")
        assert (await ask(server, get("/healthz")))[::2] == (200, "ok\n")
        problems["store"] = "no connection"
        assert (await ask(server, get("/readyz")))[::2] == (503, "store: no connection\n")
        assert (await ask(server, get("/healthz")))[0] == 200


async def test_stopping_is_not_ready_and_failed_is_not_healthy() -> None:
    roof = Supervisor()
    token = component._SUPERVISOR.set(roof)
    try:
        async with serving() as server:
            assert (await ask(server, get("/readyz")))[0] == 200
            roof.stopping = True
            assert (await ask(server, get("/readyz")))[::2] == (503, "stopping\n")
            assert (await ask(server, get("/healthz")))[0] == 200
            roof.fail()
            assert (await ask(server, get("/healthz")))[::2] == (503, "a root task has failed\n")
    finally:
        component._SUPERVISOR.reset(token)


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        (get("/"), 200),
        (get("/other"), 404),
        (get("http://x:9740/healthz?a"), 200),
        (get("HTTP://x"), 200),
        (get("http://x/other"), 404),
        ("POST /metrics HTTP/1.1\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 405),
        ("\r\n\r\n", 405),
        ("GET\r\n\r\n", 404),
        ("GET / HTTP/1.0\r\n\r\n", 200),
        (get("/") + get("/metrics") * 1000, 200),
        ("GET / HTTP/1.1\r\nContent-Length: 999999\r\n\r\n" + "x" * 999_999, 200),
        ("GET / HTTP/1.1\r\n" + "x" * MAX_REQUEST_BYTES * 2 + "\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\n" + "x: y\r\n" * 200_000, 431),
        ("", 0),
    ],
)
async def test_other_requests(
    request_text: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.3)
    async with serving() as server:
        with contextlib.suppress(ConnectionResetError):
            assert (await ask(server, request_text))[0] == code
        assert (await ask(server, get("/healthz")))[0] == 200


async def test_head_has_no_body() -> None:
    async with serving() as server:
        code, head, body = await ask(server, "HEAD /metrics HTTP/1.1\r\n\r\n")
        assert (code, body) == (200, "")
        assert "Content-Length: 0" not in head


async def connect(server: StatusServer, source: str) -> socket.socket:
    """Open a connection from an address of this machine, and ask nothing."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    return sock


@pytest.mark.parametrize("sources", [1, 300], ids=["one address", "many addresses"])
def test_a_probe_is_answered_whatever_stands_idle(sources: int) -> None:
    """On the daemons' own loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_probe(sources))


async def _probe(sources: int) -> None:
    """Idle connections to the limit and beyond, and such that come again when they are closed."""
    async with serving(host="0.0.0.0") as server:
        places = [n % sources for n in range(300)]
        idle = [await connect(server, f"127.9.{n // 200}.{n % 200}") for n in places]
        await until(lambda: server.http.stats.closed["gave-way"] >= 300 - http.WAITING)
        through = asyncio.Event()
        coming = asyncio.create_task(_come_again(server, idle, through))
        for path in ("/healthz", "/readyz", "/metrics", "/healthz"):
            assert (await ask(server, get(path)))[0] == 200
            assert len(server.http.waiting) <= http.WAITING
        through.set()
        await coming
        for sock in idle:
            sock.close()


async def _come_again(
    server: StatusServer, idle: list[socket.socket], through: asyncio.Event
) -> None:
    n = 0
    while not through.is_set():
        n += 1
        idle.pop(0).close()
        idle.append(await connect(server, f"127.9.2.{n % 200}"))


async def test_one_address_takes_no_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WAITING", 3)
    async with serving(host="0.0.0.0") as server:
        others = [await connect(server, f"127.9.0.{n}") for n in (1, 2)]
        await until(lambda: len(server.http.waiting) == 2)
        crowd = [await connect(server, "127.9.9.9") for _ in range(20)]
        await until(lambda: server.http.stats.closed["gave-way"] == 19)
        for sock in others:
            sock.send(get("/healthz").encode())
            assert await asyncio.get_running_loop().sock_recv(sock, 9) == b"HTTP/1.1 "
        for sock in (*others, *crowd):
            sock.close()


async def test_a_request_in_drops_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that go on coming do not buy more of it."""
    monkeypatch.setattr(http, "REQUEST_S", 0.2)
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            with contextlib.suppress(OSError):
                writer.write(b"x")
            await asyncio.sleep(0.01)
        assert ended.exception() is not None or ended.result() == b""
        assert server.http.stats.closed == {"timeout": 1}
        writer.close()


async def test_who_does_not_read_the_answer_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWERING", 4)
    monkeypatch.setattr(http, "ANSWER_S", 60.0)
    async with serving() as server:
        readers = []
        for _ in range(12):
            sock = await connect(server, "127.0.0.1")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.send(get("/metrics").encode())
            readers.append(sock)
        await until(lambda: server.http.stats.closed["gave-way"] >= 8)
        assert (await ask(server, get("/healthz")))[0] == 200
        assert len(server.http.answering) <= 4
        for sock in readers:
            sock.close()


async def test_many_who_ask_for_metrics_share_a_page() -> None:
    """Collecting costs no more of the loop than it may, however many ask."""
    collected = 0

    class Costly(Collector):
        def collect(self) -> Iterator[Metric]:
            nonlocal collected
            collected += 1
            began = time.thread_time()
            while time.thread_time() - began < 0.01:
                pass
            yield GaugeMetricFamily("costly", "x", value=collected)

    async with serving() as server:
        server.registry.register(Costly())
        began, before = time.monotonic(), collected
        answers = await asyncio.gather(*(ask(server, get("/metrics")) for _ in range(20)))
        answers += await asyncio.gather(*(ask(server, get("/metrics")) for _ in range(20)))
        assert {code for code, *_ in answers} == {200}
        most = 2 + (time.monotonic() - began) / (0.01 / scrape.SHARE)
        assert collected - before <= most


async def test_a_page_that_costs_much_is_made_again_before_a_scrape_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "SHARE", 1e-6)
    monkeypatch.setattr(scrape, "LONGEST_S", 0.05)
    async with serving() as server, asyncio.timeout(PATIENCE_S):
        assert (await ask(server, get("/metrics")))[0] == 200
        assert (await ask(server, get("/metrics")))[0] == 200


async def test_a_defect_is_an_answer_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Collector):
        broken = False

        def collect(self) -> Iterator[Metric]:
            if self.broken:
                raise ZeroDivisionError
            return iter(())

    def check() -> str:
        raise KeyError("x")

    async with serving(ready={"x": check}) as server:
        server.registry.register(collector := Broken())
        collector.broken = True
        assert (await ask(server, get("/metrics")))[0] == 500
        assert (await ask(server, get("/readyz")))[0] == 500
        collector.broken = False
        assert (await ask(server, get("/metrics")))[0] == 200
        assert (await ask(server, get("/healthz")))[0] == 200
    assert "metrics cannot be collected" in caplog.text
    assert "defect of ours" in caplog.text


async def test_a_client_that_ends_its_side_first_is_answered() -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/metrics").encode())
        writer.write_eof()
        assert b"things_total" in await reader.read()
        writer.close()
        await until(lambda: not len(server.http.answering))


async def test_stop_with_clients_that_say_nothing() -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: len(server.http.waiting))
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


async def test_port_in_use() -> None:
    async with serving() as server:
        with pytest.raises(SystemRefused, match="Address already in use"):
            await StatusServer(CollectorRegistry(), port=server.port).start()


async def test_lag_of_the_loop_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BEAT_S", 0.01)
    began = time.monotonic()
    async with serving() as server:
        await until(lambda: len(server._lags) > 1)  # it beats
        time.sleep(0.2)  # noqa: ASYNC251  what it is to notice
        await until(lambda: server.lag_s() > 0.1)
        assert server.lag_s() < time.monotonic() - began
