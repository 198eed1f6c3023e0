"""Netlink messages by hand, byte for byte, for the tests of the decoder."""

import struct
from ipaddress import ip_address
from typing import Any

NESTED = 0x8000
CT_NEW, CT_DELETE = 0x100, 0x102
MULTI, INTERRUPTED, EXCL, CREATE = 0x2, 0x10, 0x200, 0x400
ERROR, DONE = 2, 3


def message(kind: int, body: bytes, flags: int = MULTI, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def done(error: int = 0, sequence: int = 1) -> bytes:
    return message(DONE, struct.pack("=i", error), sequence=sequence)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes([value]))


def be16(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(2, "big"))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def addresses(source: str, destination: str) -> bytes:
    first = 1 if ip_address(source).version == 4 else 3
    return nest(
        1,
        attribute(first, ip_address(source).packed),
        attribute(first + 1, ip_address(destination).packed),
    )


def ports(protocol: int, source: int, destination: int) -> bytes:
    return nest(2, u8(1, protocol), be16(2, source), be16(3, destination))


def icmp(protocol: int, number: int, kind: int, code: int) -> bytes:
    first = 4 if protocol == 1 else 7
    return nest(2, u8(1, protocol), be16(first, number), u8(first + 1, kind), u8(first + 2, code))


def entry(*attributes: bytes, family: int = 2) -> bytes:
    """nfgenmsg and attributes."""
    return bytes([family, 0, 0, 0]) + b"".join(attributes)


def udp(*more: bytes, source_port: int = 5000) -> bytes:
    """The least that an entry must have, and more."""
    return entry(
        nest(1, addresses("10.0.0.1", "10.0.0.2"), ports(17, source_port, 53)),
        nest(2, addresses("10.0.0.2", "10.0.0.1"), ports(17, 53, source_port)),
        *more,
    )


FULL = entry(
    nest(1, addresses("10.0.0.1", "10.96.0.1"), ports(6, 40000, 80)),
    nest(2, addresses("10.0.1.5", "192.168.1.1"), ports(6, 8080, 61000)),
    be32(12, 0xDEADBEEF),
    be32(3, 0x1FE),
    be32(7, 431999),
    be32(8, 0x80000001),
    nest(9, be64(1, 1 << 33), be64(2, 1 << 44)),
    nest(10, be64(1, 7), be64(2, 8)),
    nest(20, be64(1, 1_700_000_000_123_456_789), be64(2, 1_700_000_001_000_000_000)),
    nest(4, nest(1, u8(1, 3), u8(2, 7), attribute(4, b"\x23\x23"))),
    be16(18, 0xFFF0),
    attribute(22, bytes(range(16))),
    be32(11, 1),  # CTA_USE, of no interest
    attribute(900, b"from a kernel to come"),
)

FULL_COLUMNS: dict[str, Any] = {
    "source": "10.0.0.1",
    "destination": "10.96.0.1",
    "reply_source": "10.0.1.5",
    "reply_destination": "192.168.1.1",
    "labels": bytes(range(16)),
    "packets": 1 << 33,
    "octets": 1 << 44,
    "reverse_packets": 7,
    "reverse_octets": 8,
    "start_ns": 1_700_000_000_123_456_789,
    "stop_ns": 1_700_000_001_000_000_000,
    "mark": 0x80000001,
    "status": 0x1FE,
    "id": 0xDEADBEEF,
    "timeout": 431999,
    "source_port": 40000,
    "destination_port": 80,
    "reply_source_port": 8080,
    "reply_destination_port": 61000,
    "icmp_id": 0,
    "zone": 0xFFF0,
    "icmp_type": 0,
    "icmp_code": 0,
    "protocol": 6,
    "family": 2,
    "tcp_state": 3,
    "uncounted": 0,
    "event": 0,
}
