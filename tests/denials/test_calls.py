import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denials.messages import attribute, ipv4, ipv6, logged, ports
from flowvis.batch import address_text
from flowvis.conntrack.sources.sockets import DumpSocket
from flowvis.conntrack.sources.tracking import RULE
from flowvis.denials.nflog import LogDecoder
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import Prefixes
from namespaces import run

UDP = 17
NFGENMSG = 20  # bytes before the attributes of a connection that is dumped


def connection(source: str, destination: str, port: int | None = 53) -> bytes:
    """The attributes of a connection, as far as they matter here."""
    kinds = (3, 4) if ":" in source else (1, 2)
    addresses = b"".join(
        attribute(kind, ip_address(text).packed)
        for kind, text in zip(kinds, (source, destination), strict=True)
    )
    protocol = attribute(1, bytes([UDP]))
    if port is not None:
        protocol += attribute(2, struct.pack("!H", 1234)) + attribute(3, struct.pack("!H", port))
    original = attribute(1 | 0x8000, addresses) + attribute(2 | 0x8000, protocol)
    return attribute(1 | 0x8000, original) + attribute(2 | 0x8000, bytes(40))


def decode(*messages: bytes) -> Packets:
    return LogDecoder(Prefixes()).decode(b"".join(messages), 0)


def called(packets: Packets) -> list[tuple[str, int]]:
    addresses = [address_text(address.tobytes()) for address in packets.called]
    return list(zip(addresses, packets.called_port.tolist(), strict=True))


PACKET = ipv4("10.0.0.1", "10.0.0.2", UDP, ports(1234, 8053))
PACKET6 = ipv6("fd00::1", "fd00::2", UDP, ports(1234, 8053))


def test_the_service_before_dnat() -> None:
    packets = decode(
        logged(PACKET, connection=connection("10.0.0.1", "10.96.0.1")),
        logged(PACKET),
        logged(PACKET6, connection=connection("fd00::1", "fd00:96::1")),
    )
    assert called(packets) == [("10.96.0.1", 53), ("10.0.0.2", 8053), ("fd00:96::1", 53)]


@pytest.mark.parametrize(
    "other",
    [
        connection("10.0.0.2", "10.0.0.1"),  # an answer: its connection is the other's
        b"",
        connection("10.0.0.1", "10.96.0.1")[:12],
        attribute(1, attribute(1, attribute(1, bytes(3)) + attribute(2, bytes(5)))),
        attribute(1, bytes(40)),
        bytes(40),
    ],
)
def test_what_does_not_tell(other: bytes) -> None:
    packets = decode(logged(PACKET, connection=other), logged(PACKET6, connection=other))
    assert called(packets) == [("10.0.0.2", 8053), ("fd00::2", 8053)]


def test_without_ports() -> None:
    ping = ipv4("10.0.0.1", "10.0.0.2", 1, bytes(8))
    one = connection("10.0.0.1", "10.96.0.1", None)
    assert called(decode(logged(ping, connection=one))) == [("10.96.0.1", 0)]
    assert called(decode(logged(PACKET, connection=one))) == [("10.96.0.1", 8053)]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 100), st.binary(max_size=8))
def test_any_bytes(noise: bytes, at: int, patch: bytes) -> None:
    good = bytearray(connection("10.0.0.1", "10.96.0.1"))
    good[at : at + len(patch)] = patch
    packets = decode(logged(PACKET, connection=noise), logged(PACKET, connection=bytes(good)))
    assert len(called(packets)) == 2


class Recorder:
    """Keeps the bytes of a dump."""

    def __init__(self) -> None:
        self.connections: list[bytes] = []

    def feed(self, data: memoryview, sequence: int | None = None) -> int | None:  # noqa: ARG002
        """Keep the attributes of each connection."""
        at = 0
        while at < len(data):
            size, kind = struct.unpack_from("=IH", data, at)
            if kind == 3:  # NLMSG_DONE
                return 0
            self.connections.append(bytes(data[at + NFGENMSG : at + size]))
            at += (size + 3) & ~3
        return None


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
def test_connections_as_the_kernel_writes_them() -> None:
    run("nft", RULE)
    run("ip", "address", "add", "10.0.0.1/8", "dev", "lo")
    run(
        "nft",
        "table ip services { chain output { type nat hook output priority -100; "
        "ip daddr 10.96.0.1 udp dport 53 dnat to 10.0.0.2:8053; }; }",
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.0.0.1", 1234))
        sender.sendto(b"question", ("10.96.0.1", 53))
    dumps, recorder = DumpSocket(), Recorder()
    dumps.dump(recorder)
    dumps.close()
    packets = decode(*(logged(PACKET, connection=one) for one in recorder.connections))
    assert ("10.96.0.1", 53) in called(packets)
