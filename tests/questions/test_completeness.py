"""What the books say of a range: driven with made-up pages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowvis.clickhouse.schema.books import BookEntry, What
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.questions.completeness import completeness
from flowvis.questions.kept_books import LATE_S, MISSED_S, Uncommitted
from flowvis.questions.missing import Completeness
from flowvis.questions.planner import SLACK_S, Reading, Span, Stored, reading
from flowvis.questions.statement import Found
from flowvis.questions.times import TimeRange

T0 = 1_790_000_000
SPAN = TimeRange(T0 * 1000, (T0 + 600) * 1000)
WHOLE = [[T0 + 60 * n, 60] for n in range(1, 11)]
"""Pages, each by its end and its length."""
DAY_S = 86_400


def said(
    lost: Sequence[Sequence[Any]] = (),
    pages: Sequence[Sequence[Any]] | Mapping[str, Sequence[Sequence[Any]]] = WHOLE,
    uncommitted: Uncommitted | None = None,
    *,
    earlier: int = 1,
    records: int = 0,
    read: Reading | None = None,
    wanted: frozenset[str] | None = None,
    span: TimeRange = SPAN,
) -> Completeness:
    """What is said of a store with these losses and pages, and some pages and records before.

    Pages are of no cluster, or by their cluster.
    """
    of_clusters = pages if isinstance(pages, Mapping) else {"": pages}
    runs = [
        [cluster, end_s - seconds, end_s]
        for cluster, of in of_clusters.items()
        for end_s, seconds in of
    ]
    plan = completeness(span, uncommitted, [read, read] if read else [], wanted)
    try:
        statement = next(plan)
        while True:
            if "flow_records" in statement.text:
                found: Sequence[Sequence[Any]] = [[1]] * records
            elif "count()" in statement.text:
                found = [[earlier]]
            else:
                found = runs if "UNION ALL" in statement.text else _with_cluster(lost)
            statement = plan.send(Found(found))
    except StopIteration as done:
        value: Completeness = done.value
        return value


def _with_cluster(lost: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Losses that are written without a cluster have none."""
    return [[*row[:4], *([""] * (len(row) == 7)), *row[4:]] for row in lost]


def single_records(stored: Stored) -> Reading:
    """What is read of a store that is asked for records themselves."""
    return reading(SPAN, stored, frozenset(), only_records="single records")


def test_nothing_is_missing() -> None:
    assert said().as_dict() == {"complete": True, "missing": [], "notes": []}


def test_losses_are_named_with_their_meaning() -> None:
    (missing,) = said([["clickhouse", "dropped", "queue-full", "", 7, T0 + 60, T0 + 120]]).missing
    assert missing.as_dict() == {
        "cluster": None,
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


def without(found: Completeness) -> list[tuple[str, int, int]]:
    """Of which cluster there are no books from when until when, in seconds after T0."""
    assert {missing.reason for missing in found.missing} <= {"no-books"}
    return [(m.cluster, m.from_ms // 1000 - T0, m.to_ms // 1000 - T0) for m in found.missing]


def test_books_of_one_cluster_say_nothing_of_another() -> None:
    half = said(pages={"east-1": WHOLE, "east-2": WHOLE[:4]})
    assert without(half) == [("east-2", 240, 600)]
    assert half.missing[0].text == "no aggregator of cluster east-2 kept books for 360 s"
    assert half.missing[0].as_dict()["cluster"] == "east-2"
    assert half.without_nodes().missing == half.missing
    gone = said(pages={"east-1": WHOLE, "east-2": [[T0 - 4000, 60]]})
    assert without(gone) == [("east-2", 0, 600)]
    meanwhile = said(pages={"a": WHOLE, "b": [*WHOLE[:2], *WHOLE[8:]]})
    assert without(meanwhile) == [("b", 120, 480)]
    both = said(pages={"a": [*WHOLE[:3], *WHOLE[5:]], "b": [*WHOLE[:2], *WHOLE[6:]]})
    assert without(both) == [("a", 180, 300), ("b", 120, 360)]
    assert not without(said(pages={"a": WHOLE, "b": WHOLE}))


def test_a_single_cluster_needs_no_name() -> None:
    alone = said(pages={"a": [*WHOLE[:3], *WHOLE[6:]]})
    assert without(alone) == [("", 180, 360)]
    assert alone.missing[0].text == "no aggregator kept books for 180 s"
    lost = [
        ["clickhouse", "dropped", "queue-full", "", cluster, 7, T0, T0 + 60]
        for cluster in ("", "a")
    ]
    (missing,) = said(lost, {"": WHOLE[:5], "a": WHOLE[5:]}).missing
    assert (missing.records, missing.cluster) == (14, "")
    assert missing.text.startswith("14 records were dropped at clickhouse: ")


def test_a_cluster_is_missed_from_its_first_page_on() -> None:
    joined = said(pages={"a": WHOLE, "b": WHOLE[4:]})
    assert joined.as_dict() == {"complete": True, "missing": [], "notes": []}
    one_by_one = said(pages={"a": WHOLE[2:], "b": [*WHOLE[4:7], *WHOLE[8:]]}, earlier=0)
    assert without(one_by_one) == [("b", 420, 480)]
    assert list(one_by_one.notes) == ["there is nothing of before 2026-09-21 14:15:20 UTC"]
    back = said(pages={"a": WHOLE, "b": [[T0 - 3 * DAY_S, 60], *WHOLE[4:]]})
    assert without(back) == [("b", 0, 240)]


def test_a_cluster_that_was_taken_down_is_missed_for_a_week() -> None:
    for ago_s, missed in ((MISSED_S - 1, True), (MISSED_S, False)):
        found = said(pages={"a": WHOLE, "b": [[T0 + 600 - ago_s, 60]]})
        assert without(found) == [("b", 0, 600)] * missed
    weeks = TimeRange((T0 - 20 * DAY_S) * 1000, SPAN.to_ms)
    whole = [[T0 + 600, 20 * DAY_S + 600]]
    lived = [[T0 - 15 * DAY_S, DAY_S], [T0 - 10 * DAY_S, 2 * DAY_S]]
    found = said(pages={"a": whole, "b": lived}, span=weeks)
    assert without(found) == [("b", -15 * DAY_S, -12 * DAY_S)]
    nobody = said(pages={"b": lived[:1], "c": lived[1:]}, span=weeks, earlier=1)
    assert without(nobody) == [
        ("", -20 * DAY_S, -16 * DAY_S), ("", -15 * DAY_S, -12 * DAY_S), ("", -10 * DAY_S, 600),
    ]  # fmt: skip


def test_pages_without_a_cluster_are_those_of_all() -> None:
    """Of programs before."""
    older = said(pages={"": WHOLE[:6], "a": WHOLE[6:], "b": [[T0 - 600, 60], *WHOLE[7:]]})
    assert without(older) == [("b", 360, 420)]
    assert not without(said(pages={"": WHOLE, "a": WHOLE[:2], "b": [[T0 - 600, 60]]}))


def test_what_is_not_stored_yet_is_of_its_own_cluster() -> None:
    def asked(cluster: str, *known_as: str) -> list[tuple[str, int, int]]:
        own = Uncommitted(T0 + 100, T0 + 600, [], cluster=cluster, known_as=known_as)
        return without(said(pages={"a": WHOLE[:2], "b": WHOLE[:3]}, uncommitted=own))

    assert asked("a") == [("b", 180, 600)]
    assert asked("b") == [("a", 120, 600)]
    assert asked("") == []
    assert asked("new") == [("a", 120, 600), ("b", 180, 600)]
    assert asked("new", "", "a", "new") == [("b", 180, 600)]
    assert asked("new", "a", "b", "new") == []


def test_pages_of_another_cluster_may_be_on_their_way() -> None:
    def asked(now_s: int) -> list[tuple[str, int, int]]:
        own = Uncommitted(T0 + 480, now_s, [], cluster="a")
        return without(said(pages={"a": WHOLE[:8], "b": WHOLE[:7]}, uncommitted=own))

    assert asked(T0 + 420 + LATE_S - 1) == []
    assert asked(T0 + 420 + LATE_S) == [("b", 420, 600)]
    assert asked(T0 + 5000) == [("b", 420, 600)]
    future = TimeRange(SPAN.from_ms, SPAN.to_ms + 10**8)
    own = Uncommitted(T0 + 480, T0 + 900, [], cluster="a")
    found = said(pages={"a": WHOLE[:8], "b": WHOLE[:7]}, uncommitted=own, span=future)
    assert without(found) == [("b", 420, 900)]


def test_what_is_on_its_way_is_no_time_without_any_books() -> None:
    """Where a cluster's first aggregator begins, whose own pages say nothing of before."""
    began_s = T0 + 560

    def asked(own: str, now_s: int, wanted: frozenset[str] | None = None) -> list[Any]:
        new = Uncommitted(began_s, now_s, [], cluster=own)
        return without(said(pages={"a": WHOLE[:8]}, uncommitted=new, wanted=wanted))

    assert asked("new", T0 + 480 + LATE_S - 1) == []
    assert asked("new", T0 + 480 + LATE_S) == [("a", 480, 600)]
    assert asked("a", T0 + 620) == [("", 480, 560)], "ours, which was away"
    assert asked("", T0 + 620) == [("", 480, 560)], "whose id is not known yet"
    assert asked("new", T0 + 620, frozenset({"new"})) == [("", 0, 560)]


def test_a_question_about_a_cluster_hears_of_that_one_only() -> None:
    lost = [
        ["clickhouse", "dropped", "queue-full", "", "a", 7, T0, T0 + 60],
        ["correlator", "dropped", "full", "", "b", 8, T0, T0 + 60],
        ["correlator", "dropped", "full", "", "", 9, T0, T0 + 60],
    ]
    live = [
        BookEntry("clickhouse", What.DROPPED, 2, "queue-full"),
        BookEntry("correlator", What.HELD, 3),
    ]
    own = Uncommitted(T0 + 540, T0 + 601, live, cluster="a", known_as=("older",))
    pages = {"a": WHOLE[:9], "b": [*WHOLE[:2], *WHOLE[4:]]}

    def asked(*wanted: str, earlier: int = 1) -> tuple[list[tuple[str, int | None]], int]:
        found = said(lost, pages, own, wanted=frozenset(wanted), earlier=earlier)
        return [(m.cluster, m.records) for m in found.missing], len(found.notes)

    assert asked("a") == asked("older") == ([("a", 9), ("", 9)], 1)
    assert asked("b") == ([("b", None), ("b", 8), ("", 9)], 0)
    assert asked("c", earlier=0) == ([("", 9)], 1)  # "there is nothing of before"
    assert asked("c") == ([("", None), ("", 9)], 0)  # it was there long ago
    assert asked("a", "b") == ([("b", None), ("a", 9), ("b", 8), ("", 9)], 1)


def test_a_question_about_another_cluster_does_not_miss_what_is_on_its_way() -> None:
    future = TimeRange(SPAN.from_ms, SPAN.to_ms + 10**8)
    pages = {"a": WHOLE, "b": WHOLE[:7]}
    for now_s, missed in ((T0 + 420 + LATE_S - 1, []), (T0 + 900, [("b", 420, 900)])):
        own = Uncommitted(T0 + 480, now_s, [], cluster="a")
        found = said(pages=pages, uncommitted=own, wanted=frozenset({"b"}), span=future)
        assert without(found) == missed


def test_losses_are_of_a_cluster_where_there_are_several() -> None:
    """Nodes of the same name are not the same."""
    lost = [
        ["exporter", "silent", "", "node-1", "a", 60, T0, T0 + 60],
        ["exporter", "silent", "", "node-1", "b", 300, T0, T0 + 300],
        ["exporter", "lost", "", "node-2", "b", 3, T0, T0 + 60],
        ["exporter", "lost", "", "node-3", "b", 4, T0, T0 + 60],
        ["clickhouse", "dropped", "queue-full", "", "b", 5, T0, T0 + 60],
    ]
    found = said(lost, {"a": WHOLE, "b": WHOLE})
    assert [m.text.split(":")[0] for m in found.missing] == [
        "node-1 of cluster a had no session for 60 s",
        "node-1 of cluster b had no session for 300 s",
        "3 records of node-2 of cluster b never came, by the sequence numbers",
        "4 records of node-3 of cluster b never came, by the sequence numbers",
        "5 records were dropped at clickhouse of cluster b",
    ]
    assert [m.text.split(":")[0] for m in found.without_nodes().missing] == [
        "a node of cluster a had no session",
        "a node of cluster b had no session",
        "7 records of some nodes of cluster b never came, by the sequence numbers",
        "5 records were dropped at clickhouse of cluster b",
    ]


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
    found = said(pages=[], uncommitted=now)
    assert list(found.missing) == []
    assert not any("on their way" in note for note in found.notes)


def test_that_a_range_is_not_over_yet_is_said() -> None:
    """Nothing is missing of it, but it is not all either."""
    said_so = "it is 1970-01-01 02:46:40 UTC: what comes after is not known yet"
    begun, to_come = (Uncommitted(now_s - 60, now_s, []) for now_s in (T0 + 300, T0 - 1000))
    for now in (begun, to_come):
        found = said(pages=[], uncommitted=now)
        assert [note for note in found.notes if "not known yet" in note] != []
    assert said_so in said(pages=[], uncommitted=Uncommitted(9940, 10_000, [])).notes
    ahead = Uncommitted(T0 + 480, T0 + 599, [])
    assert not [note for note in said(uncommitted=ahead).notes if "not known yet" in note]


def test_a_long_list_is_cut() -> None:
    found = said([["exporter", "lost", "", f"n{n}", 1, T0, T0 + 60] for n in range(130)]).as_dict()
    assert len(found["missing"]) == 100
    assert found["notes"] == ["30 more of what is missing is not named here"]
