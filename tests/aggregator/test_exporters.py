import pytest

from flowvis.aggregator.exporters import Exporters
from flowvis.transport.session import Peer

NODE = Peer("192.0.2.1", 40_000, "exporter")


@pytest.mark.parametrize(
    ("peer", "domain"),
    [
        (Peer("192.0.2.2", 40_000, "exporter"), 7),
        (Peer("192.0.2.1", 40_000, "other"), 7),
        (Peer("192.0.2.1", 40_000), 7),
        (NODE, 8),
        (NODE, 0),
    ],
)
def test_who_is_another_exporter(peer: Peer, domain: int) -> None:
    exporters = Exporters()
    first = exporters.number(NODE, 7)
    assert 0 < first != exporters.number(peer, domain) > 0
    assert exporters.number(NODE, 7) == first
    assert exporters.stats.known == 2


def test_another_session_is_the_same_exporter() -> None:
    exporters = Exporters()
    again = Peer(NODE.address, 40_001, NODE.subject)
    assert exporters.number(NODE, 7) == exporters.number(again, 7)


def test_who_is_behind_another_exporter() -> None:
    exporters = Exporters(capacity=3)
    relay, other = exporters.number(NODE, 7), exporters.number(NODE, 8)
    behind = [(relay, b"a", 7), (relay, b"a", 8), (relay, b"b", 7), (other, b"a", 7)]
    numbers = [exporters.original(*one) for one in behind]
    assert len({relay, other, *numbers}) == 6
    assert exporters.original(*behind[-1]) == numbers[-1]
    assert exporters.stats.known == 2 + 3
    assert [exporters.number(NODE, domain) for domain in (7, 8)] == [relay, other]


def test_there_is_room_for_the_latest_and_no_number_comes_twice() -> None:
    exporters = Exporters(capacity=3)
    given = [exporters.number(NODE, domain) for domain in (1, 2, 3, 1, 4, 5)]
    assert given[3] == given[0]
    assert exporters.stats.known == 3
    assert exporters.stats.forgotten == 2
    assert exporters.number(NODE, 1) == given[0]
    assert exporters.number(NODE, 2) not in given


def test_numbers_begin_again_at_one() -> None:
    exporters = Exporters()
    exporters._last = (1 << 32) - 2
    assert [exporters.number(NODE, domain) for domain in (1, 2)] == [(1 << 32) - 1, 1]
