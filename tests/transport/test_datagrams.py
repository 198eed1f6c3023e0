"""Our client over UDP, against plain sockets and what the network says of them."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flowvis.runtime.backoff import Backoff
from flowvis.transport import client as client_module
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client, ConnectionLost
from namespaces import new_namespace, run
from ports import free_port
from waiting import until


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's first messages are waited after for a moment only."""
    monkeypatch.setattr(client_module, "PROOF_S", 0.05)


@contextmanager
def receiver(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        sock.setblocking(False)
        yield sock


def client_to(port: int, host: str = "127.0.0.1") -> Client:
    return Client(CollectorAddress(host, port, "udp"), backoff=Backoff(first_s=0.01))


def fragments() -> int:
    """How many packets this namespace has cut so far."""
    counted = run("cat", "/proc/thread-self/net/snmp").splitlines()
    names, values = (line.split() for line in counted if line.startswith("Ip:"))
    six = dict(line.split() for line in run("cat", "/proc/thread-self/net/snmp6").splitlines())
    return int(dict(zip(names, values, strict=True))["FragCreates"]) + int(six["Ip6FragCreates"])


async def test_each_message_is_one_datagram() -> None:
    with receiver() as sock:
        client = client_to(sock.getsockname()[1])
        await client.connect()
        assert client.datagrams
        messages = [bytes([at]) * (100 + at) for at in range(200)]
        await client.send(messages)
        got = [sock.recv(1 << 16) for _ in messages]
        assert not await client.close()  # nobody can confirm
    assert got == messages
    assert client.stats.messages == 200
    assert client.stats.octets == sum(map(len, messages))
    assert client.stats.lost == {}


async def test_a_burst_does_not_overrun_a_default_buffer() -> None:
    """Four times what a receiver's buffer holds, which reads whenever it has its turn."""
    with receiver() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 106_496)
        got: list[bytes] = []

        def read() -> None:
            got.append(sock.recv(1 << 16))

        asyncio.get_running_loop().add_reader(sock, read)
        client = client_to(sock.getsockname()[1])
        await client.connect()
        await client.send([bytes(1400)])
        await client.send([bytes(1400)] * 600)
        await until(lambda: len(got) >= 601)
        await client.close()
        asyncio.get_running_loop().remove_reader(sock)


async def test_a_port_that_nobody_listens_on_ends_the_session() -> None:
    port = free_port()
    client = client_to(port)
    await client.connect()
    with pytest.raises(ConnectionLost, match="Connection refused") as lost:
        await client.send([b"templates"])
    assert lost.value.unsent == [b"templates"]
    assert client.stats.lost == {"econnrefused": 1}
    with receiver(port=port) as sock:
        await client.connect()
        await client.send([b"templates"])
        assert sock.recv(100) == b"templates"
        await client.close()
    assert client.stats.sessions == 2


async def test_the_other_address_of_a_name_is_tried_when_one_was_in_vain() -> None:
    """As of localhost, which is ::1 and 127.0.0.1 on many hosts."""

    async def both(_: CollectorAddress) -> list[str]:
        return ["::1", "127.0.0.1"]

    for host in ("127.0.0.1", "::1"):
        with receiver(host) as sock:
            address = CollectorAddress("localhost", sock.getsockname()[1], "udp")
            client = Client(address, hosts=both, backoff=Backoff(first_s=0.01))
            for _ in range(3):
                await client.connect()
                try:
                    await client.send([b"x"])
                    break
                except ConnectionLost:
                    continue
            assert sock.recv(10) == b"x"
            await client.close()


@pytest.mark.kernel
@pytest.mark.parametrize(("host", "headers"), [("127.0.0.1", 28), ("::1", 48)])
async def test_messages_are_as_large_as_the_path_takes_and_never_fragments(
    host: str, headers: int
) -> None:
    with new_namespace():
        run("ip", "link", "set", "lo", "mtu", "1500")
        with receiver(host) as sock:
            client = client_to(sock.getsockname()[1], host)
            await client.connect()
            assert client.max_message == 1500 - headers
            await client.send([bytes(client.max_message)])
            assert len(sock.recv(1 << 16)) == 1500 - headers
            with pytest.raises(ConnectionLost, match=f"the path takes {1500 - headers}") as lost:
                await client.send([b"fits", bytes(client.max_message + 1)])
            assert lost.value.unsent[-1] == bytes(1500 - headers + 1)
            assert set(client.stats.lost) == {errno.errorcode[errno.EMSGSIZE].lower()}
            run("ip", "link", "set", "lo", "mtu", "1300")  # the path changes
            await client.connect()
            assert client.max_message == 1300 - headers
            await client.send([bytes(client.max_message)])
            await client.close()
            assert fragments() == 0


@pytest.mark.kernel
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_message_that_cannot_be_made_smaller_may_go_in_fragments(host: str) -> None:
    with new_namespace():
        run("ip", "link", "set", "lo", "mtu", "1500")
        with receiver(host) as sock:
            address = CollectorAddress(host, sock.getsockname()[1], "udp")
            client = Client(address, fragments=True, backoff=Backoff(first_s=0.01))
            await client.connect()
            message = bytes(range(256)) * 30
            await client.send([message])
            assert sock.recv(1 << 16) == message
            assert fragments() >= 6
            await client.close()
