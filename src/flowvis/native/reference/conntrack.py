"""The reference decoder of the kernel's connections: ctnetlink messages to columns.

A dump or an event is a run of netlink messages: a header, the family (nfgenmsg) and nested
attributes. Sources: linux/netlink.h, linux/netfilter/nfnetlink.h and
linux/netfilter/nfnetlink_conntrack.h.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED
from flowvis.native.contract.conntrack import (
    DESTROY,
    DUMP,
    MAX_ENTRIES,
    NEW,
    NO_TCP_STATE,
    RECORD,
    UPDATE,
)

Value = int | bytes
Plan = Mapping[int, "Plan | tuple[str, Callable[[bytes], Value]]"]


class MalformedEntry(ValueError):
    """A message whose lengths or required attributes are wrong."""


def _number(size: int) -> Callable[[bytes], int]:
    """A reader of unsigned numbers in network order."""

    def read(payload: bytes) -> int:
        if len(payload) < size:
            raise MalformedEntry
        return int.from_bytes(payload[:size], "big")

    return read


def _ipv4(payload: bytes) -> bytes:
    if len(payload) != 4:
        raise MalformedEntry
    return V4_MAPPED + payload


def _ipv6(payload: bytes) -> bytes:
    if len(payload) != 16:
        raise MalformedEntry
    return payload


def _labels(payload: bytes) -> bytes:
    return payload[:16].ljust(16, b"\0")


_u8, _u16, _u32, _u64 = (_number(size) for size in (1, 2, 4, 8))


def _addresses(source: str, destination: str) -> Plan:
    """The plan of CTA_TUPLE_IP."""
    return {
        1: (source, _ipv4),
        2: (destination, _ipv4),
        3: (source, _ipv6),
        4: (destination, _ipv6),
    }


def _counters(packets: str, octets: str) -> Plan:
    """The plan of CTA_COUNTERS_ORIG and CTA_COUNTERS_REPLY."""
    return {1: (packets, _u64), 2: (octets, _u64)}


_PLAN: Plan = {
    1: {  # CTA_TUPLE_ORIG
        1: _addresses("source", "destination"),
        2: {  # CTA_TUPLE_PROTO
            1: ("protocol", _u8),
            2: ("source_port", _u16),
            3: ("destination_port", _u16),
            4: ("icmp_id", _u16),
            5: ("icmp_type", _u8),
            6: ("icmp_code", _u8),
            7: ("icmp_id", _u16),  # the three of ICMPv6
            8: ("icmp_type", _u8),
            9: ("icmp_code", _u8),
        },
        3: ("zone", _u16),  # a zone that holds in one direction only
    },
    2: {  # CTA_TUPLE_REPLY
        1: _addresses("reply_source", "reply_destination"),
        2: {2: ("reply_source_port", _u16), 3: ("reply_destination_port", _u16)},
        3: ("zone", _u16),
    },
    3: ("status", _u32),
    4: {1: {1: ("tcp_state", _u8)}},  # CTA_PROTOINFO, CTA_PROTOINFO_TCP
    7: ("timeout", _u32),
    8: ("mark", _u32),
    9: _counters("packets", "octets"),
    10: _counters("reverse_packets", "reverse_octets"),
    12: ("id", _u32),
    18: ("zone", _u16),
    20: {1: ("start_ns", _u64), 2: ("stop_ns", _u64)},  # CTA_TIMESTAMP
    22: ("labels", _labels),
}

_REQUIRED = frozenset({"source", "destination", "reply_source", "reply_destination", "protocol"})

_ABSENT: dict[str, Value] = {
    name: bytes(16) if RECORD[name].shape else 0 for name in RECORD.names or ()
} | {"tcp_state": NO_TCP_STATE}

_MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_ERROR = struct.Struct("=i")

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_CT_NEW, _CT_DELETE = 0x100, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_...
_F_MULTI, _F_DUMP_INTR, _F_CREATE = 0x2, 0x10, 0x400
_FAMILIES = frozenset({2, 10})  # AF_INET, AF_INET6


class EntryDecoder:
    """Gathers entries out of netlink bytes.

    `malformed` counts messages that were skipped; `interrupted` tells that the kernel marked the
    dump as inconsistent: some entries may be missing or there twice.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.interrupted = False
        self._rows: list[dict[str, Value]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def feed(self, data: bytes | bytearray | memoryview, sequence: int | None = None) -> int | None:
        """Decode whole messages; None while more are to come, else the errno of the end, 0 if good.

        Messages that answer another request than `sequence` are passed over; None takes all.
        """
        data, at = bytes(data), 0
        while len(data) - at >= _MESSAGE.size:
            length, kind, flags, number, _ = _MESSAGE.unpack_from(data, at)
            if not _MESSAGE.size <= length <= len(data) - at:
                self.malformed += 1
                return None
            if sequence is None or number == sequence:
                body = data[at + _MESSAGE.size : at + length]
                self.interrupted |= bool(flags & _F_DUMP_INTR)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    return -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
                if kind in (_CT_NEW, _CT_DELETE):
                    self._add(body, _event(kind, flags))
            at += (length + 3) & ~3
        return None

    def take(self) -> dict[str, NDArray[Any]]:
        """Hand over what was gathered, one array a column of RECORD, and start anew."""
        rows, self._rows = self._rows, []
        return {
            name: np.array(
                [list(value) if isinstance(value, bytes) else value for value in column],
                dtype=RECORD[name].base,
            ).reshape(len(rows), *RECORD[name].shape)
            for name in RECORD.names or ()
            for column in [[row[name] for row in rows]]
        }

    def _add(self, body: bytes, event: int) -> None:
        try:
            row = _entry(body)
        except MalformedEntry:
            self.malformed += 1
            return
        self._keep(row | {"event": event})

    def _keep(self, row: dict[str, Value]) -> None:
        if len(self._rows) >= MAX_ENTRIES:
            raise MemoryError(f"more than {MAX_ENTRIES} conntrack entries")
        self._rows.append(row)


def _event(kind: int, flags: int) -> int:
    if kind == _CT_DELETE:
        return DESTROY
    if flags & _F_MULTI:
        return DUMP
    return NEW if flags & _F_CREATE else UPDATE


def _entry(body: bytes) -> dict[str, Value]:
    """One entry by column name; `body` starts with nfgenmsg: family, version, resource."""
    if len(body) < 4 or body[0] not in _FAMILIES:
        raise MalformedEntry
    found: dict[str, Value] = {"family": body[0]}
    _walk(body[4:], _PLAN, found)
    if not found.keys() >= _REQUIRED:
        raise MalformedEntry
    return _ABSENT | {"uncounted": int("packets" not in found)} | found


def _walk(data: bytes, plan: Plan, found: dict[str, Value]) -> None:
    for kind, payload in _attributes(data):
        match plan.get(kind):
            case None:
                pass
            case (name, read):
                found[name] = read(payload)
            case nested:
                _walk(payload, nested, found)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each attribute; fewer than four bytes at the end are padding."""
    at = 0
    while len(data) - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise MalformedEntry
        yield kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]  # without NLA_F_NESTED etc.
        at += (length + 3) & ~3
