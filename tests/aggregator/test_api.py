import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.api import server
from flowvis.aggregator.api.server import NoStore
from flowvis.cli.client import ControlClient, Refused
from flowvis.clickhouse.store import Result
from flowvis.errors import SystemRefused
from waiting import until

from .records import numbered, records
from .served import served


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
            rows = await lines(client, query, "flowrecords")
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
        with pytest.raises(Refused, match="unknown condition 'colour'"):
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
        await asyncio.wait_for(following, 5)
    assert [row["octetTotalCount"] for row in seen] == [1, 2, 3, 4]
    assert not history._followers


async def test_a_slow_follower_is_reported_what_it_missed(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, history, client):
        stream = client.lines("flows", {"follow": "1"})
        first = asyncio.ensure_future(asyncio.to_thread(next, stream))
        await until(lambda: history._followers)
        for start in range(0, 30, 6):  # in one turn of the loop: nobody can read meanwhile
            history.put(numbered(start, 6))
        assert await asyncio.wait_for(first, 5) == {"lost": 20}
        await api.stop()
        rest = await asyncio.to_thread(list, stream)
        assert [row["octetTotalCount"] for row in rest] == list(range(20, 30))


async def test_queries(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, client):
        assert await ask(client.post, "sql", {"query": "SELECT"}) == {
            "columns": ["n", "s", "t"],
            "types": ["UInt64", "String", "DateTime"],
            "rows": [[1, "a", "2026-01-02 00:00:00+00:00"], [2**64 - 1, "b", None]],
            "truncated": False,
        }
        assert (await ask(client.post, "sql", {"query": "SELECT", "maxRows": 1}))["truncated"]
        for body, message in (
            ({"query": "SELECT broken"}, "no such table: broken"),
            ({"sql": "SELECT"}, 'a query is {"query"'),
            ({"query": "SELECT", "maxRows": 0}, "maxRows 0"),
            ({"query": "SELECT", "maxRows": "many"}, "maxRows 'many'"),
        ):
            with pytest.raises(Refused, match=message):
                await ask(client.post, "sql", body)


async def no_store(sql: str, max_rows: int) -> Result:
    raise NoStore("no store is configured")


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
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
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
