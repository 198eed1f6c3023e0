"""Our client against our server and against sockets that misbehave."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowvis.errors import ApiError
from flowvis.runtime.backoff import Backoff
from flowvis.transport import client as client_module
from flowvis.transport import connection as connection_module
from flowvis.transport.address import CollectorAddress
from flowvis.transport.certificates import issue_client, issue_server
from flowvis.transport.client import Client, ConnectionLost
from flowvis.transport.server import Server
from flowvis.transport.tls import TlsFiles
from ports import free_port
from waiting import PATIENCE_S, until

from .conftest import Pki, Recorders, Run, client_of, make_pki, serving

MESSAGE = bytes(range(256)) * 255


@contextlib.asynccontextmanager
async def accepted() -> AsyncIterator[tuple[Client, socket.socket]]:
    """A client over TCP, and the collector's end of its session."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp"))
        await client.connect()
        peer, _ = listener.accept()
        with peer:
            yield client, peer


def numbered(count: int, size: int = 60_000) -> list[bytes]:
    """Messages of one size that carry their number."""
    return [number.to_bytes(4, "big") * (size // 4) for number in range(count)]


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "tcp"])
def test_messages_arrive_in_order_and_close_is_confirmed(run: Run, pki: Pki, secure: bool) -> None:
    async def main() -> None:
        handlers = Recorders()
        states: list[bool] = []
        async with serving(Server(handlers, tls=pki.server if secure else None)) as server:
            client = client_of(server, pki.client if secure else None, on_state=states.append)
            await client.connect()
            assert client.connected
            messages = numbered(100)
            await client.send(messages)
            await client.send([])
            assert await client.close()
            await until(lambda: handlers[0].ends)
        assert bytes(handlers[0].data) == b"".join(messages)
        assert handlers[0].ends == ["eof", "closed"]
        assert handlers[0].peer.subject == ("node-1" if secure else "")
        assert server.stats.errors == {}
        assert server.stats.octets == client.stats.octets == 6_000_000
        assert client.stats.messages == 100
        assert client.stats.lost == {}
        assert states == [True]

    run(main())


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "tcp"])
def test_server_that_stops_loses_nothing(run: Run, pki: Pki, secure: bool) -> None:
    """Half-close with much in flight: what the client says was sent has been received."""

    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, tls=pki.server if secure else None)
        await server.start()
        clients = [client_of(server, pki.client if secure else None) for _ in range(5)]
        last: list[int] = []

        async def send(client: Client) -> None:
            await client.connect()
            for at in itertools.count():
                try:
                    await client.send([at.to_bytes(4, "big") * 15_000] * 3)
                except ConnectionLost as lost:
                    last.append(lost.sent + len(lost.unsent))
                    return

        tasks = [asyncio.create_task(send(client)) for client in clients]
        await until(lambda: handlers.octets > 30_000_000)
        await server.stop()
        await asyncio.gather(*tasks)
        sent = sum(client.stats.messages for client in clients)
        assert handlers.octets == sent * 60_000
        assert sorted(len(handler.data) for handler in handlers) == sorted(
            client.stats.octets for client in clients
        )
        assert all(handler.ends == ["eof", "closed"] for handler in handlers)
        assert server.stats.errors == {}
        assert [client.stats.lost for client in clients] == [{"going-away": 1}] * 5
        assert last == [3] * 5

    run(main())


def test_a_lost_session_stays_lost_until_connect(run: Run, pki: Pki) -> None:
    async def main() -> None:
        handlers = Recorders()
        states: list[bool] = []
        server = Server(handlers, tls=pki.server, port=free_port())
        await server.start()
        client = client_of(server, pki.client, on_state=states.append)
        with pytest.raises(ConnectionLost, match="not connected") as caught:
            await client.send([b"a"])
        assert caught.value.unsent == [b"a"]
        await client.lost()
        await client.connect()
        port = server.port
        await server.stop()
        await client.lost()
        again = Server(handlers, tls=pki.server, port=port)
        async with serving(again):
            with pytest.raises(ConnectionLost, match="goes away") as caught:
                await client.send([b"a", b"b"])
            assert (caught.value.unsent, caught.value.sent) == ([b"a", b"b"], 0)
            await client.connect()
            await client.send(caught.value.unsent)
            assert await client.close()
        assert [bytes(handler.data) for handler in handlers] == [b"", b"ab"]
        assert states == [True, False, True]
        assert client.stats.sessions == 2

    run(main())


def test_slow_collector_makes_the_sender_wait(run: Run) -> None:
    async def main() -> None:
        async with accepted() as (client, peer):
            sending = asyncio.create_task(client.send([MESSAGE] * 500))
            await asyncio.sleep(0.3)  # time for all, did nothing hold it up
            held = client.stats.messages
            assert held < 500
            assert not sending.done()
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            received = 0
            while received < 500 * len(MESSAGE):
                received += len(await loop.sock_recv(peer, 1 << 20))
            await sending
        await client.close(0)

    run(main())


def test_a_collector_that_says_something_and_resets_is_gone(run: Run) -> None:
    async def main() -> None:
        async with accepted() as (client, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.sendall(b"whatever")
            peer.close()
            await client.lost()
            assert client.stats.lost == {"econnreset": 1}

    run(main())


def test_reset_gives_back_what_never_left(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            address = CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp")
            client = Client(address)
            await client.connect()
            peer, _ = listener.accept()
            for _ in range(client_module.TRIALS):
                await client.send([MESSAGE])
            before = client.stats.messages
            messages = [bytes([n % 256]) * 65000 for n in range(200)]
            sending = asyncio.create_task(client.send(messages))
            await asyncio.sleep(0.2)  # until all buffers are full
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            with pytest.raises(ConnectionLost) as caught:
                await sending
        assert caught.value.sent == client.stats.messages - before < 200
        assert caught.value.unsent == messages[caught.value.sent :]
        assert set(client.stats.lost) <= {"econnreset", "epipe"}
        assert not client.connected
        assert not await client.close()

    run(main())


def test_stalled_collector_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "STALLED_S", 0.3)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client(CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp"))
            await client.connect()
            with pytest.raises(ConnectionLost):
                await client.send([MESSAGE] * 500)
            assert set(client.stats.lost) <= {"stalled", "etimedout"}

    run(main())


def test_cancelled_send_ends_the_session(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client(CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp"))
            await client.connect()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.send([MESSAGE] * 500), 0.2)
            assert not client.connected
            assert client.stats.lost == {"cancelled": 1}

    run(main())


def test_waits_between_attempts_double_up_to_a_cap_with_jitter() -> None:
    draws = iter([0.0, 1.0, 0.5, 0.0, 1.0, 1.0])
    backoff = Backoff(1.0, 5.0, draw=lambda: next(draws))
    assert [backoff.wait_s() for _ in range(5)] == [0.5, 2.0, 3.0, 2.5, 5.0]
    backoff.reset()
    assert backoff.wait_s() == 1.0


def test_attempts_follow_the_back_off_until_there_is_a_collector(run: Run) -> None:
    async def main() -> None:
        port = free_port()
        client = Client(
            CollectorAddress("127.0.0.1", port, "tcp"), backoff=Backoff(0.05, 0.2, lambda: 1.0)
        )
        began = time.monotonic()
        connecting = asyncio.create_task(client.connect())
        await until(lambda: client.stats.attempts == 4)
        assert time.monotonic() - began > 0.3
        async with serving(Server(Recorders(), port=port)):
            await connecting
            assert client.connected
            await client.close()

    run(main())


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.1"])
def test_both_families_reach_the_server(run: Run, pki: Pki, host: str) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            client = Client(CollectorAddress(host, server.port), pki.client)
            await client.connect()
            assert await client.close()
        assert handlers[0].peer.address in {"127.0.0.1", "::1"}

    run(main())


async def refusal(client: Client, caplog: pytest.LogCaptureFixture) -> str:
    """What the client says of the attempts that fail."""
    connecting = asyncio.create_task(client.connect())
    await until(lambda: client.stats.attempts > 1)
    connecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await connecting
    assert client.stats.sessions == 0
    return caplog.text


FAST = Backoff(0.01, 0.01)


def test_certificate_of_another_ca(
    run: Run, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_pki(tmp_path)

    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server)) as server:
            text = await refusal(client_of(server, other.client, backoff=FAST), caplog)
            assert "certificate not accepted" in text
            stranger = TlsFiles(pki.client.ca, other.client.certificate, other.client.key)
            text = await refusal(client_of(server, stranger, backoff=FAST), caplog)
            assert "unknown ca" in text
            assert server.stats.errors["tls-certificate"] >= 1

    run(main())


def test_expired_client_is_refused_before_anything_is_sent(
    run: Run, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = issue_client(pki.ca, "old", now=datetime.now(UTC) - timedelta(days=400))
    files = TlsFiles(pki.client.ca, *old.write(tmp_path, "old"))

    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server)) as server:
            client = client_of(server, files, backoff=FAST)
            assert "certificate expired" in await refusal(client, caplog)

    run(main())


def test_expired_server(
    run: Run, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = issue_server(pki.ca, ["127.0.0.1"], now=datetime.now(UTC) - timedelta(days=400))
    files = TlsFiles(pki.server.ca, *old.write(tmp_path, "old"))

    async def main() -> None:
        async with serving(Server(Recorders(), tls=files)) as server:
            client = client_of(server, pki.client, backoff=FAST)
            assert "certificate has expired" in await refusal(client, caplog)

    run(main())


def test_client_without_a_certificate(run: Run, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            client = client_of(server, TlsFiles(pki.client.ca), backoff=FAST)
            assert "certificate required" in await refusal(client, caplog)
        assert handlers == []

    run(main())


def test_server_of_another_name(run: Run, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server)) as server:
            client = client_of(server, pki.client, server_name="elsewhere", backoff=FAST)
            text = await refusal(client, caplog)
            assert "Hostname mismatch" in text
            named = client_of(server, pki.client, server_name="localhost")
            await named.connect()
            await named.close()

    run(main())


def test_collector_that_is_silent_in_the_handshake(
    run: Run, pki: Pki, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "CONNECT_S", 0.1)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = CollectorAddress("127.0.0.1", listener.getsockname()[1])
            client = Client(address, pki.client, backoff=FAST)
            assert "no answer in 0.1 s" in await refusal(client, caplog)

    run(main())


def test_unknown_host_and_missing_files_are_reported_and_tried_again(
    run: Run, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        nowhere = Client(CollectorAddress("no.such.host.invalid"), pki.client, backoff=FAST)
        assert "no session, next attempt" in await refusal(nowhere, caplog)
        missing = TlsFiles(tmp_path / "ca.crt", tmp_path / "tls.crt", tmp_path / "tls.key")
        client = Client(CollectorAddress("127.0.0.1", 1), missing, backoff=FAST)
        assert "tls.key: " in await refusal(client, caplog)

    run(main())


def test_each_session_takes_the_certificates_there_are_then(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """First none, then good ones, then those of another CA, then broken ones."""
    first, second = make_pki(tmp_path / "1"), make_pki(tmp_path / "2")
    names = ("ca.crt", "client.crt", "client.key")
    ca, certificate, key = (tmp_path / name for name in names)
    files = TlsFiles(ca, certificate, key)

    async def main() -> None:
        async with serving(Server(Recorders(), tls=first.server)) as server:
            address = CollectorAddress("127.0.0.1", server.port)
            client = Client(address, files, backoff=FAST)
            connecting = asyncio.create_task(client.connect())
            await until(lambda: client.stats.attempts >= 2)
            assert not connecting.done()
            copy(first.directory)
            await connecting
        await client.lost()
        copy(second.directory)
        for number in (2, 3):
            server = Server(Recorders(), tls=second.server, host="127.0.0.1", port=address.port)
            async with serving(server):
                await client.connect()
                assert client.stats.sessions == number
            await client.lost()
            (tmp_path / "client.key").unlink(missing_ok=True)
        await client.close()

    def copy(directory: Path) -> None:
        for name in names:
            (tmp_path / name).write_bytes((directory / name).read_bytes())

    run(main())
    texts = [record.message for record in caplog.records if "cannot be read" in record.message]
    assert ["new certificates are bad" in text for text in texts[-2:]] == [False, True]
    assert "client.key cannot be read" in texts[-1]


def test_tls_files_go_with_tls() -> None:
    with pytest.raises(ValueError, match="TLS files go with protocol tls"):
        Client(CollectorAddress("a", 1, "tls"))


def test_another_collector_after_the_session(run: Run) -> None:
    async def main() -> None:
        first, second = Recorders(), Recorders()
        async with serving(Server(first)) as one, serving(Server(second)) as two:
            client = client_of(one, None)
            await client.connect()
            client.redirect(CollectorAddress("127.0.0.1", two.port, "tcp"))
            assert client.connected
            await client.send([MESSAGE])
            assert await client.close()
            await client.connect()
            await client.send([MESSAGE])
            assert await client.close()
        assert [bytes(handlers[0].data) for handlers in (first, second)] == [MESSAGE, MESSAGE]
        assert client.stats.sessions == 2

    run(main())


def test_another_collector_ends_the_pause_between_attempts(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers)) as server:
            away = CollectorAddress("127.0.0.1", 9, "tcp")
            client = Client(away, backoff=Backoff(3600, 3600))
            connecting = asyncio.create_task(client.connect())
            await until(lambda: "no session, next attempt in " in caplog.text)
            client.redirect(CollectorAddress("127.0.0.1", server.port, "tcp"))
            await asyncio.wait_for(connecting, PATIENCE_S)
            assert await client.close()

    run(main())


def test_another_collector_in_the_middle_of_an_attempt(run: Run, pki: Pki) -> None:
    """A session that comes to stand with the one before is not used."""

    async def main() -> None:
        first, second = Recorders(), Recorders()
        async with serving(Server(first, tls=pki.server)) as one, serving(Server(second)) as two:
            client = client_of(one, pki.client)
            connecting = asyncio.create_task(client.connect())
            await asyncio.sleep(0)
            assert client.stats.attempts == 1
            client.redirect(CollectorAddress("127.0.0.1", two.port, "tcp"))
            await connecting
            await client.send([MESSAGE])
            assert await client.close()
        assert [bytes(handler.data) for handler in second] == [MESSAGE]
        assert not any(handler.data for handler in first)

    run(main())


def test_a_session_that_is_cut_gives_back_what_never_left(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client(CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp"))
            await client.connect()
            messages = numbered(1000)
            sending = asyncio.create_task(client.send(messages))
            await asyncio.sleep(0.2)  # until all buffers are full
            client.cut()
            with pytest.raises(ConnectionLost) as lost:
                await sending
            assert lost.value.sent + len(lost.value.unsent) == 1000
            assert lost.value.unsent == messages[lost.value.sent :]
            assert client.stats.lost == {}

    run(main())


def test_hosts_are_tried_in_their_order_at_each_attempt(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        handlers, asked = Recorders(), []
        async with serving(Server(handlers, host="127.0.0.1")) as server:

            async def hosts(address: CollectorAddress) -> list[str]:
                asked.append(address)
                if len(asked) == 1:
                    raise ApiError("Service a/b: there is none")
                found = ["no.such.host.invalid", "127.0.0.9"]
                return [*found, "127.0.0.1"] if len(asked) == 3 else found

            address = CollectorAddress("a/b", server.port, "tcp")
            client = Client(address, hosts=hosts, backoff=Backoff(0.01, 0.02))
            await client.connect()
            assert asked == [address] * 3
            assert await client.close()

    run(main())
    first, second = (record.message for record in caplog.records if "no session" in record.message)
    assert first.endswith("Service a/b: there is none")
    assert "no.such.host.invalid: " in second
    assert "127.0.0.9: " in second


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "tcp"])
def test_a_server_that_stops_in_a_sessions_trial_has_read_all(
    run: Run, pki: Pki, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PROOF_S", 20.0)

    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, tls=pki.server if secure else None)
        await server.start()
        client = client_of(server, pki.client if secure else None, probe=b"probe")
        await client.connect()
        sending = asyncio.create_task(client.send([MESSAGE]))
        await until(lambda: handlers.octets == len(MESSAGE))
        assert not sending.done()
        await server.stop()
        await sending  # it was read: no ConnectionLost
        assert bytes(handlers[0].data) == MESSAGE + b"probe"
        assert handlers[0].ends == ["eof", "closed"]
        assert not client.connected
        await client.close()

    run(main())
