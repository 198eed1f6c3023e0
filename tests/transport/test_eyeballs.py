import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowvis.errors import FlowvisError
from flowvis.transport import client as client_module
from flowvis.transport import eyeballs
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client
from flowvis.transport.eyeballs import Place, Race, resolve
from flowvis.transport.server import Server
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S

from .conftest import Pki, Recorders, make_pki, serving
from .test_client import FAST

V4, V6 = socket.AF_INET, socket.AF_INET6


@contextlib.contextmanager
def deaf(host: str, port: int = 0) -> Iterator[int]:
    """A port that no connection comes through to: its queue is full, so that SYNs are dropped."""
    family = V6 if ":" in host else V4
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket(family))
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def in_a_namespace(namespace: None) -> None:
    """With a loopback of its own, where no other program listens."""


def test_families_take_turns() -> None:
    places = [
        Place(V6, ("fd00::1", 1, 0, 0)),
        Place(V6, ("fd00::2", 1, 0, 0)),
        Place(V6, ("fd00::1", 1, 0, 0)),
        Place(V4, ("192.0.2.1", 1)),
        Place(V4, ("192.0.2.2", 1)),
        Place(V4, ("192.0.2.3", 1)),
    ]
    shown = [str(place) for place in eyeballs._in_turn(places)]
    assert shown == ["fd00::1", "192.0.2.1", "fd00::2", "192.0.2.2", "192.0.2.3"]


@pytest.mark.parametrize("deaf_host", ["::1", "127.0.0.1"])
async def test_a_family_that_is_filtered_costs_a_moment(
    deaf_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eyeballs, "DELAY_S", 0.05)
    monkeypatch.setattr(client_module, "CONNECT_S", 3600.0)
    other = "127.0.0.1" if deaf_host == "::1" else "::1"
    async with serving(Server(handlers := Recorders(), host=other)) as server:
        with deaf(deaf_host, server.port):

            async def hosts(address: CollectorAddress) -> list[str]:
                return [deaf_host, other]

            client = Client(CollectorAddress("ns/svc", server.port, "tcp"), hosts=hosts)
            async with asyncio.timeout(PATIENCE_S):
                await client.connect()
            assert client.stats.attempts == 1
            await client.close()
    assert len(handlers) == 1


async def test_addresses_of_one_name_are_tried_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(Server(handlers := Recorders(), host="127.0.0.1")) as server:
        with deaf("::1", server.port), deaf("127.0.0.3", server.port):
            found = [
                Place(V6, ("::1", server.port, 0, 0)),
                Place(V4, ("127.0.0.3", server.port)),
                Place(V4, ("127.0.0.2", server.port)),  # refused
                Place(V4, ("127.0.0.1", server.port)),
            ]

            async def resolved(host: str, port: int) -> list[Place]:
                assert (host, port) == ("collector.example", server.port)
                return found

            monkeypatch.setattr(client_module, "resolve", resolved)
            monkeypatch.setattr(client_module, "CONNECT_S", 3600.0)
            client = Client(CollectorAddress("collector.example", server.port, "tcp"), backoff=FAST)
            async with asyncio.timeout(PATIENCE_S):
                await client.connect()
            assert client.stats.attempts == 1
            await client.close()
    assert len(handlers) == 1


async def test_a_refusal_does_not_wait_for_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eyeballs, "DELAY_S", 3600.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        places = [Place(V6, ("::1", port, 0, 0)), Place(V4, ("127.0.0.1", port))]
        race = Race(places, 3600.0)
        async with asyncio.timeout(PATIENCE_S):
            won = await race.winner()
        assert won is not None
        assert won[1] == places[1]
        won[0].close()
        assert race.problems == ["::1: connection refused (does it run, and listen there?)"]
        assert await race.winner() is None


async def test_who_connects_but_is_no_collector_leaves_it_to_the_next(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake that never comes to an end, and one with a certificate of another CA."""
    monkeypatch.setattr(client_module, "CONNECT_S", 2.0)
    async with serving(Server(Recorders(), host="127.0.0.1", tls=pki.server)) as server:
        with socket.create_server(("127.0.0.2", server.port)):

            async def hosts(address: CollectorAddress) -> list[str]:
                return ["127.0.0.2", "127.0.0.1"]

            address = CollectorAddress("localhost", server.port)
            client = Client(address, pki.client, hosts=hosts, backoff=FAST)
            await client.connect()
            assert client.stats.attempts == 1
            await client.close()


async def test_all_that_failed_is_in_the_message(pki: Pki) -> None:
    async with serving(Server(Recorders(), host="127.0.0.1", tls=pki.server)) as server:

        async def hosts(address: CollectorAddress) -> list[str]:
            return ["no.such.host.invalid", "no..name", "::1", "127.0.0.1"]

        address = CollectorAddress("elsewhere", server.port)
        client = Client(address, pki.client, hosts=hosts)
        with pytest.raises((OSError, FlowvisError)) as caught:
            await client.attempt()
        text = str(caught.value)
    assert "no.such.host.invalid: the name is not resolved: " in text
    assert "no..name: the name is not resolved: no name" in text
    assert "::1: connection refused" in text
    assert "127.0.0.1: certificate not accepted: Hostname mismatch" in text
    assert " object at 0x" not in text


async def test_a_race_that_is_cut_short_leaves_no_socket(recwarn: pytest.WarningsRecorder) -> None:
    with deaf("127.0.0.1") as port, deaf("::1", port):
        places = [*await resolve("127.0.0.1", port), *await resolve("::1", port)]
        running = asyncio.create_task(Race(places, 10.0).winner())
        await asyncio.sleep(2 * eyeballs.DELAY_S)  # both are being tried
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) == 1
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


async def test_a_race_that_is_cut_short_by_its_end(recwarn: pytest.WarningsRecorder) -> None:
    """It has been won, and who lost is being let go."""
    with deaf("127.0.0.1") as port, socket.create_server(("::1", port), family=V6):
        places = [*await resolve("127.0.0.1", port), *await resolve("::1", port)]
        running = asyncio.create_task(Race(places, 10.0).winner())
        while not any(task.cancelling() for task in asyncio.all_tasks()):  # noqa: ASYNC110  no event says so
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) == 1
    del running
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


async def test_where_to_look_when_a_handshake_fails(pki: Pki, tmp_path: Path) -> None:
    async def problem(server: Server, files: TlsFiles | None, name: str = "localhost") -> str:
        async with serving(server):
            address = CollectorAddress(name, server.port)
            client = Client(address, files, hosts=lambda _: loopback())
            with pytest.raises(OSError) as caught:  # noqa: PT011  its text is looked at
                await client.attempt()
        return str(caught.value)

    async def loopback() -> list[str]:
        return ["127.0.0.1"]

    def server(tls: TlsFiles | None) -> Server:
        return Server(Recorders(), host="127.0.0.1", tls=tls)

    other = make_pki(tmp_path)
    text = await problem(server(other.server), pki.client)
    assert "127.0.0.1: certificate not accepted: self-signed certificate" in text
    assert "is it of the CA that is trusted here, and for this name?" in text
    ours = TlsFiles(pki.client.ca, other.client.certificate, other.client.key)
    text = await problem(server(pki.server), ours)
    assert "the collector refuses: has it the CA of our certificate" in text
    with socket.create_server(("127.0.0.1", 0)) as listener:
        chatter = asyncio.create_task(greet(listener))
        address = CollectorAddress("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(OSError, match="does it speak TLS at this port"):
            await Client(address, pki.client).attempt()
        await chatter


async def greet(listener: socket.socket) -> None:
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    with (await loop.sock_accept(listener))[0] as peer:
        await loop.sock_sendall(peer, b"220 mail.example ESMTP\r\n")
        await loop.sock_recv(peer, 1000)


@pytest.mark.parametrize("name", ["a..b", "n" * 64, "a\0b"])
async def test_a_name_that_nobody_can_ask_for_leads_nowhere(name: str) -> None:
    with pytest.raises(socket.gaierror):
        await resolve(name, 1)
