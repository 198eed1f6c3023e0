import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from flowvis.errors import SystemRefused
from flowvis.runtime import component, status
from flowvis.runtime.component import Supervisor
from flowvis.runtime.status import MAX_REQUEST_BYTES, StatusServer
from waiting import until


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
        ("POST /metrics HTTP/1.1\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 405),
        ("\r\n\r\n", 405),
        ("GET\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\n" + "x" * MAX_REQUEST_BYTES * 2 + "\r\n\r\n", 0),
        ("", 0),
    ],
)
async def test_other_requests(
    request_text: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "REQUEST_S", 0.3)
    async with serving() as server:
        with contextlib.suppress(ConnectionResetError):
            assert (await ask(server, request_text))[0] == code
        assert (await ask(server, get("/healthz")))[0] == 200


async def test_head_has_no_body() -> None:
    async with serving() as server:
        code, head, body = await ask(server, "HEAD /metrics HTTP/1.1\r\n\r\n")
        assert (code, body) == (200, "")
        assert "Content-Length: 0" not in head


async def test_more_connections_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MAX_CONNECTIONS", 2)
    async with serving() as server:
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await until(lambda: len(server._connections) == 2)
        with contextlib.suppress(ConnectionResetError):
            assert (await ask(server, get("/healthz")))[0] == 0
        for _, writer in waiting:
            writer.close()
        await until(lambda: not server._connections)
        assert (await ask(server, get("/healthz")))[0] == 200


async def test_stop_with_a_client_that_says_nothing() -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server._connections)
    assert await reader.read() == b""
    writer.close()


async def test_port_in_use() -> None:
    async with serving() as server:
        with pytest.raises(SystemRefused, match="Address already in use"):
            await StatusServer(CollectorRegistry(), port=server.port).start()


async def test_lag_of_the_loop_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BEAT_S", 0.01)
    async with serving() as server:
        await until(lambda: len(server._lags) > 1)  # it beats
        time.sleep(0.2)  # noqa: ASYNC251  what it is to notice
        await until(lambda: server.lag_s() > 0.1)
        assert server.lag_s() < 2
