"""The decoder, compiled and reference, on bytes made by hand and on any bytes."""

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.batch import address_text
from flowvis.native import conntrack as compiled
from flowvis.native.contract.conntrack import DESTROY, DUMP, NEW, RECORD, UPDATE
from flowvis.native.reference import conntrack as reference

from .messages import (
    CREATE,
    CT_DELETE,
    CT_NEW,
    ERROR,
    EXCL,
    FULL,
    FULL_COLUMNS,
    INTERRUPTED,
    addresses,
    attribute,
    be16,
    be32,
    be64,
    done,
    entry,
    icmp,
    message,
    nest,
    ports,
    u8,
    udp,
)


def rows(decoder: Any) -> list[dict[str, Any]]:
    """What was gathered, by row, in the terms of people."""
    columns = decoder.take()
    assert list(columns) == list(RECORD.names or ())
    for name, column in columns.items():
        assert column.dtype == RECORD[name].base
        assert column.flags.c_contiguous
    return [
        {name: plain(name, column[row]) for name, column in columns.items()}
        for row in range(len(columns["id"]))
    ]


def plain(name: str, value: Any) -> Any:
    if name == "labels":
        return value.tobytes()
    return address_text(value.tobytes()) if RECORD[name].shape else int(value)


def decode(leaf: ModuleType, data: bytes, sequence: int | None = None) -> list[dict[str, Any]]:
    decoder = leaf.EntryDecoder()
    decoder.feed(data, sequence)
    assert decoder.malformed == 0
    return rows(decoder)


def test_every_column(leaf: ModuleType) -> None:
    assert decode(leaf, message(CT_NEW, FULL)) == [FULL_COLUMNS]


def test_the_least_that_an_entry_has(leaf: ModuleType) -> None:
    [row] = decode(leaf, message(CT_NEW, udp()))
    reported = {"event", "family", "protocol"}
    reported |= {name for name in row if "source" in name or "destination" in name}
    assert {name: value for name, value in row.items() if name not in reported} == {
        name: FULL_COLUMNS[name] and 0 for name in row if name not in reported
    } | {"tcp_state": 255, "labels": bytes(16), "uncounted": 1}
    assert (row["source"], row["source_port"], row["protocol"]) == ("10.0.0.1", 5000, 17)


def test_a_row_starts_from_nothing(leaf: ModuleType) -> None:
    first, second = decode(leaf, message(CT_NEW, FULL) + message(CT_NEW, udp()))
    assert first == FULL_COLUMNS
    assert (second["packets"], second["tcp_state"], second["labels"]) == (0, 255, bytes(16))
    assert (first["uncounted"], second["uncounted"]) == (0, 1)


def test_counters_of_zero_are_counters(leaf: ModuleType) -> None:
    """As after `conntrack -Z`, and with a number of packets alone."""
    zero = nest(9, be64(1, 0), be64(2, 0)), nest(10, be64(1, 0), be64(2, 0))
    for counters in (zero, (nest(9, be64(1, 0)),)):
        [row] = decode(leaf, message(CT_NEW, udp(*counters)))
        assert (row["packets"], row["uncounted"]) == (0, 0)
    [row] = decode(leaf, message(CT_NEW, udp(nest(10, be64(1, 5)))))
    assert row["uncounted"] == 1


@pytest.mark.parametrize(
    ("protocol", "family", "hosts"),
    [(1, 2, ("192.0.2.1", "192.0.2.2")), (58, 10, ("2001:db8::1", "2001:db8::2"))],
    ids=["icmp", "icmpv6"],
)
def test_icmp_of_the_original_direction(
    leaf: ModuleType, protocol: int, family: int, hosts: tuple[str, str]
) -> None:
    body = entry(
        nest(1, addresses(*hosts), icmp(protocol, 0xABCD, 8, 3)),
        nest(2, addresses(*reversed(hosts)), icmp(protocol, 0xABCD, 0, 1)),
        family=family,
    )
    [row] = decode(leaf, message(CT_NEW, body))
    assert (row["source"], row["destination"], row["family"]) == (*hosts, family)
    assert (row["icmp_id"], row["icmp_type"], row["icmp_code"]) == (0xABCD, 8, 3)
    assert row["source_port"] == row["reply_source_port"] == 0


@pytest.mark.parametrize("protocol", [33, 47, 132, 136, 99, 255])
def test_any_protocol(leaf: ModuleType, protocol: int) -> None:
    body = entry(
        nest(1, addresses("10.0.0.1", "10.0.0.2"), nest(2, u8(1, protocol))),
        nest(2, addresses("10.0.0.2", "10.0.0.1"), nest(2, u8(1, protocol))),
    )
    [row] = decode(leaf, message(CT_NEW, body))
    assert (row["protocol"], row["tcp_state"]) == (protocol, 255)


def test_the_state_of_sctp_is_not_one_of_tcp(leaf: ModuleType) -> None:
    [row] = decode(leaf, message(CT_NEW, udp(nest(4, nest(3, u8(1, 4))))))
    assert row["tcp_state"] == 255


@pytest.mark.parametrize("direction", [0, 1])
def test_zone_of_one_direction(leaf: ModuleType, direction: int) -> None:
    zone = [be16(3, 9), b""]
    body = entry(
        nest(1, addresses("10.0.0.1", "10.0.0.2"), ports(17, 1, 2), zone[direction]),
        nest(2, addresses("10.0.0.2", "10.0.0.1"), ports(17, 2, 1), zone[1 - direction]),
    )
    assert decode(leaf, message(CT_NEW, body))[0]["zone"] == 9


@pytest.mark.parametrize(("given_", "kept"), [(4, 4), (16, 16), (20, 16)])
def test_labels_of_any_length(leaf: ModuleType, given_: int, kept: int) -> None:
    labels = bytes(range(1, given_ + 1))
    [row] = decode(leaf, message(CT_NEW, udp(attribute(22, labels))))
    assert row["labels"] == labels[:kept].ljust(16, b"\0")


@pytest.mark.parametrize(
    ("kind", "flags", "event"),
    [
        (CT_NEW, 2, DUMP),
        (CT_NEW, CREATE | EXCL, NEW),
        (CT_NEW, 0, UPDATE),
        (CT_DELETE, 0, DESTROY),
    ],
)
def test_what_reported_us(leaf: ModuleType, kind: int, flags: int, event: int) -> None:
    assert [row["event"] for row in decode(leaf, message(kind, udp(), flags))] == [event]


def test_messages_of_other_subsystems_are_passed_over(leaf: ModuleType) -> None:
    other = message(1, b"") + message(4, b"lost") + message(0x200, udp()) + message(0x101, udp())
    assert len(decode(leaf, other + message(CT_NEW, udp()))) == 1


def test_the_end(leaf: ModuleType) -> None:
    decoder = leaf.EntryDecoder()
    assert decoder.feed(b"") is None
    assert decoder.feed(message(CT_NEW, udp())) is None
    assert decoder.feed(message(CT_NEW, udp()) + done() + message(CT_NEW, udp())) == 0
    assert len(decoder) == 2
    assert decoder.feed(done(-16)) == 16
    assert decoder.feed(message(ERROR, (-1).to_bytes(4, "little", signed=True) + bytes(16))) == 1
    assert decoder.feed(message(ERROR, bytes(20))) == 0
    assert decoder.feed(message(3, b"")) == 0


def test_answers_to_other_requests_are_passed_over(leaf: ModuleType) -> None:
    decoder = leaf.EntryDecoder()
    stale = message(CT_NEW, udp(), sequence=6) + done(sequence=6)
    assert decoder.feed(stale + message(CT_NEW, FULL, sequence=7), 7) is None
    assert decoder.feed(done(sequence=0xFFFFFFFF), 0xFFFFFFFF) == 0
    assert rows(decoder) == [FULL_COLUMNS]


def test_an_interrupted_dump(leaf: ModuleType) -> None:
    decoder = leaf.EntryDecoder()
    decoder.feed(message(CT_NEW, udp()))
    assert not decoder.interrupted
    decoder.feed(message(CT_NEW, udp(), 2 | INTERRUPTED))
    decoder.feed(message(CT_NEW, udp()))
    assert decoder.interrupted
    assert len(decoder) == 3


def test_many_entries_and_a_new_start(leaf: ModuleType) -> None:
    decoder = leaf.EntryDecoder()
    for turn in (1000, 0, 3):
        for port in range(turn):
            decoder.feed(message(CT_NEW, udp(source_port=port)))
        assert len(decoder) == turn
        assert [row["source_port"] for row in rows(decoder)] == list(range(turn))


def test_more_than_any_table_has(leaf: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf, "MAX_ENTRIES", 100)
    decoder = leaf.EntryDecoder()
    decoder.feed(message(CT_NEW, udp()) * 100)
    with pytest.raises(MemoryError, match="more than 100 conntrack entries"):
        decoder.feed(message(CT_NEW, udp()))
    assert len(decoder) == 100


def test_messages_that_are_not_aligned_to_the_buffer(leaf: ModuleType) -> None:
    data = b"x" + message(CT_NEW, FULL)
    decoder = leaf.EntryDecoder()
    decoder.feed(memoryview(data)[1:])
    assert rows(decoder) == [FULL_COLUMNS]


ORIGINAL = nest(1, addresses("10.0.0.1", "10.0.0.2"), ports(17, 1, 2))
REPLY = nest(2, addresses("10.0.0.2", "10.0.0.1"), ports(17, 2, 1))


MALFORMED = {
    "nothing": b"",
    "less than nfgenmsg": b"\2\0\0",
    "no attributes": entry(),
    "original tuple only": entry(ORIGINAL),
    "reply tuple only": entry(REPLY),
    "reply without addresses": entry(ORIGINAL, nest(2, ports(17, 2, 1))),
    "no protocol": entry(nest(1, addresses("10.0.0.1", "10.0.0.2")), REPLY),
    "no family": entry(ORIGINAL, REPLY, family=0),
    "the family of bridges": entry(ORIGINAL, REPLY, family=7),
    "IPv4 address of three": entry(nest(1, nest(1, attribute(1, b"\1\2\3"))), REPLY),
    "IPv6 address of four": entry(nest(1, nest(1, attribute(4, b"\1\2\3\4"))), REPLY),
    "status of three": udp(attribute(3, b"\0\0\0")),
    "id of two": udp(be16(12, 1)),
    "zone of one": udp(attribute(18, b"\0")),
    "packets of four": udp(nest(9, be32(1, 1))),
    "bytes of four": udp(nest(10, be64(1, 1), be32(2, 1))),
    "stop of two": udp(nest(20, be16(2, 1))),
    "empty TCP state": udp(nest(4, nest(1, attribute(1, b"")))),
    "a nested length of three": udp(nest(4, nest(1, b"\3\0\1\0"))),
    "a length of three": udp(b"\3\0\1\0"),
    "a length over the end": udp(b"\x09\0\1\0\0\0\0\0"),
    "a nested length over the end": udp(attribute(9, b"\x40\0\1\0\0\0\0\0")),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_entry_costs_only_itself(leaf: ModuleType, body: bytes) -> None:
    decoder = leaf.EntryDecoder()
    body += bytes(-len(body) % 4)
    good = message(CT_NEW, FULL)
    assert decoder.feed(good + message(CT_NEW, body) + good + done()) == 0
    assert decoder.malformed == 1
    assert rows(decoder) == [FULL_COLUMNS] * 2


@pytest.mark.parametrize("length", [0, 15, 10_000, 0xFFFFFFFF])
def test_a_message_length_that_cannot_be_ends_the_buffer(leaf: ModuleType, length: int) -> None:
    decoder = leaf.EntryDecoder()
    broken = length.to_bytes(4, "little") + message(CT_NEW, udp())[4:]
    assert decoder.feed(message(CT_NEW, udp()) + broken + message(CT_NEW, udp())) is None
    assert (len(decoder), decoder.malformed) == (1, 1)


def outcome(leaf: ModuleType, data: bytes, sequence: int | None = None) -> tuple[Any, ...]:
    decoder = leaf.EntryDecoder()
    ended = decoder.feed(data, sequence)
    return ended, len(decoder), decoder.malformed, decoder.interrupted, rows(decoder)


def test_every_truncation() -> None:
    for body in (FULL, udp()):
        for end in range(len(body)):
            cut = message(CT_NEW, body[:end]) + bytes(-end % 4) + message(CT_NEW, udp())
            assert outcome(compiled, cut) == outcome(reference, cut), end
    whole = message(CT_NEW, FULL)
    for end in range(len(whole)):
        assert outcome(compiled, whole[:end]) == outcome(reference, whole[:end]), end


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    assert outcome(compiled, data) == outcome(reference, data)
    framed = message(CT_NEW, b"\2\0\0\0" + data)
    assert outcome(compiled, framed) == outcome(reference, framed)


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    good = bytearray(message(CT_NEW, FULL) + message(CT_DELETE, udp()) + done())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(good) - 1))
        good[at] = data.draw(st.integers(0, 255))
    sequence = data.draw(st.sampled_from([None, 1, 2]))
    assert outcome(compiled, bytes(good), sequence) == outcome(reference, bytes(good), sequence)


def test_nothing_is_read_beyond_the_end() -> None:
    """An entry at the very end of a page that is followed by one that may not be read."""
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + page), page, 0) == 0
    whole = message(CT_NEW, FULL)
    for end in range(1, len(whole) + 1):
        area[page - end : page] = whole[:end]
        outside = memoryview(area)[page - end : page]
        decoder = compiled.EntryDecoder()
        decoder.feed(outside)
        assert len(decoder) == (end == len(whole))
        cut = message(CT_NEW, FULL[: end - 1])
        area[page - len(cut) : page] = cut
        compiled.EntryDecoder().feed(memoryview(area)[page - len(cut) : page])
