import struct
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from denials.messages import PACKET, attribute, ipv4, ipv6, logged, netlink, ports
from flowvis.batch import address_text
from flowvis.denials import nflog
from flowvis.denials.attributes import MAX_ATTRIBUTES
from flowvis.denials.nflog import LogDecoder
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import DenialVerdict, Prefixes

NOW = 1_700_000_000_000
SYN = ipv4("10.0.0.1", "10.0.0.2", 6, ports(1234, 80))
SYN6 = ipv6("fd00::1", "fd00::2", 6, ports(1234, 80))
RULE = b"flowvis:drop:ingress:shop/web:0"

pytestmark = pytest.mark.usefixtures("index")


@pytest.fixture
def decoder(index: ModuleType) -> LogDecoder:
    return LogDecoder(Prefixes())


def verdicts(packets: Packets) -> list[DenialVerdict | None]:
    return [packets.verdicts[place] for place in packets.verdict.tolist()]


def test_packets(decoder: LogDecoder) -> None:
    data = logged(SYN, prefix=RULE, number=0, ms=NOW - 7) + logged(SYN6, number=1)
    packets = decoder.decode(data, NOW)
    assert [address_text(address.tobytes()) for address in packets.source] == [
        "10.0.0.1",
        "fd00::1",
    ]
    assert packets.destination_port.tolist() == [80, 80]
    assert packets.octets.tolist() == [40, 60]
    assert packets.packets.tolist() == [1, 1]
    assert packets.time_ms.tolist() == [NOW - 7, NOW]
    assert verdicts(packets) == [
        DenialVerdict(name="web", namespace="shop", rule="0"),
        DenialVerdict(),
    ]
    assert (decoder.stats.packets, decoder.stats.lost, decoder.stats.malformed) == (2, 0, 0)


@pytest.mark.parametrize("ms", [None, 0, NOW - 61_000, NOW + 61_000, 1 << 60])
def test_a_time_that_is_none(decoder: LogDecoder, ms: int | None) -> None:
    assert decoder.decode(logged(SYN, ms=ms), NOW).time_ms.tolist() == [NOW]


def test_prefixes_are_read_once(decoder: LogDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nflog, "MAX_MESSAGES", 2)
    data = b"".join(logged(SYN, prefix=prefix) for prefix in (RULE, b"DPE|t", RULE, b"APE|t"))
    for _ in range(2):
        found = verdicts(decoder.decode(data, NOW))
        web = DenialVerdict(name="web", namespace="shop", rule="0")
        assert found == [web, DenialVerdict(egress=True, rule="t"), web, None]


def test_more_prefixes_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nflog, "MAX_PREFIXES", 4)
    decoder = LogDecoder(Prefixes())
    for start in range(10):
        names = [f"n{number}" for number in range(start, start + 3)]
        data = b"".join(logged(SYN, prefix=f"flowvis:drop::{name}".encode()) for name in names)
        found = verdicts(decoder.decode(data, NOW))
        assert [verdict.name for verdict in found if verdict] == names


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([0, 1, 2], 0),
        ([3, 4], 3),
        ([0, 5, 6, 9], 6),
        ([0xFFFFFFFF], 0),  # counted anew by the kernel: nothing is known
    ],
)
def test_lost_packets_are_counted(decoder: LogDecoder, numbers: list[int], lost: int) -> None:
    for number in numbers:
        decoder.decode(logged(SYN, number=number), NOW)
    assert (decoder.stats.lost, decoder.stats.packets) == (lost, len(numbers) + lost)


def test_numbers_wrap(decoder: LogDecoder) -> None:
    decoder._next = 0xFFFFFFFE
    data = b"".join(logged(SYN, number=number) for number in (0xFFFFFFFE, 0xFFFFFFFF, 1))
    decoder.decode(data, NOW)
    assert decoder.stats.lost == 1
    decoder.restart()
    decoder.decode(logged(SYN, number=0), NOW)
    assert decoder.stats.lost == 1


def test_other_messages_are_passed_over(decoder: LogDecoder) -> None:
    done = netlink(3, bytes(4))
    data = done + logged(SYN, number=0) + netlink(2, bytes(20)) + done
    assert len(decoder.decode(data, NOW)) == 1
    assert len(decoder.decode(b"", NOW)) == 0


def test_what_is_no_ip_packet_is_counted(decoder: LogDecoder) -> None:
    data = logged(b"\0" * 40) + logged(SYN) + logged(b"") + netlink(PACKET, bytes(4))
    packets = decoder.decode(data, NOW)
    assert (len(packets), decoder.stats.malformed, decoder.stats.packets) == (1, 3, 4)


def test_an_attribute_that_does_not_fit(decoder: LogDecoder) -> None:
    wrong = struct.pack("=HH", 200, 10) + bytes(8)
    body = bytes(4) + attribute(9, SYN) + wrong
    assert len(decoder.decode(netlink(PACKET, body), NOW)) == 1
    short = struct.pack("=HH", 3, 9)
    assert len(decoder.decode(netlink(PACKET, bytes(4) + short + attribute(9, SYN)), NOW)) == 0


def test_a_message_that_does_not_fit(decoder: LogDecoder) -> None:
    data = logged(SYN) + logged(SYN)
    assert len(decoder.decode(data[:-8], NOW)) == 1
    assert len(decoder.decode(logged(SYN) + struct.pack("=IHHII", 3, PACKET, 0, 0, 0), NOW)) == 1


def test_more_attributes_than_are_read(decoder: LogDecoder) -> None:
    body = bytes(4) + attribute(5, bytes(4)) * MAX_ATTRIBUTES + attribute(9, SYN)
    assert len(decoder.decode(netlink(PACKET, body), NOW)) == 0
    assert decoder.stats.malformed == 1


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=400), st.integers(0, 300), st.binary(max_size=60))
def test_any_bytes(decoder: LogDecoder, noise: bytes, at: int, patch: bytes) -> None:
    decoder.decode(noise, NOW)
    decoder.decode(netlink(PACKET, noise), NOW)
    good = bytearray(logged(SYN, prefix=RULE, number=0, ms=NOW) * 2)
    good[at : at + len(patch)] = patch
    packets = decoder.decode(bytes(good), NOW)
    assert len(packets) <= 4
    assert len(verdicts(packets)) == len(packets)


def test_other_prefixes_count_for_what_was_seen_before_too() -> None:
    decoder = LogDecoder(Prefixes())
    one = logged(SYN, prefix=b"mine: web\0")
    assert [v.name for v in verdicts(decoder.decode(one, NOW)) if v] == [""]
    decoder.judge_by(Prefixes([r"mine: (?P<policy>.*)"]))
    assert [v.name for v in verdicts(decoder.decode(one, NOW)) if v] == ["web"]
