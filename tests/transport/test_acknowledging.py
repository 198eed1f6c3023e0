"""What a server says to clients that listen: only to them, and never waiting for one."""

import asyncio
import socket
import ssl
import subprocess
from functools import partial
from pathlib import Path

import pytest

from flowvis.errors import PeerError
from flowvis.ipfix.acknowledgement import PROTOCOL
from flowvis.transport.address import CollectorAddress
from flowvis.transport.answers import AT_ONCE, Answers
from flowvis.transport.client import Client, ConnectionLost
from flowvis.transport.server import Server
from flowvis.transport.session import PENDING_BYTES
from flowvis.transport.tls import TlsFiles
from ports import free_port
from waiting import block_until, until

from .conftest import Pki, Recorders, Run, client_of, path_of, serving


class Said(bytearray):
    """What a client has been told."""

    refuse = b""

    def __call__(self, data: memoryview) -> None:
        self.extend(data)
        if self.refuse and self.find(self.refuse) >= 0:
            raise PeerError("acknowledgement", "bytes that the test refuses")


def test_what_a_handler_answers_arrives(run: Run, pki: Pki) -> None:
    async def scenario() -> None:
        said = Said()
        async with serving(Server(handlers := Recorders(), tls=pki.server)) as server:
            client = client_of(server, pki.client, on_data=said)
            await client.connect()
            assert client.acknowledges
            await client.send([b"records"])
            await until(lambda: handlers.octets == 7)
            for answer in (b"1", b"2"):
                assert handlers[0].peer.answer is not None
                handlers[0].peer.answer(answer)
                await until(partial(said.endswith, answer))
            await client.send([b"more"])
            await until(lambda: handlers.octets == 11)
            assert await client.close()
        assert said == b"12"
        assert server.stats.errors == {}

    run(scenario())


def test_only_a_client_that_asks_over_tls_is_answered(run: Run, pki: Pki) -> None:
    async def scenario() -> None:
        async with serving(Server(handlers := Recorders(), tls=pki.server)) as server:
            client = client_of(server, pki.client)
            await client.connect()
            assert not client.acknowledges
            await until(lambda: handlers)
            assert handlers[0].peer.answer is None
            await client.close()
        async with serving(Server(handlers := Recorders())) as server:
            client = client_of(server, None, on_data=Said())
            await client.connect()
            assert not client.acknowledges
            await until(lambda: handlers)
            assert handlers[0].peer.answer is None
            await client.close()

    run(scenario())


def test_a_peer_that_does_not_read_costs_one_answer(run: Run, pki: Pki) -> None:
    """Thousands of answers to who reads none of them: what is kept is what left and the newest."""

    async def scenario() -> None:
        async with serving(Server(handlers := Recorders(), tls=pki.server)) as server:
            context = pki.client.client_context()
            context.set_alpn_protocols([PROTOCOL])
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            raw.connect(("127.0.0.1", server.port))
            tls = await asyncio.to_thread(context.wrap_socket, raw, server_hostname="localhost")
            await until(lambda: handlers)
            answer = handlers[0].peer.answer
            assert answer is not None
            (session,) = server.sessions
            session._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
            number = 0
            while number < 3000 or not session._pending:  # until the kernel takes no more
                number += 1
                answer(number.to_bytes(8) * 512)
                await asyncio.sleep(0)
            assert len(session._pending) < PENDING_BYTES
            newest = number.to_bytes(8) * 512
            assert session._answer == newest
            last = await asyncio.to_thread(read_until, tls, newest)
            assert len(last) < number * 4096
            assert session.open
            tls.close()
        assert server.stats.errors == {}

    run(scenario())


def read_until(tls: ssl.SSLSocket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += tls.recv(1 << 16)
    return data


class Speaker:
    """A session that notes in which turn of the loop it spoke."""

    def __init__(self, spoken: list[int], turn: list[int]) -> None:
        self._spoken, self._turn = spoken, turn

    def send_answer(self) -> None:
        self._spoken.append(self._turn[0])


async def test_thousands_are_answered_over_many_turns_of_the_loop() -> None:
    spoken: list[int] = []
    turn = [0]
    answers = Answers()
    speakers = [Speaker(spoken, turn) for _ in range(3 * AT_ONCE)]
    for speaker in (*speakers, *speakers):  # the second answer is in the place of the first
        answers.add(speaker)
    answers.discard(speakers[1])
    for turn[0] in range(10):
        await asyncio.sleep(0)
    assert spoken == [*[0] * AT_ONCE, *[1] * AT_ONCE, *[2] * (AT_ONCE - 1)]
    answers.add(speakers[0])
    await asyncio.sleep(0.001)
    assert len(spoken) == 3 * AT_ONCE


def test_what_is_wrong_in_an_answer_ends_the_session(run: Run, pki: Pki) -> None:
    async def scenario() -> None:
        said = Said()
        said.refuse = b"bad"
        async with serving(Server(handlers := Recorders(), tls=pki.server)) as server:
            client = client_of(server, pki.client, on_data=said)
            await client.connect()
            await until(lambda: handlers)
            assert handlers[0].peer.answer is not None
            handlers[0].peer.answer(b"bad")
            await client.lost()
            assert client.stats.lost == {"acknowledgement": 1}
            with pytest.raises(ConnectionLost):
                await client.send([b"more"])
            await client.close()
            handlers[0].peer.answer(b"to nobody")

    run(scenario())


def test_an_answer_given_before_the_end_arrives_before_it(run: Run, pki: Pki) -> None:
    async def scenario() -> None:
        said = Said()
        server = Server(handlers := Recorders(), tls=pki.server)
        async with serving(server):
            client = client_of(server, pki.client, on_data=said)
            await client.connect()
            await client.send([b"records"])
            await until(lambda: handlers.octets)
            assert handlers[0].peer.answer is not None
            handlers[0].peer.answer(b"all")
        await client.lost()
        assert said == b"all"
        handlers[0].peer.answer(b"late")
        await client.close()

    run(scenario())


def test_servers_that_know_other_protocols_only_get_plain_sessions(run: Run, pki: Pki) -> None:
    """An aggregator of before selects none, as do others that are made with OpenSSL or Go."""

    async def scenario() -> None:
        context = pki.server.server_context()
        context.set_alpn_protocols(["ipfix", "http/1.1", "h2"])
        got = bytearray()

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"nonsense")
            got.extend(await reader.read())
            writer.close()

        listener = await asyncio.start_server(read, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        said = Said()
        client = Client(CollectorAddress("127.0.0.1", port), pki.client, on_data=said)
        await client.connect()
        assert not client.acknowledges
        await client.send([b"records"])
        await client.close()
        await until(lambda: got == b"records")
        listener.close()
        assert said == b""

    run(scenario())


def test_a_server_that_refuses_the_offer_gets_a_session_without_it(
    run: Run, pki: Pki, tmp_path: Path
) -> None:
    """RFC 7301 section 3.2 has servers end such handshakes."""
    port = free_port()
    with (tmp_path / "received").open("wb") as received:
        strict = subprocess.Popen(
            strict_server(pki.server, port),
            stdin=subprocess.PIPE,
            stdout=received,
            stderr=received,
        )

    async def scenario() -> None:
        client = Client(CollectorAddress("127.0.0.1", port), pki.client, on_data=Said())
        for session in (1, 2):
            await client.connect()
            assert not client.acknowledges
            await client.send([f"records {session}".encode()])
            await until(partial(has, tmp_path / "received", f"records {session}"))
            client.cut()
        # One to see that it accepts, then each time one with the offer and one without.
        assert client.stats.sessions == 2
        assert client.stats.attempts == 4

    try:
        block_until(lambda: "ACCEPT" in (tmp_path / "received").read_text())
        run(scenario())
    finally:
        strict.kill()
        strict.communicate()


def has(path: Path, text: str) -> bool:
    return text in path.read_text()


def strict_server(tls: TlsFiles, port: int) -> list[str]:
    ca, certificate, key = (str(path_of(pem)) for pem in (tls.ca, tls.certificate, tls.key))
    files = ["-CAfile", ca, "-cert", certificate, "-key", key]
    return ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", *files, "-Verify", "1",
            "-alpn", "other"]  # fmt: skip
