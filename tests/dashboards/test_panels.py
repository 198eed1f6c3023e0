"""Every panel's query on a real engine, and what it finds against the question layer's answer."""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tools.dashboards import books, variables
from tools.dashboards.chosen import ALL_WRITTEN, CHOICES, NOTHING, Choice
from tools.dashboards.labels import LEVEL, LEVELS, Label
from tools.dashboards.looked import ALL, Looked, Value
from tools.dashboards.page import Page
from tools.dashboards.pages import PAGES
from tools.dashboards.pages import records as records_page
from tools.dashboards.panels import Panel
from tools.dashboards.queries import (
    LARGEST,
    OTHERS,
    Active,
    Column,
    Graph,
    Ranked,
    Records,
    Series,
    Totals,
    Written,
    of_parts,
    parts_of_labels,
    united,
)
from tools.dashboards.ranges import (
    BRANCHES,
    LEFT_OUT,
    OF_DAYS,
    OF_HOURLY,
    OF_HOURS,
    OF_MINUTES,
    THERE,
    Branch,
)

from aggregator.records import records
from clickhouse.asking import carry_out
from clickhouse.paged import CASES, T0, Paged, keep_pages
from clickhouse.samples import STORED
from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.schema import books as books_schema
from flowvis.clickhouse.schema.books import BookEntry, What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES
from flowvis.clickhouse.schema.tables import BOOKS
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import StoreError
from flowvis.filters import parse
from flowvis.filters.networks import NetworkNames
from flowvis.filters.sql import condition
from flowvis.questions.completeness import completeness
from flowvis.questions.dimensions import Part, defined
from flowvis.questions.table import TableQuestion
from flowvis.questions.times import TimeRange

from .traffic import connections

pytestmark = pytest.mark.clickhouse

NOW_S = int(time.time())
DATABASE = "dashboards"
EVERYTHING: dict[str, Value] = {
    **{name: [ALL] for name in CHOICES}, "exclude": [NOTHING], "level": "workload", "rows": "1000",
}  # fmt: skip
CHOSEN: dict[str, Value] = {
    "cluster": ["c0"], "exclude": ["kube-system"], "namespace": ["shop"],
    "workload": ["shop/cart", "shop/none"], "node": ["n1"], "service": ["shop/web:http"],
    "policy": ["shop/allow-web", "baseline"], "level": "pod", "rows": "10",
}  # fmt: skip
ALL_VALUES = dict.fromkeys(CHOICES, ALL_WRITTEN)
SPANS = {
    "records": (NOW_S - 3000, NOW_S - 17, 60),
    "minutes": (NOW_S - 3 * 3600 - 617, NOW_S - 11, 120),  # a suite takes its time to come here
    # Of records that are older than some hours, only whole minutes are sure to be there.
    "hours": ((NOW_S - 30 * 3600 - 1234) // 60 * 60, NOW_S - 61, 300),
}
"""Ranges, and what interval Grafana would choose: each makes the most of one table."""
LOOKS = {
    f"{span}, {what}": Looked(*SPANS[span], values, ALL_VALUES)
    for span, what, values in (
        ("hours", "everything", EVERYTHING),
        ("minutes", "some", CHOSEN),
    )
}


LONG_AGO_S = (NOW_S // 3600 - 200) * 3600
"""The end of an hour; of its last 5 minutes and the 10 after it two aggregators kept books."""

COMPARED: set[tuple[str, ...]] = set()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Records of 32 hours, until now, and their roll-ups."""
    directory = tmp_path_factory.mktemp("dashboards") / "store"
    settings = StoreSettings(
        f"embedded://{directory}", database=DATABASE, ttl_s=0, minutes_ttl_s=0, hours_ttl_s=0
    )
    store = open_store(settings)
    store.migrate()
    rows = [
        *connections(700, 1, NOW_S - 32 * 3600, NOW_S - 6 * 3600),
        *connections(500, 2, NOW_S - 6 * 3600, NOW_S),
    ]
    store.insert(records(*rows, fields=STORED), BatchId("test", NOW_S, 0))
    asyncio.run(Roller(store, "test").look(everything=True))
    execute: Any = store._execute  # type: ignore[attr-defined]
    _write_books(execute)
    yield store
    store.close()


def _write_books(execute: Any) -> None:
    """Two minutes of books: something dropped, something lost, a node that was silent."""
    end = NOW_S - 600
    entries = [
        ("collector", "", "received", "", 100), ("collector", "", "sent", "", 100),
        ("clickhouse", "", "received", "", 100), ("clickhouse", "", "dropped", "queue-full", 7),
        ("correlator", "", "dropped", "repeated", 3),
        ("ipfix", "", "dropped", "filtered", 2), ("collector", "", "dropped", "filtered", 1),
        ("exporter", "n1", "received", "", 60), ("exporter", "n1", "lost", "", 5),
        ("exporter", "n2", "received", "", 40), ("exporter", "n2", "silent", "", 30),
        ("exporter", "n3", "received", "", 0),
    ]  # fmt: skip
    rows = ", ".join(
        f"({moment}, 60, '{stage}', '{node}', '{what}', '{reason}', {records}, 'w')"
        for moment in (end, end + 60)
        for stage, node, what, reason, records in entries
    )
    rows += "".join(
        f", ({moment}, 60, 'collector', '', 'received', '', 120, '{writer}')"
        for moment in range(LONG_AGO_S - 240, LONG_AGO_S + 601, 60)
        for writer in ("w", "v")
    )
    rows += "".join(
        f", ({moment}, 60, '{stage}', '', 'held', '', 9, 'w')"
        for moment, stage in ((end, "collector"), (end, "clickhouse"), (end + 60, "clickhouse"))
    )
    late = LONG_AGO_S + 7200  # the store was away before
    rows += f", ({late}, 600, 'collector', '', 'received', '', 900, 'w')"
    execute(
        f"INSERT INTO {DATABASE}.{BOOKS}"
        f" (time, seconds, stage, node, what, reason, records, writer) VALUES {rows}"
    )


def found(store: Store, sql: str, look: Looked) -> list[dict[str, Any]]:
    """Ask as Grafana does."""

    def value(asked: str) -> str:
        ((only,),) = store.query(asked).rows
        return str(only)

    answer = store.query(look.refreshed(value).sql(sql))
    return [dict(zip(answer.names, row, strict=True)) for row in answer.rows]


def asked(
    store: Store, look: Looked, about: Records, measure: str, *, by: str = "", interval: str = ""
) -> dict[str, Any]:
    """Ask the question layer the same, of the range to the second."""
    chosen = condition(parse(look.replaced(about.written)))
    parameters = {
        "from": str(look.from_s * 1000), "to": str(look.to_s * 1000), "limit": "1000",
        "measure": measure, "by": look.replaced(by), "interval": interval,
    }  # fmt: skip
    return carry_out(store, TableQuestion.parse(parameters, chosen, NOW_S * 1000).plan())


def is_pod(name: str) -> bool:
    """Whether a label is not of what the questions call otherwise."""
    return name not in {OTHERS, "outside", "unknown"} and not name.startswith("node ")


def compare(store: Store, panel: Panel, look: Looked) -> None:
    """Hold that a panel shows what the question layer finds."""
    asks = getattr(panel, "asks", None)
    if isinstance(asks, Totals):
        ((title, value),) = found(store, asks.sql, look)[0].items()
        (column,) = asks.columns
        assert title == column.title
        (total,) = asked(store, look, asks.records, column.measure)["total"]
        per_second = column.per_second / (look.to_s - look.from_s) if column.per_second else 1
        assert value == pytest.approx(total * per_second)
    elif isinstance(asks, Ranked) and not asks.records.raw:
        _compare_ranked(store, asks, look)
    elif isinstance(asks, Series):
        _compare_series(store, asks, look)


def _compare_ranked(store: Store, asks: Ranked, look: Looked) -> None:
    rows = found(store, asks.sql, look)
    names, titles = _dimensions(asks.labels), [column.title for column in asks.columns]
    measures = ",".join(column.measure for column in asks.columns)
    answer = asked(store, look, asks.records, measures, by=names)
    if asks.others or len(rows) < asks.limit:
        assert sum(row[titles[0]] for row in rows) == pytest.approx(answer["total"][0])
    if not names:
        return
    width = len(asks.labels)
    known = {tuple(map(str, row[:width])): row[width:] for row in answer["rows"]}
    for row in rows:
        called = tuple(str(row[label.title]) for label in asks.labels)
        if all(map(is_pod, called)):
            assert [row[title] for title in titles] == pytest.approx(known[called]), called


def _compare_series(store: Store, asks: Series, look: Looked) -> None:
    rows = found(store, asks.sql, look)
    step = 3600 if look.to_s - look.from_s >= 12 * 3600 else look.interval_s
    measure, name = asks.column.measure, _dimensions([asks.label] if asks.label else [])
    answer = asked(store, look, asks.records, measure, by=name, interval=f"{step}s")
    given: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        given[row["series"]][row["time"]] = row["Value"]
    factor = asks.column.per_second / step if asks.column.per_second else 1
    if not rows:
        assert not any(answer["totalSeries"][0])
        return
    moments = sorted({row["time"] for row in rows})
    assert len(moments) == len(answer["times"])
    inner = slice(1, -1)  # the first and the last have fewer seconds
    summed = [sum(series[moment] for series in given.values()) for moment in moments]
    assert summed[inner] == pytest.approx([n * factor for n in answer["totalSeries"][0]][inner])
    if not name:
        return
    for row, (series,) in zip(answer["rows"], answer["series"], strict=True):
        called = str(row[0])
        if called in given and is_pod(called):
            shown = [given[called][moment] for moment in moments]
            assert shown[inner] == pytest.approx([n * factor for n in series][inner]), called


def _dimensions(labels: Any) -> str:
    names = [label.dimension for label in labels]
    return ",".join(names) if all(names) else ""


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_panels_show_what_the_questions_find(store: Store, page: Page, look: str) -> None:
    for panel in page.panels:
        asks = look, *(sql for _, sql, _ in panel.queries())
        if asks in COMPARED:
            continue  # on another dashboard
        COMPARED.add(asks)
        compare(store, panel, LOOKS[look])
        for _, sql, _ in panel.queries():
            if not isinstance(getattr(panel, "asks", None), Totals | Ranked | Series):
                found(store, sql, LOOKS[look])


PAIRED: dict[Label, tuple[str, Series]] = {
    asks.label: (panel.title, asks)
    for page in PAGES
    for panel in page.panels
    if isinstance(asks := getattr(panel, "asks", None), Series) and asks.label and asks.label.many
}
"""Series that are found in two passes, one of each label."""


@pytest.mark.parametrize("label", PAIRED, ids=[title for title, _ in PAIRED.values()])
def test_records_have_one_number_if_they_have_one_name(store: Store, label: Label) -> None:
    parts = parts_of_labels([label])
    every = [*parts, Part("number", sql=of_parts(label.number, parts))]
    named = defined(every, [label.sql], NetworkNames())
    sql = (
        f"WITH {named} SELECT uniqExact({label.sql}) AS names, uniqExact(number) AS numbers,"
        f" uniqExact({label.sql}, number) AS pairs"
        f" FROM ({united(Records(choices=(), raw=True), every, [])})"
    )
    for level in LEVELS if LEVEL in sql else [""]:
        look = Looked(*SPANS["hours"], EVERYTHING | {"level": level}, ALL_VALUES)
        (counted,) = found(store, sql, look)
        assert counted["names"] == counted["numbers"] == counted["pairs"] > 3, level


@pytest.mark.parametrize("label", PAIRED, ids=[title for title, _ in PAIRED.values()])
def test_two_passes_find_the_same_series_as_one(store: Store, label: Label) -> None:
    look = LOOKS["hours, everything"]
    for limit in (4, 5000):
        twice = replace(PAIRED[label][1], limit=limit)
        once = replace(twice, label=replace(label, many=False))
        totals, known = (_totals(found(store, each.sql, look)) for each in (twice, once))
        assert len(known) > 1
        if limit > len(known):  # else, of several that are equal, any may be the smallest shown
            assert totals == pytest.approx(known)
        assert sorted(totals.values()) == pytest.approx(sorted(known.values()))
        shown = totals.keys() - {OTHERS}
        assert len(shown) == min(limit, len(known))
        assert {name: totals[name] for name in shown} == pytest.approx(
            {name: known[name] for name in shown}
        )


NUMBERED: dict[Ranked | Graph, str] = {
    asks: panel.title
    for page in PAGES
    for panel in page.panels
    if isinstance(asks := getattr(panel, "asks", None), Ranked | Graph)
    and any(f"AS {LARGEST}" in sql for _, sql, _ in panel.queries())
}
"""What is found by number before it has names."""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("asks", NUMBERED, ids=NUMBERED.values())
def test_numbers_find_the_same_groups_as_names(
    store: Store, asks: Ranked | Graph, level: str
) -> None:
    look = Looked(*SPANS["hours"], EVERYTHING | {"level": level}, ALL_VALUES)
    for limit in (3, 5000):
        by_number = replace(asks, limit=limit)
        if isinstance(by_number, Ranked):
            labels = tuple(replace(each, own_number="") for each in by_number.labels)
            by_name: Ranked | Graph = replace(by_number, labels=labels)
        else:
            source, target = by_number.source, by_number.target
            by_name = replace(
                by_number,
                source=replace(source, own_number=""),
                target=replace(target, own_number=""),
            )
        for numbered, named in zip(_statements(by_number), _statements(by_name), strict=True):
            assert f"AS {LARGEST}" in numbered
            assert f"AS {LARGEST}" not in named
            known = found(store, named, look)
            assert len(known) > 1
            assert found(store, numbered, look) == known


def _statements(asks: Ranked | Graph) -> list[str]:
    return [asks.sql] if isinstance(asks, Ranked) else [asks.edges, asks.nodes]


@pytest.mark.parametrize("label", PAIRED, ids=[title for title, _ in PAIRED.values()])
def test_series_of_a_range_without_records(store: Store, label: Label) -> None:
    """Of which there are no largest."""
    look = Looked(NOW_S + 3600, NOW_S + 7200, 60, EVERYTHING, ALL_VALUES)
    assert not found(store, PAIRED[label][1].sql, look)


def test_series_of_pairs_read_a_projection_where_it_has_all(store: Store) -> None:
    """Hours are grouped by themselves for it: as rows they would all be read."""
    execute: Any = store._execute  # type: ignore[attr-defined]
    execute(f"OPTIMIZE TABLE {DATABASE}.{HOURS.name} FINAL")
    look = LOOKS["hours, everything"]
    read = {
        title: {
            table.rpartition(".")[2]
            for row in found(store, f"EXPLAIN {asks.sql}", look)
            for table in re.findall(r"ReadFromMergeTree \((\S+)\)", str(row))
        }
        for title, asks in PAIRED.values()
    }
    projected = {title for title in read if title.endswith(("Pod to Pod", "Pod to Service"))}
    assert {title for title, tables in read.items() if "pairs" in tables} == projected < set(read)
    assert all(HOURS.name in tables for title, tables in read.items() if title not in projected)


def test_series_of_pairs_are_of_sums() -> None:
    asks = next(asks for _, asks in PAIRED.values())
    with pytest.raises(ValueError, match="denied is no sum"):
        _ = replace(asks, column=Column("Denied", "denied")).sql


def test_what_leaves_nothing_out_reads_no_column(store: Store) -> None:
    """Only alone it is nothing: beside others it is a name that no namespace has."""
    asks = Totals((Column("Bytes", "octets"),), Records())
    look = LOOKS["hours, everything"]
    without = {
        text: replace(look, values=EVERYTHING | {"exclude": names})
        for text, names in (
            ("nothing", [NOTHING]), ("both", [NOTHING, "kube-system"]), ("one", ["kube-system"]),
        )
    }  # fmt: skip
    plans = {
        text: str(found(store, f"EXPLAIN header = 1 {asks.sql}", each))
        for text, each in without.items()
    }
    assert {text for text, plan in plans.items() if "PodNamespace" in plan} == {"both", "one"}
    values = {text: found(store, asks.sql, each)[0]["Bytes"] for text, each in without.items()}
    assert values["nothing"] > values["both"] == values["one"] > 0


def _totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for row in rows:
        totals[row["series"]] += row["Value"]
    return dict(totals)


def test_what_is_missing_is_what_the_questions_say(store: Store) -> None:
    """Losses at stages and on the way; what nobody wanted is none."""
    look = Looked(NOW_S - 3600, NOW_S)
    (total,) = found(store, books.MISSING.sql, look)
    span = TimeRange(look.from_s * 1000, look.to_s * 1000)
    said = carry_out(store, completeness(span)).missing
    assert total == {"Records missing": sum(each.records or 0 for each in said)}
    rows = found(store, books.REASONS.sql, look)
    assert {(row["Stage"], row["Reason"], row["Node"], row["Records"]) for row in rows} == {
        (each.stage, each.reason, each.node, each.records) for each in said if each.records
    }
    (silent,) = found(store, books.SILENT.sql, look)
    without = {each.node for each in said if each.reason == "silent"}
    assert silent == {"Silent nodes": len(without)} == {"Silent nodes": 1}
    assert found(store, books.HEARD.sql, look) == [{"Nodes": 2}]  # of three that are known
    aside = found(store, books.SET_ASIDE.sql, look)
    assert {row["Reason"]: row["Records"] for row in aside} == {"repeated": 6, "filtered": 4}


def test_what_is_held_is_so_at_the_end(store: Store) -> None:
    rows = found(store, books.STAGES.sql, Looked(NOW_S - 3600, NOW_S))
    held = {row["Stage"]: row["Held at the end"] for row in rows}
    assert (held["clickhouse"], held["collector"]) == (9, 0)


def test_rates_of_books_are_over_what_the_range_has_of_an_interval(store: Store) -> None:
    look = Looked(LONG_AGO_S - 300, LONG_AGO_S + 600, 3600)
    (rates,) = (asks for title, _, asks in books.series() if title == "Received by stage")
    rows = found(store, rates.sql, look)
    assert [row["Value"] for row in rows] == [2 * 120 / 60, 2 * 120 / 60]
    (late,) = found(store, rates.sql, Looked(LONG_AGO_S + 7000, LONG_AGO_S + 7300))
    assert late["Value"] == 1.5


def test_connections_that_go_on_are_so_now_in_a_range_that_ends_later(store: Store) -> None:
    moment = int(time.time()) - 10
    row = {
        **connections(1, 4, moment - 400, moment)[0],
        "flowStartSeconds": moment - 60, "flowEndSeconds": moment, "flowEndReason": 2,
    }  # fmt: skip
    store.insert(records(row, fields=STORED), BatchId("live", moment, 0))
    asks = Active("Active", Records(choices=()))
    for to_s in (moment + 10, moment + 86_400):
        assert found(store, asks.sql, Looked(moment - 86_400, to_s)) == [{"Active": 1}]


def test_a_range_that_ends_later_is_one_until_now(store: Store) -> None:
    """As "today" is: what is to come has no traffic yet, and is no time without any."""
    began = time.time()
    from_s = NOW_S // 60 * 60 - 3600
    later = Looked(from_s, from_s + 86_400, 60, EVERYTHING, ALL_VALUES)
    rate = Totals((Column("Rate", "octets", per_second=8),), Records(choices=()))
    octets = Totals((Column("Octets", "octets"),), Records(choices=()))
    (whole,), (asked,) = found(store, octets.sql, later), found(store, rate.sql, later)
    assert whole["Octets"] > 0
    assert began - from_s <= whole["Octets"] * 8 / asked["Rate"] + 1
    assert whole["Octets"] * 8 / asked["Rate"] <= time.time() - from_s
    series = Series(Column("Rate", "octets", per_second=8), records=Records(choices=()))
    last = max(point["time"] for point in found(store, series.sql, later))
    assert began - 60 <= _seconds(last) <= time.time()
    to_come = Looked(NOW_S + 7200, NOW_S + 86_400, 60, EVERYTHING, ALL_VALUES)
    assert found(store, series.sql, to_come) == []
    assert found(store, octets.sql, to_come) == [{"Octets": 0}]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()  # the engine is of this machine's time zone


OF_ALL_HOURS = (OF_HOURS, OF_HOURLY, OF_DAYS)
SOME_SERIES = {"Throughput of Pod to Pod", "Throughput by type", "Denied, by policy"}


@pytest.mark.parametrize(("span", "left_out"), [("records", ()), ("hours", OF_ALL_HOURS)])
def test_branches_of_another_range_find_the_same(
    store: Store, span: str, left_out: tuple[Branch, ...]
) -> None:
    """As where the range has changed and what leaves branches out is not asked again yet."""
    given = {each.name: LEFT_OUT if each in left_out else THERE for each in BRANCHES}
    look = Looked(*SPANS[span], EVERYTHING, ALL_VALUES)
    other = replace(look, values={**EVERYTHING, **given})
    for panel in (panel for page in PAGES for panel in page.panels):
        asks = getattr(panel, "asks", None)
        if isinstance(asks, Totals) or (isinstance(asks, Series) and panel.title in SOME_SERIES):
            expected = found(store, asks.sql, look)
            assert expected
            assert found(store, asks.sql, other) == expected, panel.title


def test_a_range_that_needs_what_its_query_leaves_out_is_refused(store: Store) -> None:
    """As when a panel is taken to Explore: nothing would be missing in silence."""
    octets = Totals((Column("Octets", "octets"),), Records(choices=()))
    minutes = {OF_MINUTES.name: LEFT_OUT}
    hours = {each.name: LEFT_OUT for each in OF_ALL_HOURS}
    long_ago_s = NOW_S - 31 * 86_400
    for span, values, lacks in (
        (SPANS["hours"], minutes, "flow_minutes"),
        ((long_ago_s, long_ago_s + 3600, 60), hours, "flow_hours"),
    ):
        with pytest.raises(StoreError, match=f"this range needs {lacks}"):
            found(store, octets.sql, Looked(*span, values=values))
    short = Looked(*SPANS["records"], values=minutes | hours)
    assert found(store, octets.sql, short)[0]["Octets"] > 0


def test_what_is_not_rolled_yet_is_not_missing(store: Store) -> None:
    """However far rolling is behind, as far as records are kept: aggregators say how far it is."""
    from_s, to_s = NOW_S - 72 * 3600, NOW_S - 50 * 3600
    rows = connections(200, 7, from_s + 3600, to_s - 3600)
    store.insert(records(*rows, fields=STORED), BatchId("behind", NOW_S, 0))
    octets = Totals((Column("Octets", "octets"),), Records(choices=()))
    series = Series(Column("Octets", "octets"), records=Records(choices=()))
    look = Looked(from_s, to_s, 300)

    def total() -> int:
        return int(found(store, octets.sql, look)[0]["Octets"])

    assert total() == 0  # nobody says anything: it is taken for rolled
    execute: Any = store._execute  # type: ignore[attr-defined]
    try:
        said = [BookEntry(each.name, What.SETTLED, from_s) for each in (MINUTES, HOURS)]
        ahead = [replace(each, records=NOW_S) for each in said]  # of all that it knows of
        for writer, entries in (("one", said), ("another", ahead)):
            now_s = int(time.time())  # a suite takes its time to come here
            store.keep(books_schema.Page(BatchId(writer, now_s), 60, entries))
        assert total() == sum(row["octetDeltaCount"] for row in rows)
        assert sum(point["Value"] for point in found(store, series.sql, look)) == total()
    finally:
        execute(
            f"ALTER TABLE {DATABASE}.{BOOKS} DELETE WHERE what = '{What.SETTLED}'"
            " SETTINGS mutations_sync = 2"
        )
    assert total() == 0


def test_time_without_books(store: Store) -> None:
    """That of several aggregators counts once; what is to come, and was before all, is none."""

    def without(from_s: int, to_s: int) -> int:
        (row,) = found(store, books.WITHOUT.sql, Looked(from_s, to_s))
        return int(row["Seconds without books"])

    begin, end = LONG_AGO_S - 300, LONG_AGO_S + 600
    assert without(begin, end) == 0
    assert without(begin + 20, end - 10) == 0  # the last page ends after it
    assert without(begin, end + 500) == 500
    assert without(begin - 9000, end + 500) == 500
    assert without(end + 100, end + 500) == 400
    written = NOW_S - 540
    assert without(written, NOW_S + 86_400) == pytest.approx(time.time() - written, abs=60)
    assert without(begin - 9000, begin - 5000) == 0


@pytest.fixture(scope="module")
def paged_store(store: Store) -> Iterator[Store]:
    """One that has pages only, of whichever test."""
    settings: StoreSettings = store._settings  # type: ignore[attr-defined]
    paged = open_store(replace(settings, database="paged"))
    paged.migrate()
    yield paged
    paged.close()


@pytest.mark.parametrize("paged", CASES.values(), ids=CASES.keys())
def test_time_without_books_of_several_clusters(paged_store: Store, paged: Paged) -> None:
    """That of the one that lacks most, as the questions have it."""
    execute: Any = paged_store._execute  # type: ignore[attr-defined]
    execute(f"TRUNCATE TABLE paged.{BOOKS}")
    keep_pages(paged_store, paged.minutes)
    span = TimeRange(*((T0 + 60 * each) * 1000 for each in paged.span))
    lacking: dict[str, int] = defaultdict(int)
    for each in carry_out(paged_store, completeness(span)).missing:
        lacking[each.cluster] += (each.to_ms - each.from_ms) // 1000
    look = Looked(span.from_ms // 1000, span.to_ms // 1000)
    shown = found(paged_store, books.WITHOUT.sql, look)
    assert shown == [{"Seconds without books": max(lacking.values(), default=0)}]
    assert bool(lacking) == bool(paged.without)


def test_nodes_of_one_name_in_two_clusters_are_two(paged_store: Store) -> None:
    """And what is held is so in both."""
    execute: Any = paged_store._execute  # type: ignore[attr-defined]
    execute(f"TRUNCATE TABLE paged.{BOOKS}")
    look = Looked(T0, T0 + 300, 300)

    def keep(cluster: str, end_s: int, held: int, lost: int, silent: int) -> None:
        entries = [
            BookEntry("collector", What.RECEIVED, 50), BookEntry("collector", What.HELD, held),
            BookEntry("exporter", What.RECEIVED, 40, node="n1"),
            BookEntry("exporter", What.LOST, lost, node="n1"),
            BookEntry("exporter", What.SILENT, silent, node="n1"),
        ]  # fmt: skip
        batch_id = BatchId(f"w-{cluster}", end_s)
        paged_store.keep(books_schema.Page(batch_id, 60, entries, cluster))

    def shown(asks: Written) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in found(paged_store, asks.sql, look)]

    def by_node() -> list[tuple[Any, ...]]:
        return [row[:4] for row in shown(books.BY_NODE)]

    def held() -> int:
        return int(shown(books.STAGES)[0][-1])

    keep("", T0 + 60, 5, 1, 10)  # of an older program
    keep("east", T0 + 120, 7, 2, 20)
    keep("east", T0 + 290, 6, 2, 20)
    assert by_node() == [("n1", 120, 5, 50)]
    assert [row[1:4] for row in shown(books.REASONS)] == [("n1", "lost", 5)]
    assert shown(books.HEARD) == shown(books.SILENT) == [(1,)]
    assert held() == 6
    keep("west", T0 + 240, 30, 3, 0)
    assert sorted(by_node()) == [
        ("n1", 40, 1, 10), ("n1 of east", 80, 4, 40), ("n1 of west", 40, 3, 0),
    ]  # fmt: skip
    assert [row[1:4] for row in shown(books.REASONS)] == [
        ("n1 of east", "lost", 4), ("n1 of west", "lost", 3), ("n1", "lost", 1),
    ]  # fmt: skip
    assert (shown(books.HEARD), shown(books.SILENT)) == ([(3,)], [(1,)])
    series = {title: asks for title, _, asks in books.series()}
    assert {row[1] for row in shown(series["Received by node"])} == {
        "n1", "n1 of east", "n1 of west",
    }  # fmt: skip
    assert held() == 36
    (collector,) = shown(books.STAGES)
    assert collector[:2] == ("collector", 200)
    span = TimeRange(T0 * 1000, (T0 + 300) * 1000)
    said = carry_out(paged_store, completeness(span)).missing
    lost = {(each.cluster, each.records) for each in said if each.reason == "lost"}
    assert lost == {("", 1), ("east", 4), ("west", 3)}


def test_a_filter_that_somebody_adds_to_the_records(store: Store) -> None:
    """As the data source writes it, after the query."""
    look = Looked(*SPANS["minutes"], EVERYTHING, ALL_VALUES)
    added = " settings additional_table_filters={'flows' : ' sourcePodName = \\'cart-0\\' '}"
    execute: Any = store._execute  # type: ignore[attr-defined]
    execute(f"USE {DATABASE}")
    ((some,),) = execute(look.sql(records_page.COUNT.sql) + added)
    (every,) = found(store, records_page.COUNT.sql, look)
    wanted = records_page.NEWEST.sql
    rows = [row for row in found(store, wanted, look) if row["sourcePodName"] == "cart-0"]
    assert 0 < int(some) == len(rows) < every["Flow records"]


def test_ranges_of_long_ago_are_of_whole_minutes(store: Store) -> None:
    """Of what is older than some hours, records may be gone: minutes have all of it."""
    from_s = NOW_S - 20 * 3600
    begin, end = from_s // 60 * 60, (from_s + 7000) // 60 * 60
    aligned = Looked(begin, end + 60, 60, EVERYTHING, ALL_VALUES)
    odd = Looked(begin + 7, end + 7, 60, EVERYTHING, ALL_VALUES)
    asks = Totals((Column("Bytes", "octets"),), Records())
    assert found(store, asks.sql, odd) == found(store, asks.sql, aligned)
    assert found(store, asks.sql, odd)[0]["Bytes"] > 0


@pytest.mark.parametrize("choice", CHOICES.values(), ids=lambda choice: choice.variable)
def test_what_variables_offer(store: Store, choice: Choice) -> None:
    """All that can be chosen, and each chooses something."""
    look = Looked(NOW_S - 30 * 3600, NOW_S, values=EVERYTHING, all_values=ALL_VALUES)
    offered = [row["value"] for row in found(store, variables.listing(choice), look)]
    assert len(set(offered)) == len(offered) > 1 or choice.variable == "service"
    if choice.without:
        assert offered[0] == NOTHING
        assert {"kube-system", "shop", "bank"} < set(offered)
        return
    asks = Totals((Column("Records", "records"),), Records(choices=(choice,)))
    for value in offered[:4]:
        one = Looked(look.from_s, look.to_s, values={choice.variable: [value]})
        assert found(store, asks.sql, one)[0]["Records"] > 0


def test_variables_offer_what_began_a_moment_ago(store: Store) -> None:
    """Hours have it only when they are over."""
    row = {
        **connections(1, 3, NOW_S - 1400, NOW_S - 1000)[0],
        "flowEndSeconds": NOW_S - 1000, "sourcePodNamespace": "fresh", "sourcePodName": "new-0",
    }  # fmt: skip
    broken = row | {"sourcePodNamespace": "two\nlines"}
    batch = StoredBatch(BatchId("again", NOW_S, 0), 2, NOW_S - 1000, NOW_S - 1000)

    async def roll() -> None:
        roller = Roller(store, "again")
        await roller.look()
        roller.begin(batch)
        store.insert(records(row, broken, fields=STORED), batch.batch_id)
        roller.stored()
        await roller.look()

    asyncio.run(roll())
    look = Looked(NOW_S - 1800, NOW_S, values=EVERYTHING, all_values=ALL_VALUES)
    hours = f"SELECT count() AS n FROM {HOURS.name} WHERE sourcePodNamespace = 'fresh'"
    assert found(store, hours, look) == [{"n": 0}]
    for variable in ("namespace", "exclude"):
        offered = found(store, variables.listing(CHOICES[variable]), look)
        assert {"value": "fresh"} in offered
        assert not any("lines" in row["value"] for row in offered)  # it would end a comment
