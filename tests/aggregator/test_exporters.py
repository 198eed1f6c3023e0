import hashlib

import numpy as np
import pytest

from flowvis.aggregator.exporters import BASELINE_FOR_S, Doubt, Exporters
from flowvis.transport.session import Peer

LAST = (1 << 32) - 1
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


def test_there_is_room_for_the_latest() -> None:
    exporters = Exporters(capacity=3)
    given = [exporters.number(NODE, domain) for domain in (1, 2, 3, 1, 4, 5)]
    assert given[3] == given[0]
    assert exporters.stats.known == 3
    assert exporters.stats.forgotten == 2
    assert exporters.number(NODE, 1) == given[0]
    assert exporters.number(NODE, 2) == given[1]  # who comes back is the same


def test_a_number_is_the_same_in_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Exporters(), Exporters()
    other.number(NODE, 8)
    assert one.number(NODE, 7) == other.number(NODE, 7)
    relays = [exporters.number(NODE, 7) for exporters in (one, other)]
    assert one.original(relays[0], b"a", 3) == other.original(relays[1], b"a", 3)


def test_two_exporters_never_have_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "blake2b", lambda *_, **__: SameHash())
        exporters = Exporters()
        assert [exporters.number(NODE, domain) for domain in (1, 2, 3)] == [LAST, 1, 2]


def test_what_comes_in_young_sessions_is_doubtful() -> None:
    exporters = Exporters()
    old, young, again = (exporters.number(NODE, domain) for domain in (1, 2, 3))
    exporters.begin(old, 0.0)
    assert exporters.doubts(np.array([old, old], dtype=np.uint32), BASELINE_FOR_S) is None
    exporters.begin(young, 1.0)
    exporters.begin(again, 0.0).may_repeat = True
    numbers = np.array([young, old, old, again, young, young], dtype=np.uint32)
    found = exporters.doubts(numbers, BASELINE_FOR_S)
    assert found is not None
    young_bit, repeated = Doubt.YOUNG, Doubt.REPEATED
    assert found.tolist() == [young_bit, 0, 0, repeated, young_bit, young_bit]


class SameHash:
    def digest(self) -> bytes:
        return bytes([0xFF] * 4)
