"""Open vSwitch's list of connections, read by both variants: all forms of lines, and no lines."""

import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowvis.batch import address_text
from flowvis.conntrack.names import TCP_STATES, ConntrackStatus
from flowvis.native import dpctl as compiled
from flowvis.native.contract.dpctl import ENDPOINT_STATES, MAX_LINE, STATUS
from flowvis.native.reference import dpctl as reference

KERNELS = (  # as of a kernel's datapath, with all that there can be
    b"tcp,orig=(src=100.10.0.105,dst=10.96.0.1,sport=41284,dport=443,packets=343260,bytes=19340621),"
    b"reply=(src=100.10.0.106,dst=100.10.0.105,sport=6443,dport=41284,packets=381035,bytes=181176472),"
    b"start=2020-07-24T05:07:03.515,id=462801621,zone=65520,"
    b"status=SEEN_REPLY|ASSURED|CONFIRMED|SRC_NAT_DONE|DST_NAT_DONE,timeout=86399,mark=33,"
    b"labels=0x200000001,protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=7,"
    b"wscale_reply=7,flags_orig=WINDOW_SCALE|SACK_PERM|MAXACK_SET,flags_reply=WINDOW_SCALE)"
)
MASTER = (
    b"udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=2),reply=(src=10.0.0.2,dst=10.0.0.1,sport=2,"
    b"dport=1),start=2024-02-29T23:59:59.999,stop=2024-03-01T00:00:00.001,id=7,zone=3,"
    b"status=EXPECTED|OFFLOADED,timeout=0,helper=ftp,"
    b"master=(src=9.9.9.9,dst=8.8.8.8,sport=99,dport=21)"
)
ICMP6 = (
    b"icmpv6,orig=(src=fd09::1,dst=fd09::2,id=77,type=128,code=0),"
    b"reply=(src=fd09::2,dst=fd09::1,id=77,type=129,code=0),id=0,zone=65510,status=0,timeout=29"
)
SCTP = (
    b"sctp,orig=(src=10.9.0.1,dst=10.9.0.2,sport=7,dport=8),"
    b"reply=(src=10.9.0.2,dst=10.9.0.1,sport=8,dport=7),"
    b"protoinfo=(state=ESTABLISHED,vtag_orig=11,vtag_reply=12)"
)
BARE = (
    b"tcp,orig=(src=::1,dst=::2,sport=1,dport=2),reply=(src=::2,dst=::1,sport=2,dport=1),"
    b"protoinfo=(state=TIME_WAIT)"
)
OTHER = (
    b"47,orig=(src=1.2.3.4,dst=5.6.7.8,sport=0,dport=0),reply=(src=5.6.7.8,dst=1.2.3.4,"
    b"sport=0,dport=0),labels=0xffffffffffffffff0000000000000001"
)
LINES = (KERNELS, MASTER, ICMP6, SCTP, BARE, OTHER)


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def lines(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def read(module: ModuleType, text: bytes) -> tuple[list[dict[str, Any]], int]:
    """Entries as rows, and how many lines were malformed."""
    decoder = module.LineDecoder()
    decoder.feed_lines(text)
    columns = decoder.take()
    count = len(columns["id"])
    made = [
        {name: bytes(c[at]) if c.ndim > 1 else int(c[at]) for name, c in columns.items()}
        for at in range(count)
    ]
    return made, decoder.malformed


def one(module: ModuleType, line: bytes) -> dict[str, Any]:
    (row,), malformed = read(module, line)
    assert malformed == 0
    return row


def test_a_line_with_all_that_there_is(lines: ModuleType) -> None:
    row = one(lines, KERNELS)
    addresses = ("source", "destination", "reply_source", "reply_destination")
    assert [address_text(row[name]) for name in addresses] == [
        "100.10.0.105", "10.96.0.1", "100.10.0.106", "100.10.0.105",
    ]  # fmt: skip
    ports = ("source_port", "destination_port", "reply_source_port", "reply_destination_port")
    assert [row[name] for name in ports] == [41284, 443, 6443, 41284]
    counters = ("packets", "octets", "reverse_packets", "reverse_octets")
    assert [row[name] for name in counters] == [343260, 19340621, 381035, 181176472]
    assert row["start_ns"] == 1_595_567_223_515_000_000  # date -u -d 2020-07-24T05:07:03 +%s
    assert (row["id"], row["zone"], row["timeout"], row["mark"]) == (462801621, 65520, 86399, 33)
    flags = ConntrackStatus
    assert row["status"] == (
        flags.SEEN_REPLY | flags.ASSURED | flags.CONFIRMED | flags.SRC_NAT_DONE | flags.DST_NAT_DONE
    )
    assert int.from_bytes(row["labels"], "little") == 0x200000001
    assert TCP_STATES[row["tcp_state"]] == "ESTABLISHED"
    assert (row["protocol"], row["family"], row["uncounted"], row["stop_ns"]) == (6, 2, 0, 0)


def test_what_others_leave_out(lines: ModuleType) -> None:
    rows, malformed = read(lines, b"\n".join([MASTER, ICMP6, SCTP, BARE, OTHER]) + b"\n")
    assert malformed == 0
    master, icmp, sctp, bare, other = rows
    assert address_text(master["source"]) == "10.0.0.1"  # not the master's
    assert (master["stop_ns"] - master["start_ns"], master["status"]) == (2_000_000, 1)
    assert master["uncounted"] == 1
    assert (icmp["protocol"], icmp["icmp_id"], icmp["icmp_type"], icmp["id"]) == (58, 77, 128, 0)
    assert (icmp["family"], icmp["zone"]) == (10, 65510)
    assert (sctp["protocol"], sctp["source_port"], sctp["tcp_state"]) == (132, 7, 255)
    assert TCP_STATES[bare["tcp_state"]] == "TIME_WAIT"
    assert (other["protocol"], other["family"]) == (47, 2)
    assert other["labels"] == b"\1" + bytes(7) + b"\xff" * 8


@pytest.mark.parametrize(
    ("source", "destination", "state"),
    [
        ("SYN_SENT", "CLOSED", "SYN_SENT"),
        ("ESTABLISHED", "SYN_SENT", "SYN_RECV"),
        ("SYN_RECV", "SYN_RECV", "SYN_RECV"),
        ("ESTABLISHED", "ESTABLISHED", "ESTABLISHED"),
        ("CLOSING", "ESTABLISHED", "FIN_WAIT"),
        ("ESTABLISHED", "FIN_WAIT_2", "FIN_WAIT"),
        ("FIN_WAIT_2", "CLOSING", "LAST_ACK"),
        ("FIN_WAIT_2", "FIN_WAIT_2", "TIME_WAIT"),
        ("TIME_WAIT", "TIME_WAIT", "TIME_WAIT"),
        ("CLOSE_WAIT", "CLOSE_WAIT", "CLOSE_WAIT"),
    ],
)
def test_two_states_are_one(lines: ModuleType, source: str, destination: str, state: str) -> None:
    words = f"state_orig={source},state_reply={destination}".encode()
    row = one(lines, BARE.replace(b"state=TIME_WAIT", words))
    assert TCP_STATES[row["tcp_state"]] == state


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"tcp",
        b"256" + OTHER[2:],
        b"esp" + OTHER[2:],
        OTHER.replace(b"src=5.6.7.8", b"src=5.6.7.256"),
        OTHER.replace(b"src=5.6.7.8", b"src=5.6.7.08"),
        OTHER.replace(b",dst=1.2.3.4", b""),
        OTHER.replace(b"sport=0", b"sport=65536"),
        OTHER.replace(b"sport=0", b"sport="),
        OTHER.replace(b"0x", b""),
        OTHER.replace(b"0xf", b"0x0ff"),
        OTHER.replace(b"reply=(", b"reply=(a=("),
        OTHER[: OTHER.index(b"),labels")],
        ICMP6.replace(b"type=128", b"type=256"),
        MASTER.replace(b"2024-02-29", b"2023-02-29"),
        MASTER.replace(b"2024-02-29", b"1969-02-28"),
        MASTER.replace(b"2024-02-29", b"2262-02-28"),
        MASTER.replace(b"2024-02-29", b"9999-02-28"),
        MASTER.replace(b"59.999", b"60.999"),
        MASTER.replace(b"59.999", b"59."),
        KERNELS.replace(b"bytes=19340621", b"bytes=18446744073709551616"),
        KERNELS + b" " * MAX_LINE,
        b"Unsupported address family: 7. HEX:",
        b"00000000  0a 09 00 01 00 00 00 00-00 00 00 00 00 00 00 00 |................|",
    ],
)
def test_what_is_none_is_counted_and_spoils_nothing(lines: ModuleType, line: bytes) -> None:
    assert line not in LINES
    rows, malformed = read(lines, b"\n".join([ICMP6, line, b"", SCTP]))
    assert malformed == 1
    assert [row["protocol"] for row in rows] == [58, 132]


def test_largest_numbers(lines: ModuleType) -> None:
    row = one(lines, KERNELS.replace(b"bytes=19340621", b"bytes=18446744073709551615"))
    assert row["octets"] == 2**64 - 1


def test_the_last_moment(lines: ModuleType) -> None:
    row = one(
        lines, MASTER.replace(b"start=2024-02-29T23:59:59.999", b"start=2261-12-31T23:59:59.999")
    )
    assert row["start_ns"] == 9_214_646_399_999_000_000


PARTS = re.findall(rb"[^,()=|.:]+|[,()=|.:]", b",".join(LINES))
WORDS = st.sampled_from([*dict.fromkeys(PARTS), *(w.encode() for w in (*STATUS, *ENDPOINT_STATES))])


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """A line with some of its parts replaced, left out or doubled."""
    parts = re.findall(rb"[^,()=|.:]+|[,()=|.:]", draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        parts[at] = draw(
            st.one_of(WORDS, st.binary(max_size=4), st.just(b""), st.just(parts[at] * 2))
        )
    return b"".join(parts)


@settings(deadline=None, max_examples=400)
@given(st.lists(mutilated(), max_size=4))
@example([BARE.replace(b"::2", b"::1.2.3.4"), BARE.replace(b"::2", b"1:2:3:4:5:6:7::")])
def test_both_variants_are_one(pieces: list[bytes]) -> None:
    text = b"\n".join(pieces)
    assert read(compiled, text) == read(reference, text)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    assert read(compiled, data) == read(reference, data)


def test_many_lines_are_columns(lines: ModuleType) -> None:
    text = b"\n".join(ICMP6.replace(b"id=77", b"id=%d" % at) for at in range(1000))
    decoder = lines.LineDecoder()
    half = text.index(b"\n", len(text) // 2) + 1
    decoder.feed_lines(text[:half])
    decoder.feed_lines(text[half:])
    assert len(decoder) == 1000
    np.testing.assert_array_equal(decoder.take()["icmp_id"], np.arange(1000))
    assert len(decoder) == 0
