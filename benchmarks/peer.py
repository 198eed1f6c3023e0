"""A peer of the collector: a session of mutual TLS, and records that mean what they say."""

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from flowvis.batch import Batch, address_bytes
from flowvis.fields import EXPORTED, EndReason, FlowType, Kind
from flowvis.ipfix.exporter import ExporterSession
from flowvis.native import StringTable
from flowvis.native.contract.ipfix import HEADER
from flowvis.strings import Strings

CONNECT_S = 30.0
PORT = 8080


def context(certificates: Path, name: str = "client") -> ssl.SSLContext:
    """What a client with the certificate `name` trusts and shows."""
    made = ssl.create_default_context(cafile=certificates / "ca.crt")
    made.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
    return made


def connect(
    port: int, tls: ssl.SSLContext, source: str = "127.0.0.1", patience_s: float = CONNECT_S
) -> ssl.SSLSocket:
    """Open a session with the collector on this machine, from an address of loopback."""
    plain = socket.create_connection(("127.0.0.1", port), patience_s, source_address=(source, 0))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return tls.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


class DatagramSession:
    """A sender over UDP, with the part of a session's interface that a peer needs."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((source, 0))
        self._socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def sendall(self, data: bytes) -> None:
        """Send messages, each as a datagram."""
        for message in datagrams(data):
            self._socket.send(message)

    def unwrap(self) -> None:
        """Nobody says what was read."""


Session = ssl.SSLSocket | DatagramSession
Dial = Callable[[], Session]
"""Opens a session with the collector."""


def datagrams(data: bytes) -> list[bytes]:
    """Cut a stream of messages into these, by their lengths."""
    found = []
    while data:
        _, length, *_ = HEADER.unpack_from(data)
        found.append(data[:length])
        data = data[length:]
    return found


def finished(network: bytes, numbers: Iterable[int], strings: Strings, **values: Any) -> Batch:
    """Records of connections that are over, one each: they are written at the next tick.

    The client's address is `network`, two bytes, with the number in the last two; `values` are of
    all records, by field.
    """
    sources = np.fromiter(numbers, np.uint16)
    now_ms = int(1000 * time.time())
    columns = {
        field.name: np.zeros((len(sources), *field.kind.shape), field.kind.dtype)
        for field in EXPORTED
    }
    given: dict[str, Any] = {
        "flowStartSeconds": now_ms // 1000 - 1,
        "flowStartMilliseconds": now_ms - 1000,
        "flowEndSeconds": now_ms // 1000,
        "flowEndMilliseconds": now_ms,
        "flowEndReason": EndReason.END,
        "sourceIP": "10.99.0.0",
        "destinationIP": "10.97.0.1",
        "sourceTransportPort": 40_000,
        "destinationTransportPort": PORT,
        "protocolIdentifier": 6,
        "tcpState": "TIME_WAIT",
        "flowType": FlowType.INTRA_NODE,
        "sourcePodName": "client",
        "sourcePodNamespace": "good",
        "sourceNodeName": "node-good",
        "destinationPodName": "server",
        "destinationPodNamespace": "good",
        "destinationNodeName": "node-good",
        "octetTotalCount": 1000,
        "octetDeltaCount": 1000,
        "packetTotalCount": 10,
        "packetDeltaCount": 10,
    } | values
    kinds = {field.name: field.kind for field in EXPORTED}
    for name, value in given.items():
        if kinds[name] is Kind.ADDRESS:
            columns[name][:] = np.frombuffer(address_bytes(value), np.uint8)
        elif kinds[name] is Kind.TEXT:
            columns[name][:] = strings.intern(value.encode())
        else:
            columns[name][:] = value
    columns["sourceIP"][:, 12:14] = np.frombuffer(network, np.uint8)
    columns["sourceIP"][:, 14] = sources >> 8
    columns["sourceIP"][:, 15] = sources & 0xFF
    return Batch(columns, strings)


class Records:
    """What one session sends: templates first, then records as messages."""

    def __init__(self, domain: int) -> None:
        self.strings: Strings = StringTable()
        self._session = ExporterSession(domain, EXPORTED)

    def templates(self) -> bytes:
        return b"".join(self._session.templates(int(time.time())))

    def messages(self, network: bytes, numbers: Iterable[int], **values: Any) -> list[bytes]:
        batch = finished(network, numbers, self.strings, **values)
        return self._session.encode(batch, int(time.time()))

    def one_by_one(self, network: bytes, numbers: Iterable[int], **values: Any) -> list[bytes]:
        """As `messages`, with a message for each record, as Antrea's agents send them."""
        batch = finished(network, numbers, self.strings, **values)
        now = int(time.time())
        return [
            message
            for number in range(len(batch))
            for message in self._session.encode(batch.take(slice(number, number + 1)), now)
        ]
