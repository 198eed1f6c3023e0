"""The collector session over UDP: datagrams that come late, twice or never, and templates' life."""

import tracemalloc
from collections.abc import Sequence
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorSession, Malformed, RecordBuffer, SequenceGap
from flowvis.ipfix.order import LATE_S, MOST_MISSING, NEW_BEGINNING
from flowvis.native import StringTable
from flowvis.native.contract.ipfix import MAX_DOMAINS

from . import wire
from .wire import IANA

PORTS = wire.templates(wire.template(256, (IANA, 7, 2)))
LIFE_S = 1800.0


class Receiver:
    """A session over UDP, with a clock that the test moves."""

    def __init__(self, first: int = 0) -> None:
        """`first` is the number of the first record that the exporter sends."""
        self.buffer = RecordBuffer(EXPORTED, StringTable())
        self.session = CollectorSession("peer", self.buffer, datagrams=True)
        self.receive(wire.message(PORTS, sequence=first))

    def receive(self, *datagrams: bytes) -> list[str]:
        """Return the reasons of the faults."""
        events = self.session.receive_datagrams(datagrams)
        return [event.error.reason for event in events if isinstance(event, Malformed)]

    def lost(self, after_s: float = LATE_S) -> int:
        """Return what is lost as of some seconds later, that was not before."""
        self.session.now_s += after_s
        events = self.session.settle(LIFE_S)
        return sum(event.lost for event in events if isinstance(event, SequenceGap))

    @property
    def ports(self) -> list[int]:
        column: list[int] = self.buffer.batch()["sourceTransportPort"].tolist()
        return column


def data(first: int, count: int = 1, domain: int = 7) -> bytes:
    """Records whose ports are their numbers."""
    values = (pack(">H", (first + at) & 0xFFFF) for at in range(count))
    return wire.message(wire.set_of(256, *values), sequence=first & 0xFFFFFFFF, domain=domain)


def test_a_datagram_may_be_of_several_messages_and_must_be_whole() -> None:
    receiver = Receiver()
    assert receiver.receive(data(0) + data(1), data(2)) == []
    parts = (data(3)[:-1], data(4) + b"\0", b"", b"\0", b"\0\x0a\0\x0f" + bytes(12))
    assert receiver.receive(*parts, data(3)) == ["message-length"] * 5
    assert receiver.receive(b"\0\x09" + bytes(30), b"\0\x05") == ["version"] * 2
    assert receiver.ports == [0, 1, 2, 3]
    assert not receiver.session.waiting_bytes


def test_a_neighbour_that_speaks_netflow_is_named() -> None:
    receiver = Receiver()
    events = receiver.session.receive_datagrams([b"\0\x09" + bytes(30)])
    assert isinstance(events[0], Malformed)
    assert "the peer speaks NetFlow 9" in str(events[0].error)


def test_domains_without_end_cost_no_memory() -> None:
    """Each gets out of the decoder's table again by a set whose records cannot be counted."""
    receiver = Receiver()
    unknown = wire.set_of(300, bytes(4))
    for domain in range(4 * MAX_DOMAINS):
        empty, late = (wire.message(sequence=number, domain=domain) for number in (0, 5))
        receiver.receive(empty + late + wire.message(unknown, sequence=5, domain=domain))
    receiver.lost()
    assert receiver.session.stats.lost_records == 5 * MAX_DOMAINS
    receiver.receive(data(5), data(8))  # of one that was there before
    receiver.lost()
    assert receiver.session.stats.lost_records == 5 * MAX_DOMAINS + 2


def test_what_is_remembered_of_domains_is_counted() -> None:
    """Whoever sends datagrams may name as many as there are, from as many addresses."""
    receiver = Receiver()
    before = receiver.session.template_bytes
    tracemalloc.start()
    for domain in range(1000, 1000 + MAX_DOMAINS):
        receiver.receive(*(wire.message(sequence=number, domain=domain) for number in (0, 5)))
    receiver.lost()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken > 50_000
    assert receiver.session.template_bytes - before > 0.9 * taken


def test_what_comes_late_is_not_lost() -> None:
    receiver = Receiver()
    receiver.receive(data(0, 2), data(7, 3), data(4, 3), data(2, 2), data(10))
    assert receiver.lost() == 0
    assert receiver.session.stats.late_records == 5
    assert sorted(receiver.ports) == list(range(11))


def test_what_does_not_come_is_lost_once_and_not_at_once() -> None:
    receiver = Receiver()
    receiver.receive(data(0, 2), data(5, 3), data(20))
    assert receiver.lost(LATE_S / 2) == 0
    assert receiver.lost(LATE_S / 2) == 3 + 12
    assert receiver.lost() == 0
    receiver.receive(data(2, 3))  # later still: counted as lost, and taken
    receiver.receive(data(21))
    assert receiver.lost() == 0
    assert receiver.session.stats.lost_records == 15
    assert len(receiver.ports) == 10


def test_what_came_twice_is_nothing_lost() -> None:
    receiver = Receiver()
    for at in range(0, 40, 4):
        receiver.receive(data(at, 4))
        receiver.receive(data(0, 4), data(max(at - 4, 0), 4), data(at, 4))
    receiver.receive(data(40))
    assert receiver.lost() == 0
    assert receiver.session.stats.late_records == 0


@pytest.mark.parametrize("before", [50, 3000, 5 * NEW_BEGINNING])
def test_an_exporter_that_begins_anew_at_its_old_port(before: int) -> None:
    receiver = Receiver(before - 10)
    receiver.receive(data(before - 10, 10), wire.message(PORTS), data(0, 5), data(5, 5))
    assert receiver.lost() == 0
    receiver.receive(data(13, 2), data(17, 2), data(15, 2), data(19, 1))
    assert receiver.lost() == 3


def test_the_sequence_wraps() -> None:
    last = (1 << 32) - 3
    receiver = Receiver(last)
    receiver.receive(data(last, 2))
    receiver.receive(data(4, 2), data(last + 2, 2), data(1 << 32 | 6))
    assert receiver.lost() == 3
    assert receiver.session.stats.late_records == 2


def test_so_much_is_waited_for_and_domains_are_apart() -> None:
    receiver = Receiver()
    other = wire.message(PORTS, domain=8)
    receiver.receive(other, data(0, domain=8), data(3, domain=8))
    for at in range(MOST_MISSING + 3):
        receiver.receive(data(2 * at + 1))
    assert receiver.lost(0) == 3
    assert receiver.lost() == MOST_MISSING + 2


Message = tuple[int, int]  # first record, how many


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Message], list[Message]]:
    """What an exporter sent, and what comes of it in which order."""
    start = draw(st.sampled_from([0, 1000, (1 << 32) - 30]))
    sizes = draw(st.lists(st.integers(1, 6), min_size=3, max_size=40))
    sent, first = [], start
    for size in sizes:
        sent.append((first, size))
        first += size
    delays = draw(st.lists(st.integers(0, 5), min_size=len(sent), max_size=len(sent)))
    copies = draw(
        st.lists(st.sampled_from([1, 1, 1, 0, 2]), min_size=len(sent), max_size=len(sent))
    )
    inner = range(1, len(sent) - 1)
    arrivals = [(at + delays[at], sent[at]) for at in inner for _ in range(copies[at])]
    arrivals.sort(key=lambda arrival: arrival[0])
    came = [sent[0], *(message for _, message in arrivals), sent[-1]]
    return sent, came


@settings(deadline=None)
@given(histories())
def test_lost_is_what_never_came(history: tuple[list[Message], list[Message]]) -> None:
    sent, came = history
    receiver = Receiver(sent[0][0])
    for message in came:
        receiver.receive(data(*message))
    receiver.receive(data(sum(sent[-1])))
    assert receiver.lost() == records(sent) - records(list(dict.fromkeys(came)))


def records(messages: Sequence[Message]) -> int:
    return sum(count for _, count in messages)


# Templates


def test_a_template_that_is_not_sent_again_expires() -> None:
    receiver = Receiver()
    one = receiver.session.template_bytes
    receiver.receive(wire.message(PORTS, domain=9), data(0), data(0, domain=9))
    assert receiver.session.template_bytes > 1.5 * one > 0
    for _ in range(3):
        receiver.session.now_s += 0.6 * LIFE_S
        receiver.receive(wire.message(PORTS, sequence=1))  # domain 7's
        receiver.session.settle(LIFE_S)
    assert receiver.session.stats.templates_expired == 1
    assert receiver.receive(data(1, domain=9)) == ["no-template"]
    assert receiver.receive(data(1)) == []
    assert receiver.ports == [0, 0, 1]
    assert receiver.session.template_bytes < 1.5 * one


def test_nothing_is_withdrawn_over_udp() -> None:
    """RFC 7011 section 8.4: a forged or late one would make all that follows unreadable."""
    receiver = Receiver()
    withdrawal = wire.message(wire.templates(wire.withdrawal(256)))
    assert receiver.receive(withdrawal, data(0)) == ["udp-withdrawal"]
    assert receiver.ports == [0]


def test_a_new_template_of_the_same_number_counts() -> None:
    receiver = Receiver()
    destination = wire.templates(wire.template(256, (IANA, 11, 2)))
    receiver.receive(data(5), wire.message(destination, sequence=6), data(6))
    column: list[int] = receiver.buffer.batch()["destinationTransportPort"].tolist()
    assert column == [0, 6]
    assert receiver.session.stats.templates_changed == 1
