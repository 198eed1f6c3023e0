"""Real TLS on loopback, on both event loops."""

import asyncio
import ctypes
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from flowvis.errors import PeerError
from flowvis.transport.address import CollectorAddress
from flowvis.transport.certificates import Issued, issue_ca, issue_client, issue_server
from flowvis.transport.client import Client
from flowvis.transport.server import Peer, Server
from flowvis.transport.tls import Pem, TlsFiles
from waiting import PATIENCE_S

Run = Callable[[Coroutine[Any, Any, None]], None]
SO_ATTACH_FILTER = 26  # asm-generic/socket.h


@dataclass
class Pki:
    """A CA in a directory with a server's and a client's certificate."""

    directory: Path
    ca: Issued
    server: TlsFiles
    client: TlsFiles


def make_pki(directory: Path) -> Pki:
    ca = issue_ca("test")
    root, _ = ca.write(directory, "ca")
    server = issue_server(ca, ["localhost", "127.0.0.1", "::1"]).write(directory, "server")
    client = issue_client(ca, "node-1").write(directory, "client")
    return Pki(directory, ca, TlsFiles(root, *server), TlsFiles(root, *client))


def path_of(pem: Pem | None) -> Path:
    """The file: here every PEM is one."""
    assert isinstance(pem, Path)
    return pem


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(coro: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(2 * PATIENCE_S):
                await coro

        with asyncio.Runner(loop_factory=factory) as loop_runner:
            loop_runner.run(bounded())

    return runner


@dataclass
class Recorder:
    """A handler that keeps what it gets."""

    peer: Peer
    data: bytearray = field(default_factory=bytearray)
    ends: list[str] = field(default_factory=list)
    refuse: bytes = b""
    pending: bool = False
    pause_s: float = 0.0
    fruitless: bool = False

    @property
    def proven(self) -> bool:
        return bool(self.data)

    def data_received(self, data: memoryview) -> float:
        self.data += data
        if self.refuse and self.refuse in self.data:
            raise PeerError("refused-bytes", "bytes that the test refuses")
        return 0.0

    def go_on(self) -> float:
        raise AssertionError("nothing was pending")

    def eof(self) -> None:
        self.ends.append("eof")

    def closed(self) -> None:
        self.ends.append("closed")


class Recorders(list[Recorder]):
    """A factory of handlers that remembers them."""

    refuse = b""

    def __call__(self, peer: Peer) -> Recorder:
        self.append(Recorder(peer, refuse=self.refuse))
        return self[-1]

    @property
    def octets(self) -> int:
        return sum(len(recorder.data) for recorder in self)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def client_of(server: Server, tls: TlsFiles | None, **options: Any) -> Client:
    protocol = "tls" if tls else "tcp"
    return Client(CollectorAddress("127.0.0.1", server.port, protocol), tls, **options)


def lose_power(sock: socket.socket) -> None:
    """Have a socket's kernel take no packet any more, not even to answer it."""
    nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET: 0 bytes
    program = struct.pack("@HP", 1, ctypes.addressof(nothing))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@contextmanager
def few_descriptors(free: int = 0) -> Iterator[None]:
    """Use up what the process may open, but for so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + free
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        while len(fillers) < highest:
            try:
                fillers.append(os.dup(0))
            except OSError:
                break
        for _ in range(free):
            os.close(fillers.pop())
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
