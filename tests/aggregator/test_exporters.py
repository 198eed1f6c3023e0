import hashlib

import numpy as np
import pytest

from flowvis.aggregator.exporters import BASELINE_FOR_S, DOUBT, TOLD, Doubt, Exporters
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


def test_who_names_many_domains_costs_nobody_else_a_number() -> None:
    exporters = Exporters(capacity=4)
    honest = exporters.number(NODE, 7)
    exporters.begin(honest, 0.0).keeps = True
    greedy = Peer("192.0.2.66", 40_000)
    relay = exporters.number(greedy, 0)
    behind = exporters.original(honest, b"a", 1)
    for domain in range(1, 20):
        exporters.number(greedy, domain)
        exporters.original(relay, b"b", domain)
    assert exporters.stats.known == 4 + 4
    assert exporters.keeps(honest)
    assert exporters.keeps(behind)
    assert exporters.address(honest) == NODE.address


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


LATE_MS = 20_000


def doubts(
    exporters: Exporters, numbers: list[int], now_s: float, ago_s: float = 0.0
) -> dict[str, list[int]]:
    """What is doubtful about records whose counters were read so long ago; the clocks agree."""
    ends = np.full(len(numbers), int(1000 * (now_s - ago_s)), dtype=np.uint64)
    of = np.array(numbers, dtype=np.uint32)
    now_ms = int(1000 * now_s)
    found = exporters.doubts(of, ends, now_s=now_s, now_ms=now_ms, late_ms=LATE_MS)
    return {name: column.tolist() for name, column in found.items()}


def talk(exporters: Exporters, numbers: list[int], until_s: float) -> None:
    """Have exporters tell something every 10 s."""
    for number in numbers:
        source = exporters.source(number)
        now_s = max(source.heard_s, source.began_s)
        while now_s < until_s:
            doubts(exporters, [number], now_s)
            now_s += 10


def test_what_comes_in_young_sessions_is_doubtful() -> None:
    exporters = Exporters()
    old, young, again, plain = (exporters.number(NODE, domain) for domain in (1, 2, 3, 4))
    for number in (old, young, again):
        exporters.begin(number, 0.0).keeps = True
    talk(exporters, [old, young, again], BASELINE_FOR_S)
    exporters.begin(plain, BASELINE_FOR_S)  # it would lose what waits for a store that is away
    assert doubts(exporters, [plain] * 2, BASELINE_FOR_S) == {}
    assert doubts(exporters, [old] * 2, BASELINE_FOR_S) == {DOUBT: [Doubt.KEPT] * 2}
    exporters.begin(young, 1.0)
    exporters.begin(again, 0.0).may_repeat = True
    bits = {young: Doubt.KEPT | Doubt.YOUNG, old: Doubt.KEPT, plain: 0}
    bits[again] = Doubt.KEPT | Doubt.REPEATED
    numbers = [young, old, old, again, plain, young, young]
    found = doubts(exporters, numbers, BASELINE_FOR_S)
    assert found == {DOUBT: [bits[number] for number in numbers]}


def test_who_was_silent_is_behind_for_a_while() -> None:
    exporters = Exporters()
    silent, busy = (exporters.number(NODE, domain) for domain in (1, 2))
    for number in (silent, busy):
        exporters.begin(number, 0.0).keeps = True
    talk(exporters, [silent], 401.0)
    talk(exporters, [busy], 1500.0)
    found = doubts(exporters, [busy, silent], 1500.0)
    told = pytest.approx(400, abs=1)
    assert found == {DOUBT: [Doubt.KEPT, Doubt.KEPT | Doubt.BEHIND], TOLD: [0, told]}
    talk(exporters, [silent], 1501.0 + BASELINE_FOR_S)
    assert doubts(exporters, [silent], 1505.0 + BASELINE_FOR_S) == {DOUBT: [Doubt.KEPT]}


def test_what_is_late_is_behind() -> None:
    exporters = Exporters()
    number = exporters.number(NODE, 1)
    exporters.begin(number, 0.0).keeps = True
    talk(exporters, [number], 600.0)
    assert doubts(exporters, [number], 600.0, ago_s=19.0) == {DOUBT: [Doubt.KEPT]}
    assert doubts(exporters, [number], 600.0, ago_s=21.0) == {DOUBT: [Doubt.KEPT | Doubt.BEHIND]}


class SameHash:
    def digest(self) -> bytes:
        return bytes([0xFF] * 4)
