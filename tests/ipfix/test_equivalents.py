"""Elements of other exporters in place of ours: counters, times, durations, options."""

from collections.abc import Mapping
from struct import pack

import pytest

from flowvis.fields import AGGREGATED, EXPORTED
from flowvis.ipfix import ExporterSession, NotUnderstood

from . import wire
from .conftest import Leaf
from .feeding import Fed, fed_in_every_manner

EXPORT_S = 1_790_000_000
EXPORT_MS = EXPORT_S * 1000
START, END = EXPORT_MS - 65_250, EXPORT_MS - 5_125
NTP_EPOCH = 2_208_988_800
DAY = 86_400_000

Fields = Mapping[tuple[int, int], tuple[int, int]]  # (enterprise, id): (length, value)


def iana(fields: Mapping[int, tuple[int, int]]) -> Fields:
    return {(wire.IANA, number): field for number, field in fields.items()}


def template_of(fields: Fields, template_id: int = 256) -> bytes:
    named = [(enterprise, number, length) for (enterprise, number), (length, _) in fields.items()]
    return wire.template(template_id, (0, 8, 4), (0, 12, 4), *named)


def record_of(fields: Fields) -> bytes:
    values = b"".join(value.to_bytes(length) for length, value in fields.values())
    return bytes([192, 0, 2, 1, 192, 0, 2, 2]) + values


def decoded(leaf: Leaf, fields: Fields, *before: bytes) -> dict[str, int | str]:
    stream = b"".join(before) + wire.message(
        wire.templates(template_of(fields)), wire.set_of(256, record_of(fields)), time=EXPORT_S
    )
    (record,) = fed_in_every_manner(leaf, stream).records
    return record


def times(record: Mapping[str, int | str]) -> list[int | str]:
    return [
        record.get(f"{end}{unit}", 0)
        for unit in ("Milliseconds", "Seconds")
        for end in ("flowStart", "flowEnd")
    ]


BOTH = [START, END, START // 1000, END // 1000]


def ntp(ms: int) -> int:
    return int.from_bytes(pack(">II", ms // 1000 + NTP_EPOCH, (ms % 1000 << 32) // 1000))


@pytest.mark.parametrize(
    "fields",
    [
        {154: (8, ntp(START)), 155: (8, ntp(END))},
        {156: (8, ntp(START)), 157: (8, ntp(END))},
        {158: (4, 65_250_000), 159: (4, 5_125_999)},
        {158: (4, 65_250_000), 153: (8, END)},
        {152: (8, START), 161: (4, END - START)},
        {152: (8, START), 162: (4, 1000 * (END - START) + 7)},
        {161: (4, END - START), 153: (8, END)},
        {162: (4, 1000 * (END - START)), 155: (8, ntp(END))},
        {22: (4, DAY), 21: (4, DAY + END - START), 160: (8, START - DAY)},
        {160: (8, START - DAY), 21: (4, DAY + END - START), 22: (4, DAY)},
        {22: (4, DAY), 160: (8, START - DAY), 161: (4, END - START)},
        # The counter of milliseconds has started again, twice.
        {22: (4, 7), 21: (4, 7 + END - START), 160: (8, START - 7 - (2 << 32))},
        {152: (8, START), 154: (8, ntp(1)), 158: (4, 9), 153: (8, END)},  # ours first
        {323: (8, END), 152: (8, START)},
    ],
)
def test_times(leaf: Leaf, fields: dict[int, tuple[int, int]]) -> None:
    assert times(decoded(leaf, iana(fields))) == BOTH


@pytest.mark.parametrize("number", [322, 323, 324, 325])
def test_one_time_of_an_event(leaf: Leaf, number: int) -> None:
    value = {322: END // 1000, 323: END}.get(number, ntp(END))
    at = END // 1000 * 1000 if number == 322 else END
    record = decoded(leaf, iana({number: (4 if number == 322 else 8, value)}))
    assert times(record) == [at, at, END // 1000, END // 1000]


def test_a_duration_alone_ends_at_the_export(leaf: Leaf) -> None:
    record = decoded(leaf, iana({161: (4, 3000)}))
    assert times(record)[:2] == [EXPORT_MS - 3000, EXPORT_MS]


def test_seconds_and_a_duration(leaf: Leaf) -> None:
    record = decoded(leaf, iana({150: (4, 1000), 161: (4, 2500)}))
    assert times(record) == [1_000_000, 1_002_500, 1000, 1002]


def test_impossible_times_do_not_wrap(leaf: Leaf) -> None:
    assert times(decoded(leaf, iana({161: (4, 2**32 - 1), 153: (8, 5)})))[0] == 0
    assert times(decoded(leaf, iana({158: (4, 2**32 - 1), 153: (8, 5)})))[0] == EXPORT_MS - 4294967


UPTIME = iana({22: (4, 50_000), 21: (4, 60_000), 1: (4, 10)})


def options(boot_ms: int, domain: int = 7, sequence: int = 0) -> bytes:
    """A system's beginning, as an option of the observation domain (Cisco)."""
    return wire.message(
        wire.options_template(300, 1, (0, 149, 4), (0, 160, 8)),
        wire.set_of(300, pack(">IQ", domain, boot_ms)),
        time=EXPORT_S, domain=domain, sequence=sequence,
    )  # fmt: skip


def test_a_boot_that_comes_in_options(leaf: Leaf) -> None:
    record = decoded(leaf, UPTIME, options(START - 50_000))
    assert times(record)[:2] == [START, START + 10_000]


def test_the_boot_of_another_domain_is_not_ours(leaf: Leaf) -> None:
    record = decoded(leaf, UPTIME, options(START - 50_000, domain=8))
    assert times(record)[:2] == [EXPORT_MS - 10_000, EXPORT_MS]


def test_without_a_boot_the_first_export_gives_it_and_it_stays(leaf: Leaf) -> None:
    later = iana({22: (4, 50_000), 21: (4, 90_000), 1: (4, 10)})
    stream = wire.message(
        wire.templates(template_of(UPTIME)), wire.set_of(256, record_of(UPTIME)), time=EXPORT_S
    ) + wire.message(wire.set_of(256, record_of(later)), sequence=1, time=EXPORT_S + 33)
    first, second = fed_in_every_manner(leaf, stream).records
    assert times(first)[:2] == [EXPORT_MS - 10_000, EXPORT_MS]
    assert times(second)[:2] == [EXPORT_MS - 10_000, EXPORT_MS + 30_000]


@pytest.mark.parametrize("days", [1, 10, 30, 49])
def test_a_system_that_begins_anew_is_noticed(leaf: Leaf, days: int) -> None:
    """Over UDP a router goes on in the same session; its uptime is small again."""
    stream = wire.message(
        wire.templates(template_of(UPTIME)), wire.set_of(256, record_of(UPTIME)), time=EXPORT_S
    )
    for number, passed in enumerate((0, 33), 1):  # the second of them is of the same beginning
        record = record_of(iana({22: (4, 1_000), 21: (4, 8_000 + passed * 1000), 1: (4, 10)}))
        time = EXPORT_S + days * 86_400 + passed
        stream += wire.message(wire.set_of(256, record), sequence=number, time=time)
    _, first, second = fed_in_every_manner(leaf, stream).records
    began = EXPORT_MS + days * 86_400_000 - 7_000
    assert times(first)[:2] == [began, began + 7_000]
    assert times(second)[:2] == [began, began + 40_000]


def test_an_uptime_that_starts_again_after_its_32_bits_is_none_anew(leaf: Leaf) -> None:
    passed_s = 4_294_968  # 49.7 days: the counter has 2**32 - 60,000 + 60,704 ms more
    late = iana({22: (4, 50_704), 21: (4, 60_704), 1: (4, 10)})
    stream = wire.message(
        wire.templates(template_of(UPTIME)), wire.set_of(256, record_of(UPTIME)), time=EXPORT_S
    ) + wire.message(wire.set_of(256, record_of(late)), sequence=1, time=EXPORT_S + passed_s + 20)
    _, second = fed_in_every_manner(leaf, stream).records
    assert times(second)[:2] == [EXPORT_MS + passed_s * 1000 - 10_000, EXPORT_MS + passed_s * 1000]


COUNTERS = (
    "octetDeltaCount",
    "packetDeltaCount",
    "octetTotalCount",
    "packetTotalCount",
    "reverseOctetDeltaCount",
    "reversePacketDeltaCount",
    "reverseOctetTotalCount",
    "reversePacketTotalCount",
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({(0, 1): (8, 900), (0, 2): (8, 9)}, [900, 9, 0, 0, 0, 0, 0, 0]),
        ({(0, 1): (3, 900), (0, 2): (1, 9)}, [900, 9, 0, 0, 0, 0, 0, 0]),
        ({(0, 85): (8, 900), (0, 86): (4, 9)}, [900, 9, 900, 9, 0, 0, 0, 0]),
        ({(0, 85): (8, 900), (0, 1): (8, 5)}, [5, 0, 900, 0, 0, 0, 0, 0]),
        (
            {(0, 231): (8, 900), (0, 232): (8, 70), (0, 298): (8, 9), (0, 299): (8, 7)},
            [900, 9, 0, 0, 70, 7, 0, 0],
        ),
        ({(0, 1): (8, 940), (0, 231): (8, 900), (0, 232): (8, 7)}, [940, 0, 0, 0, 7, 0, 0, 0]),
        (
            {(0, 1): (8, 900), (29305, 1): (8, 70), (29305, 2): (4, 7)},
            [900, 0, 0, 0, 70, 7, 0, 0],
        ),
        (
            {(0, 85): (8, 900), (29305, 85): (8, 70), (29305, 86): (8, 7)},
            [900, 0, 900, 0, 70, 7, 70, 7],
        ),
        ({(0, 23): (8, 900), (0, 24): (8, 9)}, [900, 9, 0, 0, 0, 0, 0, 0]),
        ({(0, 1): (8, 900), (0, 23): (8, 1)}, [900, 0, 0, 0, 0, 0, 0, 0]),
        ({(0, 171): (8, 900), (29305, 171): (8, 70)}, [900, 0, 900, 0, 70, 0, 70, 0]),
        ({(0, 352): (4, 914), (0, 2): (4, 1)}, [914, 1, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_counters(leaf: Leaf, fields: Fields, expected: list[int]) -> None:
    record = decoded(leaf, fields)
    assert [record.get(name, 0) for name in COUNTERS] == expected


def complaints(leaf: Leaf, *streams: bytes) -> list[NotUnderstood]:
    fed = Fed(leaf).feed(streams)
    return [event for event in fed.events if isinstance(event, NotUnderstood)]


def test_what_is_not_understood_is_reported_once_a_session(leaf: Leaf) -> None:
    strange = {**iana({1: (8, 0), 153: (8, 0)}), (9, 12_235): (4, 0), (4242, 7): (2, 0)}
    bare = template_of({}, 257)
    stream = wire.message(wire.templates(template_of(strange)), wire.templates(bare))
    assert complaints(leaf, stream) == [NotUnderstood(7, 256, ((9, 12_235), (4242, 7)), ())]
    fed = Fed(leaf).feed([stream])
    assert (fed.session.stats.unknown_fields, fed.session.stats.incomplete_templates) == (2, 1)
    assert complaints(leaf, wire.message(wire.templates(bare))) == [
        NotUnderstood(7, 257, (), ("no count of octets or packets", "no time"))
    ]


def test_what_is_understood_is_not_complained_of(leaf: Leaf) -> None:
    for fields in ({1: (8, 0), 21: (4, 0)}, {86: (8, 0), 150: (4, 0)}, {231: (8, 0), 158: (4, 0)}):
        stream = wire.message(wire.templates(template_of(iana(fields))))
        assert complaints(leaf, stream) == []
    for session in (ExporterSession(7, EXPORTED), ExporterSession(7, AGGREGATED)):
        assert complaints(leaf, *session.templates(EXPORT_S)) == []
