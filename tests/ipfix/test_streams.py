"""Properties: records survive the way there and back; how a stream is cut changes nothing."""

from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowvis.fields import AGGREGATED, EXPORTED, Field, Kind
from flowvis.ipfix import ExporterSession
from flowvis.ipfix.collector import UNBOUNDED

from . import wire
from .conftest import Leaf
from .feeding import Fed
from .records import Record, batch_of

NOW = 1_790_000_000

# The fixture only chooses the leaf: nothing in it wears out between examples.
repeatedly = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

IPV4 = st.integers(1, 2**32 - 1).map(lambda n: str(IPv4Address(n)))
IPV6 = st.integers(2**64, 2**128 - 1).map(lambda n: str(IPv6Address(n)))
TEXT = st.one_of(
    st.sampled_from(["", "pod-a", "pod-b", "default"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.integers(250, 260).map("n".__mul__),
)


def values(field: Field, version: int) -> st.SearchStrategy[int | str]:
    if field.kind is Kind.TEXT:
        return TEXT
    if field.kind is Kind.ADDRESS:
        return IPV4 if version == 4 else IPV6
    return st.integers(0, 2 ** (8 * field.kind.dtype.itemsize) - 1)


def records(fields: tuple[Field, ...]) -> st.SearchStrategy[list[Record]]:
    """Records of both families; each names a few of the fields."""

    def of_version(version: int) -> st.SearchStrategy[Record]:
        optional = {field.name: values(field, version) for field in fields}
        source = {"sourceIP": optional.pop("sourceIP"), "destinationIP": optional["destinationIP"]}
        del optional["destinationIP"]
        some = st.lists(st.sampled_from(sorted(optional)), max_size=8, unique=True)
        return some.flatmap(
            lambda names: st.fixed_dictionaries(source | {name: optional[name] for name in names})
        )

    return st.lists(st.one_of(of_version(4), of_version(6)), max_size=6)


def expected(sent: list[Record]) -> list[dict[str, int | str]]:
    """IPv4 first; what is 0 or empty does not show."""
    ordered = sorted(sent, key=lambda record: ":" in str(record["sourceIP"]))
    return [{name: value for name, value in record.items() if value} for record in ordered]


@repeatedly
@given(sent=records(EXPORTED), max_message=st.sampled_from([5000, 9000, 65535]))
def test_exported_records_survive(leaf: Leaf, sent: list[Record], max_message: int) -> None:
    session = ExporterSession(7, EXPORTED, max_message=max_message)
    stream = session.templates(NOW) + session.encode(batch_of(sent, leaf.table()), NOW)
    fed = Fed(leaf).feed([b"".join(stream)])
    assert session.stats.oversize == 0
    assert fed.records == expected(sent)
    assert not fed.session.stats.malformed


@repeatedly
@given(sent=records(AGGREGATED))
def test_aggregated_records_survive(leaf: Leaf, sent: list[Record]) -> None:
    session = ExporterSession(7, AGGREGATED)
    messages = session.templates(NOW)
    messages += session.encode(batch_of(sent, leaf.table(), AGGREGATED), NOW)
    assert Fed(leaf, fields=AGGREGATED).feed(messages).records == expected(sent)


def busy_stream(leaf: Leaf) -> bytes:
    """Templates, data, options, faults, gaps and withdrawals of two domains."""
    port = wire.templates(wire.template(300, (0, 7, 2), (56506, 101, wire.VARIABLE)))
    data = wire.set_of(300, *(bytes([0, n]) + wire.text(f"pod-{n % 3}") for n in range(20)))
    options = wire.options_template(400, 1, (0, 149, 4))
    batch = batch_of([{"sourceIP": "10.0.0.1", "sourcePodName": "p" * 300}] * 5, leaf.table())
    session = ExporterSession(9, EXPORTED)
    parts = [
        wire.message(port, data, options, wire.set_of(400, b"\0\0\0\7")),
        *session.templates(NOW),
        *session.encode(batch, NOW),
        wire.message(wire.set_of(300, b"\0\1\x50too short"), sequence=21),
        wire.message(data, sequence=5),
        wire.message(data, wire.set_of(77), wire.set_of(999, b"?"), data, sequence=90),
        wire.message(wire.templates(wire.withdrawal(300)), data, b"\1"),
        *session.encode(batch, NOW),
    ]
    return b"".join(parts)


@repeatedly
@given(cuts=st.lists(st.integers(0, 4000), max_size=30), work=st.sampled_from([1, 25, UNBOUNDED]))
def test_how_a_stream_is_cut_changes_nothing(leaf: Leaf, cuts: list[int], work: int) -> None:
    """Nor how much of it is done at once: work may be left amid a message that came in pieces."""
    stream = busy_stream(leaf)
    edges = [0, *sorted({cut % len(stream) for cut in cuts}), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    cut, whole = Fed(leaf).feed(pieces, work), Fed(leaf).feed([stream])
    assert len(whole.records) == 90
    assert cut.records == whole.records
    assert cut.session.stats == whole.session.stats
    assert [repr(event) for event in cut.events] == [repr(event) for event in whole.events]
    cut.session.eof()
