"""Questions over HTTP, to an embedded store; what runs, waits and is given up."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector

from clickhouse.conftest import FOREVER
from clickhouse.rolled import insert_rolled
from flowvis.aggregator.api.answers import encoded
from flowvis.aggregator.api.application import Application
from flowvis.aggregator.api.caller import LOCAL, Caller
from flowvis.aggregator.api.listeners import ControlSocket
from flowvis.aggregator.api.paths import flows, graph, query
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.stored_values import StoredValues
from flowvis.aggregator.api.visibility import Visibility
from flowvis.clickhouse.query import Piece, Query, QueryLimits
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.statement import COMPOSED_LENGTH
from flowvis.clickhouse.store import QuerySettings, Store, StoreSettings, open_store
from flowvis.errors import StoreError
from flowvis.fields import FIELDS
from flowvis.questions import groups
from flowvis.questions.kept_books import Uncommitted
from flowvis.questions.planner import RECORDS_ONLY, Span, Stored
from waiting import PATIENCE_S, until

from .records import records

NOW_S = 1_790_000_000
BOOKS = [
    BookEntry("clickhouse", What.DROPPED, 3, "queue-full"),
    BookEntry("exporter", What.SILENT, 70, node="node-7"),
    BookEntry("correlator", What.HELD, 11),
]
STORED = [field for field in FIELDS if field.stored]

Ask = Callable[..., Any]


def uncommitted() -> Uncommitted:
    return Uncommitted(NOW_S - 900, NOW_S, BOOKS)


class Who:
    """A door through which one caller comes."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def caller(self, _: Any) -> Caller:
        return self._caller


@contextlib.asynccontextmanager
async def asked(
    path: Path,
    prepare: Callable[[str], Query],
    *,
    answers: Answers | None = None,
    caller: Caller = LOCAL,
    stored: Stored = RECORDS_ONLY,
) -> AsyncIterator[Ask]:
    """Serve questions; `ask` returns status and answer."""
    running = answers or Answers(lambda: 2)
    questions = Questions(running, prepare, lambda: NOW_S * 1000, uncommitted, lambda: stored)
    routes = [
        *query.routes(questions), *graph.routes(questions), *flows.routes(questions),
    ]  # fmt: skip
    socket = path / "control.sock"
    api = ControlSocket(socket, Application(routes, Who(caller)), running.close)
    await api.start()
    session = ClientSession(connector=UnixConnector(str(socket)))

    async def ask(what: str, **parameters: str) -> tuple[int, Any]:
        given = {"from" if name == "since" else name: text for name, text in parameters.items()}
        async with session.get(f"http://x/api/v1/{what}", params=given) as answer:
            return answer.status, await answer.json()

    try:
        yield ask
    finally:
        await session.close()
        await api.stop()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Six records, two of each of three namespaces' Pods."""
    path = tmp_path_factory.mktemp("questions") / "store"
    limits = QueryLimits(rows_read=50)
    store = open_store(
        StoreSettings(f"embedded://{path}", **FOREVER, queries=QuerySettings(limits=limits))
    )
    store.migrate()
    rows = [
        {
            "flowStartSeconds": NOW_S - 100,
            "flowEndSeconds": NOW_S - number - 1,
            "octetDeltaCount": 10**number,
            "sourcePodNamespace": f"team-{number % 3}",
            "sourcePodName": f"pod-{number % 3}",
        }
        for number in range(6)
    ]
    insert_rolled(store, records(*rows, fields=STORED), BatchId("test", NOW_S))
    yield store
    store.close()


def of(store: Store) -> Callable[[str], Query]:
    return lambda sql: store.ask(sql, max_rows=1000, max_length=COMPOSED_LENGTH)


async def test_an_answer_says_what_it_is_worth(store: Store, tmp_path: Path) -> None:
    async with asked(tmp_path, of(store)) as ask:
        status, found = await ask("query", by="src.namespace", measure="octets,records")
        assert status == 200
        assert found["rows"] == [
            ["team-2", 100_100, 2], ["team-1", 10_010, 2], ["team-0", 1001, 2],
        ]  # fmt: skip
        answer = found["answer"]
        assert (answer["from"], answer["to"]) == (NOW_S * 1000 - 900_000, NOW_S * 1000)
        assert answer["table"] == "flows"
        assert answer["rowsRead"] == 6
        assert answer["bytesRead"] > 0
        assert 0 < answer["seconds"] < PATIENCE_S
        assert not answer["complete"]
        assert [(m["stage"], m["node"]) for m in answer["missing"]] == [
            ("clickhouse", None), ("exporter", "node-7"),
        ]  # fmt: skip
        assert answer["notes"] == ["11 records are on their way to the store"]
        for what in ("graph", "flows"):
            status, found = await ask(what)
            assert (status, found["answer"]["complete"]) == (200, False)


async def test_an_answer_says_which_tables_it_is_of(store: Store, tmp_path: Path) -> None:
    """And what keeps it from those that are kept for longer."""
    rolled = Span(NOW_S + 60, NOW_S - 86_400)
    stored = Stored(NOW_S, NOW_S - 300, {"flow_minutes": rolled, "flow_hours": rolled})
    asking = {"measure": "records", "since": str((NOW_S - 3599) * 1000)}
    async with asked(tmp_path, of(store), stored=stored) as ask:
        _, found = await ask("query", by="src.namespace", **asking)
        assert found["total"] == [6]
        answer = found["answer"]
        assert answer["table"] == "flow_minutes, flows"  # of less than an hour
        assert "expired" not in [missing["reason"] for missing in answer["missing"]]
        assert any("whole minutes" in note for note in answer["notes"])
        for parameters, lacking in (
            ({"by": "src.port"}, "sourceTransportPort"),
            ({"filter": "src.label.app = web"}, "sourcePodLabels"),
            ({"measure": "live"}, "live"),
            ({"interval": "30s"}, "intervals of 30s"),
        ):
            _, found = await ask("query", **(asking | parameters))
            (expired,) = [m for m in found["answer"]["missing"] if m["reason"] == "expired"]
            assert expired["to"] == (NOW_S - 300) * 1000
            assert expired["text"].startswith("records are kept for 5m (clickHouse.ttl); flow_")
            assert expired["text"].endswith(f"have no {lacking}")
            assert found["answer"]["table"] == "flows"
        _, page = await ask("flows", since=asking["since"])
        (expired,) = [m for m in page["answer"]["missing"] if m["reason"] == "expired"]
        assert expired["text"].endswith("have no single records")


async def test_who_sees_one_namespace_gets_its_records_and_no_names_of_nodes(
    store: Store, tmp_path: Path
) -> None:
    mine = Caller("mine", Visibility.of(["team-1"]))
    async with asked(tmp_path, of(store), caller=mine) as ask:
        for text in ("", "src.namespace = team-2 or src.namespace = team-1", "not ip = 1.2.3.4"):
            _, found = await ask("query", by="src.namespace", filter=text, compare="-1d")
            assert [row[0] for row in found["rows"]] == ["team-1"]
            assert found["total"] == [10_010]
            assert "node-7" not in json.dumps(found)
        _, page = await ask("flows", columns="sourcePodNamespace", limit="1")
        _, more = await ask("flows", columns="sourcePodNamespace", limit="9", cursor=page["cursor"])
        assert page["rows"] + more["rows"] == [["team-1"], ["team-1"]]
        _, drawn = await ask("graph", source="src.namespace", target="dst.namespace")
        assert [node["names"] for node in drawn["nodes"] if node["names"]] == [["team-1"]]


async def test_namespaces_of_other_clusters_are_others(store: Store, tmp_path: Path) -> None:
    then_s = NOW_S - 40 * 86_400  # where no other test looks
    rows = [
        {
            "flowEndSeconds": then_s - 1 - number,
            "octetDeltaCount": 7 << 8 * number,
            "sourcePodNamespace": namespace,
            "sourcePodName": f"of-{cluster}",
            "destinationPodNamespace": "dns",
            "clusterId": cluster,
        }
        for number, (cluster, namespace) in enumerate(
            [("east", "shop"), ("west", "shop"), ("", "shop"), ("east", "back")]
        )
    ]
    insert_rolled(store, records(*rows, fields=STORED), BatchId("clusters", then_s))
    span = {"since": str((then_s - 600) * 1000), "to": str(then_s * 1000)}
    here = Caller("sam", Visibility.of(["shop"], "east"))
    anywhere = Caller("sam", Visibility.of(["shop"]))
    for who, octets, names in (
        (here, 7, {"shop/of-east"}),
        (anywhere, 0x70707, {"shop/of-east", "shop/of-west", "shop/of-"}),
    ):
        async with asked(tmp_path, of(store), caller=who) as ask:
            for text in ("", "cluster = west or src.namespace = shop", "not cluster = mars"):
                _, found = await ask("query", filter=text, **span)
                assert found["total"] == [octets], text
            _, page = await ask("flows", columns="sourcePodName", **span)
            assert len(page["rows"]) == len(names)
            _, drawn = await ask("graph", source="src.pod", **span)
            assert {node["names"][0] for node in drawn["nodes"] if node["kind"] == "pod"} == names
        values = StoredValues(Answers(lambda: 2), of(store), lambda: then_s * 1000, PATIENCE_S)
        assert set(await values.of("src.pod", who)) == names
        await values.close()


async def test_what_is_wrong_is_said(store: Store, tmp_path: Path) -> None:
    async with asked(tmp_path, of(store)) as ask:
        for what, parameters, code, suggestion in (
            ("query", {"since": "soon"}, "bad-range", None),
            ("query", {"by": "src.pd"}, "bad-query", "src.pod"),
            ("query", {"filter": "src.pd = x"}, "bad-filter", "src.pod"),
            ("graph", {"source": "nodes"}, "bad-query", None),
            ("flows", {"cursor": "zz"}, "bad-query", None),
        ):
            status, found = await ask(what, **parameters)
            assert (status, found["error"]["code"]) == (400, code)
            assert found["error"].get("suggestion") == suggestion or suggestion is None
        assert (await ask("query", colour="red"))[0] == 400


async def test_a_filter_of_which_no_statement_can_be_made_is_refused(
    store: Store, tmp_path: Path
) -> None:
    """A filter has bounds of its own, within which its SQL may still be too long."""
    text = f"workload in ({','.join(f'a{n}/b' for n in range(900))})"
    async with asked(tmp_path, of(store)) as ask:
        for what in ("query", "graph", "flows"):
            status, found = await ask(what, filter=text)
            assert (status, found["error"]["code"]) == (422, "too-costly")
            assert "fewer conditions or values" in found["error"]["message"]
        assert (await ask("query", filter=text[:1000].rpartition(",")[0] + ")"))[0] == 200


async def test_groups_of_which_no_statement_can_be_made_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "MAX_KEYS", 2)
    async with asked(tmp_path, of(store)) as ask:
        asking = {"by": "src.pod", "interval": "60s"}
        assert (await ask("query", limit="2", **asking))[0] == 200
        status, found = await ask("query", **asking)
        assert (status, found["error"]["code"]) == (422, "too-costly")
        assert "a lower limit" in found["error"]["message"]


async def test_what_costs_too_much_is_refused(store: Store, tmp_path: Path) -> None:
    for second in range(60):
        row = {"flowEndSeconds": NOW_S - 200_000 - second, "flowStartSeconds": NOW_S - 200_100}
        store.insert(records(row, fields=STORED), BatchId("more", NOW_S - 200_000, second))
    async with asked(tmp_path, of(store)) as ask:
        status, found = await ask("query", since="-3d")
        assert (status, found["error"]["code"]) == (422, "too-costly")
        assert "a shorter range" in found["error"]["message"]
        assert (await ask("query"))[0] == 200


class Held(Query):
    """A query that stays in the engine until it is let go, or cancelled."""

    def __init__(self, sql: str) -> None:
        super().__init__(sql, QueryLimits(), 10)
        self.begun = threading.Event()
        self.go = threading.Event()

    def _found(self) -> Iterator[Piece]:
        self.begun.set()
        self.go.wait(PATIENCE_S)
        yield (
            [b"[0, 0, 1]"] if "sum" in self.statement and "flow_books" not in self.statement else []
        )

    def _cancel(self) -> None:
        self.go.set()


class Engine:
    """Prepares queries that a test lets go."""

    def __init__(self) -> None:
        self.queries: list[Held] = []

    def __call__(self, sql: str) -> Query:
        self.queries.append(Held(sql))
        return self.queries[-1]

    def let_go(self) -> None:
        for held in list(self.queries):
            held.go.set()


async def test_questions_wait_for_each_other_in_their_order(tmp_path: Path) -> None:
    engine, answers = Engine(), Answers(lambda: 1)
    async with asked(tmp_path, engine, answers=answers) as ask:
        asking = [
            asyncio.ensure_future(ask("query", measure=name)) for name in ("octets", "packets")
        ]
        await until(lambda: engine.queries and answers.places.waiting)
        assert len(engine.queries) == 1

        def settled() -> bool:
            engine.let_go()
            return all(each.done() for each in asking)

        await until(settled)
        assert [(await each)[0] for each in asking] == [200, 200]
        first = [held.statement for held in engine.queries if "DeltaCount" in held.statement]
        assert len(first) == 2
        await until(lambda: answers.places.taken == 0)


async def test_who_leaves_ends_its_question_or_gives_its_place_up(tmp_path: Path) -> None:
    engine, answers = Engine(), Answers(lambda: 1)
    async with asked(tmp_path, engine, answers=answers) as ask:
        runs = asyncio.ensure_future(ask("query"))
        await until(lambda: [each for each in engine.queries if each.begun.is_set()])
        waits = [asyncio.ensure_future(ask("query")) for _ in range(3)]
        await until(lambda: answers.places.waiting == 3)
        waits[0].cancel()
        await until(lambda: answers.places.waiting == 2)
        runs.cancel()
        await until(engine.queries[0].cancelled.is_set)
        await until(lambda: len(engine.queries) == 2)
        for each in waits[1:]:
            each.cancel()
        await until(lambda: answers.places.taken == 0 and not answers.places.waiting)


async def test_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, answers = Engine(), Answers(lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr("flowvis.aggregator.api.places.MAX_WAITING", 1)
        async with asked(tmp_path, engine, answers=answers) as ask:
            asking = [asyncio.ensure_future(ask("query"))]
            await until(lambda: engine.queries)
            asking.append(asyncio.ensure_future(ask("query")))
            await until(lambda: answers.places.waiting)
            status, found = await ask("query")
            assert (status, found["error"]["code"]) == (429, "too-many")
            patch.setattr("flowvis.aggregator.api.places.MAX_WAITING", 4)
            patch.setattr("flowvis.aggregator.api.places.WAIT_S", 0.01)
            status, found = await ask("query")
            assert (status, found["error"]["code"]) == (429, "too-many")
            for each in asking:
                each.cancel()
            await until(lambda: answers.places.taken == 0)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreError("away", retryable=True), 503, "unavailable"),
        (StoreError("no such column", retryable=False, code=47), 500, "failed"),
        (StoreError("who asks only reads", retryable=True, code=164), 500, "failed"),
        (StoreError("memory limit", retryable=True, code=241), 422, "too-costly"),
    ],
)
async def test_a_store_that_does_not_answer(
    tmp_path: Path, error: StoreError, status: int, code: str
) -> None:
    def fail(_: str) -> Query:
        raise error

    async with asked(tmp_path, fail) as ask:
        found = await ask("query")
        assert (found[0], found[1]["error"]["code"]) == (status, code)
        assert ("the store cannot answer now: away" in found[1]["error"]["message"]) is (
            status == 503
        )
        # A place that a question had is free again.
        assert [(await ask("query"))[0] for _ in range(4)] == [status] * 4


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"a": [], "b": {}, "c": None, "d": {"e": [1], "f": {"g": []}}},
        {"rows": [[n, 'ü"\n', 0.5, None, [n]] for n in range(120)], "x": list(range(51))},
        {"more": {"rows": [[n] for n in range(100)]}},
        {"series": [[[n] * 300, [0.5] * 300] for n in range(7)], "none": [[]], "some": [[[]]]},
    ],
)
def test_a_long_answer_is_the_same_in_pieces(answer: dict[str, Any]) -> None:
    pieces = list(encoded(answer))
    assert json.loads(b"".join(pieces)) == answer
    assert max(map(len, pieces)) < 3000


async def test_an_answer_says_what_is_missing_of_what_it_compares_with(
    store: Store, tmp_path: Path
) -> None:
    """Else an hour without an aggregator looks like one without flows."""
    day_s = NOW_S - 40 * 86_400
    for end_s in (day_s, day_s + 85_500, day_s + 86_400):
        lost = BookEntry("clickhouse", What.DROPPED, end_s - day_s + 1, "queue-full")
        store.keep(Page(BatchId("w", end_s), 900, [BookEntry("collector", What.RECEIVED, 9), lost]))
    asking = {"since": str((day_s + 85_500) * 1000), "to": str((day_s + 86_400) * 1000)}
    async with asked(tmp_path, of(store)) as ask:
        for what in ("query", "graph"):
            for compare, expected in (
                ("", [(86_401, 85_500, 86_400)]),
                ("previous", [(86_401 + 85_501, 84_600, 86_400)]),
                ("-1d", [(86_401, 85_500, 86_400), (1, -900, 0)]),
            ):
                _, found = await ask(what, compare=compare, **asking)
                assert [
                    (each["records"], each["from"] // 1000 - day_s, each["to"] // 1000 - day_s)
                    for each in found["answer"]["missing"]
                ] == expected


async def test_of_clusters_that_a_question_is_not_about_nothing_is_said(
    store: Store, tmp_path: Path
) -> None:
    begin_s = NOW_S - 60 * 86_400
    for cluster, seconds, lost in (("east", 900, 4), ("west", 300, 5)):
        entries = [
            BookEntry("collector", What.RECEIVED, 9),
            BookEntry("exporter", What.LOST, lost, node="node-1"),
        ]
        batch_id = BatchId(f"w-{cluster}", begin_s + seconds)
        store.keep(Page(batch_id, seconds, entries, cluster))
    asking = {"since": str(begin_s * 1000), "to": str((begin_s + 900) * 1000)}
    east, west = ("east", "lost", 4), [("west", "no-books", None), ("west", "lost", 5)]
    sam = Caller("sam", Visibility.of(["shop"], "east"))
    for caller, chosen, expected in (
        (LOCAL, "", [west[0], east, west[1]]),
        (LOCAL, "cluster = east", [east]),
        (LOCAL, "dst.port = 443 and cluster in (west, north)", west),
        (LOCAL, "cluster = east or dst.port = 443", [west[0], east, west[1]]),
        (sam, "", [east]),
    ):
        async with asked(tmp_path, of(store), caller=caller) as ask:
            for what in ("query", "graph", "flows"):
                _, found = await ask(what, filter=chosen, **asking)
                missing = found["answer"]["missing"]
                assert [(m["cluster"], m["reason"], m["records"]) for m in missing] == expected
