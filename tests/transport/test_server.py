"""Our server against peers of every kind."""

import asyncio
import contextlib
import socket
import ssl
import struct
from functools import partial
from pathlib import Path

import pytest

from flowvis.errors import PeerError, SettingsError, SystemRefused
from flowvis.ipfix.acknowledgement import PROTOCOL
from flowvis.runtime import listeners
from flowvis.runtime.backoff import Backoff
from flowvis.transport import server as server_module
from flowvis.transport import session as session_module
from flowvis.transport import turns as turns_module
from flowvis.transport.certificates import issue_client, issue_server
from flowvis.transport.client import Client, ConnectionLost
from flowvis.transport.keepalive import give_up
from flowvis.transport.server import Peer, Server, SessionLimits
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S, until

from .conftest import (
    Pki,
    Recorder,
    Recorders,
    Run,
    client_of,
    few_descriptors,
    lose_power,
    make_pki,
    path_of,
    serving,
)


async def opened(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


def foreign_context(pki: Pki) -> ssl.SSLContext:
    """A client's context as others make it."""
    context = ssl.create_default_context(cafile=str(pki.client.ca))
    context.load_cert_chain(path_of(pki.client.certificate), path_of(pki.client.key))
    return context


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "tls"),
        (b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, "tls"),
        (b"\0" * 300_000, "tls"),
        (b"\x16\x03", "handshake-eof"),
        (b"", "handshake-eof"),
    ],
)
def test_garbage_ends_its_session_only(run: Run, pki: Pki, data: bytes, reason: str) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            client = client_of(server, pki.client)
            await client.connect()
            _, writer = await opened(server)
            writer.write(data)
            writer.write_eof()
            await until(lambda: server.stats.errors)
            writer.close()
            assert len(server.sessions) == 1
            await client.send([b"still here"])
            assert await client.close()
        assert set(server.stats.errors) == {reason}
        assert bytes(handlers[0].data) == b"still here"

    run(main())


def test_old_tls_is_refused(run: Run, pki: Pki) -> None:
    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server)) as server:
            context = foreign_context(pki)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1"):
                context.minimum_version = ssl.TLSVersion.TLSv1
            with pytest.warns(DeprecationWarning, match="TLSv1"):
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("localhost", server.port, ssl=context)
            await until(lambda: server.stats.errors)
            assert server.stats.errors == {"tls": 1}

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("known", [True, False], ids=["ours", "stranger"])
def test_a_grpc_client_is_reported_from_an_exporter(
    run: Run, pki: Pki, version: ssl.TLSVersion, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As an agent of Antrea does by default: its handshake offers h2 and nothing else."""

    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            context = foreign_context(pki)
            if not known:
                context = ssl.create_default_context(cafile=str(pki.client.ca))
            context.maximum_version = context.minimum_version = version
            context.set_alpn_protocols(["h2"])
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
                writer.close()
            await until(lambda: server.stats.errors)
            assert server.stats.errors == {"grpc": 1}
        assert handlers == []

    run(main())
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert "a gRPC client" in lines[0]
    assert "flowExporter.flowCollectorAddr" in lines[0]


@pytest.mark.parametrize("offered", [[], ["h2", "http/1.1"], ["http/1.1"], ["ipfix"], ["x", "y"]])
def test_what_else_a_client_offers_does_not_matter(run: Run, pki: Pki, offered: list[str]) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            context = foreign_context(pki)
            if offered:
                context.set_alpn_protocols(offered)
            reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
            writer.write(b"abc")
            writer.close()
            assert await reader.read() == b""
            await until(lambda: handlers and handlers[0].ends)
        assert bytes(handlers[0].data) == b"abc"
        assert server.stats.errors == {}

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_foreign_client_and_its_close_notify(run: Run, pki: Pki, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            context = foreign_context(pki)
            context.maximum_version = version
            context.minimum_version = version
            reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
            writer.writelines([b"abc" * 100_000, b"def"])
            await writer.drain()
            writer.close()
            assert await reader.read() == b""
            await until(lambda: handlers and handlers[0].ends)
        assert bytes(handlers[0].data) == b"abc" * 100_000 + b"def"
        assert handlers[0].ends == ["eof", "closed"]
        assert server.stats.errors == {}

    run(main())


def test_min_version_of_the_files(run: Run, pki: Pki) -> None:
    strict = TlsFiles(pki.server.ca, pki.server.certificate, pki.server.key, "VersionTLS13")

    async def main() -> None:
        async with serving(Server(Recorders(), tls=strict)) as server:
            context = foreign_context(pki)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("localhost", server.port, ssl=context)

    run(main())


@pytest.mark.parametrize(
    ("limits", "begins"),
    [
        (SessionLimits(handshake_s=0.2, hello_s=3600), False),
        (SessionLimits(handshake_s=3600, hello_s=0.2), False),
        (SessionLimits(handshake_s=0.2, hello_s=3600), True),
    ],
)
def test_handshake_that_takes_too_long(
    run: Run, pki: Pki, limits: SessionLimits, begins: bool
) -> None:
    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server, limits=limits)) as server:
            reader, writer = await opened(server)
            if begins:
                writer.write(b"\x16\x03\x01")
            assert await reader.read() == b""
            assert server.stats.errors == {"handshake-timeout": 1}
            writer.close()
            client = client_of(server, pki.client, backoff=Backoff(0.01, 0.01))
            while not client.connected:  # on a busy machine a handshake may take too long
                await client.connect()
                await asyncio.sleep(0.3)  # longer than it may take: once through it has no end
            await client.close()
        assert set(server.stats.errors) == {"handshake-timeout"}

    run(main())


def test_who_has_begun_a_handshake_has_the_time_of_one(run: Run, pki: Pki) -> None:
    async def main() -> None:
        limits = SessionLimits(hello_s=1.0, handshake_s=3600)
        async with serving(Server(Recorders(), tls=pki.server, limits=limits)) as server:
            reader, writer = await opened(server)
            writer.write(b"\x16\x03\x01")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(), 1.5)
            assert server.stats.errors == {}
            writer.close()

    run(main())


async def refused(server: Server, host: str = "127.0.0.1") -> None:
    """Connect and be sent away."""
    reader, writer = await asyncio.open_connection(host, server.port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


def test_limits_of_sessions(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        limits = SessionLimits(sessions=3, sessions_per_address=2)
        async with serving(Server(handlers, limits=limits)) as server:

            async def sending(host: str) -> asyncio.StreamWriter:
                _, writer = await asyncio.open_connection(host, server.port)
                writer.write(b"records")
                await until(lambda: all(handler.data for handler in handlers))
                return writer

            first = [await sending("127.0.0.1") for _ in range(2)]
            await until(lambda: handlers.octets == 14)
            await refused(server)
            assert server.stats.refused == {"sessions-per-address": 1}
            other = await sending("::1")
            await until(lambda: handlers.octets == 21)
            await refused(server, "::1")
            assert server.stats.refused == {"sessions-per-address": 1, "sessions": 1}
            first[0].close()
            await until(lambda: len(server.sessions) == 2)
            again = await sending("127.0.0.1")
            await until(lambda: len(handlers) == 4)
            for each in (first[1], other, again):
                each.close()
        assert {handler.peer.address for handler in handlers} == {"127.0.0.1", "::1"}

    run(main())


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (SessionLimits(sessions=8, sessions_per_address=100), "sessions"),
        (SessionLimits(sessions=100, sessions_per_address=8), "sessions-per-address"),
    ],
)
def test_who_sent_nothing_gives_way(
    run: Run, limits: SessionLimits, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest first; whoever sent records stays, and one line in three says it."""

    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, limits=limits)) as server:
            exporter = client_of(server, None)
            await exporter.connect()
            await exporter.send([b"records"])
            await until(lambda: handlers.octets)
            idle = [await opened(server) for _ in range(30)]
            await until(lambda: server.stats.errors["gave-way"] >= 22)
            late = client_of(server, None)
            await late.connect()
            await late.send([b"more"])
            await until(lambda: handlers.octets == 11)
            await exporter.send([b"more"])
            await until(lambda: handlers.octets == 15)
            for reader, writer in idle[:23]:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            assert (len(server.sessions), server.stats.refused) == (8, {})
            for _, writer in idle[23:]:
                writer.close()
            assert await late.close()
            assert await exporter.close()

    run(main())
    lines = [each for each in caplog.records if "session ended" in each.getMessage()]
    assert len(lines) == 3
    assert f"the limit of {reason} is reached" in lines[0].getMessage()


def test_an_address_can_have_half_of_the_sessions(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, limits=SessionLimits(sessions=6))) as server:
            crowd = [client_of(server, None) for _ in range(3)]
            for client in crowd:
                await client.connect()
                await client.send([b"x"])
            await until(lambda: handlers.octets == 3)
            await refused(server)
            assert server.stats.refused == {"sessions-per-address": 1}
            server.admit(6, 4)
            fourth = client_of(server, None)
            await fourth.connect()
            await fourth.send([b"x"])
            await until(lambda: handlers.octets == 4)
            for client in (*crowd, fourth):
                await client.close()

    run(main())


def test_idle_connections_keep_no_exporter_out(run: Run, pki: Pki) -> None:
    """Handshakes that stand still, from one address and from many, beyond every limit."""

    async def main() -> None:
        handlers = Recorders()
        limits = SessionLimits(handshakes=20, hello_s=30.0)
        server = Server(handlers, tls=pki.server, host="0.0.0.0", limits=limits)
        async with serving(server):
            idle = []
            for place in range(60):
                sock = socket.socket()
                sock.setblocking(False)
                source = f"127.8.0.{place}" if place % 2 else "127.8.8.8"
                sock.bind((source, 0))
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
                idle.append(sock)
                if place % 20 == 19:
                    client = client_of(server, pki.client)
                    await client.connect()
                    await client.send([b"records"])
                    assert await client.close()
            assert b"".join(bytes(handler.data) for handler in handlers) == b"records" * 3
            await until(lambda: server.admission.handshakes <= 20)
            ended = server.stats.errors["gave-way"] + server.stats.refused["handshakes"]
            assert ended >= 40
            for sock in idle:
                sock.close()

    run(main())


def test_an_address_that_records_came_from_has_places_of_its_own(run: Run, pki: Pki) -> None:
    """Fresh handshakes of strangers are not ended for others of their address, but refused."""

    async def main() -> None:
        limits = SessionLimits(handshakes=1)
        server = Server(Recorders(), tls=pki.server, host="0.0.0.0", limits=limits)
        async with serving(server):
            client = client_of(server, pki.client)
            await client.connect()
            await client.send([b"records"])
            assert await client.close()
            loop = asyncio.get_running_loop()
            strangers = []
            for _ in range(2):
                sock = socket.socket()
                sock.setblocking(False)
                sock.bind(("127.8.8.8", 0))
                await loop.sock_connect(sock, ("127.0.0.1", server.port))
                strangers.append(sock)
            await until(lambda: server.stats.refused == {"handshakes": 1})
            _, standing = await opened(server)
            await until(lambda: server.admission.handshakes == 2)
            assert server.admission.knows("127.0.0.1")
            for sock in strangers:
                sock.close()
            standing.close()

    run(main())


def test_limit_of_handshakes(run: Run, pki: Pki) -> None:
    async def main() -> None:
        limits = SessionLimits(handshakes=2)
        async with serving(Server(Recorders(), tls=pki.server, limits=limits)) as server:
            waiting = [await opened(server) for _ in range(2)]
            await until(lambda: len(server.sessions) == 2)
            reader, writer = await opened(server)
            assert await reader.read() == b""
            writer.close()
            assert server.stats.refused == {"handshakes": 1}
            waiting[0][1].close()
            await until(lambda: len(server.sessions) == 1)
            client = client_of(server, pki.client)
            await client.connect()
            await client.close()
            waiting[1][1].close()

    run(main())


def test_refused_bytes_end_that_session_and_count_their_reason(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        handlers.refuse = b"bad"
        async with serving(Server(handlers)) as server:
            good, bad = client_of(server, None), client_of(server, None)
            await good.connect()
            await bad.connect()
            with pytest.raises(ConnectionLost):
                await bad.send([b"bad"])
            await good.send([b"fine"])
            assert await good.close()
            await bad.close()
        assert server.stats.errors == {"refused-bytes": 1}
        assert sorted(handler.ends for handler in handlers) == [["closed"], ["eof", "closed"]]

    run(main())


class Defect(Recorder):
    """A handler with a defect of ours at one place."""

    where = ""

    def data_received(self, data: memoryview) -> float:
        if self.where == "data":
            raise ZeroDivisionError
        return super().data_received(data)

    def eof(self) -> None:
        if self.where == "eof":
            raise PeerError("mid-message", "the rest of a message is missing")
        super().eof()

    def closed(self) -> None:
        super().closed()
        if self.where == "closed":
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("where", "errors"),
    [("data", {"internal": 1}), ("eof", {"mid-message": 1}), ("closed", {"internal": 1})],
)
def test_a_defect_of_ours_costs_one_session(
    run: Run, where: str, errors: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Defect] = []

    def factory(peer: Peer) -> Recorder:
        if made:
            return Recorder(peer)
        made.append(Defect(peer))
        made[0].where = where
        return made[0]

    async def main() -> None:
        async with serving(Server(factory)) as server:
            bad, good = client_of(server, None), client_of(server, None)
            await bad.connect()
            await until(lambda: made)
            await good.connect()
            with pytest.raises(ConnectionLost) if where == "data" else contextlib.nullcontext():
                await bad.send([b"data"])
            await bad.close()
            await until(lambda: server.stats.errors)
            await good.send([b"data"])
            assert await good.close()
        assert server.stats.errors == errors
        assert made[0].ends[-1] == "closed"
        assert server.sessions == set()

    run(main())
    assert ("defect of ours" in caplog.text) == (errors == {"internal": 1})


def test_factory_that_refuses_a_peer(run: Run, pki: Pki) -> None:
    def factory(peer: Peer) -> Recorder:
        raise PeerError("unwanted", f"{peer.subject} is not wanted")

    async def main(server_tls: TlsFiles | None, client_tls: TlsFiles | None) -> None:
        async with serving(Server(factory, tls=server_tls)) as server:
            client = client_of(server, client_tls)
            connecting = asyncio.create_task(client.connect())
            await until(lambda: server.stats.errors)
            connecting.cancel()
            await asyncio.wait([connecting])
            await client.close()
            await until(lambda: not server.sessions)
            assert set(server.stats.errors) == {"unwanted"}
            assert server.admission.handshakes == 0

    run(main(pki.server, pki.client))
    run(main(None, None))


def test_a_flood_does_not_keep_others_waiting(run: Run, pki: Pki) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            flood, quiet = client_of(server, pki.client), client_of(server, pki.client)
            await flood.connect()
            await quiet.connect()
            flooding = asyncio.create_task(flood.send([b"x" * 60_000] * 3000))
            await until(lambda: handlers[0].data)

            async def greeted() -> None:
                seen = len(handlers[1].data)
                await quiet.send([b"hello"])
                await until(lambda: len(handlers[1].data) > seen)

            for _ in range(5):
                await greeted()
            assert not flooding.done()
            flooding.cancel()
            await asyncio.wait([flooding])
            await quiet.close()

    run(main())


def test_an_exporter_that_is_gone_before_its_acknowledgement_is_noticed(
    run: Run, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "give_up", partial(give_up, after_s=1.0))

    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            context = foreign_context(pki)
            context.set_alpn_protocols([PROTOCOL])
            plain = socket.create_connection(("127.0.0.1", server.port))
            with await asyncio.to_thread(
                context.wrap_socket, plain, server_hostname="localhost"
            ) as peer:
                await until(lambda: handlers)
                lose_power(peer)
                answer = handlers[0].peer.answer
                assert answer is not None
                answer(b"what is durable")
                await until(lambda: not server.sessions)
                assert server.stats.errors == {"etimedout": 1}

    run(main())


def test_idle_sessions_end_where_that_is_wanted(run: Run) -> None:
    async def main() -> None:
        limits = SessionLimits(idle_s=3600)
        async with serving(Server(Recorders(), limits=limits, reload_s=0.05)) as server:
            client = client_of(server, None)
            await client.connect()
            await until(lambda: server.sessions)
            (session,) = server.sessions
            began = session.last_observed
            for _ in range(3):  # together longer than it may be idle
                session.last_observed = began - 1800
                await client.send([b"x"])
                await until(lambda: session.last_observed >= began)
            assert server.sessions
            session.last_observed -= 3601
            await client.lost()
            await until(lambda: server.stats.errors == {"idle": 1})
            await client.close()

    run(main())


def test_old_sessions_are_asked_to_come_again(run: Run, pki: Pki) -> None:
    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, tls=pki.server, limits=SessionLimits(age_s=3600), reload_s=0.05)
        async with serving(server):
            client = client_of(server, pki.client, backoff=Backoff(0.01, 0.01))
            await client.connect()
            (first,) = server.sessions
            left_s = first.ends_at - asyncio.get_running_loop().time()
            assert 0.7 * 3600 < left_s <= 3600  # they do not all come again together
            await client.send([b"before "])
            first.ends_at -= left_s
            await until(lambda: not client.connected)
            await client.connect()
            await client.send([b"after"])
            assert await client.close()
        assert [bytes(handler.data) for handler in handlers] == [b"before ", b"after"]
        assert not server.stats.errors

    run(main())


def test_new_certificates_serve_new_sessions_and_cost_none(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        pki = make_pki(tmp_path)
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server, reload_s=0.05)) as server:
            old = client_of(server, pki.client)
            await old.connect()

            other = make_pki(tmp_path / "other")
            path_of(pki.server.certificate).write_bytes(b"not a certificate")
            await until(lambda: server.stats.certificate_failures == 1)
            await asyncio.sleep(0.2)  # looks that find the same
            assert server.stats.certificate_failures == 1
            still = client_of(server, pki.client)
            await still.connect()

            for name in ("ca.crt", "server.crt", "server.key"):
                (tmp_path / name).write_bytes((tmp_path / "other" / name).read_bytes())
            await until(lambda: server.stats.certificate_reloads == 1)
            new = client_of(server, other.client)
            await new.connect()
            for client in (old, still, new):
                await client.send([b"fine"])
                assert await client.close()
        assert [bytes(handler.data) for handler in handlers] == [b"fine"] * 3
        assert server.stats.errors == {}

    run(main())
    assert "server.crt is not PEM" in caplog.text
    assert "new certificates serve new sessions" in caplog.text


def test_client_takes_new_certificates_at_its_next_session(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        pki = make_pki(tmp_path)
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            client = client_of(server, pki.client)
            await client.connect()
            await client.close()
            issue_client(pki.ca, "node-2").write(tmp_path, "client")
            await client.connect()
            await client.close()
            path_of(pki.client.key).write_bytes(b"")
            await client.connect()
            await client.close()
        assert [handler.peer.subject for handler in handlers] == ["node-1", "node-2", "node-2"]

    run(main())


def test_peer_that_does_not_close_is_read_to_its_end(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, drain_s=1.0)
        await server.start()
        reader, writer = await opened(server)
        writer.write(b"before")
        await until(lambda: handlers and handlers[0].data)
        stopping = asyncio.create_task(server.stop())
        assert await reader.read() == b""
        writer.write(b", after")
        await stopping
        writer.close()
        assert bytes(handlers[0].data) == b"before, after"
        assert handlers[0].ends == ["closed"]
        assert server.stats.errors == {"not-finished": 1}

    run(main())


def test_peers_that_never_close_and_always_send_do_not_keep_a_stop_waiting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flooded(Recorder):
        sock: socket.socket
        reads = 0

        def data_received(self, data: memoryview) -> float:
            self.reads += 1
            with contextlib.suppress(BlockingIOError):
                self.sock.send(bytes(len(data)))
            return super().data_received(data)

    async def main() -> None:
        made: list[Flooded] = []

        def factory(peer: Peer) -> Flooded:
            made.append(Flooded(peer))
            made[-1].sock = next(s for s in floods if s.getsockname()[1] == peer.port)
            return made[-1]

        floods = [socket.socket() for _ in range(3)]
        server = Server(factory, drain_s=0.05)
        await server.start()
        for sock in floods:
            sock.connect(("127.0.0.1", server.port))
            sock.setblocking(False)
            sock.send(b"a")
        await until(lambda: len(made) == 3 and all(flooded.reads > 3 for flooded in made))
        read_last = session_module.ServerSession.abandon
        before: list[int] = []

        def abandon(session: session_module.ServerSession, until_s: float) -> None:
            before.append(sum(flooded.reads for flooded in made))
            read_last(session, until_s)

        monkeypatch.setattr(session_module.ServerSession, "abandon", abandon)
        monkeypatch.setattr(server_module, "LAST_S", 0.0)
        await server.stop()
        assert sum(flooded.reads for flooded in made) == before[0]
        assert [flooded.ends for flooded in made] == [["closed"]] * 3
        assert server.stats.errors == {"not-finished": 3}
        for sock in floods:
            sock.close()

    run(main())


def test_who_has_sent_least_is_read_first_when_peers_do_not_close(run: Run) -> None:
    class Line(Recorder):
        order: list[int]

        def data_received(self, data: memoryview) -> float:
            self.order.append(self.peer.port)
            return super().data_received(data)

    async def main() -> None:
        order: list[int] = []

        def factory(peer: Peer) -> Line:
            made = Line(peer, pause_s=60.0)  # none has its turn before the stop
            made.order = order
            return made

        server = Server(factory, drain_s=0.0)
        await server.start()
        peers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for sock in peers:
            sock.sendall(b"a")
        await until(lambda: len(order) == 3)
        order.clear()
        for sock, size in zip(peers, (60_000, 10, 3000), strict=True):
            sock.sendall(bytes(size))
        await server.stop()
        much, least, more = (sock.getsockname()[1] for sock in peers)
        assert list(dict.fromkeys(order)) == [least, more, much]
        assert order.count(least) == 1
        for sock in peers:
            sock.close()

    run(main())


def test_stop_when_peers_wait_to_be_accepted(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers)
        await server.start()
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        for sock in waiting:
            sock.sendall(b"early")
            sock.shutdown(socket.SHUT_WR)
        await server.stop()
        for sock in waiting:
            sock.close()
        assert [bytes(handler.data) for handler in handlers] == [b"early"] * 100

    run(main())


def test_stop_in_the_middle_of_a_handshake(run: Run, pki: Pki) -> None:
    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, tls=pki.server)
        await server.start()
        sock = socket.create_connection(("127.0.0.1", server.port))
        await until(lambda: server.sessions)
        stopping = asyncio.create_task(server.stop())
        await until(
            lambda: all(listener.fileno() == -1 for listener in server._acceptor._listeners)
        )
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=foreign_context(pki), server_hostname="localhost"
        )
        writer.write(b"late")
        assert await reader.read() == b""
        writer.close()
        await stopping
        assert [bytes(handler.data) for handler in handlers] == [b"late"]
        assert handlers[0].ends == ["eof", "closed"]

    run(main())


def test_many_sessions_at_once(run: Run, pki: Pki) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers, tls=pki.server)) as server:
            clients = [client_of(server, pki.client) for _ in range(100)]

            async def work(client: Client) -> bool:
                await client.connect()
                await client.send([b"x" * 50_000] * 4)
                return await client.close(PATIENCE_S)

            assert all(await asyncio.gather(*(work(client) for client in clients)))
        assert [len(handler.data) for handler in handlers] == [200_000] * 100
        assert server.stats.errors == {}

    run(main())


@pytest.mark.parametrize(("secure", "size"), [(False, 50_000), (False, 9), (True, 5)])
def test_what_came_before_a_reset_is_read_to_its_end(
    run: Run, pki: Pki, secure: bool, size: int
) -> None:
    """Both are there when the loop looks, as of an exporter that is killed: and that only once."""

    async def main() -> None:
        handlers = Recorders()
        hour = SessionLimits(hello_s=3600, handshake_s=3600)
        server = Server(handlers, limits=hour, tls=pki.server if secure else None)
        async with serving(server):
            sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until(lambda: server.sessions)
            sock.sendall(b"\x16\x03\x01\x10\0".ljust(size, b"\0"))
            sock.close()
            await until(lambda: not server.sessions)
            assert server.stats.errors == {"econnreset": 1}
            assert handlers.octets == (0 if secure else size)

    run(main())


def test_peer_that_resets(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers)) as server:
            sock = socket.create_connection(("127.0.0.1", server.port))
            await until(lambda: handlers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            await until(lambda: server.stats.errors == {"econnreset": 1})
        assert handlers[0].ends == ["closed"]

    run(main())


def test_peer_that_leaves_our_side_unread(
    run: Run, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key update asks for an answer; one who never reads them is ended."""
    monkeypatch.setattr(session_module, "PENDING_BYTES", -1)

    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server)) as server:
            client = client_of(server, pki.client)
            connecting = asyncio.create_task(client.connect())
            await until(lambda: server.stats.errors)
            connecting.cancel()
            await asyncio.wait([connecting])
            assert set(server.stats.errors) == {"pending-bytes"}
            await client.close()

    run(main())


def test_without_descriptors_the_listener_rests(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "ACCEPT_PAUSE_S", 0.1)

    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers)) as server:
            sock = socket.create_connection(("127.0.0.1", server.port))
            with few_descriptors():
                await until(lambda: server.stats.refused)
            await until(lambda: handlers)
            sock.close()
            assert set(server.stats.refused) == {"accept"}

    run(main())
    assert "cannot accept connections" in caplog.text


def test_server_that_cannot_start(pki: Pki, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(SettingsError, match=r"tls.key: .*cannot be read"):
            await Server(
                Recorders(), tls=TlsFiles(pki.server.ca, pki.server.certificate, tmp_path / "none")
            ).start()
        async with serving(Server(Recorders(), host="127.0.0.1")) as server:
            with pytest.raises(SystemRefused, match=f"port {server.port}: Address already in use"):
                await Server(Recorders(), host="127.0.0.1", port=server.port).start()
        with pytest.raises(SystemRefused, match="listen address"):
            await Server(Recorders(), host="no.such.host.invalid").start()
        with pytest.raises(SystemRefused, match=r"'a\.\.b': no name or address"):
            await Server(Recorders(), host="a..b").start()

    asyncio.run(main())


def test_server_certificate_is_for_servers_only(run: Run, pki: Pki, tmp_path: Path) -> None:
    certificate = issue_server(pki.ca, ["localhost"]).write(tmp_path, "server")

    async def main() -> None:
        async with serving(Server(Recorders(), tls=pki.server)) as server:
            files = TlsFiles(pki.client.ca, *certificate)
            client = client_of(server, files)
            connecting = asyncio.create_task(client.connect())
            await until(lambda: server.stats.errors)
            assert set(server.stats.errors) == {"tls-certificate"}
            connecting.cancel()
            await asyncio.wait([connecting])

    run(main())


def test_peers_are_written_as_people_do() -> None:
    assert str(Peer("10.0.0.1", 5)) == "10.0.0.1:5"
    assert str(Peer("fd00::1", 5, "node-1")) == "node-1@[fd00::1]:5"


def test_another_limit_of_sessions(run: Run) -> None:
    async def main() -> None:
        async with serving(Server(Recorders(), limits=SessionLimits(sessions=1))) as server:
            first, second, third = (client_of(server, None) for _ in range(3))
            await first.connect()
            await first.send([b"records"])
            server.admit(2, 2)
            await second.connect()
            await second.send([b"records"])
            await until(lambda: all(session.proven for session in server.sessions))
            assert len(server.sessions) == 2
            server.admit(1)
            await third.connect()
            await third.lost()
            assert server.stats.refused == {"sessions-per-address": 1}
            assert (first.connected, second.connected) == (True, True)
            for client in (first, second, third):
                await client.close()

    run(main())


class Slow(Recorder):
    """A handler that works off what it gets a byte at a time."""

    def data_received(self, data: memoryview) -> float:
        super().data_received(data)
        self.left = getattr(self, "left", 0) + len(data)
        self.pending = self.left > 0
        return 0.0

    def go_on(self) -> float:
        self.left -= 1
        self.pending = self.left > 0
        return 0.0

    def eof(self) -> None:
        assert not self.pending
        super().eof()


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "tcp"])
def test_what_a_handler_leaves_for_later_is_done_before_the_end(
    run: Run, pki: Pki, secure: bool
) -> None:
    made: list[Slow] = []

    def factory(peer: Peer) -> Slow:
        made.append(Slow(peer))
        return made[-1]

    async def main() -> None:
        tls, client_tls = (pki.server, pki.client) if secure else (None, None)
        async with serving(Server(factory, tls=tls)) as server:
            client = client_of(server, client_tls)
            await client.connect()
            await client.send([b"x" * 3000])
            assert await client.close()
            stays = client_of(server, client_tls)
            await stays.connect()
            await stays.send([b"y" * 3000])
            await until(lambda: len(made) == 2 and made[1].data)
        assert [len(each.data) for each in made] == [3000, 3000]
        assert made[0].ends == ["eof", "closed"]
        assert made[1].left == 0
        assert server.stats.errors == {}
        await stays.close()

    run(main())


def test_a_session_rests_as_long_as_its_handler_says(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        async with serving(Server(handlers)) as server:
            resting, other = client_of(server, None), client_of(server, None)
            await resting.connect()
            await other.connect()
            await until(lambda: len(handlers) == 2)
            handlers[0].pause_s = 2.0  # much longer than the next steps take
            await resting.send([b"a"])
            await until(lambda: handlers[0].data)
            await resting.send([b"b"])
            await other.send([b"c"])
            await until(lambda: handlers[1].data)
            assert handlers[0].data == b"a"
            handlers[0].pause_s = 0.0
            await until(lambda: handlers[0].data == b"ab")
            assert await resting.close()
            assert await other.close()

    run(main())


def test_a_stop_does_not_wait_for_who_only_makes_work(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, drain_s=3600.0)
        await server.start()
        client = client_of(server, None)
        await client.connect()
        await until(lambda: handlers)
        handlers[0].pause_s, handlers[0].fruitless = 0.01, True
        await server.stop()
        assert server.stats.errors == {"fruitless": 1}
        await client.close()

    run(main())


def test_a_stop_waits_for_those_who_have_to_wait_for_room(run: Run) -> None:
    async def main() -> None:
        handlers = Recorders()
        server = Server(handlers, drain_s=PATIENCE_S)
        await server.start()
        client = client_of(server, None)
        await client.connect()
        await client.send([b"a"])
        await until(lambda: handlers and handlers[0].data)
        handlers[0].pause_s = 0.01
        await client.send([b"b"])
        await server.stop()
        assert server.stats.errors == {}
        assert handlers[0].data == b"ab"
        assert handlers[0].ends == ["eof", "closed"]
        await client.close()

    run(main())


def test_a_stop_ends_although_there_is_never_room_for_what_came(run: Run) -> None:
    class Full(Recorder):
        tries = 0

        def data_received(self, data: memoryview) -> float:
            self.pending, self.pause_s = True, 0.01
            return super().data_received(data)

        def go_on(self) -> float:
            self.tries += 1
            if self.tries > 10_000:
                raise RuntimeError("it never ends")
            return 0.0

    async def main() -> None:
        made: list[Full] = []

        def factory(peer: Peer) -> Full:
            made.append(Full(peer))
            return made[-1]

        server = Server(factory, drain_s=0.05)
        await server.start()
        client = client_of(server, None)
        await client.connect()
        await client.send([b"a"])
        await until(lambda: made and made[0].data)
        await server.stop()
        assert server.stats.errors == {"not-finished": 1}
        await client.close()

    run(main())


def test_reads_grow_while_they_are_cheap_and_shrink_when_they_are_dear(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def thread_time(self) -> float:
            return self.now

    class Dear(Recorder):
        cost_s = 0.0
        for_others_s = 0.0
        reads: list[int]

        def data_received(self, data: memoryview) -> float:
            self.reads = [*getattr(self, "reads", []), len(data)]
            clock.now += self.cost_s + self.for_others_s
            return -self.for_others_s

    clock = Clock()
    monkeypatch.setattr(turns_module, "time", clock)
    made: list[Dear] = []

    def factory(peer: Peer) -> Dear:
        made.append(Dear(peer))
        return made[-1]

    async def main() -> None:
        made.clear()
        async with serving(Server(factory)) as server:
            client = client_of(server, None)
            await client.connect()
            await until(lambda: made)
            made[0].for_others_s = 1.0  # what was done for others does not count
            await client.send([b"x" * 4_000_000])
            await until(lambda: sum(made[0].reads) == 4_000_000)
            assert made[0].reads[0] <= session_module.FIRST_READ
            assert max(made[0].reads) > 2 * session_module.FIRST_READ
            made[0].cost_s, made[0].reads = 1.0, []
            await client.send([b"x" * 1_000_000])
            await until(lambda: sum(made[0].reads) == 1_000_000)
            assert made[0].reads[-2] <= session_module.LEAST_READ
            assert await client.close()

    run(main())


def test_descriptors_are_left_for_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "raise_descriptor_limit", lambda *_: 2)

    async def main() -> None:
        handlers = Recorders()
        limits = SessionLimits(sessions=100, sessions_per_address=100)
        async with serving(Server(handlers, limits=limits)) as server:
            clients = [client_of(server, None) for _ in range(2)]
            for client in clients:
                await client.connect()
                await client.send([b"x"])
            await until(lambda: handlers.octets == 2)
            await refused(server)
            assert server.stats.refused == {"sessions": 1}
            for client in clients:
                await client.close()

    run(main())
