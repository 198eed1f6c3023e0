"""Who fills a node's table, as exporters of ours say it and as anybody may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.errors import MalformedSet
from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from flowvis.ipfix.occupancy import MOST, Occupant, occupancy_message, read_occupancy
from flowvis.native.contract.ipfix import HEADER

from .conftest import Leaf
from .feeding import Fed
from .records import batch_of

DOMAIN = 7
OCCUPANTS: tuple[Occupant, ...] = (
    Occupant("shop", "Deployment", "web", opened=True, entries=900, unanswered=880),
    Occupant("", "", "(external)", opened=True, entries=7, unanswered=0),
    Occupant("shop", "StatefulSet", "dü" * 80, opened=False, entries=1 << 31, unanswered=1),
)


def test_the_last_that_was_said_is_true(leaf: Leaf) -> None:
    """It costs no record, nor a gap, however many it tells of."""
    session = ExporterSession(DOMAIN, EXPORTED)
    batch = batch_of([{"packetTotalCount": 1, "sourceIP": "10.0.0.1"}], leaf.table())
    fed = Fed(leaf).feed(session.templates(1))
    fed.feed(session.occupancy(OCCUPANTS[1:], 1) + session.encode(batch, 1))
    assert fed.session.occupancy == OCCUPANTS[1:]
    fed.feed(session.occupancy(OCCUPANTS, 1) + session.encode(batch, 1))
    assert fed.session.occupancy == OCCUPANTS
    fed.feed(session.occupancy((), 1) + session.encode(batch, 1))
    assert fed.session.occupancy == ()
    stats = fed.session.stats
    assert (stats.records, stats.gaps, stats.lost_records, stats.malformed) == (3, 0, 0, {})


def told(*occupants: Occupant, domain: int = DOMAIN) -> bytes:
    return occupancy_message(domain, occupants, export_time=1, sequence=0)


@pytest.mark.parametrize(
    ("occupant", "reason"),
    [
        (Occupant("", "", "x", True, 5, 6), "occupancy"),
        (Occupant("", "", "x", True, 1 << 33, 0), "occupancy"),
    ],
)
def test_numbers_that_nothing_has(leaf: Leaf, occupant: Occupant, reason: str) -> None:
    fed = Fed(leaf).feed([told(*OCCUPANTS), told(occupant)])
    assert fed.session.stats.malformed == {reason: 1}
    assert fed.session.occupancy == OCCUPANTS


def test_of_another_domain_or_too_many(leaf: Leaf) -> None:
    message = told(*OCCUPANTS)
    other = HEADER.pack(10, len(message), 1, 0, DOMAIN + 1) + message[HEADER.size :]
    assert Fed(leaf).feed([other]).session.stats.malformed == {"options-scope": 1}
    record = (DOMAIN).to_bytes(4) + bytes(3) + b"\1" + (1).to_bytes(8) + bytes(8)
    assert len(read_occupancy(record * MOST, DOMAIN)) == MOST
    with pytest.raises(MalformedSet, match="more than 32"):
        read_occupancy(record * (MOST + 1), DOMAIN)
    assert read_occupancy(record + bytes(3), DOMAIN) == (Occupant("", "", "", True, 1, 0),)
    for end in range(len(record) - 1):
        with pytest.raises(MalformedSet):
            read_occupancy(record[:end], DOMAIN)


@given(st.binary(max_size=120))
def test_whatever_comes_is_occupants_or_a_fault(data: bytes) -> None:
    try:
        found = read_occupancy(data, int.from_bytes(data[:4]))
    except MalformedSet:
        return
    assert all(0 <= each.unanswered <= each.entries and each.entries for each in found)
    assert all(len(each.workload.encode()) <= 3 * 254 for each in found)
