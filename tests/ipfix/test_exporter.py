"""The exporter session: families, splitting, sequence numbers, templates."""

import json
from collections import Counter
from struct import unpack_from

import numpy as np
import pytest
from numpy.typing import NDArray

from flowvis.batch import Batch, address_text
from flowvis.fields import AGGREGATED, ANTREA_EXPORTED, BY_NAME, EXPORTED, Field
from flowvis.ipfix import ExporterSession, RecordBuffer, observation_domain_id
from flowvis.ipfix.events import TemplateLearned
from flowvis.ipfix.exporter import in_sending_order, least_message
from flowvis.ipfix.fitting import common_limit

from .conftest import Leaf
from .feeding import Fed
from .records import batch_of

NOW = 1_790_000_000


def numbered(leaf: Leaf, count: int, *, text: str = "pod", ipv6_from: int | None = None) -> Batch:
    return batch_of(
        [
            {
                "packetTotalCount": n,
                "sourcePodName": f"{text}-{n}",
                "sourceIP": "fd00::1" if ipv6_from is not None and n >= ipv6_from else "10.0.0.1",
            }
            for n in range(count)
        ],
        leaf.table(),
    )


def numbers_of(fed: Fed) -> list[int]:
    numbers: list[int] = fed.buffer.batch()["packetTotalCount"].tolist()
    return numbers


@pytest.mark.parametrize("max_message", [1000, 1500, 9000, 65535])
def test_messages_keep_to_the_size_and_lose_nothing(leaf: Leaf, max_message: int) -> None:
    session = ExporterSession(7, EXPORTED, max_message=max_message)
    messages = session.templates(NOW) + session.encode(numbered(leaf, 1000, ipv6_from=600), NOW)
    fed = Fed(leaf).feed(messages)
    assert max(map(len, messages)) <= max_message
    assert numbers_of(fed) == list(range(1000))
    assert fed.session.stats.gaps == 0
    assert session.stats.records == 1000
    assert session.stats.messages == len(messages) == fed.session.stats.messages
    assert session.stats.octets == sum(map(len, messages))


def test_a_record_that_fits_exactly(leaf: Leaf) -> None:
    fields = (BY_NAME["sourceIP"], BY_NAME["sourcePodName"])
    batch = batch_of([{"sourcePodName": "p" * 100, "sourceIP": "10.0.0.1"}] * 2, leaf.table())
    exact = 16 + 4 + 2 * (4 + 1 + 100)
    assert len(ExporterSession(7, fields, max_message=exact).encode(batch, NOW)) == 1
    assert len(ExporterSession(7, fields, max_message=exact - 1).encode(batch, NOW)) == 2


@pytest.mark.parametrize("size", [253, 254, 255, 256])
def test_the_length_of_long_text_counts_too(leaf: Leaf, size: int) -> None:
    fields = (BY_NAME["sourceIP"], BY_NAME["sourcePodName"])
    batch = batch_of([{"sourcePodName": "p" * size, "sourceIP": "10.0.0.1"}], leaf.table())
    exact = 16 + 4 + 4 + size + (1 if size < 255 else 3)
    session = ExporterSession(7, fields, max_message=exact)
    (message,) = session.encode(batch, NOW)
    assert len(message) == exact
    session = ExporterSession(7, fields, max_message=exact - 1)
    (message,) = session.encode(batch, NOW)
    assert len(message) in range(exact - 5, exact)
    assert session.stats.shortened == 1


def test_a_record_that_fits_no_message_goes_out_with_shorter_texts(leaf: Leaf) -> None:
    batch = numbered(leaf, 5)
    batch["sourcePodName"] = batch["sourcePodName"].copy()
    batch["sourcePodName"][2] = batch.strings.intern(b"x" * 2000)
    batch["sourcePodNamespace"] = batch.strings.encode(["shop"] * 5)
    batch["ingressNetworkPolicyName"] = batch.strings.encode(["", "", "é" * 700, "", ""])
    session = ExporterSession(7, EXPORTED, max_message=1500)
    fed = Fed(leaf).feed(session.templates(NOW) + session.encode(batch, NOW))
    assert numbers_of(fed) == [0, 1, 2, 3, 4]
    assert (session.stats.records, session.stats.shortened, session.stats.oversize) == (5, 1, 0)
    assert fed.session.stats.gaps == 0
    long = fed.records[2]
    assert long["sourcePodNamespace"] == "shop"
    pod, policy = str(long["sourcePodName"]), str(long["ingressNetworkPolicyName"])
    assert set(pod) == {"x"}
    assert set(policy) == {"é"}  # cut between characters
    assert len(pod) - len(policy.encode()) in (0, 1)
    assert len(pod) > 500, "as much as there is room for"
    assert batch.texts("sourcePodName")[2] == "x" * 2000


def test_labels_that_fit_no_message_stay_labels(leaf: Leaf) -> None:
    labels = {f"label-{number:02}": "v" * 40 for number in range(60)}
    rows = [{"sourceIP": "10.0.0.1", "sourcePodLabels": json.dumps(labels)}]
    batch = batch_of(rows, leaf.table(), AGGREGATED)
    session = ExporterSession(7, AGGREGATED, max_message=2000)
    (message,) = session.encode(batch, NOW)
    start = message.index(b'{"label-00"')
    length = int.from_bytes(message[start - 2 : start])
    found = json.loads(message[start : start + length])
    assert found == dict(list(labels.items())[: len(found)])
    assert len(found) > 10


def test_a_record_whose_numbers_alone_fit_no_message_is_counted(leaf: Leaf) -> None:
    fields = (BY_NAME["sourceIP"],)
    rows = [{"sourceIP": "2001:db8::1"}, {"sourceIP": "10.0.0.1"}]
    session = ExporterSession(7, fields, max_message=30)  # a template takes 28, an IPv6 record 36
    (message,) = session.encode(batch_of(rows, leaf.table(), fields), NOW)
    assert message.endswith(bytes([10, 0, 0, 1]))
    assert (session.stats.records, session.stats.shortened, session.stats.oversize) == (1, 0, 1)


@pytest.mark.parametrize(
    ("lengths", "room", "limit"),
    [([], 5, 0), ([3, 4], 7, 4), ([3, 4], 6, 3), ([10, 1, 9], 13, 6), ([5, 5], -3, 0)],
)
def test_the_largest_common_limit(lengths: list[int], room: int, limit: int) -> None:
    assert common_limit(lengths, room) == limit


def test_sequence_numbers_go_on(leaf: Leaf) -> None:
    session = ExporterSession(7, EXPORTED)
    fed = Fed(leaf).feed(session.templates(NOW))
    for _ in range(3):
        fed.feed(session.encode(numbered(leaf, 50, ipv6_from=30), NOW))
        fed.feed(session.templates(NOW))
    assert fed.session.stats.gaps == 0
    assert fed.session.stats.templates_repeated == 6
    session._sequence = 0xFFFFFFFF
    messages = session.encode(numbered(leaf, 2), NOW) + session.encode(numbered(leaf, 1), NOW)
    assert [message[8:12].hex() for message in messages] == ["ffffffff", "00000001"]


def test_what_is_in_the_last_messages_are_the_last_records_in_sending_order(leaf: Leaf) -> None:
    batch = in_sending_order(numbered(leaf, 40, ipv6_from=30).take(np.arange(40)[::-1]))
    session = ExporterSession(7, EXPORTED, max_message=1500)
    session.encode(batch, NOW)
    messages = session.encode(batch, NOW)
    records = session.records_from(messages[-3:])
    fed = Fed(leaf).feed([*session.templates(NOW), *messages[-3:]])
    assert 0 < records < 40
    order = batch["packetTotalCount"].tolist()
    assert order == [*range(29, -1, -1), *range(39, 29, -1)]
    assert numbers_of(fed) == order[-records:]
    assert session.records_from([]) == 0
    assert session.records_from(messages) == 40


@pytest.mark.parametrize("max_bytes", [1, 1400, 1600, 2900, 6000, 50_000])
def test_messages_end_where_they_have_enough_bytes(leaf: Leaf, max_bytes: int) -> None:
    """What is encoded then are the first records; the others follow, each of them once."""
    batch = in_sending_order(numbered(leaf, 60, ipv6_from=37))
    batch["sourcePodName"] = batch["sourcePodName"].copy()
    long = (0, 1, 20, 36, 37, 58)
    for place in long:
        batch["sourcePodName"][place] = batch.strings.intern(b"x" * (2000 + place))
    session = ExporterSession(7, EXPORTED, max_message=1500)
    fed = Fed(leaf).feed(session.templates(NOW))
    rest, calls = batch, 0
    while len(rest):
        messages = session.encode(rest, NOW, max_bytes=max_bytes)
        assert sum(map(len, messages[:-1])) < max_bytes
        assert session.encoded == session.records_from(messages)
        fed.feed(messages)
        rest, calls = rest.take(slice(session.encoded, None)), calls + 1
    assert (calls > 1) == (max_bytes < 50_000)
    assert numbers_of(fed) == list(range(60))
    assert (session.stats.records, session.stats.shortened) == (60, len(long))
    assert (fed.session.stats.gaps, session.stats.oversize) == (0, 0)


@pytest.mark.parametrize("max_bytes", [1, 40, 100, 1000])
def test_records_that_no_message_can_hold_are_encoded_too(leaf: Leaf, max_bytes: int) -> None:
    fields = (BY_NAME["sourceIP"],)
    addresses = ["2001:db8::1", "10.0.0.1", "10.0.0.2", "2001:db8::2", "10.0.0.3"]
    rest = in_sending_order(batch_of([{"sourceIP": a} for a in addresses], leaf.table(), fields))
    session = ExporterSession(7, fields, max_message=30)
    records, oversized = b"", 0
    while len(rest):
        messages = session.encode(rest, NOW, max_bytes=max_bytes)
        records += b"".join(message[20:] for message in messages)
        oversized += len(session.oversized)
        rest = rest.take(slice(session.encoded, None))
    assert records == b"".join(bytes([10, 0, 0, number]) for number in (1, 2, 3))
    assert oversized == session.stats.oversize == 2


def test_which_records_fit_no_message(leaf: Leaf) -> None:
    """What is left when texts are empty depends on the template alone: all fit, or none does."""
    batch = numbered(leaf, 4, ipv6_from=2)
    session = ExporterSession(7, EXPORTED, max_message=least_message(EXPORTED))
    assert session.encode(batch, NOW)
    assert session.oversized == []
    session.max_message = 100
    session.encode(batch, NOW)
    assert session.oversized == [0, 1, 2, 3]
    session.max_message = 1500
    session.encode(batch, NOW)
    assert session.oversized == []


def test_strided_columns(leaf: Leaf) -> None:
    """Rows of a table, seen as columns, go out as they are."""
    plain = numbered(leaf, 40, ipv6_from=20)
    rows = np.zeros(
        40,
        np.dtype(
            [(f.name, f.kind.dtype, f.kind.shape) for f in EXPORTED],
            align=True,
        ),
    )
    for name, column in plain.columns.items():
        rows[name] = column
    columns: dict[str, NDArray[np.generic]] = {name: rows[name][::-1] for name in plain.columns}
    strided = Batch(columns, plain.strings)
    expected = ExporterSession(7, EXPORTED).encode(plain.take(np.arange(40)[::-1]), NOW)
    assert ExporterSession(7, EXPORTED).encode(strided, NOW) == expected


def test_columns_that_a_batch_lacks_go_out_empty(leaf: Leaf) -> None:
    batch = numbered(leaf, 3).select(["sourceIP", "packetTotalCount", "sourcePodName"])
    session = ExporterSession(7, AGGREGATED)
    fed = Fed(leaf, fields=AGGREGATED).feed(session.templates(NOW) + session.encode(batch, NOW))
    assert fed.records == [
        {"sourceIP": "10.0.0.1", "sourcePodName": f"pod-{n}"}
        | ({"packetTotalCount": n} if n else {})
        for n in range(3)
    ]


def test_a_column_of_another_type_is_refused(leaf: Leaf) -> None:
    batch = numbered(leaf, 3)
    batch["packetTotalCount"] = batch["packetTotalCount"].astype(np.float64)
    with pytest.raises(TypeError, match="packetTotalCount: a column of float64, need uint64"):
        ExporterSession(7, EXPORTED).encode(batch, NOW)


def test_an_empty_batch_is_no_message(leaf: Leaf) -> None:
    session = ExporterSession(7, EXPORTED)
    assert session.encode(numbered(leaf, 0), NOW) == []
    assert session.stats.messages == 0


class StrictReader:
    """Reads as go-ipfix does, the first set of a message and the first template of a set."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}  # fields by template
        self.sets: Counter[int] = Counter()

    def read(self, message: bytes) -> None:
        set_id, length = unpack_from(">HH", message, 16)
        assert 16 + length == len(message), "a second set, which is never read"
        if set_id == 2:
            template_id, fields = unpack_from(">HH", message, 20)
            at = 24
            for _ in range(fields):
                (element,) = unpack_from(">H", message, at)
                at += 8 if element & 0x8000 else 4
            assert at == len(message), "a second template, which is never learnt"
            self.known[template_id] = fields
        else:
            assert set_id in self.known, "records of a template that was never learnt"
        self.sets[set_id] += 1


@pytest.mark.parametrize("fields", [EXPORTED, AGGREGATED], ids=["exporter", "aggregator"])
@pytest.mark.parametrize("size", [600, 1500, 65535])
def test_a_reader_of_one_template_a_set_knows_all(
    leaf: Leaf, fields: tuple[Field, ...], size: int
) -> None:
    session = ExporterSession(7, fields, max_message=size, template_refresh=60)
    batch = numbered(leaf, 20, ipv6_from=10)
    messages = session.templates(NOW) + session.encode(batch, NOW) + session.encode(batch, NOW + 60)
    reader = StrictReader()
    for message in messages:
        reader.read(message)
    assert set(reader.known) == {256, 257}
    assert reader.sets[2] == 4
    assert reader.sets[256]
    assert reader.sets[257]


@pytest.mark.parametrize("fields", [EXPORTED, AGGREGATED], ids=["exporter", "aggregator"])
def test_the_least_message_is_the_largest_template(fields: tuple[Field, ...]) -> None:
    least = least_message(fields)
    templates = ExporterSession(7, fields, max_message=least).templates(NOW)
    assert max(map(len, templates)) == least
    with pytest.raises(
        ValueError, match=f"messages of {least - 1} bytes: a template takes {least}"
    ):
        ExporterSession(7, fields, max_message=least - 1)


def test_ends_of_both_families_keep_their_addresses(leaf: Leaf) -> None:
    ends = [("2001:db8::5:6", "10.0.0.1"), ("10.0.0.1", "2001:db8::5:6"), ("10.0.0.2", "10.0.0.3")]
    rows = [{"sourceIP": source, "destinationIP": other} for source, other in ends]
    batch = batch_of(rows, leaf.table())
    session = ExporterSession(7, EXPORTED)
    got = Fed(leaf).feed(session.templates(NOW) + session.encode(batch, NOW)).buffer.batch()
    expected = in_sending_order(batch)
    for name in ("sourceIP", "destinationIP"):
        np.testing.assert_array_equal(got[name], expected[name])
    assert [address_text(row.tobytes()) for row in got["destinationIP"]] == [
        "10.0.0.3",
        "10.0.0.1",
        "2001:db8::5:6",
    ]


def test_template_refresh(leaf: Leaf) -> None:
    session = ExporterSession(7, EXPORTED, template_refresh=600)
    session.templates(NOW)
    batch = numbered(leaf, 1)
    assert len(session.encode(batch, NOW + 599)) == 1
    assert len(session.encode(batch, NOW + 600)) == 3
    assert len(session.encode(batch, NOW + 601)) == 1
    assert len(session.encode(numbered(leaf, 0), NOW + 1200)) == 2
    assert len(ExporterSession(7, EXPORTED).encode(batch, NOW + 10_000)) == 1


def test_a_clock_that_is_set_back_does_not_keep_templates_back(leaf: Leaf) -> None:
    session = ExporterSession(7, EXPORTED, template_refresh=600)
    session.templates(NOW)
    batch = numbered(leaf, 1)
    assert len(session.encode(batch, NOW - 86_400)) == 3
    assert len(session.encode(batch, NOW - 86_399)) == 1
    assert len(session.encode(batch, NOW - 85_800)) == 3


def test_antreas_template_alone(leaf: Leaf) -> None:
    fields = EXPORTED[:ANTREA_EXPORTED]
    session = ExporterSession(7, fields)
    fed = Fed(leaf).feed(session.templates(NOW) + session.encode(numbered(leaf, 2), NOW))
    learned = [event for event in fed.events if isinstance(event, TemplateLearned)]
    assert learned == fed.events
    assert [event.fields for event in learned] == [43, 43]
    assert numbers_of(fed) == [0, 1]


def test_a_code_without_a_string_is_an_error(leaf: Leaf) -> None:
    batch = numbered(leaf, 2)
    batch["sourcePodName"][1] = 1000
    with pytest.raises(IndexError):
        ExporterSession(7, EXPORTED).encode(batch, NOW)


# The hash's published vectors (FNV-1, 32 bits).
@pytest.mark.parametrize(
    ("name", "number"), [("", 0x811C9DC5), ("a", 0x050C5D7E), ("foobar", 0x31F0B262)]
)
def test_observation_domain_id(name: str, number: int) -> None:
    assert observation_domain_id(name) == number


def test_records_of_a_buffer_go_out_again(leaf: Leaf) -> None:
    """The observation domain is nobody's field and is left where it is."""
    session = ExporterSession(7, EXPORTED)
    fed = Fed(leaf).feed(session.templates(NOW) + session.encode(numbered(leaf, 9), NOW))
    assert isinstance(fed.buffer, RecordBuffer)
    again = ExporterSession(7, EXPORTED)
    second = Fed(leaf).feed(again.templates(NOW) + again.encode(fed.buffer.batch(), NOW))
    assert second.records == fed.records
