"""Clients and servers of the lab: plain sockets made in the namespaces of its Pods.

A request starts with its own length and that of the response wanted (two 32-bit words); the rest is
filling. A datagram is one request or one response.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from flowvis.errors import SystemRefused
from flowvis.lab.namespaces import inside
from flowvis.lab.plan import AGENT, OUTSIDE, SERVER_PORT, hosts
from flowvis.lab.scenarios import Outcome, Scenario

HEADER = struct.Struct("!II")
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ANSWER_S = 10.0  # the lab's links lose nothing: no answer by then is a fault
PATIENCE_S = 1.6  # where none will come: TCP tries a second time after one second
LARGEST_DATAGRAM = 1 << 16


@asynccontextmanager
async def servers() -> AsyncIterator[None]:
    """Answer in every Pod, at a node's own address and on the outside host, while the body runs."""
    listening: list[asyncio.Server] = []
    answering: list[asyncio.Task[None]] = []
    try:
        for host in (OUTSIDE, AGENT.node.name, *hosts()):
            for family in FAMILIES:
                stream = _socket(host, family, "tcp", SERVER_PORT)
                listening.append(await asyncio.start_server(_answer, sock=stream))
                datagrams = _socket(host, family, "udp", SERVER_PORT)
                answering.append(asyncio.create_task(_answer_datagrams(datagrams)))
        yield
    finally:
        for server in listening:
            server.close()
        # Nothing is awaited here: that would hide why the body ends, if that is an error.
        for task in answering:
            task.cancel()


async def run(scenarios: Sequence[Scenario], duration_s: float) -> None:
    """Have all connections of all scenarios; those with one exchange are spread over the time."""
    async with asyncio.TaskGroup() as group:
        for scenario in scenarios:
            for number, port in enumerate(scenario.client_ports):
                group.create_task(_connection(scenario, number, port, duration_s))


def exchange_times(scenario: Scenario, number: int, duration_s: float) -> list[float]:
    """Return when connection `number` has its exchanges, in seconds from the start."""
    begin, end = (duration_s * part for part in scenario.during)
    if not scenario.every_s:
        return [begin + (end - begin) * number / scenario.connections]
    times = max(1, round((end - begin) / scenario.every_s))
    return [begin + scenario.every_s * i for i in range(times)]


async def _connection(scenario: Scenario, number: int, port: int, duration_s: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    exchange = _EXCHANGES[scenario.outcome, scenario.protocol]
    client: socket.socket | None = None
    try:
        for at_s in exchange_times(scenario, number, duration_s):
            await asyncio.sleep(began + at_s - loop.time())
            if client is None:
                client = _socket(
                    scenario.client.host,
                    scenario.family,
                    scenario.protocol,
                    port,
                    scenario.client_address,
                )
            async with asyncio.timeout(ANSWER_S):
                await exchange(client, scenario)
            if scenario.anew:
                async with asyncio.timeout(ANSWER_S):
                    await _part(client)
                client.close()
                client = None
    except (TimeoutError, OSError) as error:
        raise SystemRefused(f"scenario {scenario.name}, port {port}: {error!r}") from error
    finally:
        if client is not None:
            client.close()


async def _exchange(client: socket.socket, scenario: Scenario) -> None:
    loop = asyncio.get_running_loop()
    await _connect(client, scenario)
    await loop.sock_sendall(client, _request(scenario))
    left = scenario.response
    while left:
        got = len(await loop.sock_recv(client, left))
        if not got:
            raise ConnectionError(f"closed with {left} bytes to come")
        left -= got


async def _part(client: socket.socket) -> None:
    """End a stream, and wait until the server has ended its way too.

    A SYN to a server that has not is answered as one of the connection before, and comes again:
    conntrack lets the first pass and counts it nowhere (TCP_CONNTRACK_IGNORE).
    """
    client.shutdown(socket.SHUT_WR)
    if await asyncio.get_running_loop().sock_recv(client, 1):
        raise ConnectionError("more than was asked for")


async def _exchange_datagrams(client: socket.socket, scenario: Scenario) -> None:
    loop = asyncio.get_running_loop()
    await _connect(client, scenario)
    await loop.sock_sendall(client, _request(scenario))
    got = len(await loop.sock_recv(client, LARGEST_DATAGRAM))
    if got != scenario.response:
        raise ConnectionError(f"a response of {got} bytes, not {scenario.response}")


async def _be_refused(client: socket.socket, scenario: Scenario) -> None:
    try:
        await _connect(client, scenario)
    except ConnectionRefusedError:
        return
    raise ConnectionError("was let through")


async def _be_ignored(client: socket.socket, scenario: Scenario) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await _connect(client, scenario)
    except TimeoutError:
        return
    raise ConnectionError("was let through")


async def _send_datagram(client: socket.socket, scenario: Scenario) -> None:
    await _connect(client, scenario)
    for _ in range(scenario.burst):
        await asyncio.get_running_loop().sock_sendall(client, _request(scenario))


_EXCHANGES = {
    (Outcome.ANSWERED, "tcp"): _exchange,
    (Outcome.ANSWERED, "udp"): _exchange_datagrams,
    (Outcome.REFUSED, "tcp"): _be_refused,
    (Outcome.SILENCE, "tcp"): _be_ignored,
    (Outcome.SILENCE, "udp"): _send_datagram,
}
"""What a client does once, and what it takes for right."""


async def _connect(client: socket.socket, scenario: Scenario) -> None:
    """Connect a socket that is not connected yet."""
    try:
        client.getpeername()
    except OSError:
        await asyncio.get_running_loop().sock_connect(client, scenario.server)


def _request(scenario: Scenario) -> bytes:
    return HEADER.pack(scenario.request, scenario.response).ljust(scenario.request, b".")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while header := await reader.read(HEADER.size):
            header += await reader.readexactly(HEADER.size - len(header))
            request, response = HEADER.unpack(header)
            await reader.readexactly(request - HEADER.size)
            writer.write(bytes(response))
            await writer.drain()
    except (ConnectionError, EOFError):
        pass  # the client says what it misses, if it is still there
    finally:
        writer.close()


async def _answer_datagrams(server: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with server:
        while True:
            data, client = await loop.sock_recvfrom(server, LARGEST_DATAGRAM)
            _, response = HEADER.unpack_from(data)
            await loop.sock_sendto(server, bytes(response), client)


def _socket(
    host: str, family: int, protocol: str, port: int, address: str | None = None
) -> socket.socket:
    """Make a socket in a host's network namespace and bind it."""
    with inside(host):
        made = socket.socket(FAMILIES[family], KINDS[protocol])
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((address or ("::" if family == 6 else "0.0.0.0"), port))  # noqa: S104  a Pod's own
    return made
