"""Records as server-sent events: what comes, what was missed, and what nobody remembers."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from flowvis.aggregator.api.paths import stream
from waiting import until

from .opened import ADMIN, SHOP, Opened, opened
from .records import numbered, records


class Reader:
    """One reader's events."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.last = ""

    async def next(self) -> tuple[str, Any]:
        """Return the next event that has data."""
        name, data = "", ""
        while True:
            line = (await self._answer.content.readline()).decode()
            assert line, "the stream has ended"
            key, _, value = line.strip().partition(": ")
            if key == "id":
                self.last = value
            elif key == "event":
                name = value
            elif key == "data":
                data = value
            elif not key and data:
                return name, json.loads(data)

    async def mark(self) -> str:
        """Read up to the next id."""
        before, self.last = self.last, ""
        while not self.last:
            line = (await self._answer.content.readline()).decode()
            if line.startswith("id: "):
                self.last = line[4:].strip()
        return before


def following(it: Opened, query: str = "", token: str = ADMIN, last: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last} if last else {})
    return it.http.get(f"{it.url}/api/v1/stream?{query}", headers=headers)


def totals(rows: list[dict[str, Any]]) -> list[int]:
    return [row["octetTotalCount"] for row in rows]


async def test_what_comes(tmp_path: Path) -> None:
    async with opened(tmp_path) as it, following(it) as answer:
        assert answer.content_type == "text/event-stream"
        reader = Reader(answer)
        await until(lambda: it.history._followers)
        it.history.put(numbered(0, 3))
        name, rows = await reader.next()
        assert (name, totals(rows)) == ("flows", [0, 1, 2])
        assert rows[0]["sourceIP"] is not None
        found: list[int] = []
        for first in range(3, 303, 90):
            it.history.put(numbered(first, 90))
            found += totals((await reader.next())[1])
        assert found == list(range(3, 363))


async def test_what_was_missed(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        async with following(it) as answer:
            reader = Reader(answer)
            it.history.put(numbered(0, 2))
            await reader.next()
        await until(lambda: not it.history._followers)
        it.history.put(numbered(2, 3))
        async with following(it, last=reader.last) as answer:
            again = Reader(answer)
            assert totals((await again.next())[1]) == [2, 3, 4]
            it.history.put(numbered(5, 1))
            assert totals((await again.next())[1]) == [5]
            last = again.last
        await until(lambda: not it.history._followers)
        it.history.put(numbered(6, 150))
        async with following(it, last=last) as answer:
            third = Reader(answer)
            assert await third.next() == ("lost", {"lost": 50})
            found = [*totals((await third.next())[1])]
            assert found == list(range(56, 156))


async def test_ids_go_on_where_nothing_is_chosen(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        async with following(it, "filter=ip = 10.9.9.9", SHOP) as answer:
            reader = Reader(answer)
            await reader.mark()
            first = reader.last
        it.history.put(numbered(0, 5))
        async with following(it, "filter=ip = 10.9.9.9", SHOP, last=first) as answer:
            reader = Reader(answer)
            await reader.mark()
            assert int(reader.last.split("-")[1]) == int(first.split("-")[1]) + 5


@pytest.mark.parametrize("last", ["00000000-3", "x", "-", "00000000-99999999999999999999"])
async def test_ids_of_another_life(tmp_path: Path, last: str) -> None:
    async with opened(tmp_path) as it, following(it, last=last) as answer:
        reader = Reader(answer)
        assert await reader.next() == ("lost", {"lost": 1})
        assert len((await reader.next())[1]) == 7


async def test_a_slow_reader_is_told_what_it_missed(tmp_path: Path) -> None:
    async with opened(tmp_path) as it, following(it) as answer:
        reader = Reader(answer)
        await until(lambda: it.history._followers)
        for first in range(0, 300, 60):  # in one turn of the loop: nobody can read meanwhile
            it.history.put(numbered(first, 60))
        assert await reader.next() == ("lost", {"lost": 200})
        assert totals((await reader.next())[1]) == list(range(200, 240))
        assert reader.last.endswith(f"-{7 + 240}")


async def test_one_sees_what_one_may(tmp_path: Path) -> None:
    async with (
        opened(tmp_path) as it,
        following(it, "latest=100&filter=namespace = back or namespace is empty", SHOP) as answer,
    ):
        reader = Reader(answer)
        assert [row["sourceIP"] for row in (await reader.next())[1]] == ["10.0.0.1", "10.0.0.2"]
        assert await reader.next() == ("live", {"wholeSinceSeconds": None})
        for namespace in ("back", "shop"):
            it.history.put(records({"sourcePodNamespace": namespace, "destinationPodName": "x"}))
            it.history.put(records({"destinationPodNamespace": namespace, "sourcePodName": "y"}))
        for _ in range(2):
            (row,) = (await reader.next())[1]
            assert "shop" in {row["sourcePodNamespace"], row["destinationPodNamespace"]}


async def test_silence_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ALIVE_S", 0.01)
    async with opened(tmp_path) as it, following(it) as answer:
        reader = Reader(answer)
        for _ in range(3):
            await reader.mark()
        it.history.put(numbered(0, 1))
        assert totals((await reader.next())[1]) == [0]


async def test_silence_is_broken_where_nothing_that_comes_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ALIVE_S", 0.5)
    async with opened(tmp_path) as it, following(it, "filter=ip = 10.9.9.9") as answer:
        reader = Reader(answer)
        await reader.mark()
        begun = int(reader.last.split("-")[1])
        while int(reader.last.split("-")[1]) <= begun:  # what comes leaves no pause
            marked = asyncio.ensure_future(reader.mark())
            for number in range(1000):
                it.history.put(numbered(number, 1))
                await asyncio.sleep(0.01)
                if marked.done():
                    break
            assert marked.done(), "nothing was written"


async def test_streams_of_one_caller_are_few(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        open_ones = [await following(it, token=SHOP).__aenter__() for _ in range(8)]
        await until(lambda: len(it.history._followers) == 8)
        async with following(it, token=SHOP) as answer:
            assert answer.status == 429
        async with following(it, token=ADMIN) as answer:
            assert answer.status == 200
        assert await it.code("/flows?follow=1", SHOP) == "too-many"
        assert await it.code("/flows", SHOP) == "", "which follows nothing"
        for answer in open_ones:
            answer.close()


async def test_streams_end_with_the_aggregator(tmp_path: Path) -> None:
    async with opened(tmp_path) as it, following(it) as answer:
        await until(lambda: it.history._followers)
        it.history.close()
        assert (await answer.content.read()).startswith(b"retry: ")
