"""Questions that roll-ups answer: the answers are those of the records, to the last octet."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from flowvis.addresses import parse_network
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.projections import DAY_S
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, ROLLUPS
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.statement import bind
from flowvis.clickhouse.store import Store, open_store
from flowvis.fields import FlowType
from flowvis.filters import EVERYTHING, Filter, parse
from flowvis.filters.networks import NetworkNames, enforce, in_force
from flowvis.filters.sql import condition
from flowvis.filters.vocabulary import dimensions
from flowvis.policies.objects import Snapshot
from flowvis.questions import graph, table
from flowvis.questions.graph import GraphQuestion
from flowvis.questions.measures import MEASURES
from flowvis.questions.planner import RECORDS_ONLY, Span, Stored
from flowvis.questions.policies import PoliciesQuestion
from flowvis.questions.statement import Plan, Statement
from flowvis.questions.table import TableQuestion

from .asking import carry_out
from .conftest import FOREVER, place
from .filtered import Wishes, records
from .rolled import insert_rolled

T = TypeVar("T")

pytestmark = pytest.mark.clickhouse

BEGIN_S = 1_790_000_000
END_S = BEGIN_S + 7200
"""Of the records' ends."""
DATABASE = "planned_questions"
STORED = Stored(END_S + 3600, rollups={each.name: Span(END_S + 3600) for each in ROLLUPS})


SIDES = (("source", FlowType.FROM_EXTERNAL), ("destination", FlowType.TO_EXTERNAL))


def _settle(batch: Batch) -> None:
    """Make random records say some things that records say."""
    for end, external in SIDES:  # what is external has no Pod and is no node
        outside = batch["flowType"] == external
        batch[f"{end}PodName"][outside] = batch[f"{end}NodeName"][outside] = 0
    batch["reversePacketDeltaCount"][::5] = batch["reversePacketTotalCount"][::5] = 0
    first = slice(None, None, 3)
    for way in ("packet", "reversePacket"):
        batch[f"{way}TotalCount"][first] = batch[f"{way}DeltaCount"][first]
    starts = batch["flowStartSeconds"][first].astype(np.uint64)
    batch["monitoringIntervalStartMilliSeconds"][first] = starts * np.uint64(1000)


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store of two batches, and what they were rolled up to."""
    request.param = "embedded"
    store = open_store(replace(place(request, DATABASE), **FOREVER))
    store.migrate()
    for number in range(2):
        batch = records(700, number)
        _settle(batch)
        insert_rolled(store, batch, BatchId("w", END_S, number))
    merge(store)
    yield store
    store.close()


def merge(store: Store) -> None:
    """Have projections made of what was rolled."""
    assert isinstance(store, EmbeddedStore)
    store.optimize()


@pytest.fixture(scope="module")
def days(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store of some days, one of which begins while there are records."""
    request.param = "embedded"
    store = open_store(replace(place(request, f"{DATABASE}_days"), **FOREVER))
    store.migrate()
    for number, moved_s in enumerate((-30 * 3600, 0, 9 * 3600, 71 * 3600)):
        batch = records(300, number)
        _settle(batch)
        for column, unit in (
            ("flowStartSeconds", 1), ("flowEndSeconds", 1),
            ("monitoringIntervalStartMilliSeconds", 1000),
        ):  # fmt: skip
            moved = batch[column].astype(np.int64) + moved_s * unit
            batch[column][:] = np.maximum(moved, 0).astype(batch[column].dtype)
        insert_rolled(store, batch, BatchId("w", END_S, number))
    merge(store)
    yield store
    store.close()


DAYS_STORED = Stored(END_S + 9 * DAY_S, rollups={e.name: Span(END_S + 8 * DAY_S) for e in ROLLUPS})
BY_DAY = "by day"


def _watched(plan: Plan[Any], tables: set[str]) -> Plan[Any]:
    """Return the same plan; which tables it reads is put into a set."""
    statement: Statement = next(plan)
    try:
        while True:
            tables |= set(statement.reading.tables)
            tables |= {BY_DAY for part in statement.reading.parts if part.by_day}
            statement = plan.send((yield statement))
    except StopIteration as done:
        return done.value


def both(
    store: Store,
    kind: type[TableQuestion] | type[GraphQuestion],
    parameters: dict[str, str],
    wish: Filter = EVERYTHING,
    stored: Stored = STORED,
) -> tuple[Any, Any, set[str]]:
    """Return the answer of records alone, that of roll-ups as well, and what that one read."""
    tables: set[str] = set()
    chosen, now_ms = condition(wish), stored.now_s * 1000
    alone = kind.parse(parameters, chosen, now_ms, RECORDS_ONLY)
    planned = kind.parse(parameters, chosen, now_ms, stored)
    return (
        carry_out(store, alone.plan()),
        carry_out(store, _watched(planned.plan(), tables)),
        tables,
    )


GROUPED = [name.name for name in dimensions()]
ROLLED = ["src.namespace", "src.workload", "dst.pod", "dst.kind", "service", "type", "proto"]
COUNTED = [measure.name for measure in MEASURES]
ADDING = [measure.name for measure in MEASURES if measure.additive]
FILTERS = (
    "namespace = shop",
    "workload ~ 'cart' or verdict = denied",
    "dst.port in (80, 443) and not proto = 6",
    "kind = Pod and not service is empty",
    "cart",
    "node is empty",
)


class Questions:
    """Makes questions at random: most of them roll-ups can answer."""

    def __init__(self, number: int) -> None:
        self.dice = random.Random(number)

    def mostly(self, usual: Sequence[T], others: Sequence[T]) -> T:
        """Choose one of the usual, in four cases of five."""
        return self.dice.choice(usual if self.dice.random() < 0.8 else others)

    def moment(self) -> int:
        """Choose a second; some are the first one of a minute, and some of an hour."""
        step_s = self.dice.choice((1, 60, 3600))
        return self.dice.randint(BEGIN_S - 3000, END_S + 3000) // step_s * step_s

    def range(self) -> dict[str, str]:
        """Choose from and to."""
        begin, end = sorted((self.moment(), self.moment()))
        return {"from": str(begin * 1000), "to": str((end + (begin == end)) * 1000)}

    def table(self) -> dict[str, str]:
        """Choose the parameters of a table."""
        names = {self.mostly(ROLLED, GROUPED) for _ in range(self.dice.randrange(3))}
        measures = {self.mostly(ADDING, COUNTED) for _ in range(self.dice.randint(1, 3))}
        return {
            **self.range(),
            "by": ",".join(sorted(names)),
            "measure": ",".join(sorted(measures)),
            "interval": self.dice.choice(("none", "none", "auto", "1m", "5m", "90s", "1h")),
            "compare": self.dice.choice(("", "", "previous", "-1h", "-7m")),
            "limit": self.dice.choice(("3", "50")),
        }

    def filter(self) -> Filter:
        """Choose what is asked about: anything at all, in one case of five."""
        wish = next(Wishes(self.dice.randrange(1 << 32)).filters(1))
        return self.mostly((EVERYTHING, *map(parse, FILTERS)), (wish,))

    def stored(self) -> Stored:
        """Choose up to where roll-ups are settled, each by itself."""
        settled = (END_S + 3600, END_S + 3600, self.moment())
        return replace(
            STORED, rollups={each.name: Span(self.dice.choice(settled)) for each in ROLLUPS}
        )


def test_tables_are_those_of_the_records(store: Store) -> None:
    reads: Counter[str] = Counter()
    for number in range(24):
        made = Questions(number)
        wish, stored = made.filter(), made.stored()
        alone, planned, read = both(store, TableQuestion, made.table(), wish, stored)
        reads.update(read)
        assert planned == alone, (number, read)
    # Else records were compared with themselves.
    assert reads["flow_minutes"] > 5, reads
    assert reads["flow_hours"] > 3, reads
    assert reads[TABLE] > 5, reads


@pytest.mark.parametrize("number", range(6))
def test_graphs_are_those_of_the_records(store: Store, number: int) -> None:
    made = Questions(number)
    ends = made.mostly(("namespace", "workload", "node"), ("pod", "ip"))
    parameters = {**made.range(), "source": f"src.{ends}", "target": f"dst.{ends}", "limit": "20"}
    alone, planned, _ = both(store, GraphQuestion, parameters, made.filter(), made.stored())
    assert planned == alone


@pytest.mark.parametrize(
    "text",
    [
        "type = to-external and dst.ip = 10.0.0.0/24",
        "type = to-external and dst.ip in (2001:db8::/48, 10.0.1.0/24)",
        "type = to-external and not dst.ip = 8000::/1",
        "src.pod is empty and src.node is empty and src.ip = 2001:db8::/48",
        "type = from-external and (src.ip = 10.0.0.0/8 or proto = 6)",
    ],
)
def test_networks_of_ends_outside_are_in_roll_ups(store: Store, text: str) -> None:
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str((END_S + 2800) * 1000)}
    parameters = {**span, "by": "proto,type", "measure": "records,octets,sources"}
    alone, planned, read = both(store, TableQuestion, parameters, parse(text))
    assert read == {"flow_hours"}
    assert planned == alone
    assert 0 < alone["total"][0] < 1400


@pytest.mark.parametrize(
    ("small", "rolled"), [("10.0.1.0/24", True), ("10.0.1.0/25", False), ("2001:db8::/49", False)]
)
def test_names_of_networks_are_those_of_the_records(store: Store, small: str, rolled: bool) -> None:
    """Roll-ups tell them where none is of a smaller network than they have."""
    given = [("office", "10.0.0.0/8"), ("lab", "2001:db8::/48"), ("hall", small)]
    before = in_force()
    enforce(NetworkNames((name, [parse_network(network)]) for name, network in given))
    try:
        parameters = Questions(1).range() | {"by": "src.network,dst.network", "measure": "records"}
        alone, planned, read = both(store, TableQuestion, parameters)
        chosen = both(store, TableQuestion, parameters, parse("network = office or lab"))
        graph = both(store, GraphQuestion, Questions(1).range())
    finally:
        enforce(before)
    assert planned == alone
    assert {"office", "hall"} <= {name for row in planned["rows"] for name in row[:2]}
    assert chosen[0] == chosen[1]
    assert graph[0] == graph[1]
    assert [bool(tables & {"flow_minutes"}) for tables in (read, chosen[2], graph[2])] == [
        rolled
    ] * 3


@pytest.mark.parametrize(
    ("kind", "parameters", "text", "projection"),
    [
        (GraphQuestion, {}, "", "pairs"),
        (GraphQuestion, {"source": "src.namespace", "target": "service"}, "", "pairs"),
        (TableQuestion, {"measure": "bothOctets,denied,records"}, "", "pairs"),
        (
            TableQuestion,
            {"by": "dst.workload,src.namespace", "interval": "1h"},
            "",
            "pairs",
        ),
        (TableQuestion, {"by": "type"}, "namespace = shop and service is empty", "pairs"),
        (TableQuestion, {"by": "src.policy,verdict"}, "verdict = denied", "policies"),
        (GraphQuestion, {"source": "src.pod"}, "", "flow_hours"),
        (TableQuestion, {"by": "dst.node", "measure": "sources"}, "", "flow_hours"),
    ],
)
def test_the_engine_takes_a_projection_where_it_has_all(
    store: Store,
    kind: type[TableQuestion] | type[GraphQuestion],
    parameters: dict[str, str],
    text: str,
    projection: str,
) -> None:
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str((END_S + 2800) * 1000)}
    question = kind.parse({**span, **parameters}, condition(parse(text)), END_S * 1000, STORED)
    statement = next(question.plan())
    assert statement.reading.tables == ("flow_hours",)
    plan = store.query(f"EXPLAIN {bind(statement.text, statement.parameters)}")
    (read,) = re.findall(r"ReadFromMergeTree \((?:\w+\.)?(\w+)\)", "\n".join(map(str, plan.rows)))
    assert read == projection
    alone, planned, _ = both(store, kind, {**span, **parameters}, parse(text))
    assert planned == alone


class QuestionsOfDays(Questions):
    """Makes questions of ranges that have whole days."""

    def moment(self) -> int:
        step_s = self.dice.choice((1, 3600, DAY_S))
        return self.dice.randint(BEGIN_S - 3 * DAY_S, END_S + 5 * DAY_S) // step_s * step_s

    def table(self) -> dict[str, str]:
        made = super().table()
        return made | {
            "interval": self.dice.choice(("none", "none", "auto", "6h", "1d", "2d")),
            "compare": self.dice.choice(("", "", "previous", "-1d", "-7h")),
        }


def test_tables_of_days_are_those_of_the_records(days: Store) -> None:
    reads: Counter[str] = Counter()
    for number in range(48):
        made = QuestionsOfDays(number)
        alone, planned, read = both(days, TableQuestion, made.table(), made.filter(), DAYS_STORED)
        reads.update(read)
        assert planned == alone, (number, read)
    assert reads[BY_DAY] > 5, reads


@pytest.mark.parametrize("number", range(4))
def test_graphs_of_days_are_those_of_the_records(days: Store, number: int) -> None:
    made = QuestionsOfDays(number)
    ends = made.mostly(("namespace", "workload", "service"), ("node", "pod"))
    parameters = {**made.range(), "source": f"src.{ends}", "target": "dst.workload"}
    if ends == "service":
        parameters["source"] = ends
    alone, planned, _ = both(days, GraphQuestion, parameters, made.filter(), DAYS_STORED)
    assert planned == alone


@pytest.mark.parametrize(
    ("parameters", "text", "read"),
    [
        ({"by": "src.workload,dst.workload"}, "", "pairs_by_day"),
        ({"by": "dst.workload", "interval": "1d"}, "service is empty", "pairs_by_day"),
        ({"by": "src.policy,verdict"}, "verdict = denied", "policies_by_day"),
        ({"by": "src.pod,dst.node"}, "", "by_day"),
        ({"by": "dst.port,protocol", "interval": "1d"}, "src.policy != deny-all", "by_day"),
        ({"by": "src.workload,dst.policy"}, "not dst.zone = b", "by_day"),
        ({"by": "dst.workload", "interval": "2d", "measure": "sources"}, "", "flow_hours"),
    ],
)
def test_the_engine_takes_what_is_by_day_for_whole_days(
    days: Store, parameters: dict[str, str], text: str, read: str
) -> None:
    begin_s = BEGIN_S // DAY_S * DAY_S
    span = {"from": str((begin_s - 2 * DAY_S) * 1000), "to": str((begin_s + 6 * DAY_S) * 1000)}
    asked = {**span, **parameters}
    question = TableQuestion.parse(asked, condition(parse(text)), END_S * 1000, DAYS_STORED)
    statement = next(question.plan())
    plan = days.query(f"EXPLAIN {bind(statement.text, statement.parameters)}")
    found = re.findall(r"ReadFromMergeTree \((?:\w+\.)?(\w+)\)", "\n".join(map(str, plan.rows)))
    assert found == [read]
    alone, planned, _ = both(days, TableQuestion, asked, parse(text), DAYS_STORED)
    assert planned == alone
    assert sum(row[-1] for row in alone["rows"])


def test_what_is_not_merged_yet_is_read_beside_projections(request: pytest.FixtureRequest) -> None:
    request.param = "embedded"
    store = open_store(replace(place(request, f"{DATABASE}_merged"), **FOREVER))
    store.migrate()
    for number in range(3):
        batch = records(400, number)
        _settle(batch)
        insert_rolled(store, batch, BatchId("w", END_S, number))
        if number == 1:
            merge(store)
    of = "active AND table = 'flow_hours' AND database = currentDatabase()"
    sql = f"SELECT countIf(projections != []), count() FROM system.parts WHERE {of}"
    assert store.query(sql).rows == [[1, 2]]
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str((END_S + 2800) * 1000)}
    for by in ("src.workload,dst.workload", "src.policy,verdict", "src.pod,dst.port", "src.node"):
        alone, planned, read = both(store, TableQuestion, {**span, "by": by})
        assert read == {"flow_hours"}
        assert planned == alone
        assert sum(row[-1] for row in alone["rows"])
    store.close()


def test_no_measure_is_nothing(store: Store) -> None:
    """Else equal numbers say little."""
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str((END_S + 2800) * 1000)}
    names = [measure.name for measure in MEASURES if measure.name != "live"]
    for some in (names[:8], names[8:]):
        alone, planned, read = both(store, TableQuestion, {**span, "measure": ",".join(some)})
        assert read == {"flow_hours"}
        assert planned == alone
        assert all(alone["total"]), alone


@pytest.mark.parametrize(
    ("measures", "end_s", "total_of"),
    [
        ("records,connections", END_S + 2800, {"flow_hours"}),
        ("records,connections", END_S - 7, {"flow_hours", "flow_minutes", TABLE}),
        ("records,octets", END_S + 2800, {"flow_hours"}),  # whose sums are beyond 64 bits
    ],
)
def test_the_total_of_what_only_records_tell_is_that_of_roll_ups(
    store: Store, monkeypatch: pytest.MonkeyPatch, measures: str, end_s: int, total_of: set[str]
) -> None:
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str(end_s * 1000)}
    parameters = {**span, "by": "dst.ip", "measure": measures, "limit": "4"}
    with monkeypatch.context() as patch:
        patch.setattr(table, "GROUPS", 4)
        alone, planned, read = both(store, TableQuestion, parameters)
    assert read == {TABLE, *total_of}
    assert planned == alone
    assert planned["other"]


@pytest.mark.parametrize("gone", [True, False])
def test_what_is_gone_of_the_groups_is_not_in_their_total(
    store: Store, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    since_s = BEGIN_S + 3000 if gone else 0
    stored = replace(STORED, records_since_s=since_s)
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str((END_S + 2800) * 1000)}
    parameters = {**span, "by": "dst.ip", "measure": "records", "limit": "4"}
    with monkeypatch.context() as patch:
        patch.setattr(table, "GROUPS", 4)
        _, planned, read = both(store, TableQuestion, parameters, stored=stored)
    assert read == ({TABLE} if gone else {TABLE, "flow_hours"})
    shown = sum(row[-1] for row in planned["rows"])
    assert planned["total"] == [shown + planned["other"][0]]


@pytest.mark.parametrize("interval", ["none", "10m"])
def test_what_is_left_of_a_range_is_all_that_counts(store: Store, interval: str) -> None:
    """Rates as well: over the time of which there is something, as if only that were asked for."""
    since_s, end = BEGIN_S + 3000, str((END_S + 2800) * 1000)
    stored = Stored(END_S + 3600, since_s)
    asking = {"to": end, "by": "dst.ip", "measure": "throughput,records", "interval": interval}
    _, planned, _ = both(
        store, TableQuestion, {"from": str(BEGIN_S * 1000), **asking}, stored=stored
    )
    left, _, _ = both(store, TableQuestion, {"from": str(since_s * 1000), **asking})
    for what in ("rows", "other", "total"):
        assert planned[what] == left[what]
    if interval != "none":
        assert planned["totalSeries"][0][-len(left["times"]) :] == left["totalSeries"][0]
    span = {"to": end, "source": "src.ip"}
    _, planned, _ = both(store, GraphQuestion, {"from": str(BEGIN_S * 1000), **span}, stored=stored)
    left, _, _ = both(store, GraphQuestion, {"from": str(since_s * 1000), **span})
    assert planned["edges"] == left["edges"]


@pytest.mark.parametrize("interval", ["none", "1h"])
def test_the_total_of_no_groups_is_nothing(store: Store, interval: str) -> None:
    """Not what the hour around has, where records would have to tell the groups and are gone."""
    stored = Stored(END_S + 3600, END_S + 3500, {HOURS.name: Span(END_S + 3600)})
    span = {"from": str((END_S + 2700) * 1000), "to": str((END_S + 3600) * 1000)}
    parameters = {**span, "by": "dst.ip", "measure": "records", "interval": interval}
    _, planned, _ = both(store, TableQuestion, parameters, stored=stored)
    assert (planned["rows"], planned["other"], planned["total"]) == ([], None, [0])


@pytest.mark.parametrize("gone", [True, False])
def test_what_is_gone_of_edges_is_not_among_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    stored = replace(STORED, records_since_s=BEGIN_S + 3000 if gone else 0)
    span = {"from": str((BEGIN_S - 800) * 1000), "to": str((END_S + 2800) * 1000)}
    parameters = {**span, "target": "dst.ip"}
    _, every, _ = both(store, GraphQuestion, parameters, stored=stored)
    with monkeypatch.context() as patch:
        patch.setattr(graph, "FETCHED", 4)
        _, few, read = both(store, GraphQuestion, parameters, stored=stored)
    assert read == ({TABLE} if gone else {TABLE, "flow_hours"})
    edges = [
        [*found["edges"], *(found["others"] or {"edges": []})["edges"]] for found in (few, every)
    ]
    assert len(edges[0]) < len(edges[1])
    few_add_up, all_add_up = (sum(edge["connections"] for edge in each) for each in edges)
    assert few_add_up == all_add_up


def test_policies_are_those_of_the_records(store: Store) -> None:
    """But for when a rule decided last, which roll-ups have the minute or hour of."""
    span = {"from": str((BEGIN_S + 7) * 1000), "to": str((END_S - 7) * 1000)}
    answers, read = [], set[str]()
    for stored in (RECORDS_ONLY, STORED):
        chosen, known = condition(EVERYTHING), Snapshot([])
        question = PoliciesQuestion.parse(span, chosen, END_S, known, {}, stored=stored)
        answers.append(carry_out(store, _watched(question.plan(), read)))
    alone, planned = answers
    assert {"flow_hours", "flow_minutes", TABLE} == read
    for policy, rolled in zip(alone["policies"], planned["policies"], strict=True):
        for rule, same in zip(policy["rules"], rolled["rules"], strict=True):
            assert rule.pop("last") - 3_600_000 < same.pop("last")
    assert planned == alone
    assert sum(rule["connections"] for p in alone["policies"] for rule in p["rules"])


def test_what_records_are_gone_of_is_answered_by_whole_minutes(store: Store) -> None:
    """The range begins with the minute that it begins in, and rates are over all that is read."""
    stored = replace(STORED, records_since_s=END_S + 60)
    dice = random.Random(3)
    rates = "throughput,reverseThroughput,records"
    asked: list[tuple[type[TableQuestion | GraphQuestion], dict[str, str]]] = [
        (TableQuestion, {"measure": "records,octets", "by": "src.namespace"}),
        (TableQuestion, {"measure": rates, "by": "src.namespace"}),
        (TableQuestion, {"measure": rates, "by": "src.namespace", "interval": "10m"}),
        (GraphQuestion, {"source": "src.namespace", "target": "dst.namespace"}),
    ]
    for kind, parameters in asked:
        begin, end = sorted(dice.randrange(BEGIN_S - 60, END_S + 60) for _ in range(2))
        given = {**parameters, "from": str(begin * 1000), "to": str((end + 1) * 1000)}
        _, planned, read = both(store, kind, given, stored=stored)
        assert TABLE not in read
        step_s = MINUTES.step_s
        whole = {"from": begin // step_s * step_s, "to": -(-(end + 1) // step_s) * step_s}
        written = {name: str(moment * 1000) for name, moment in whole.items()}
        alone, _, _ = both(store, kind, {**parameters, **written})
        assert planned == alone


@pytest.mark.parametrize("interval", ["auto", "5m", "10s", "90s"])
@pytest.mark.parametrize("earlier_s", [3600, 3601, 3659])
def test_what_a_range_is_compared_with_is_there_though_its_records_are_gone(
    store: Store, earlier_s: int, interval: str
) -> None:
    """Of so long ago there are minutes, so that is what intervals are made of."""
    begin, end = BEGIN_S + 4507, BEGIN_S + 6311
    stored = replace(STORED, records_since_s=BEGIN_S + 3600)
    parameters = {
        "from": str(begin * 1000), "to": str(end * 1000), "compare": f"-{earlier_s}s",
        "by": "src.namespace", "measure": "records,throughput", "interval": interval,
    }  # fmt: skip
    _, planned, read = both(store, TableQuestion, parameters, stored=stored)
    assert "flow_minutes" in read
    step_s = MINUTES.step_s
    whole = {
        "from": (begin - earlier_s) // step_s * step_s,
        "to": -(-(end - earlier_s) // step_s) * step_s,
    }
    written = {name: str(moment * 1000) for name, moment in whole.items()}
    then, _, _ = both(store, TableQuestion, {**written, "measure": "records,throughput"})
    compared = planned["compared"]
    assert compared["total"] == then["total"]
    assert compared["total"][0] > 0
    if interval in {"10s", "90s"}:  # which minutes do not tell
        assert {compared[each] for each in ("times", "totalSeries", "otherSeries")} == {None}
        assert sum(planned["totalSeries"][0]) == planned["total"][0] > 0
        return
    counted, _ = compared["totalSeries"]
    assert sum(counted) == compared["total"][0]
    assert [each % (step_s * 1000) for each in compared["times"]] == [0] * len(counted)


@pytest.mark.parametrize(
    ("measure", "length_s", "step_s"),
    [("records", 1200, 60), ("records", 300, 5), ("sources", 1200, 10), ("sources", 72_000, 3600)],
)
def test_a_range_has_its_own_intervals_where_there_would_be_few(
    measure: str, length_s: int, step_s: int
) -> None:
    """Distinct ends of a week ago are known by the hour."""
    spans = {each.name: Span(END_S, END_S - 30 * DAY_S) for each in ROLLUPS}
    stored = Stored(END_S, END_S - 3 * DAY_S, spans)
    asked = {"from": f"-{length_s}s", "compare": "-7d", "measure": measure, "interval": "auto"}
    made = TableQuestion.parse(asked, condition(EVERYTHING), END_S * 1000, stored)
    assert made.intervals is not None
    assert made.intervals.step_s == step_s
