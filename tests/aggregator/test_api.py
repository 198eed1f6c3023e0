import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.api import listeners, places
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answers
from flowvis.cli.client import ControlClient, Refused
from flowvis.clickhouse.query import Piece, Query, QueryLimits
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import SystemRefused
from waiting import PATIENCE_S, until

from .records import numbered, records
from .served import query, served


async def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def lines(
    client: ControlClient, conditions: dict[str, str], what: str = "flows"
) -> list[Any]:
    return await asyncio.to_thread(lambda: list(client.lines(what, conditions)))


async def test_the_simple_views(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, client):
        assert await ask(client.get, "status") == {"version": "1"}
        assert await ask(client.get, "ledger") == {"balanced": True, "stages": []}
        with pytest.raises(Refused, match="Not Found"):
            await ask(client.get, "secrets")


async def test_the_socket_is_gone_when_it_has_stopped(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, _, client):
        assert api.path.exists()
    assert not api.path.exists()
    with pytest.raises(SystemRefused, match=r"no aggregator answers.*--socket"):
        await ask(client.get, "status")


async def test_live_flows(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, client):
        for query, expected in (
            ({}, ["10.0.0.1", "10.0.0.2"]),
            ({"ip": "10.0.0.2"}, ["10.0.0.2"]),
            ({"limit": "1"}, ["10.0.0.1"]),
            ({"limit": "0"}, []),
        ):
            rows = await lines(client, query, "api/v1/live")
            assert [row["sourceIP"] for row in rows] == expected


async def test_the_latest_flows(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, history, client):
        for first in range(0, 20, 4):
            history.put(numbered(first, 4))
        for limit, expected in (("3", [17, 18, 19]), ("100", list(range(10, 20))), ("0", [])):
            rows = await lines(client, {"limit": limit})
            assert [row["octetTotalCount"] for row in rows] == expected
        with pytest.raises(Refused, match="limit 'x'"):
            await lines(client, {"limit": "x"})
        with pytest.raises(Refused, match="unknown parameter 'colour'"):
            await lines(client, {"colour": "red"})


async def test_conditions_choose_before_the_limit(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, history, client):
        history.put(records({"sourcePodName": "a", "octetTotalCount": 1}))
        history.put(records(*({"sourcePodName": "b"} for _ in range(5))))
        assert [
            row["octetTotalCount"] for row in await lines(client, {"limit": "1", "pod": "a"})
        ] == [1]


async def test_following_goes_on_until_the_aggregator_stops(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, history, client):
        history.put(numbered(0, 2))
        seen: list[Any] = []

        def follow() -> None:
            seen.extend(client.lines("flows", {"follow": "1", "limit": "1"}))

        following = asyncio.ensure_future(asyncio.to_thread(follow))
        await until(lambda: history._followers)
        history.put(numbered(2, 3))
        await until(lambda: len(seen) == 4)
        await api.stop()
        await asyncio.wait_for(following, PATIENCE_S)
    assert [row["octetTotalCount"] for row in seen] == [1, 2, 3, 4]
    assert not history._followers


async def test_a_slow_follower_is_reported_what_it_missed(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, history, client):
        stream = client.lines("flows", {"follow": "1"})
        first = asyncio.ensure_future(asyncio.to_thread(next, stream))
        await until(lambda: history._followers)
        for start in range(0, 30, 6):  # in one turn of the loop: nobody can read meanwhile
            history.put(numbered(start, 6))
        assert await asyncio.wait_for(first, PATIENCE_S) == {"lost": 20}
        await api.stop()
        rest = await asyncio.to_thread(list, stream)
        assert [row["octetTotalCount"] for row in rest] == list(range(20, 30))


async def test_queries(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, client):
        assert await ask(client.post, "sql", {"query": "SELECT"}) == {
            "columns": ["n", "s", "t"],
            "types": ["UInt64", "String", "DateTime"],
            "rows": [[1, "a", "2026-01-02 00:00:00"], [2**64 - 1, "b", None]],
            "truncated": False,
        }
        assert (await ask(client.post, "sql", {"query": "SELECT", "maxRows": 1}))["truncated"]
        for body, message in (
            ({"query": "SELECT broken"}, "no such table: broken"),
            ({"query": "SELECT 1, broken"}, "broke off"),
            ({"query": "SELECT", "maxRows": True}, "maxRows True"),
            ({"sql": "SELECT"}, 'a query is {"query"'),
            ({"query": "SELECT", "maxRows": 0}, "maxRows 0"),
            ({"query": "SELECT", "maxRows": "many"}, "maxRows 'many'"),
        ):
            with pytest.raises(Refused, match=message) as refused:
                await ask(client.post, "sql", body)
            assert not refused.value.passing


async def test_a_query_of_a_store_that_is_away_may_be_asked_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, client):
        said = "the store cannot answer now: db:9000: Connection refused"
        with pytest.raises(Refused, match=said) as refused:
            await ask(client.post, "sql", {"query": "SELECT away"})
        assert refused.value.passing


def no_store(sql: str, max_rows: int) -> Query:
    raise Problem("no-store", "no store is configured")


async def test_without_a_store_a_query_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, query=no_store) as (_, _, client):
        with pytest.raises(Refused, match="no store is configured"):
            await ask(client.post, "sql", {"query": "SELECT 1"})


async def test_a_request_that_is_not_json_is_the_askers_fault(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, _, _):
        reader, writer = await asyncio.open_unix_connection(api.path)
        writer.write(b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{{{")
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        await writer.wait_closed()


async def test_idle_connections_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit the oldest ends, unless it has something under way."""
    monkeypatch.setattr(listeners, "MAX_LOCAL", 4)
    async with served(tmp_path) as (api, history, client):
        following = asyncio.create_task(lines(client, {"follow": "1"}))
        await until(lambda: history._followers)
        idle = [await asyncio.open_unix_connection(api.path) for _ in range(20)]
        assert await ask(client.get, "status") == {"version": "1"}
        for reader, _ in idle[:15]:
            assert await reader.read() == b""
        history.put(numbered(0, 2))
        history.close()
        assert len(await following) == 2
        for _, writer in idle:
            writer.close()


class Slow(Query):
    """A query of many rows that waits in the engine after the first ones, until it is cancelled."""

    def __init__(self, rows: int = 10) -> None:
        super().__init__("SELECT slow", QueryLimits(), 10_000_000)
        self.rows = rows
        self.waits = threading.Event()
        self.told = threading.Event()
        self.ended = threading.Event()

    def _found(self) -> Iterator[Piece]:
        try:
            self.names, self.types = ["a"], ["UInt8"]
            yield [b"[1]"] * self.rows
            self.waits.set()
            self.told.wait(PATIENCE_S)
        finally:
            self.ended.set()

    def _cancel(self) -> None:
        self.told.set()


async def test_a_reader_who_leaves_ends_the_query(tmp_path: Path) -> None:
    query, answers = Slow(), Answers(lambda: 2)
    async with served(tmp_path, query=lambda *_: query, answers=answers) as (api, _, _):
        body = b'{"query": "SELECT slow"}'
        _, writer = await asyncio.open_unix_connection(api.path)
        head = f"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await until(query.waits.is_set)
        assert not query.cancelled.is_set()
        writer.close()
        await until(query.ended.is_set)
        assert query.cancelled.is_set()
        await until(lambda: not answers.running)


async def test_no_more_queries_than_may_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait, though not for ever."""
    first = Slow()
    queries, answers = iter([first]), Answers(lambda: 1)
    async with served(
        tmp_path,
        query=lambda sql, rows: next(queries, query(sql, rows)),
        answers=answers,
    ) as (_, _, client):
        waiting = asyncio.ensure_future(ask(client.post, "sql", {"query": "SELECT slow"}))
        await until(first.waits.is_set)
        with monkeypatch.context() as patch:
            patch.setattr(places, "WAIT_S", 0.01)
            with pytest.raises(Refused, match=r"1 queries run, and none ended.*maxConcurrent"):
                await ask(client.post, "sql", {"query": "SELECT"})
        following = asyncio.ensure_future(ask(client.post, "sql", {"query": "SELECT"}))
        await until(lambda: answers.places.waiting == 1)
        first.told.set()
        assert (await waiting)["rows"] == [[1]] * 10
        assert (await following)["columns"] == ["n", "s", "t"]


async def test_an_aggregator_that_stops_does_not_wait_for_a_query(tmp_path: Path) -> None:
    query = Slow()
    async with served(tmp_path, query=lambda *_: query) as (api, _, client):
        waiting = asyncio.ensure_future(ask(client.post, "sql", {"query": "SELECT slow"}))
        await until(query.waits.is_set)
        await api.stop()
        await until(query.ended.is_set)
        with pytest.raises(Refused, match="cancelled"):
            await waiting


async def test_a_large_answer_delays_nobody(tmp_path: Path) -> None:
    """The loop goes on while an answer is made and sent; what a slow reader leaves is not made."""
    store = open_store(StoreSettings(f"embedded://{tmp_path}/store"))
    store.migrate()
    sql = "SELECT number, toString(number) AS text, now() FROM numbers(200000)"
    worked_s: list[float] = []

    async def beat() -> None:
        """Note for how long the loop's thread has worked: whoever else does is no affair of it."""
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(0.001)
            worked_s.append(time.thread_time() - began_s)

    def ask_store(sql: str, rows: int) -> Query:
        return store.ask(sql, max_rows=rows)

    async with served(tmp_path, query=ask_store) as (api, _, _):
        body = json.dumps({"query": sql, "maxRows": 200_000}).encode()
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--unix-socket", str(api.path), "--data-binary", "@-"),
            *("-o", str(tmp_path / "answer"), "http://x/sql"),
            stdin=asyncio.subprocess.PIPE,
        )
        beating = asyncio.ensure_future(beat())
        await curl.communicate(body)
        beating.cancel()
    store.close()
    answer = json.loads((tmp_path / "answer").read_bytes())
    assert len(answer["rows"]) == 200_000
    assert answer["rows"][-1][:2] == [199_999, "199999"]
    assert not answer["truncated"]
    assert len(worked_s) > 10
    assert max(worked_s) < 0.1
