"""The collector session: templates, options, sets, sequence numbers, faults and limits."""

from struct import pack

import pytest

from flowvis.errors import LimitExceeded, MalformedMessage, PeerError
from flowvis.fields import BY_NAME
from flowvis.ipfix import (
    CollectorLimits,
    Malformed,
    NotUnderstood,
    SequenceGap,
    TemplateLearned,
    TemplateWithdrawn,
)
from flowvis.ipfix.origin import NODE_COUNTERS, ORIGIN

from . import wire
from .conftest import Leaf
from .feeding import Fed, fed_in_every_manner
from .wire import ANTREA, IANA, REVERSE, VARIABLE

PORT = (IANA, 7, 2)
PORTS = wire.templates(wire.template(256, PORT))


def port(*values: int) -> bytes:
    return wire.set_of(256, *(pack(">H", value) for value in values))


def ports_of(fed: Fed) -> list[int]:
    column: list[int] = fed.buffer.batch()["sourceTransportPort"].tolist()
    return column


def faults_of(fed: Fed) -> list[PeerError]:
    return [event.error for event in fed.events if isinstance(event, Malformed)]


# Sets and templates


def test_many_sets_and_records_in_a_message(leaf: Leaf) -> None:
    stream = wire.message(PORTS, port(1, 2, 3), port(4), port())
    fed = fed_in_every_manner(leaf, stream)
    assert ports_of(fed) == [1, 2, 3, 4]
    assert fed.events == [TemplateLearned(7, 256, fields=1, unknown=0)]
    stats = fed.session.stats
    assert (stats.messages, stats.records, stats.octets) == (1, 4, len(stream))


def test_padding_after_records_and_templates(leaf: Leaf) -> None:
    three = wire.templates(wire.template(300, PORT, (IANA, 4, 1)), b"\0\0\0")
    data = wire.set_of(300, pack(">HB", 443, 6), pack(">HB", 53, 17), b"\0\0")
    fed = fed_in_every_manner(leaf, wire.message(three, data))
    assert fed.records == [
        {"sourceTransportPort": 443, "protocolIdentifier": 6},
        {"sourceTransportPort": 53, "protocolIdentifier": 17},
    ]
    assert not fed.session.stats.malformed


def test_padding_of_templates_that_is_as_long_as_a_record(leaf: Leaf) -> None:
    fed = fed_in_every_manner(
        leaf, wire.message(wire.templates(wire.template(256, PORT), b"\0" * 8), port(5))
    )
    assert ports_of(fed) == [5]
    assert not fed.session.stats.malformed


def test_what_nobody_knows_is_skipped(leaf: Leaf) -> None:
    template = wire.template(
        256,
        (4242, 1, 3),  # unknown enterprise, fixed
        (4242, 2, VARIABLE),
        (IANA, 32767, 2),  # unknown IANA element
        (IANA, 56, 6),  # a MAC address: known, but no field of ours
        (IANA, 83, VARIABLE),  # interfaceDescription: likewise
        PORT,
    )
    data = wire.set_of(
        256,
        b"abc" + wire.text("z" * 300) + b"??" + b"macmac" + wire.text("eth0") + pack(">H", 80),
    )
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert fed.records == [{"sourceTransportPort": 80}]
    assert fed.events == [
        TemplateLearned(7, 256, fields=6, unknown=3),
        NotUnderstood(7, 256, ((4242, 1), (4242, 2), (0, 32767)), ()),
    ]
    assert fed.session.stats.unknown_fields == 3


@pytest.mark.parametrize("enterprise", [56506, 56505, 55829])
def test_antreas_former_numbers(leaf: Leaf, enterprise: int) -> None:
    template = wire.template(256, (enterprise, 101, VARIABLE), (REVERSE, 1, 8))
    data = wire.set_of(256, wire.text("pod"), pack(">Q", 9))
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert fed.records == [{"sourcePodName": "pod", "reverseOctetDeltaCount": 9}]


def test_the_numbers_of_2020(leaf: Leaf) -> None:
    fields = [(55829, 106, 4), (55829, 107, 2), (55829, 108, VARIABLE), (55829, 112, VARIABLE)]
    template = wire.template(256, *fields, (55829, 137, 1))  # flowType today, nothing then
    data = wire.set_of(
        256,
        bytes([10, 96, 0, 1]) + pack(">H", 80) + wire.text("shop/web:http") + wire.text("shop"),
        b"\1",
    )
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert fed.records == [
        {
            "destinationClusterIP": "10.96.0.1",
            "destinationServicePort": 80,
            "destinationServicePortName": "shop/web:http",
            "egressNetworkPolicyNamespace": "shop",
        }
    ]
    assert fed.session.stats.unknown_fields == 1


def test_reduced_size_encoding(leaf: Leaf) -> None:
    template = wire.template(
        256,
        *[(IANA, 1, 3), (IANA, 2, 1), (IANA, 85, 4), (IANA, 86, 7)],
        *[(IANA, 7, 1), (ANTREA, 116, 2), (IANA, 320, 4)],  # port; signed and float: skipped
    )
    data = wire.set_of(
        256,
        b"\x01\x02\x03",
        b"\xff",
        b"\xff" * 4,
        b"\x80" + b"\0" * 6,
        b"\x50",
        b"\xff\xfe",
        b"\0" * 4,
    )
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert fed.records == [
        {
            "octetDeltaCount": 0x010203,
            "packetDeltaCount": 255,
            "octetTotalCount": 0xFFFFFFFF,
            "packetTotalCount": 0x80000000000000,
            "sourceTransportPort": 0x50,
        }
    ]
    assert fed.session.stats.unusable_fields == 0


def test_lengths_that_a_type_does_not_allow_are_skipped(leaf: Leaf) -> None:
    template = wire.template(
        256,
        *[(IANA, 1, 9), (IANA, 4, 0), (IANA, 150, 3), (IANA, 8, 5), (IANA, 2, VARIABLE)],
        PORT,
    )
    data = wire.set_of(256, b"x" * 9, b"x" * 3, b"x" * 5, wire.text("xyz"), pack(">H", 80))
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert fed.records == [{"sourceTransportPort": 80}]
    assert fed.session.stats.unusable_fields == 5


def test_text_of_fixed_length_loses_its_padding(leaf: Leaf) -> None:
    template = wire.template(256, (ANTREA, 101, 8), (ANTREA, 136, 0))
    data = wire.set_of(256, b"pod-1\0\0\0", b"\0pod\0--\0", b"\0" * 8)
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    names = fed.buffer.batch().texts("sourcePodName")
    assert names == ["pod-1", "\0pod\0--", ""]


def test_of_two_elements_for_an_address_the_set_one_counts(leaf: Leaf) -> None:
    template = wire.template(256, (IANA, 8, 4), (IANA, 27, 16), PORT)
    six = bytes.fromhex("fd00000000000000000000000000000a")
    data = wire.set_of(
        256,
        *[bytes([10, 0, 0, 1]), b"\0" * 16, pack(">H", 1)],
        *[b"\0" * 4, six, pack(">H", 2)],
        *[b"\0" * 4, b"\0" * 16, pack(">H", 3)],
    )
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert fed.records == [
        {"sourceIP": "10.0.0.1", "sourceTransportPort": 1},
        {"sourceIP": "fd00::a", "sourceTransportPort": 2},
        {"sourceTransportPort": 3},
    ]


def test_an_unset_service_address_is_all_zeros_in_both_families(leaf: Leaf) -> None:
    template = wire.template(256, (IANA, 8, 4), (ANTREA, 168, 4))
    data = wire.set_of(256, b"\0" * 8)
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    batch = fed.buffer.batch()
    assert batch["destinationServiceIP"].tobytes() == b"\0" * 16
    assert batch["sourceIP"].tobytes() == bytes.fromhex("00" * 10 + "ffff" + "00" * 4)


def test_an_element_that_comes_twice(leaf: Leaf) -> None:
    template = wire.template(256, PORT, PORT)
    data = wire.set_of(256, pack(">HH", 1, 2))
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(template), data))
    assert ports_of(fed) == [2]


def test_options_are_walked_over_and_counted(leaf: Leaf) -> None:
    options = wire.options_template(400, 1, (IANA, 149, 4), (IANA, 40, 8), (ANTREA, 101, VARIABLE))
    record = pack(">IQ", 7, 5) + wire.text("not a flow")
    stream = wire.message(options, PORTS, wire.set_of(400, record, record), port(1))
    # The two options records are in the sequence (RFC 7011 section 3.1).
    stream += wire.message(port(2), sequence=3)
    fed = fed_in_every_manner(leaf, stream)
    assert ports_of(fed) == [1, 2]
    assert fed.session.stats.ignored_records == 2
    assert fed.session.stats.gaps == 0


def test_records_without_anything_for_the_buffer_are_ignored(leaf: Leaf) -> None:
    template = wire.template(256, (IANA, 56, 6))
    stream = wire.message(wire.templates(template), wire.set_of(256, b"x" * 12))
    fed = fed_in_every_manner(leaf, stream)
    assert fed.records == []
    assert fed.session.stats.ignored_records == 2


def test_templates_are_each_domains_own(leaf: Leaf) -> None:
    other = wire.templates(wire.template(256, (IANA, 11, 2)))
    stream = wire.message(PORTS, domain=1) + wire.message(other, domain=2)
    stream += wire.message(port(80), domain=1) + wire.message(port(81), domain=2)
    stream += wire.message(port(82), domain=1, sequence=1)
    fed = fed_in_every_manner(leaf, stream)
    assert fed.records == [
        {"sourceTransportPort": 80},
        {"destinationTransportPort": 81},
        {"sourceTransportPort": 82},
    ]


def test_a_repeated_template_changes_nothing(leaf: Leaf) -> None:
    fed = fed_in_every_manner(leaf, wire.message(PORTS, port(1), PORTS, port(2)))
    assert ports_of(fed) == [1, 2]
    assert len(fed.events) == 1
    stats = fed.session.stats
    assert (stats.templates, stats.templates_repeated, stats.templates_changed) == (1, 1, 0)


def test_a_changed_template_counts_from_there(leaf: Leaf) -> None:
    changed = wire.templates(wire.template(256, (IANA, 11, 2)))
    fed = fed_in_every_manner(leaf, wire.message(PORTS, port(1), changed, port(2)))
    assert fed.records == [{"sourceTransportPort": 1}, {"destinationTransportPort": 2}]
    assert len(fed.events) == 2
    stats = fed.session.stats
    assert (stats.templates, stats.templates_repeated, stats.templates_changed) == (1, 0, 1)


@pytest.mark.parametrize(
    "body",
    [
        wire.templates(wire.template(256, *[PORT] * 3)),  # of too many fields
        wire.templates(wire.template(256, (IANA, 83, 0))),  # of no bytes
        wire.set_of(2, pack(">HH", 256, 2), wire.specifiers(PORT)),  # cut short
        wire.set_of(2, pack(">HH", 256, 2049), wire.specifiers(*[PORT] * 2049)),
        wire.options_template(256, 0, PORT),
        wire.set_of(3, pack(">HHB", 256, 1, 0)),
    ],
)
def test_what_is_refused_in_the_place_of_a_template_ends_that(leaf: Leaf, body: bytes) -> None:
    """What follows has the form of the refused one: in the former one it would be any numbers."""
    limits = CollectorLimits(template_fields=2)
    fed = fed_in_every_manner(leaf, wire.message(PORTS, port(1), body, port(2)), limits=limits)
    assert ports_of(fed) == [1]
    assert TemplateWithdrawn(7, 256) in fed.events
    assert len(faults_of(fed)) == 2
    assert faults_of(fed)[1].reason == "no-template"
    assert fed.session.template_bytes == 0
    again = wire.message(PORTS, body, PORTS, port(3))
    assert ports_of(fed_in_every_manner(leaf, again, limits=limits)) == [3]


def test_withdrawal(leaf: Leaf) -> None:
    gone = wire.templates(wire.withdrawal(256))
    fed = fed_in_every_manner(leaf, wire.message(PORTS, port(1), gone, port(2), PORTS, port(3)))
    assert ports_of(fed) == [1, 3]
    assert fed.events[1] == TemplateWithdrawn(7, 256)
    stats = fed.session.stats
    assert (stats.templates, stats.templates_withdrawn, stats.sets_without_template) == (2, 1, 1)
    assert [error.reason for error in faults_of(fed)] == ["no-template"]


def test_withdrawal_of_all(leaf: Leaf) -> None:
    """Set 2 withdraws templates, set 3 options templates, each of its own domain only."""
    options = wire.options_template(400, 1, (IANA, 149, 4))
    stream = wire.message(PORTS, wire.templates(wire.template(257, PORT)), options)
    stream += wire.message(PORTS, domain=8)
    stream += wire.message(wire.templates(wire.withdrawal(2)))
    fed = fed_in_every_manner(leaf, stream)
    assert fed.events[4:] == [TemplateWithdrawn(7, 256), TemplateWithdrawn(7, 257)]
    fed = fed_in_every_manner(leaf, stream + wire.message(wire.set_of(3, wire.withdrawal(3))))
    assert fed.events[6:] == [TemplateWithdrawn(7, 400)]
    fed = fed_in_every_manner(leaf, stream + wire.message(port(9), domain=8))
    assert ports_of(fed) == [9]


def test_withdrawal_of_what_was_not_there(leaf: Leaf) -> None:
    records = (wire.withdrawal(300), wire.template(256, PORT))
    fed = fed_in_every_manner(leaf, wire.message(wire.templates(*records), port(1)))
    assert [error.reason for error in faults_of(fed)] == ["unknown-withdrawal"]
    assert ports_of(fed) == [1]


# Sequence numbers


def gaps_of(fed: Fed) -> list[SequenceGap]:
    return [event for event in fed.events if isinstance(event, SequenceGap)]


def test_sequence_numbers_count_records_of_a_domain(leaf: Leaf) -> None:
    stream = wire.message(PORTS, port(1, 2), sequence=100)  # the first may have any number
    stream += wire.message(PORTS, port(1), sequence=5, domain=9)
    stream += wire.message(port(3), sequence=102)
    stream += wire.message(port(4), sequence=110)
    stream += wire.message(port(5), sequence=6, domain=9)
    stream += wire.message(port(6), sequence=111)
    stream += wire.message(port(7), sequence=50)
    stream += wire.message(port(8), sequence=51)
    fed = fed_in_every_manner(leaf, stream)
    assert gaps_of(fed) == [SequenceGap(7, 7), SequenceGap(7, -62)]
    stats = fed.session.stats
    assert (stats.gaps, stats.lost_records, stats.records) == (2, 7, 9)


def test_sequence_numbers_wrap(leaf: Leaf) -> None:
    stream = wire.message(PORTS, port(1, 2, 3), sequence=0xFFFFFFFE)
    fed = fed_in_every_manner(leaf, stream + wire.message(port(4), sequence=1))
    assert gaps_of(fed) == []
    fed = fed_in_every_manner(leaf, stream + wire.message(port(4), sequence=3))
    assert gaps_of(fed) == [SequenceGap(7, 2)]
    fed = fed_in_every_manner(leaf, stream + wire.message(port(4), sequence=0xFFFFFFFF))
    assert gaps_of(fed) == [SequenceGap(7, -2)]


def test_after_records_that_nobody_could_count_the_sequence_starts_anew(leaf: Leaf) -> None:
    stream = wire.message(PORTS, port(1), wire.set_of(999, b"what"), sequence=0)
    stream += wire.message(port(2), sequence=40) + wire.message(port(3), sequence=42)
    assert gaps_of(fed_in_every_manner(leaf, stream)) == [SequenceGap(7, 1)]


def test_more_domains_than_are_kept_track_of(leaf: Leaf) -> None:
    streams = [wire.message(PORTS, port(1), domain=n) for n in range(300)]
    streams += [wire.message(port(1), domain=n, sequence=1) for n in range(250, 300)]
    streams += [wire.message(port(1), domain=n, sequence=9) for n in (5, 299)]
    fed = Fed(leaf, limits=CollectorLimits(templates=300, events=1000)).feed([b"".join(streams)])
    assert gaps_of(fed) == [SequenceGap(5, 8)]
    assert fed.session.stats.records == 352


# Faults: a bad set does not cost the message, a bad message only then the session


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_a_set_with_an_impossible_length_costs_the_rest_of_its_message(
    leaf: Leaf, length: int
) -> None:
    bad = pack(">HH", 256, length) + b"\0\1"
    stream = wire.message(PORTS, port(1), bad) + wire.message(port(2), sequence=77)
    fed = fed_in_every_manner(leaf, stream)
    assert ports_of(fed) == [1, 2]
    (error,) = faults_of(fed)
    assert error.reason == "set-length"
    assert (error.where.session, error.where.domain, error.where.set_id) == ("peer", 7, 256)
    assert error.where.offset == 16 + len(PORTS) + len(port(1))
    assert fed.session.stats.malformed == {"set-length": 1}


def test_bytes_after_the_last_set(leaf: Leaf) -> None:
    fed = fed_in_every_manner(leaf, wire.message(PORTS, port(1), b"\0\0\0"))
    assert ports_of(fed) == [1]
    assert [error.reason for error in faults_of(fed)] == ["set-length"]


LONG_FORM = b"\xff\x00\x40"


@pytest.mark.parametrize(
    "text", [b"\x40abc", LONG_FORM + b"abc", b"\xff\x00", b"\x03abc", b"\xff\x00\x03abc"]
)
def test_a_text_that_leaves_its_set_costs_the_set(leaf: Leaf, text: bytes) -> None:
    template = wire.templates(wire.template(300, PORT, (ANTREA, 101, VARIABLE), (IANA, 4, 1)))
    good = pack(">H", 80) + wire.text("pod") + b"\x06"
    bad = pack(">H", 81) + text
    stream = wire.message(PORTS, template, wire.set_of(300, good, bad), port(5))
    fed = fed_in_every_manner(leaf, stream)
    assert ports_of(fed) == [80, 5]
    (error,) = faults_of(fed)
    assert error.reason == "record-length"
    assert error.where.offset == 16 + len(PORTS) + len(template) + 4 + len(good)


@pytest.mark.parametrize("set_id", [0, 1, 4, 255])
def test_reserved_set_ids(leaf: Leaf, set_id: int) -> None:
    stream = wire.message(PORTS, wire.set_of(set_id, b"????"), port(1))
    fed = fed_in_every_manner(leaf, stream + wire.message(port(2), sequence=1))
    assert ports_of(fed) == [1, 2]
    assert [error.reason for error in faults_of(fed)] == ["set-id"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (wire.set_of(2, wire.template(255, PORT)), "template-id"),
        (wire.set_of(2, wire.withdrawal(3)), "template-id"),
        (wire.set_of(2, wire.withdrawal(0), b"\1"), "template-id"),
        (wire.set_of(2, pack(">HH", 300, 2), wire.specifiers(PORT)), "template-truncated"),
        (wire.set_of(2, pack(">HHHH", 300, 1, 0x8001, 2)), "template-truncated"),
        (wire.set_of(2, pack(">HH", 300, 65535)), "template-truncated"),
        (wire.set_of(3, pack(">HHB", 300, 1, 0)), "template-truncated"),
        (wire.options_template(300, 0, PORT), "template-scope"),
        (wire.options_template(300, 2, PORT), "template-scope"),
        (wire.templates(wire.template(300, (IANA, 83, 0))), "empty-records"),
    ],
)
def test_bad_templates(leaf: Leaf, body: bytes, reason: str) -> None:
    fed = fed_in_every_manner(leaf, wire.message(PORTS, body, port(1)))
    assert ports_of(fed) == [1]
    (error,) = faults_of(fed)
    assert error.reason == reason
    assert error.where.set_id in {2, 3}
    assert error.where.offset == 16 + len(PORTS)


def test_sound_templates_before_a_bad_one_count(leaf: Leaf) -> None:
    body = wire.templates(wire.template(256, PORT), wire.template(12, PORT))
    fed = fed_in_every_manner(leaf, wire.message(body, port(1)))
    assert ports_of(fed) == [1]
    assert [error.reason for error in faults_of(fed)] == ["template-id"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (pack(">HHIII", 9, 24, 0, 0, 0), "version"),
        (pack(">HHIII", 10, 15, 0, 0, 0), "message-length"),
        (pack(">HHIII", 10, 0, 0, 0, 0), "message-length"),
        (b"GET / HTTP/1.1\r\n", "version"),
    ],
)
def test_lost_framing_ends_the_session(leaf: Leaf, header: bytes, reason: str) -> None:
    good = wire.message(PORTS, port(1))
    for pieces in ([good + header], [good, header], [bytes([byte]) for byte in good + header]):
        fed = Fed(leaf)
        with pytest.raises(MalformedMessage) as caught:
            fed.feed(pieces)
        assert caught.value.reason == reason
        assert caught.value.where.session == "peer"
        assert ports_of(fed) == [1]
        assert fed.session.stats.malformed == {reason: 1}
        assert fed.session.stats.records == 1


def test_end_of_stream(leaf: Leaf) -> None:
    stream = wire.message(PORTS, port(1))
    Fed(leaf).session.eof()
    Fed(leaf).feed([stream]).session.eof()
    for cut in (1, 15, 16, len(stream) - 1):
        fed = Fed(leaf).feed([stream[:cut]])
        with pytest.raises(MalformedMessage, match=f"ends {cut} bytes into a message"):
            fed.session.eof()


# Limits


def test_message_size_limit(leaf: Leaf) -> None:
    small = wire.message(PORTS)
    fed = Fed(leaf, limits=CollectorLimits(message_size=len(small))).feed([small])
    with pytest.raises(LimitExceeded) as caught:
        fed.feed([wire.message(PORTS, port(1))])
    assert caught.value.reason == "message-size"


def test_pending_bytes_limit(leaf: Leaf) -> None:
    stream = wire.message(PORTS, port(*range(100)))
    fed = Fed(leaf, limits=CollectorLimits(pending_bytes=50)).feed([stream[:50]])
    with pytest.raises(LimitExceeded) as caught:
        fed.feed([stream[50:60]])
    assert caught.value.reason == "pending-bytes"


def test_templates_limit(leaf: Leaf) -> None:
    records = [wire.template(number, PORT) for number in (256, 300, 301)]
    body = wire.templates(*records, records[0], wire.withdrawal(300), records[2])
    fed = fed_in_every_manner(
        leaf, wire.message(body, port(1)), limits=CollectorLimits(templates=2)
    )
    assert [error.reason for error in faults_of(fed)] == ["templates"]
    assert isinstance(faults_of(fed)[0], LimitExceeded)
    assert fed.session.stats.templates == 3  # 301 had room after the withdrawal
    assert ports_of(fed) == [1]


def test_template_fields_limit(leaf: Leaf) -> None:
    body = wire.templates(wire.template(300, PORT, PORT, PORT), wire.template(256, PORT, PORT))
    stream = wire.message(body, wire.set_of(256, pack(">HH", 1, 2)))
    fed = fed_in_every_manner(leaf, stream, limits=CollectorLimits(template_fields=2))
    assert [error.reason for error in faults_of(fed)] == ["template-fields"]
    assert ports_of(fed) == [2]


def test_long_text_is_cut_between_characters(leaf: Leaf) -> None:
    template = wire.templates(wire.template(256, (ANTREA, 101, VARIABLE), (ANTREA, 100, VARIABLE)))
    data = wire.set_of(256, wire.text("abcdéf"), wire.text("abcdé"))
    fed = fed_in_every_manner(
        leaf, wire.message(template, data), limits=CollectorLimits(text_size=5)
    )
    assert fed.records == [{"sourcePodName": "abcd", "sourcePodNamespace": "abcd"}]
    fed = fed_in_every_manner(
        leaf, wire.message(template, data), limits=CollectorLimits(text_size=6)
    )
    assert fed.records == [{"sourcePodName": "abcdé", "sourcePodNamespace": "abcdé"}]
    assert fed.session.stats.truncated_texts == 1


def test_a_full_string_table_costs_the_text_only(leaf: Leaf) -> None:
    template = wire.templates(wire.template(256, (ANTREA, 101, VARIABLE), PORT))
    names = ["first", "second-name", "first", "third-name", "third-name"]
    data = wire.set_of(256, *(wire.text(name) + pack(">H", 80) for name in names))
    fed = Fed(leaf)
    fed.buffer.strings = leaf.table(max_bytes=70)
    fed.feed([wire.message(template, data)])
    assert fed.buffer.batch().texts("sourcePodName") == ["first", "", "first", "", ""]
    assert ports_of(fed) == [80] * 5
    assert fed.session.stats.refused_texts == 3


def test_events_of_one_call_are_bounded(leaf: Leaf) -> None:
    stream = b"".join(wire.message(wire.set_of(5)) for _ in range(1000))
    fed = Fed(leaf, limits=CollectorLimits(events=10)).feed([stream])
    assert len(fed.events) == 10
    assert fed.session.stats.malformed["set-id"] == 1000
    assert len(fed.feed([stream]).events) == 20


# Columns


def test_columns_that_a_template_lacks_are_zero(leaf: Leaf) -> None:
    template = wire.templates(wire.template(256, (ANTREA, 101, VARIABLE), (IANA, 8, 4)))
    data = wire.set_of(256, wire.text("pod"), bytes([10, 0, 0, 1]))
    fed = fed_in_every_manner(leaf, wire.message(template, data))  # its room starts out as 0xEE
    assert fed.records == [{"sourcePodName": "pod", "sourceIP": "10.0.0.1"}]


def test_any_fields_may_be_asked_for(leaf: Leaf) -> None:
    template = wire.templates(wire.template(256, PORT, (IANA, 4, 1), (ANTREA, 101, VARIABLE)))
    data = wire.set_of(256, pack(">HB", 80, 6), wire.text("pod"))
    fields = (BY_NAME["protocolIdentifier"], BY_NAME["clusterId"])
    fed = fed_in_every_manner(leaf, wire.message(template, data), fields=fields)
    assert fed.records == [{"protocolIdentifier": 6}]
    assert list(fed.buffer.batch().columns) == [
        "protocolIdentifier",
        "clusterId",
        *(field.name for field in (*ORIGIN, *NODE_COUNTERS)),
        "observationDomainId",
    ]


@pytest.mark.parametrize(
    ("beginning", "what"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "speaks HTTP/2 in plain text"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(9),
            "speaks TLS where there is none",
        ),
        (b"\x00\x09" + bytes(18), "speaks NetFlow 9"),
        (b"\x00\x0b" + bytes(18), "message version 11: need 10"),
    ],
)
def test_other_protocols_are_named(leaf: Leaf, beginning: bytes, what: str) -> None:
    with pytest.raises(MalformedMessage, match=what) as caught:
        Fed(leaf).feed([beginning])
    assert caught.value.reason == "version"
