"""Filters that take long keep nobody waiting: neither exporters nor other readers."""

import gc
import random
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.api import asking, choosing
from flowvis.aggregator.api.choosing import chosen, conditioned, read
from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.paths import completion
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.values import KnownValues
from flowvis.batch import Batch
from flowvis.filters import parse
from flowvis.filters.mask import mask as real
from flowvis.filters.networks import NetworkNames, enforce, in_force
from flowvis.filters.spending import Spend
from flowvis.inventory.index import Inventory

from .opened import ADMIN, SHOP, SHOPS, opened
from .records import records

HOSTILE = (
    'src.label.app ~ "((a?){30}){30}x"',
    " or ".join(f'src.label.app ~ "(.*a.{{{n}}}){{3}}x"' for n in range(10, 40)),
    " or ".join(f'src.label.app ~ "[ab]*a[ab]{{{n}}}c"' for n in range(100, 150)),
)


def long_to_read() -> Iterator[str]:
    """Filters of patterns of which no two are the same: those seen before are in a cache."""
    for first in range(0, 1_000_000, 100):
        yield " or ".join(rf'pod ~ "(?i)(\pL?){{22}}{first + n}"' for n in range(100))


def with_labels(count: int) -> Batch:
    """Records of Pods with labels of which no two are the same."""
    letters = random.Random(9)
    return records(
        *(
            {
                "sourceIP": "10.0.0.1",
                "sourcePodNamespace": "shop",
                "sourcePodLabels": f'{{"app":"{"".join(letters.choices("ab", k=400))}"}}',
            }
            for _ in range(count)
        )
    )


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_filter_that_takes_too_long_is_ended(text: str) -> None:
    with pytest.raises(Problem, match="takes too long for 500 records") as found:
        await chosen(parse(text), with_labels(500))
    assert found.value.code == "too-costly"


async def test_what_people_ask_is_not_too_long() -> None:
    text = 'src.label.app ~ "^[ab]+$" and not pod ~ "kube|core" or src.label.app = *ab*'
    assert len(await chosen(parse(text), with_labels(500))) > 400


async def test_no_filter_of_a_reader_is_evaluated_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def mask(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(choosing, "mask", mask)
        async with opened(tmp_path) as it:
            for path in ("/api/v1/live", "/flows"):
                status, text = await it.ask(f"{path}?filter=pod+!~+x", SHOP)
                assert status == 200
                assert text.count("\n") == len(SHOPS)
            url = f"{it.url}/api/v1/stream?latest=9"
            headers = {"Authorization": f"Bearer {SHOP}"}
            async with it.http.get(url, headers=headers) as answer:
                await answer.content.readuntil(b"data: ")
    assert len(threads) >= 3
    assert threading.main_thread() not in threads


async def test_who_asks_too_much_is_told_so(tmp_path: Path) -> None:
    flows = with_labels(500)
    async with opened(tmp_path, live_flows=flows) as it:
        it.history.put(flows)
        for path in ("/api/v1/live", "/flows"):
            assert await it.code(path, SHOP, params={"filter": HOSTILE[0]}) == "too-costly"
        assert await it.ask("/healthz") == (200, "ok")


async def test_a_filter_that_takes_too_long_to_read_is_ended(tmp_path: Path) -> None:
    """To compile regular expressions is work as well."""
    texts = long_to_read()
    with pytest.raises(Problem, match="takes too long to be read"):
        await read(parse, next(texts))
    known = completion.routes(KnownValues(LatestRecords(10), Inventory()))
    async with opened(tmp_path, more=known) as it:
        for path, name in (
            ("flows", "filter"),
            ("api/v1/live", "filter"),
            ("api/v1/complete", "text"),
        ):
            found = await it.code(f"/{path}", ADMIN, params={name: next(texts)})
            assert found == "too-costly", path


async def test_a_collection_of_garbage_is_not_the_filter_s_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    callbacks = list(gc.callbacks)
    held: list[list[None]] = [[] for _ in range(1_000_000)]
    began_s = time.thread_time()
    gc.collect()
    monkeypatch.setattr(choosing, "LEAST_S", (time.thread_time() - began_s) / 4)

    def reading(_: str, spend: Spend) -> int:
        gc.collect()
        spend()
        return len(held)

    assert await read(reading, "") == len(held)
    assert gc.callbacks == callbacks


async def test_no_filter_is_read_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def reading(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return parse(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(asking, "parse", reading)
        async with opened(tmp_path) as it:
            for path in ("/api/v1/live", "/flows"):
                assert (await it.ask(f"{path}?filter=pod+!~+x", SHOP))[0] == 200
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.fixture
def many_names() -> Iterator[None]:
    """As many names of networks as there may be, about."""
    before = in_force()
    networks = (ip_network((0x0A000000 + (n << 8), 24)) for n in range(4000))
    enforce(NetworkNames((f"customer-{n}-{'ab' * 40}", [each]) for n, each in enumerate(networks)))
    yield
    enforce(before)


@pytest.mark.usefixtures("many_names")
async def test_a_filter_that_takes_too_long_for_names_of_networks_is_ended() -> None:
    text = " or ".join(f'network ~ "{n}([ab]?-?){{60}}$"' for n in range(100))
    with pytest.raises(Problem, match="takes too long for 4001 names of networks") as found:
        await conditioned(parse(text))
    assert found.value.code == "too-costly"
    both = await conditioned(parse("network ~ ^customer-7-"))
    assert both.parameters == {"p0": 8, "p1": 8}
