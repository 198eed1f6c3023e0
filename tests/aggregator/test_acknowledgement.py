"""What sessions are told of how much is durable."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.aggregator.acknowledgement import JOINED_MS, Acknowledgements
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import SETTLED

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, START_MS, counted, exported


class Session:
    """One that counts what it has sent, and remembers what it was told."""

    def __init__(self) -> None:
        self.sent = 0
        self.told: list[int] = []

    def taken(self) -> int:
        return self.sent

    def acknowledge(self, count: int) -> None:
        self.told.append(count)


def test_a_session_is_told_what_was_taken_in_before_the_watermark() -> None:
    acknowledgements, one, other = Acknowledgements(joined_ms=0), Session(), Session()
    for cycle, (session, sent) in enumerate([(one, 5), (other, 3), (one, 9)], 1):
        session.sent = sent
        acknowledgements.note(cycle, [session], 0)
    acknowledgements.settle(1)
    assert not one.told
    acknowledgements.settle(3)
    assert (one.told, other.told) == ([5], [3])
    acknowledgements.settle(SETTLED)
    assert (one.told, other.told, len(acknowledgements)) == ([5, 9], [3], 0)


def test_what_comes_within_a_moment_waits_for_the_last_of_it() -> None:
    acknowledgements, session = Acknowledgements(), Session()
    for cycle, now_ms in ((1, 1000), (2, 1000 + JOINED_MS - 1), (3, 1000 + JOINED_MS)):
        session.sent += 1
        acknowledgements.note(cycle, [session], now_ms)
    acknowledgements.settle(2)
    assert not session.told
    acknowledgements.settle(3)
    assert session.told == [2]


def test_a_session_that_is_over_is_not_told() -> None:
    acknowledgements, session = Acknowledgements(), Session()
    acknowledgements.note(1, [session], 0)
    acknowledgements.forget(session)
    acknowledgements.settle(SETTLED)
    assert not session.told


def test_many_sessions_of_a_store_that_is_away_take_little() -> None:
    sessions = [Session() for _ in range(300)]
    acknowledgements = Acknowledgements(joined_ms=0)
    tracemalloc.start()
    for cycle in range(2000):  # 600,000 numbers
        for session in sessions:
            session.sent = cycle + 1
        acknowledgements.note(cycle, sessions, cycle)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 32 << 20
    assert len(acknowledgements) > 100
    acknowledgements.settle(SETTLED)
    assert all(session.told == [session.sent] for session in sessions)


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.integers(1, 70),
    st.integers(2, 9),
    st.sampled_from([0, 1, 5, 1000]),
)
def test_never_more_than_was_sent_before_the_watermark(
    sends: list[int], watermark: int, most: int, counts: int
) -> None:
    acknowledgements = Acknowledgements(joined_ms=0, max_steps=most, max_counts=counts)
    sessions = [Session() for _ in range(4)]
    durable: dict[int, int] = {}
    for cycle, who in enumerate(sends, 1):
        sessions[who].sent += 1
        if cycle < watermark:
            durable[who] = sessions[who].sent
        acknowledgements.note(cycle, [sessions[who]], 0)
        assert len(acknowledgements) <= most
    acknowledgements.settle(watermark)
    for who, session in enumerate(sessions):
        assert all(count <= durable.get(who, 0) for count in session.told)
    acknowledgements.settle(SETTLED)
    for session in sessions:
        assert session.told[-1:] == ([session.sent] if session.sent else [])


def half(octets: int, sides: dict[str, Any], **more: Any) -> dict[str, Any]:
    return sides | counted(octets) | more


def test_a_mark_is_the_oldest_cycle_that_is_not_written() -> None:
    table = FlowTable(max_flows=64)
    assert table.mark == SETTLED
    table.add(exported(table.strings, half(10, SOURCE_HALF)), START_MS, 4)
    table.add(exported(table.strings, half(20, SOURCE_HALF, flowEndMilliseconds=START_MS + 70_000)),
              START_MS, 5)  # fmt: skip
    assert table.mark == 4
    assert not len(table.due(START_MS))
    table.add(exported(table.strings, half(25, DESTINATION_HALF)), START_MS, 6)
    written = table.due(START_MS)
    assert (len(written), written.mark, table.mark) == (1, 4, SETTLED)


def test_a_repeated_record_holds_nothing() -> None:
    table = FlowTable(max_flows=64)
    record = INTRA_NODE | counted(10)
    table.add(exported(table.strings, record), START_MS, 1)
    assert table.due(START_MS).mark == 1
    table.add(exported(table.strings, record), START_MS, 2)
    assert table.mark == SETTLED
    later = INTRA_NODE | counted(15) | {"flowEndMilliseconds": START_MS + 90_000}
    table.add(exported(table.strings, later), START_MS, 3)
    assert table.mark == 3


@pytest.mark.parametrize("written", [False, True])
def test_the_connection_before_keeps_its_cycle(written: bool) -> None:
    """Records of a tuple that is used again go into rows that are moved meanwhile."""
    table = FlowTable(max_flows=64)
    table.add(exported(table.strings, half(10, SOURCE_HALF)), START_MS, 1)
    if written:
        assert table.flush(START_MS).mark == 1
    later = {"flowStartMilliseconds": START_MS + 70_000, "flowEndMilliseconds": START_MS + 80_000}
    more = {"flowEndMilliseconds": START_MS + 65_000}
    records = [half(30, SOURCE_HALF, **more), half(5, SOURCE_HALF, **later)]
    table.add(exported(table.strings, *records), START_MS, 2)
    assert table.mark == (2 if written else 1)
    marks = [table.flush(START_MS, 1).mark for _ in range(2)]
    assert sorted(marks) == ([2, 2] if written else [1, 2])
    assert table.mark == SETTLED
