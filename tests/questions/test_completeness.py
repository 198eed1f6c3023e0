"""What the books say of a range: driven with made-up pages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowvis.clickhouse.schema.books import BookEntry, What
from flowvis.clickhouse.schema.partitions import Lost
from flowvis.questions.completeness import Completeness, Uncommitted, completeness
from flowvis.questions.planner import SLACK_S, Reading, Span, Stored, reading
from flowvis.questions.statement import Found
from flowvis.questions.times import TimeRange

T0 = 1_790_000_000
SPAN = TimeRange(T0 * 1000, (T0 + 600) * 1000)
WHOLE = [[T0 + 60 * n, 60] for n in range(1, 11)]


def said(
    lost: Sequence[Sequence[Any]] = (),
    pages: Sequence[Sequence[Any]] = WHOLE,
    uncommitted: Uncommitted | None = None,
    *,
    earlier: int = 1,
    records: int = 0,
    read: Reading | None = None,
) -> Completeness:
    """What is said of a store with these losses and pages, and some pages and records before."""
    plan = completeness(SPAN, uncommitted, [read, read] if read else [])
    try:
        statement = next(plan)
        while True:
            if "flow_records" in statement.text:
                found: Sequence[Sequence[Any]] = [[1]] * records
            elif "count()" in statement.text:
                found = [[earlier]]
            else:
                found = pages if "max(seconds)" in statement.text else lost
            statement = plan.send(Found(found))
    except StopIteration as done:
        value: Completeness = done.value
        return value


def single_records(stored: Stored) -> Reading:
    """What is read of a store that is asked for records themselves."""
    return reading(SPAN, stored, frozenset(), only_records="single records")


def test_nothing_is_missing() -> None:
    assert said().as_dict() == {"complete": True, "missing": [], "notes": []}


def test_losses_are_named_with_their_meaning() -> None:
    (missing,) = said([["clickhouse", "dropped", "queue-full", "", 7, T0 + 60, T0 + 120]]).missing
    assert missing.as_dict() == {
        "node": None,
        "stage": "clickhouse",
        "reason": "queue-full",
        "records": 7,
        "from": (T0 + 60) * 1000,
        "to": (T0 + 120) * 1000,
        "text": "7 records were dropped at clickhouse: the destination was away or slow for longer"
        " than its queue lasts",
    }


def test_drops_that_are_no_losses_are_none() -> None:
    found = said(
        [
            ["correlator", "dropped", "repeated", "", 5, T0, T0 + 60],
            ["correlator", "dropped", "full", "", 3, T0, T0 + 60],
            ["correlator", "dropped", "of-a-later-version", "", 2, T0, T0 + 60],
        ]
    )
    assert [(m.reason, m.records) for m in found.missing] == [
        ("full", 3), ("of-a-later-version", 2),
    ]  # fmt: skip


def test_nodes_that_were_silent_and_records_that_never_came() -> None:
    found = said(
        [
            ["exporter", "lost", "", "n1", 4, T0, T0 + 60],
            ["exporter", "silent", "", "n2", 300, T0, T0 + 300],
            ["exporter", "silent", "", "n3", 60, T0 + 60, T0 + 360],
        ]
    )
    assert [(m.node, m.reason, m.records, m.text) for m in found.missing] == [
        ("n1", "lost", 4, "4 records of n1 never came, by the sequence numbers"),
        ("n2", "silent", None, "n2 had no session for 300 s"),
        ("n3", "silent", None, "n3 had no session for 60 s"),
    ]


def test_who_may_not_know_of_nodes_hears_of_no_name() -> None:
    found = said(
        [
            ["exporter", "lost", "", "secret-1", 4, T0, T0 + 60],
            ["exporter", "lost", "", "secret-2", 5, T0 + 60, T0 + 90],
            ["exporter", "silent", "", "secret-2", 300, T0, T0 + 300],
            ["clickhouse", "dropped", "queue-full", "", 7, T0 + 60, T0 + 120],
        ]
    ).without_nodes()
    assert "secret" not in str(found.as_dict())
    assert [(m.stage, m.reason, m.records, m.from_ms, m.to_ms) for m in found.missing] == [
        ("exporter", "lost", 9, T0 * 1000, (T0 + 90) * 1000),
        ("exporter", "silent", None, T0 * 1000, (T0 + 300) * 1000),
        ("clickhouse", "queue-full", 7, (T0 + 60) * 1000, (T0 + 120) * 1000),
    ]


def test_a_range_without_books_is_not_known_to_be_complete() -> None:
    nothing = said(pages=[])
    assert [(m.from_ms, m.to_ms) for m in nothing.missing] == [(SPAN.from_ms, SPAN.to_ms)]
    gap = said(pages=[*WHOLE[:3], *WHOLE[6:]])
    assert [(m.reason, m.from_ms, m.to_ms) for m in gap.missing] == [
        ("no-books", (T0 + 180) * 1000, (T0 + 360) * 1000)
    ]
    assert gap.missing[0].text == "no aggregator kept books for 180 s"
    assert not said(pages=WHOLE[:-1]).as_dict()["complete"]


def test_before_there_was_anything_nothing_is_missing() -> None:
    """A new installation; records without books are of an older program."""
    new = said(pages=WHOLE[3:], earlier=0)
    assert new.as_dict()["complete"]
    assert list(new.notes) == ["there is nothing of before 2026-09-21 14:16:20 UTC"]
    assert said(pages=WHOLE[3:], earlier=0, records=1).as_dict()["complete"]  # of a moment before
    older = said(pages=WHOLE[6:], earlier=0, records=1)
    assert [m.to_ms for m in older.missing] == [(T0 + 360) * 1000]
    assert [m.reason for m in said(pages=WHOLE[3:], earlier=1).missing] == ["no-books"]
    first = said(pages=[], earlier=0, uncommitted=Uncommitted(T0 + 590, T0 + 600, []))
    assert first.as_dict()["complete"]
    gap = said(pages=[*WHOLE[2:4], *WHOLE[6:]], earlier=0)
    assert [m.from_ms for m in gap.missing] == [(T0 + 240) * 1000]


def test_what_the_store_keeps_no_more_is_missing() -> None:
    """Nobody can tell any more whether there was something."""
    now_s = T0 + 601
    stored = Stored(now_s, records_since_s=now_s - 541)
    uncommitted = Uncommitted(now_s, now_s, (), 541)
    found = said(pages=WHOLE[4:], earlier=0, uncommitted=uncommitted, read=single_records(stored))
    assert [(m.reason, m.from_ms, m.to_ms) for m in found.missing] == [
        ("expired", T0 * 1000, (T0 + 60) * 1000)
    ]
    assert found.missing[0].text == "records are kept for 9m1s (clickHouse.ttl)"
    assert list(found.notes) == ["there is nothing of before 2026-09-21 14:17:20 UTC"]
    later_s = now_s + 9000
    stored = Stored(later_s, records_since_s=later_s - 60)
    old = said(
        pages=[], uncommitted=Uncommitted(later_s, later_s, (), 60), read=single_records(stored)
    )
    assert [(m.reason, m.to_ms) for m in old.missing] == [("expired", SPAN.to_ms)]


def test_where_records_are_kept_for_longer_than_books_losses_are_not_known() -> None:
    now_s = T0 + 601
    found = said(pages=WHOLE[4:], uncommitted=Uncommitted(now_s, now_s, (), 541))
    assert [(m.reason, m.from_ms) for m in found.missing] == [("no-books", (T0 + 60) * 1000)]
    assert list(found.notes) == [
        "what is missing of before 2026-09-21 14:14:20 UTC is not known any more"
    ]


def test_a_range_that_was_made_larger_is_said() -> None:
    """Of long ago there are whole minutes only."""
    now_s = T0 + 100_000
    stored = Stored(now_s, now_s - 50_000, {"flow_minutes": Span(now_s)})
    found = said(read=reading(SPAN, stored, frozenset()))
    assert found.as_dict()["complete"]
    (note,) = found.notes
    assert note.startswith("this is of 2026-09-21 14:13:00 UTC to 2026-09-21 14:24:00 UTC: ")


def test_what_no_roll_up_ever_got_is_missing_where_roll_ups_answer() -> None:
    now_s = T0 + 100_000
    lost = [
        Lost(T0 - 7200, T0 - 3600, 1),
        Lost(T0 + 100, T0 + 200, 40),
        Lost(T0 + 500, T0 + 700, 2),
        Lost(T0 + 7200, T0 + 10_800, 800),
    ]
    rolled = Stored(now_s, now_s - 50_000, {"flow_minutes": Span(now_s)}, lost)
    found = said(read=reading(SPAN, rolled, frozenset())).missing
    assert [(m.stage, m.reason, m.records, m.from_ms, m.to_ms) for m in found] == [
        ("clickhouse", "unrolled", 42, (T0 + 100) * 1000, (T0 + 700) * 1000)
    ]
    assert "42 records were dropped for lack of room" in found[0].text
    expired = replace(rolled, lost=[*lost, Lost(T0, T0 + 60, 9, expired=True)])
    room, age = said(read=reading(SPAN, expired, frozenset())).without_nodes().missing
    assert (room.records, age.records, age.from_ms) == (42, 9, T0 * 1000)
    assert "9 records went by clickHouse.ttl" in age.text
    assert [m.reason for m in said(read=single_records(rolled)).missing] == ["expired"]
    there = Stored(now_s, 0, {"flow_minutes": Span(now_s)}, lost)
    assert not said(read=single_records(there)).missing


def test_what_is_not_rolled_up_yet_and_kept_no_more_is_missing() -> None:
    """Rolling fails, or has long to go, and records are kept for less than it is behind."""
    now_s = T0 + 100_000
    late = Stored(now_s, now_s - 50_000, {"flow_minutes": Span(T0 + 100)})
    found = said(read=reading(SPAN, late, frozenset()))
    assert [(m.stage, m.reason, m.records, m.from_ms) for m in found.missing] == [
        ("clickhouse", "unrolled", None, (T0 + 100) * 1000)
    ]
    assert not found.as_dict()["complete"]
    before = TimeRange((T0 - 300) * 1000, (T0 + 100) * 1000)
    assert reading(before, late, frozenset()).unsettled is None
    there = replace(late, records_since_s=0)
    assert reading(SPAN, there, frozenset()).unsettled is None
    edge = replace(late, records_since_s=T0 + 150)  # within a minute, of which records are read
    assert reading(SPAN, edge, frozenset()).unsettled == TimeRange(
        (T0 + 100) * 1000, (T0 + 150 - SLACK_S) * 1000
    )


def test_a_page_over_a_longer_interval_covers_it() -> None:
    assert said(pages=[*WHOLE[:2], [T0 + 480, 360], *WHOLE[8:]]).as_dict()["complete"]


def test_what_is_not_in_the_store_yet_counts_as_well() -> None:
    entries = [
        BookEntry("clickhouse", What.DROPPED, 2, "queue-full"),
        BookEntry("correlator", What.DROPPED, 9, "repeated"),
        BookEntry("correlator", What.HELD, 30),
        BookEntry("clickhouse", What.HELD, 12),
        BookEntry("clickhouse", What.RECEIVED, 100),
    ]
    found = said(
        [["clickhouse", "dropped", "queue-full", "", 7, T0 + 60, T0 + 120]],
        WHOLE[:-1],
        Uncommitted(T0 + 540, T0 + 601, entries),
    )
    assert [(m.reason, m.records) for m in found.missing] == [("queue-full", 9)]
    assert found.missing[0].to_ms == (T0 + 601) * 1000
    assert list(found.notes) == ["42 records are on their way to the store"]


def test_what_happens_now_is_not_of_an_old_range() -> None:
    entries = [
        BookEntry("clickhouse", What.DROPPED, 2, "queue-full"),
        BookEntry("correlator", What.HELD, 30),
    ]
    later = Uncommitted(T0 + 40_000, T0 + 40_030, entries)
    assert said(uncommitted=later).as_dict() == {"complete": True, "missing": [], "notes": []}


def test_of_what_is_to_come_nothing_is_missing() -> None:
    entries = [
        BookEntry("clickhouse", What.DROPPED, 2, "queue-full"),
        BookEntry("correlator", What.HELD, 30),
    ]
    now = Uncommitted(T0 - 1060, T0 - 1000, entries)
    assert said(pages=[], uncommitted=now).as_dict() == {
        "complete": True, "missing": [], "notes": [],
    }  # fmt: skip


def test_a_long_list_is_cut() -> None:
    found = said([["exporter", "lost", "", f"n{n}", 1, T0, T0 + 60] for n in range(130)]).as_dict()
    assert len(found["missing"]) == 100
    assert found["notes"] == ["30 more of what is missing is not named here"]
