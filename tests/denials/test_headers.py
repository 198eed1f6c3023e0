from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denials.messages import authentication, extension, ipv4, ipv6, ipv6_fragment, ports
from flowvis.batch import address_text
from flowvis.denials.headers import HEAD_BYTES, MAX_EXTENSIONS, Headers, read_headers

PORTS = ports(1234, 80)
A, B = "10.0.0.1", "10.0.0.2"
A6, B6 = "fd00::1", "fd00::2"


def read(*packets: bytes) -> Headers:
    heads = np.zeros((len(packets), HEAD_BYTES), dtype=np.uint8)
    sizes = []
    for row, packet in enumerate(packets):
        kept = packet[:HEAD_BYTES]
        heads[row, : len(kept)] = np.frombuffer(kept, dtype=np.uint8)
        sizes.append(len(kept))
    return read_headers(heads, np.array(sizes, dtype=np.int64))


def row(packet: bytes) -> tuple[str, int, str, int, int, int]:
    one = read(packet)
    assert one.whole.tolist() == [True]
    return (
        address_text(one.source.tobytes()),
        int(one.source_port[0]),
        address_text(one.destination.tobytes()),
        int(one.destination_port[0]),
        int(one.protocol[0]),
        int(one.octets[0]),
    )


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
def test_ports(protocol: int) -> None:
    assert row(ipv4(A, B, protocol, PORTS)) == (A, 1234, B, 80, protocol, 40)
    assert row(ipv6(A6, B6, protocol, PORTS)) == (A6, 1234, B6, 80, protocol, 60)


@pytest.mark.parametrize("protocol", [1, 58, 47, 99])
def test_protocols_without_ports(protocol: int) -> None:
    assert row(ipv4(A, B, protocol, PORTS)) == (A, 0, B, 0, protocol, 40)
    assert row(ipv6(A6, B6, protocol, PORTS)) == (A6, 0, B6, 0, protocol, 60)


def test_options() -> None:
    assert row(ipv4(A, B, 6, PORTS, options=10)) == (A, 1234, B, 80, 6, 80)


def test_fragments() -> None:
    assert row(ipv4(A, B, 17, PORTS, fragment=0x2000)) == (A, 1234, B, 80, 17, 40)
    assert row(ipv4(A, B, 17, PORTS, fragment=5)) == (A, 0, B, 0, 17, 40)
    first = ipv6(A6, B6, 44, ipv6_fragment(17, 0) + PORTS)
    later = ipv6(A6, B6, 44, ipv6_fragment(17, 185) + PORTS)
    assert row(first) == (A6, 1234, B6, 80, 17, 68)
    assert row(later) == (A6, 0, B6, 0, 17, 68)


def test_extension_headers() -> None:
    body = extension(60) + extension(43, 1) + extension(51) + authentication(6, 4) + PORTS
    assert row(ipv6(A6, B6, 0, body)) == (A6, 1234, B6, 80, 6, 40 + 8 + 16 + 8 + 24 + 20)


def test_more_extension_headers_than_are_read() -> None:
    some = extension(60) * (MAX_EXTENSIONS - 1)
    assert row(ipv6(A6, B6, 60, some + extension(6) + PORTS))[4] == 6
    assert row(ipv6(A6, B6, 60, some + extension(60) + PORTS))[3:5] == (0, 60)


def test_the_length_is_the_headers_not_what_was_copied() -> None:
    assert row(ipv4(A, B, 6, PORTS, total=1500))[5] == 1500
    assert row(ipv4(A, B, 6, PORTS, total=0))[5] == 40
    assert row(ipv6(A6, B6, 17, bytes(1000)))[5] == 1040
    assert row(joined_v6(ipv6(A6, B6, 6, PORTS)))[5] == 60
    assert row(ipv6(A6, B6, 59, b""))[5] == 40


def joined_v6(packet: bytes) -> bytes:
    """The same packet as the kernel has it when it has joined segments to more than 64 KiB."""
    return packet[:4] + b"\0\0" + packet[6:]


@pytest.mark.parametrize("kept", [20, 23])
def test_ports_that_were_cut_off(kept: int) -> None:
    assert row(ipv4(A, B, 6, PORTS)[:kept]) == (A, 0, B, 0, 6, 40)


def test_an_extension_header_that_was_cut_off() -> None:
    whole = ipv6(A6, B6, 0, extension(6) + PORTS)
    assert row(whole[:44])[3:5] == (0, 0)
    assert row(whole[:48])[3:5] == (0, 6)
    assert row(ipv6(A6, B6, 0, extension(6, 200) + PORTS))[3:5] == (0, 6)


@pytest.mark.parametrize(
    "bad",
    [b"", b"\x45", ipv4(A, B, 6)[:19], ipv6(A6, B6, 6)[:39], b"\x44" + bytes(60), b"\x55" * 60],
)
def test_what_is_no_packet(bad: bytes) -> None:
    headers = read(bad, ipv4(A, B, 6, PORTS))
    assert headers.whole.tolist() == [False, True]
    assert headers.source_port.tolist() == [0, 1234]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=160), min_size=1, max_size=5))
def test_any_bytes(packets: list[bytes]) -> None:
    headers = read(*packets)
    for place, packet in enumerate(packets):
        if not headers.whole[place]:
            continue
        four = packet[0] >> 4 == 4
        source = packet[12:16] if four else packet[8:24]
        text = address_text(headers.source[place].tobytes())
        assert text == (str(ip_address(source)) if any(source) else "")


@pytest.mark.parametrize(
    ("packet", "flow_id"),
    [
        (ipv4(A, B, 1, b"\x08\x00\xab\xcd\x0f\xa1\x00\x01"), 8 << 24 | 4001),
        (ipv4(A, B, 1, b"\x0d\x00\xab\xcd\x00\x07\x00\x01", options=10), 13 << 24 | 7),
        (ipv6(A6, B6, 58, b"\x80\x00\xab\xcd\x0f\xa1\x00\x01"), 128 << 24 | 4001),
        (ipv4(A, B, 1, b"\x03\x01\xab\xcd\x0f\xa1\x00\x01"), 0),  # an error: that is no identifier
        (ipv6(A6, B6, 58, b"\x08\x00\xab\xcd\x0f\xa1\x00\x01"), 0),
        (ipv4(A, B, 58, b"\x80\x00\xab\xcd\x0f\xa1"), 0),  # cut off
        (ipv4(A, B, 1, b"\x08\x00\xab\xcd\x0f\xa1\x00\x01", fragment=5), 0),
        (ipv4(A, B, 17, b"\x08\x00\x00\x35\x0f\xa1\x00\x01"), 0),
    ],
)
def test_what_tells_pings_apart(packet: bytes, flow_id: int) -> None:
    assert read(packet).flow_id.tolist() == [flow_id]
