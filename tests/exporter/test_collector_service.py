import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from exporter.collector import Collector
from flowvis.errors import ApiError
from flowvis.exporter import collector_service
from flowvis.exporter.collector_service import CollectorService
from flowvis.inventory.sources.api import KubernetesApi
from flowvis.lab.apiserver import ApiServer, status
from flowvis.runtime.backoff import Backoff
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client
from inventory.kubernetes_objects import service
from inventory.test_watch import Plain, running
from ports import free_port
from waiting import until

ADDRESS = CollectorAddress("shop/flow-aggregator", 4739)
DNS = "flow-aggregator.shop.svc"
PORT = {"port": 4739, "protocol": "TCP"}


@asynccontextmanager
async def asking(server: ApiServer) -> AsyncIterator[CollectorService]:
    api = KubernetesApi(Plain(server.url))
    api.open()
    yield CollectorService(lambda: api)
    await api.close()


def collector(*ips: str, **spec: Any) -> dict[str, Any]:
    return service("flow-aggregator", list(ips), *spec.pop("ports", [PORT]), **spec)


async def test_a_service_is_its_cluster_ips_the_first_family_first() -> None:
    async with running(ApiServer()) as server, asking(server) as services:
        server.put(collector("10.96.0.7", "fd00::7"))
        assert await services.hosts(ADDRESS) == ["10.96.0.7", "fd00::7"]
        server.put(collector("fd00::8", "10.96.0.8"))
        assert await services.hosts(ADDRESS) == ["fd00::8", "10.96.0.8"]
        server.put(collector("10.96.0.9", clusterIPs=None))
        assert await services.hosts(ADDRESS) == ["10.96.0.9"]


async def test_what_is_no_service_is_a_matter_of_dns() -> None:
    async with running(ApiServer()) as server, asking(server) as services:
        assert await services.hosts(CollectorAddress("192.0.2.1")) == ["192.0.2.1"]
        assert await services.hosts(CollectorAddress("collector.example")) == ["collector.example"]
        assert server.requests == []


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (None, "there is none; create it, or name another in flowExporter.flowCollectorAddr"),
        (collector("None"), f"is headless: give it a ClusterIP, or write {DNS}"),
        (collector("", type="ExternalName", externalName="c.example"), "write c.example itself"),
        (collector(""), "has no ClusterIP yet"),
        (collector("nonsense"), "'nonsense' is no IP address"),
        (collector("10.96.0.7") | {"spec": None}, "has no spec"),
    ],
)
async def test_a_service_that_cannot_be_used(item: dict[str, Any] | None, problem: str) -> None:
    async with running(ApiServer()) as server, asking(server) as services:
        server.put(collector("10.96.0.7"))
        await services.hosts(ADDRESS)
        server.remove(collector(""))
        if item is not None:
            server.put(item)
        with pytest.raises(ApiError, match=f"^Service shop/flow-aggregator: .*{problem}"):
            await services.hosts(ADDRESS)


async def test_the_port_is_one_of_the_protocol(caplog: pytest.LogCaptureFixture) -> None:
    datagrams = replace(ADDRESS, protocol="udp")
    async with running(ApiServer()) as server, asking(server) as services:
        udp = {"port": 4739, "protocol": "UDP"}
        server.put(collector("10.96.0.7", ports=[udp, {"port": 4740}]))
        await services.hosts(datagrams)
        assert not caplog.records
        server.put(collector("10.96.0.7", ports=[{"port": 4739}]))
        await services.hosts(datagrams)
    assert "has no UDP port 4739, only none" in caplog.text


async def test_another_port_is_only_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with running(ApiServer()) as server, asking(server) as services:
        udp = {"port": 4739, "protocol": "UDP"}
        server.put(collector("10.96.0.7", ports=[udp, {"port": 4740}]))
        assert await services.hosts(ADDRESS) == ["10.96.0.7"]
        server.put(collector("10.96.0.7", ports=[]))
        await services.hosts(ADDRESS)
        server.put(collector("10.96.0.7"))
        await services.hosts(ADDRESS)
    texts = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(texts) == 2
    assert "Service shop/flow-aggregator: has no TCP port 4739, only 4740" in texts[0]
    assert "only none" in texts[1]


async def test_without_an_answer_it_is_where_it_was_then_dns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_service, "ASK_S", 2.0)

    async with running(ApiServer(port=free_port())) as server, asking(server) as services:
        server.put(collector("10.96.0.7"))
        with server.failing(lambda _: status(403, "services is forbidden")):
            assert await services.hosts(ADDRESS) == [DNS]
        assert await services.hosts(ADDRESS) == ["10.96.0.7"]
        await server.stop()
        assert await services.hosts(ADDRESS) == ["10.96.0.7", DNS]
        with socket.create_server(("127.0.0.1", server.port)):  # nobody accepts
            assert await services.hosts(ADDRESS) == ["10.96.0.7", DNS]
        await server.start()
        server.remove(collector(""))
        with pytest.raises(ApiError, match="there is none"):
            await services.hosts(ADDRESS)
        await server.stop()
        assert await services.hosts(ADDRESS) == [DNS]
    texts = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "services is forbidden); trying flow-aggregator.shop.svc" in texts[0]
    assert "trying 10.96.0.7, then flow-aggregator.shop.svc" in texts[1]
    assert "no answer in 2 s" in texts[2]


async def test_each_attempt_asks_anew() -> None:
    """The Service is made anew with another ClusterIP; then it is missed, and the API as well."""
    async with (
        running(ApiServer(port=free_port())) as server,
        asking(server) as services,
        Collector() as there,
    ):
        address = CollectorAddress(ADDRESS.host, there.port, "tcp")
        port = {"port": there.port}
        server.put(collector("127.0.0.9", ports=[port]))  # where nobody listens
        client = Client(address, hosts=services.hosts, backoff=Backoff(0.01, 0.05))
        connecting = asyncio.create_task(client.connect())
        await until(lambda: client.stats.attempts >= 3)
        assert not client.connected
        server.put(collector("127.0.0.9", "127.0.0.1", ports=[port]))
        await connecting
        await server.stop()
        await there.crash()
        await client.lost()
        await there.come()
        await client.connect()
        assert client.stats.sessions == 2
        await client.close()
