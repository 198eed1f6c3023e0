"""Logged packets as the kernel sends them, and IP packets, written out by hand."""

import struct
from ipaddress import ip_address

PREFIX, PAYLOAD, TIMESTAMP, SEQUENCE, CONNECTION = 10, 9, 3, 12, 18
PACKET = 4 << 8


def attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def netlink(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def logged(
    payload: bytes,
    *,
    prefix: bytes | None = None,
    number: int | None = None,
    ms: int | None = None,
    connection: bytes | None = None,
) -> bytes:
    """A message about a packet."""
    parts = [attribute(1, struct.pack("!HBB", 0x0800, 3, 0))]
    if prefix is not None:
        parts.append(attribute(PREFIX, prefix + b"\0"))
    parts += [attribute(4, struct.pack("!I", 7)), attribute(11, struct.pack("!I", 1000))]
    if ms is not None:
        parts.append(attribute(TIMESTAMP, struct.pack("!QQ", ms // 1000, ms % 1000 * 1000)))
    if number is not None:
        parts.append(attribute(SEQUENCE, struct.pack("!I", number)))
    if connection is not None:
        parts.append(attribute(CONNECTION | 0x8000, connection))
    parts.append(attribute(PAYLOAD, payload))
    return netlink(PACKET, struct.pack("!BBH", 2, 0, 5) + b"".join(parts))


def ports(source: int, destination: int) -> bytes:
    return struct.pack("!HH", source, destination) + bytes(16)


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    body: bytes = b"",
    *,
    options: int = 0,
    fragment: int = 0,
    total: int | None = None,
) -> bytes:
    """A packet with so many words of options, at a fragment offset of so many 8 bytes."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + options,
        0,
        20 + 4 * options + len(body) if total is None else total,
        0,
        fragment,
        64,
        protocol,
        0,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    return header + bytes(4 * options) + body


def ipv6(source: str, destination: str, following: int, body: bytes = b"") -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + addresses + body


def extension(following: int, units: int = 0) -> bytes:
    """An extension header of 8 bytes and so many more 8 bytes."""
    return bytes([following, units]) + bytes(6 + 8 * units)


def ipv6_fragment(following: int, offset: int) -> bytes:
    return struct.pack("!BBHI", following, 0, offset << 3, 1)


def authentication(following: int, units: int) -> bytes:
    """An authentication header: its length is in 4 bytes, less two."""
    return bytes([following, units]) + bytes((units + 2) * 4 - 2)
