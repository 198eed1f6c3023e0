"""What our own two ends add to IPFIX: frames, and a record of options at the beginning."""

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.batch import Batch
from flowvis.errors import PeerError
from flowvis.fields import EXPORTED
from flowvis.ipfix.acknowledgement import (
    FRAME,
    SENT_AGAIN,
    USELESS_FRAMES,
    Acknowledgements,
    frame,
)
from flowvis.ipfix.events import Malformed, SequenceGap
from flowvis.ipfix.exporter import ExporterSession
from flowvis.ipfix.template import OPTIONS_TEMPLATE_SET, Template, write_set, write_template
from flowvis.native import StringTable
from flowvis.native.contract.ipfix import HEADER, VERSION

from .conftest import Leaf
from .feeding import Fed
from .records import batch_of

DOMAIN = 0xABCD_0123


def message(*sets: bytes, domain: int = DOMAIN) -> bytes:
    body = b"".join(sets)
    return HEADER.pack(VERSION, HEADER.size + len(body), 1, 0, domain) + body


def options(*records: bytes, template: int = SENT_AGAIN.id, domain: int = DOMAIN) -> bytes:
    """A message with the options' template under an id, and with a set for each of the records."""
    body = write_template(Template(template, SENT_AGAIN.specifiers, 1))
    sets = [write_set(template, record) for record in records]
    return message(write_set(OPTIONS_TEMPLATE_SET, body), *sets, domain=domain)


def test_frames_are_as_documented() -> None:
    assert frame(0x01020304, 0x05).hex() == "00010010010203040000000000000005"


@given(
    counts=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40).map(sorted),
    cuts=st.lists(st.integers(0, 40 * FRAME.size), max_size=20),
)
def test_the_newest_of_frames_counts_however_they_are_cut(
    counts: list[int], cuts: list[int]
) -> None:
    stream = b"".join(frame(DOMAIN, count) for count in counts)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = Acknowledgements(DOMAIN)
    for begin, end in itertools.pairwise(places):
        whole = end // FRAME.size
        assert reader.receive(stream[begin:end], 2**64 - 1) == (counts[whole - 1] if whole else 0)
    assert reader.count == counts[-1]


@given(st.lists(st.binary(max_size=64), max_size=10), st.integers(0, 2**64 - 1))
def test_whatever_comes_no_more_is_acknowledged_than_was_sent(
    pieces: list[bytes], sent: int
) -> None:
    reader = Acknowledgements(DOMAIN)
    before = 0
    for piece in pieces:
        try:
            count = reader.receive(memoryview(piece), sent)
        except PeerError:
            break
        assert before <= count <= sent
        before = count


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (FRAME.pack(2, 16, DOMAIN, 5), "version 2"),
        (FRAME.pack(1, 17, DOMAIN, 5), "17 bytes"),
        (frame(DOMAIN ^ 1, 5), "domain"),
        (frame(DOMAIN, 11), "11 records are acknowledged, after 4 of 10 sent"),
        (frame(DOMAIN, 3), "3 records are acknowledged, after 4 of 10 sent"),
        (b"HTTP/1.1 400 Bad Request\r\n", "version"),
    ],
)
def test_what_no_collector_of_ours_writes_is_a_fault(bad: bytes, words: str) -> None:
    reader = Acknowledgements(DOMAIN)
    reader.receive(frame(DOMAIN, 4), 10)
    with pytest.raises(PeerError, match=words):
        reader.receive(bad, 10)
    assert reader.count == 4


def test_a_flood_of_frames_that_say_nothing_new_is_a_fault() -> None:
    reader = Acknowledgements(DOMAIN)
    reader.receive(frame(DOMAIN, 0) * USELESS_FRAMES + frame(DOMAIN, 1), 10)
    reader.receive(frame(DOMAIN, 1) * USELESS_FRAMES, 10)
    with pytest.raises(PeerError, match="nothing new"):
        reader.receive(frame(DOMAIN, 1), 10)


def records(count: int) -> Batch:
    return batch_of([one(number) for number in range(count)], StringTable())


def one(number: int) -> dict[str, Any]:
    return {"sourceIP": "10.0.0.1", "destinationIP": "fd00::2", "sourceTransportPort": number + 1}


@pytest.mark.parametrize("again", [0, 1, 3, 5])
def test_the_first_records_may_have_been_received_before(leaf: Leaf, again: int) -> None:
    session = ExporterSession(DOMAIN, EXPORTED)
    opening = b"".join(session.templates(1) + session.sent_again(again, 1))
    fed = Fed(leaf).feed([opening])
    repeating = [fed.session.repeating]
    for _ in range(5):
        fed.feed(session.encode(records(1), 1))
        repeating.append(fed.session.repeating)
    assert repeating == [number < again for number in range(6)]
    assert fed.session.stats.sent_again == again
    assert (fed.session.stats.records, fed.session.stats.ignored_records) == (5, 0)
    assert not any(isinstance(event, SequenceGap | Malformed) for event in fed.events)
    assert fed.session.stats.malformed == {}


def test_a_gap_after_the_options_is_noticed(leaf: Leaf) -> None:
    session = ExporterSession(DOMAIN, EXPORTED)
    fed = Fed(leaf).feed(session.templates(1) + session.sent_again(2, 1))
    fed.feed(session.encode(records(1), 1))
    session.encode(records(3), 1)
    fed.feed(session.encode(records(1), 1))
    assert fed.session.stats.lost_records == 3


def test_others_walk_over_the_options(leaf: Leaf) -> None:
    """To a collector that knows of none of this they are options like any other."""
    template = Template(SENT_AGAIN.id, (*SENT_AGAIN.specifiers, SENT_AGAIN.specifiers[1]), 1)
    sets = (
        write_set(OPTIONS_TEMPLATE_SET, write_template(template)),
        write_set(SENT_AGAIN.id, bytes(20)),
    )
    fed = Fed(leaf).feed([message(*sets)])
    assert (fed.session.stats.ignored_records, fed.session.stats.sent_again) == (1, 0)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (struct.pack(">IQ", DOMAIN, 7)[:-1], "record-length"),
        (b"", "record-length"),
        (struct.pack(">IQ", DOMAIN + 1, 7), "options-scope"),
        (struct.pack(">IQ", DOMAIN, 2**64 - 1), "sent-again"),
    ],
)
def test_bad_options_are_counted_and_the_session_goes_on(
    leaf: Leaf, record: bytes, reason: str
) -> None:
    fed = Fed(leaf).feed([options(record), options(struct.pack(">IQ", DOMAIN, 2))])
    assert fed.session.stats.malformed == {reason: 1}
    assert (fed.session.stats.sent_again, fed.session.repeating) == (2, True)


def test_an_id_may_be_that_of_flows_and_of_options_in_turn(leaf: Leaf) -> None:
    session = ExporterSession(DOMAIN, EXPORTED)
    templates = b"".join(session.templates(1))
    fed = Fed(leaf)
    for _ in range(2):
        fed.feed([templates, *session.encode(records(1), 1)])
        fed.feed([options(struct.pack(">IQ", DOMAIN, 1), template=256)])
    withdrawal = write_template(Template(256, ()))
    fed.feed([message(write_set(OPTIONS_TEMPLATE_SET, withdrawal))])
    assert fed.session.stats.records == 2
    assert fed.session.stats.sent_again == 2
    assert (fed.session.stats.templates_changed, fed.session.stats.templates_withdrawn) == (3, 1)
