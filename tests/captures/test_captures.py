"""Captures that scapy wrote: every link, every kind of file, streams in pieces and out of order."""

import io
import random
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether, Loopback
from scapy.utils import PcapNgWriter, PcapWriter

from flowvis.captures import messages as messages_module
from flowvis.captures import packets as packets_module
from flowvis.captures.files import Packet, read_packets
from flowvis.captures.messages import MOST_AHEAD, Messages
from flowvis.errors import SettingsError
from ipfix import wire

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network
PORTS = wire.templates(wire.template(256, (0, 7, 2)))


def message(number: int, records: int = 3) -> bytes:
    return wire.message(wire.set_of(256, number.to_bytes(2, "big") * records), sequence=number)


def written(packets: Sequence[Any], *, ng: bool = False, **options: Any) -> bytes:
    """A capture file of packets that are a second apart."""
    with tempfile.NamedTemporaryFile() as file:
        writer = PcapNgWriter(file.name) if ng else PcapWriter(file.name, **options)
        for at, packet in enumerate(packets):
            packet.time = 1_700_000_000 + at
            writer.write(packet)
        writer.close()
        return Path(file.name).read_bytes()


def found(data: bytes, port: int | None = None) -> tuple[list[bytes], Messages]:
    messages = Messages(port)
    captured = list(messages.of(read_packets(io.BytesIO(data), "test")))
    return [each.data for each in captured], messages


def datagram(data: bytes, sport: int = 4000) -> Any:
    return IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=sport, dport=4739) / data


@pytest.mark.parametrize(
    "link",
    [
        ETHER,
        ETHER / Dot1Q(vlan=5),
        ETHER / Dot1Q(vlan=5, type=0x8100) / Dot1Q(vlan=6),
        CookedLinux(proto=0x800),
        CookedLinux(proto=0x8100) / Dot1Q(vlan=5),
        Loopback(type=2),
        None,
    ],
    ids=["ethernet", "vlan", "two vlans", "cooked", "cooked with a vlan", "loopback", "raw"],
)
@pytest.mark.parametrize("ng", [False, True], ids=["pcap", "pcapng"])
def test_every_link(link: Any, ng: bool) -> None:
    sent = [wire.message(PORTS), message(1), message(2) + message(3)]
    packets = [datagram(data) if link is None else link / datagram(data) for data in sent]
    got, messages = found(written(packets, ng=ng))
    assert got == sent
    assert not messages.left_out.total()


@pytest.mark.parametrize("options", [{"nano": True}, {"endianness": ">"}, {"endianness": "<"}, {}])
def test_every_kind_of_pcap_has_its_times(options: dict[str, Any]) -> None:
    data = written([ETHER / datagram(message(at)) for at in range(3)], **options)
    packets = list(read_packets(io.BytesIO(data), "test"))
    assert [packet.time_ns for packet in packets] == [
        (1_700_000_000 + at) * 10**9 for at in range(3)
    ]


def test_times_of_pcapng() -> None:
    data = written([ETHER / datagram(message(at)) for at in range(3)], ng=True)
    packets = list(read_packets(io.BytesIO(data), "test"))
    assert [packet.time_ns for packet in packets] == [
        (1_700_000_000 + at) * 10**9 for at in range(3)
    ]


def test_both_families_and_fragments() -> None:
    large = [message(at, 2000) for at in range(4)]
    four = fragment(datagram(large[0]), fragsize=600)
    random.Random(1).shuffle(four)
    header = IPv6(src="fd00::1", dst="fd00::2")
    six = fragment6(header / IPv6ExtHdrFragment(id=9) / UDP(sport=1, dport=4739) / large[1], 1280)
    options = header / IPv6ExtHdrDestOpt() / UDP(sport=2, dport=4739) / large[2]
    incomplete = fragment(datagram(large[3]), fragsize=600)[1:]
    got, _ = found(written([ETHER / each for each in (*four, *six, options, *incomplete)]))
    assert got == large[:3]


def test_fragments_are_put_together_once_all_are_there() -> None:
    class Pieces(dict[int, bytes]):
        looked_at = 0

        def get(self, *at: Any) -> Any:
            self.looked_at += 1
            return super().get(*at)

    pieces = Pieces()
    datagram = packets_module._Datagram(0, pieces)
    datagram.put(8 * 99, b"the last", more=False)
    for at in range(99):
        assert datagram.whole() is None
        datagram.put(8 * at, b"fragment", more=True)
    assert datagram.whole() == b"fragment" * 99 + b"the last"
    assert pieces.looked_at <= 2 * 100


def test_fragments_of_another_datagram_of_their_number_are_no_part_of_it() -> None:
    """A number comes again after 65,536 datagrams; the first fragment of one was not captured."""
    ends = IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=4000, dport=4739)
    old, new = (fragment(ends / message(at, 700), fragsize=600) for at in (1, 2))
    between = [datagram(message(3))] * 61
    got, _ = found(written([ETHER / each for each in (*old[1:], *between, *new)]))
    assert got == [message(3)] * 61 + [message(2, 700)]


def test_a_datagram_that_went_through_several_interfaces_is_one() -> None:
    """As in a capture on all of a node's: there each comes in by one and goes out by another."""
    at_ns, link, sent = 1_700_000_000 * 10**9, 101, [message(each) for each in range(3)]
    copies = [
        Packet(at_ns + 40_000_000 * each + later, link, bytes(datagram(sent[each], sport)))
        for each in range(3)
        for later in (0, 30_000, 70_000)
        for sport in (4000, 4001)
    ]
    messages = Messages()
    got = list(messages.of(copies))
    assert [each.data for each in got] == [data for data in sent for _ in range(2)]
    assert messages.left_out == {"copies": 12}
    again = Messages()  # who says the same later says it
    packets = [
        Packet(at_ns + second * 10**9, link, bytes(datagram(sent[0]))) for second in range(4)
    ]
    assert [each.data for each in again.of(packets)] == [sent[0]] * 4


def test_what_is_no_ipfix_is_left_out_and_named() -> None:
    noise = [
        b"",
        b"x" * 40,
        b"\0\x0a\0\x50" + bytes(12),
        b"\0\x09" + bytes(40),
        b"\0\x05" + bytes(40),
    ]
    got, messages = found(written([ETHER / datagram(data) for data in (*noise, message(1))]))
    assert got == [message(1)]
    assert messages.left_out == {"netflow": 2}


def test_one_port_only() -> None:
    other = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=4000, dport=2055) / message(2)
    data = written([ETHER / datagram(message(1)), ETHER / other])
    assert found(data, 4739)[0] == [message(1)]
    assert found(data)[0] == [message(1), message(2)]


# Streams


def stream(
    data: bytes, sizes: Sequence[int], *, first: int = 1000, syn: bool = True, sport: int = 4000
) -> list[Any]:
    """Segments of so many bytes each, in turn."""
    ends = IP(src="10.0.0.1", dst="10.0.0.2")
    made = []
    if syn:
        made.append(ends / TCP(sport=sport, dport=4739, flags="S", seq=(first - 1) % 2**32))
    at = 0
    while at < len(data):
        size = sizes[len(made) % len(sizes)]
        seq = (first + at) % 2**32
        made.append(ends / TCP(sport=sport, dport=4739, flags="PA", seq=seq) / data[at : at + size])
        at += size
    return made


SENT = [wire.message(PORTS), *(message(at, 1 + 7 * at % 50) for at in range(24))]
TEXT = b"".join(SENT)


@pytest.mark.parametrize("first", [1000, 2**32 - 700], ids=["", "the sequence wraps"])
@pytest.mark.parametrize("sizes", [[1448], [1, 9, 30], [19, 700]])
def test_a_stream_in_pieces(sizes: list[int], first: int) -> None:
    got, messages = found(written([ETHER / each for each in stream(TEXT, sizes, first=first)]))
    assert got == SENT
    assert not messages.left_out.total()


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_a_stream_out_of_order_twice_and_overlapping(choose: random.Random, size: int) -> None:
    syn, *segments = stream(TEXT, [size * 20, 7])
    again = [choose.choice(segments) for _ in range(5)]
    overlapping = stream(TEXT, [333], syn=False)
    segments += [*again, *choose.sample(overlapping, 3)]
    keys = {id(each): at + choose.uniform(0, 8) for at, each in enumerate(segments)}
    segments.sort(key=lambda each: keys[id(each)])
    got, messages = found(written([ETHER / each for each in (syn, *segments)]))
    assert got == SENT
    assert not messages.left_out.total()


def test_a_stream_that_was_under_way_begins_at_its_next_message() -> None:
    got, messages = found(written([ETHER / each for each in stream(TEXT[30:], [500], syn=False)]))
    assert got == SENT[2:]
    assert messages.left_out == {"gaps": 1}


@pytest.mark.parametrize("size", [1, 7, 19, 20, 21, 500])
def test_a_message_behind_other_bytes_is_found_wherever_these_are_cut(size: int) -> None:
    other = b"GET / HTTP/1.1\r\n" * 9
    data = stream(other + SENT[0] + SENT[1], [size], syn=False)
    got, messages = found(written([ETHER / each for each in data]))
    assert got == SENT[:2]
    assert messages.left_out == {"gaps": 1}


def test_a_stream_of_something_else_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    begins = messages_module._begins

    def counting(data: bytearray, at: int = 0) -> bool:
        nonlocal looked_at
        looked_at += 1
        return begins(data, at)

    monkeypatch.setattr(messages_module, "_begins", counting)
    other = b"GET / HTTP/1.1\r\n\r\n" * 1000
    got, _ = found(written([ETHER / each for each in stream(other, [500])]))
    assert got == []
    assert len(other) - 500 < looked_at < len(other) + 500


def test_bytes_that_were_not_captured_cost_only_what_they_are_in() -> None:
    segments = stream(TEXT, [200])
    del segments[5]
    got, messages = found(written([ETHER / each for each in segments]))
    assert got[:4] == SENT[:4]
    assert got[-10:] == SENT[-10:]
    assert set(got) < set(SENT)
    assert messages.left_out == {"gaps": 1}


@pytest.mark.parametrize("after", [[], stream(TEXT, [700], first=5_000_000)], ids=["", "another"])
@pytest.mark.parametrize("lost", [5, -1], ids=["in it", "its end"])
def test_what_the_end_of_a_stream_lacks_is_said(lost: int, after: list[Any]) -> None:
    segments = stream(TEXT, [200])
    del segments[lost]
    got, messages = found(written([ETHER / each for each in (*segments, *after)]))
    ours = got[: len(got) - len(SENT)] if after else got
    assert len(ours) > len(SENT) / 2
    assert [each for each in SENT if each in ours] == ours
    assert messages.left_out == {"gaps": 1}


@pytest.mark.parametrize(
    ("limit", "most"), [("MOST_STREAMS", 50), ("MOST_HELD", 50 * 1448)], ids=["many", "large"]
)
def test_other_streams_leave_room_for_those_of_ipfix(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(messages_module, limit, most)
    web = b"GET / HTTP/1.1\r\n" * 90
    other = [stream(web, [1448], sport=port)[:2] for port in range(1, 200)]
    late = stream(TEXT, [200])
    woven = [each for pair in zip(other[60:], late, strict=False) for each in (*pair[0], pair[1])]
    packets = [each for one in other[:60] for each in one] + woven + late[len(other) - 60 :]
    messages = Messages()
    file = io.BytesIO(written([ETHER / each for each in packets]))
    most_seen = [0, 0]

    def looked_at() -> Iterator[Packet]:
        for packet in read_packets(file, "test"):
            yield packet
            held = sum(each.held for each in messages._streams.values())
            assert messages._held == held
            most_seen[:] = max(most_seen[0], len(messages._streams)), max(most_seen[1], held)

    assert [each.data for each in messages.of(looked_at())] == SENT
    assert most_seen[limit == "MOST_HELD"] <= most
    assert messages._held == len(messages._streams) == 0


def test_what_lacks_every_other_piece_is_not_looked_through_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 4 MiB ahead, as a capture that lost much has them, each piece would take a millisecond."""
    looked = 0
    original = messages_module._ahead

    def ahead(number: int, of: int) -> int:
        nonlocal looked
        looked += 1
        return original(number, of)

    monkeypatch.setattr(messages_module, "_ahead", ahead)
    sent = [message(at) for at in range(4000)]
    segments = stream(b"".join(sent), [2 * len(sent[0])])[1::2]
    got, messages = found(written([ETHER / each for each in segments]))
    assert got == [each for at, each in enumerate(sent) if at % 4 < 2]
    assert messages.left_out == {"gaps": 1}
    assert looked <= 10 * len(segments)


def test_what_waits_for_missing_bytes_is_bounded() -> None:
    much = b"".join(message(at, 30_000) for at in range(120))
    segments = stream(much, [60_000])
    del segments[3]
    messages, held = Messages(), 0

    def packets() -> Iterator[Packet]:
        nonlocal held
        for packet in read_packets(io.BytesIO(written([ETHER / s for s in segments])), "test"):
            yield packet
            for each in messages._streams.values():
                held = max(held, sum(map(len, each.ahead.values())))
                assert each.waiting == sum(map(len, each.ahead.values()))

    got = [each.data for each in messages.of(packets())]
    assert len(got) == 118
    assert 0 < held <= MOST_AHEAD + 60_000


def test_two_sessions_of_one_port_after_each_other_and_two_beside_each_other() -> None:
    one = stream(TEXT, [900])
    two = stream(TEXT, [700], first=5_000_000)
    beside = stream(TEXT, [800], sport=4001)
    woven = [each for pair in zip(one, beside, strict=False) for each in pair] + one[len(beside) :]
    got, messages = found(written([ETHER / each for each in (*woven, *beside[len(one) :], *two)]))
    assert sorted(got) == sorted(SENT * 3)
    assert not messages.left_out.total()


@pytest.mark.parametrize("first", [7, 5000, 2**32 - 9])
def test_a_connection_after_one_of_its_port_that_came_to_nothing(first: int) -> None:
    ends = ETHER / IP(src="10.0.0.1", dst="10.0.0.2")
    refused = [ends / TCP(sport=4000, dport=4739, seq=1000, flags="S")] * 2
    sent = [message(at) for at in range(3)]
    begin = ends / TCP(sport=4000, dport=4739, seq=first, flags="S")
    data = ends / TCP(sport=4000, dport=4739, seq=(first + 1) % 2**32, flags="PA") / b"".join(sent)
    got, messages = found(written([*refused, begin, data]))
    assert (got, messages.left_out.total()) == (sent, 0)


def test_tls_is_said_to_be_unreadable() -> None:
    hello = b"\x16\x03\x01\x02\x00" + random.Random(1).randbytes(5000)
    got, messages = found(written([ETHER / each for each in stream(hello, [1000])]))
    assert got == []
    assert messages.left_out == {"tls": 1}


def test_a_packet_that_was_cut_is_counted() -> None:
    file = written([ETHER / datagram(message(1, 100))])
    (packet,) = read_packets(io.BytesIO(file), "test")
    messages = Messages()
    cut = Packet(packet.time_ns, packet.link, packet.data[:100])
    assert list(messages.of([cut, packet]))[-1].data == message(1, 100)
    assert messages.truncated == 1


# Files


@pytest.mark.parametrize("words", range(5))
@pytest.mark.parametrize("size", [19, 20, 60])
def test_a_header_that_is_damaged_is_no_end_of_it_all(words: int, size: int) -> None:
    """Of fewer bytes than any has, it leaves room for ports where it has no addresses."""
    damaged = bytearray(bytes(datagram(message(1)))[:size])
    damaged[0] = 0x40 | words
    link = 228  # IPv4 without anything before it
    captured = Messages().of(
        [Packet(1, link, bytes(damaged)), Packet(2, link, bytes(datagram(message(2))))]
    )
    assert [each.data for each in captured] == [message(2)]


@pytest.mark.parametrize("ng", [False, True])
def test_a_file_that_ends_in_a_packet_ends_before_it(ng: bool) -> None:
    data = written([ETHER / datagram(message(at)) for at in range(5)], ng=ng)
    whole, _ = found(data)
    for end in range(4, len(data), 7):
        got, _ = found(data[:end])
        assert got == whole[: len(got)]


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"\x1f\x8b\x08\0"])
def test_what_is_no_capture(data: bytes) -> None:
    with pytest.raises(SettingsError, match="test: is no packet capture"):
        found(data)


def test_a_damaged_file_is_no_reason_to_take_memory() -> None:
    data = written([ETHER / datagram(message(1))])
    with pytest.raises(SettingsError, match="is damaged, or too large: 4294967295 bytes"):
        found(data[:32] + b"\xff" * 4 + data[36:])


@settings(deadline=None)
@given(st.sampled_from([b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a", b""]), st.binary(max_size=400))
def test_any_file(beginning: bytes, data: bytes) -> None:
    try:
        found(beginning + data)
    except SettingsError:
        return


@settings(deadline=None)
@given(st.sampled_from([0, 1, 12, 113, 276, 147]), st.binary(max_size=200))
def test_any_packet(link: int, data: bytes) -> None:
    messages = Messages()
    for kind in (b"", b"\x45", b"\x60"):
        list(
            messages.of([Packet(0, link, kind + data), Packet(1, 1, bytes(12) + b"\x08\0E" + data)])
        )


def test_a_capture_of_dumpcap(tmp_path: Path) -> None:
    """The same packets as another program writes them: with its options, and a comment."""
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    source.write_bytes(written([ETHER / each for each in stream(TEXT, [1000])]))
    subprocess.run(
        ["editcap", "-F", "pcapng", "--capture-comment", "ours", str(source), str(target)],
        check=True,
        capture_output=True,
    )
    assert found(target.read_bytes())[0] == SENT
