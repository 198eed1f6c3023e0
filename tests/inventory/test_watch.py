import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from flowvis.errors import ApiError, SettingsError
from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import NAMESPACES, NODES, PODS, POLICIES, SERVICES, Resource
from flowvis.inventory.sources import access as access_module
from flowvis.inventory.sources import api as api_module
from flowvis.inventory.sources import watch
from flowvis.inventory.sources.access import Access, InCluster
from flowvis.inventory.sources.watch import Sink, Watched, Watchers
from flowvis.lab.apiserver import ApiServer, service_account, status
from flowvis.runtime.backoff import Backoff
from flowvis.transport.certificates import Issued, issue_ca, issue_server
from inventory.kubernetes_objects import node, pod, service
from ports import free_port
from waiting import until

POLICY = POLICIES[0]


class Plain:
    """Access without TLS."""

    server_name = proxy = None

    def __init__(self, url: str, token: str = "") -> None:
        self.url, self.token = url, token

    def authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    def refused(self) -> None:
        pass

    def context(self) -> ssl.SSLContext | None:
        return None


class Names:
    """A sink that remembers names only."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.expired = 0
        self.latest_ms = 0

    def upsert(self, item: Mapping[str, Any], now_ms: int) -> None:
        self.items[item["metadata"]["name"]] = dict(item)
        self.latest_ms = now_ms

    def delete(self, item: Mapping[str, Any], now_ms: int) -> None:
        del self.items[item["metadata"]["name"]]
        self.latest_ms = now_ms

    def retain(
        self, group: str, kind: str, names: Collection[tuple[str, str]], now_ms: int
    ) -> None:
        for name, item in list(self.items.items()):
            of_kind = item["apiVersion"].startswith(group) and item["kind"] == kind
            if of_kind and ("", name) not in names:
                self.delete(item, now_ms)

    def expire(self, now_ms: int) -> None:
        self.expired += 1
        self.latest_ms = now_ms


def fast() -> Backoff:
    return Backoff(0.01, 0.05)


@asynccontextmanager
async def running(server: ApiServer) -> AsyncIterator[ApiServer]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def following(
    server: ApiServer,
    sink: Sink,
    *resources: Resource,
    access: Access | None = None,
    wait_s: float | None = 5.0,
    **watched: Any,
) -> AsyncIterator[Watchers]:
    chosen = access or Plain(server.url)
    watchers = Watchers(
        lambda: chosen,
        [Watched(resource, [sink], **watched) for resource in resources or (PODS,)],
        wait_s=wait_s,
        backoff=fast,
    )
    await watchers.start()
    try:
        yield watchers
    finally:
        await watchers.stop()


def pem(ca: Issued) -> bytes:
    return ca.certificate.public_bytes(serialization.Encoding.PEM)


def cut_off(server: ApiServer) -> None:
    for request in list(server._watching):
        assert request.transport is not None
        request.transport.abort()


def pod_names(inventory: Inventory) -> list[str]:
    return sorted(name for _, name in inventory.pods.names())


async def test_what_is_there_and_what_changes() -> None:
    inventory = Inventory()
    async with running(ApiServer()) as server:
        server.put(pod("a", "10.0.0.1"))
        server.put(node("node-1", "192.0.2.1"))
        server.put(service("web", ["10.96.0.1"], {"port": 80}))
        server.put({"kind": "Namespace", "metadata": {"name": "shop"}})
        async with following(server, inventory, PODS, SERVICES, NODES, NAMESPACES) as watchers:
            assert len(inventory) == 4
            assert watchers.not_synced() == watchers.problem() == ""
            server.put(pod("b", "10.0.0.2"))
            server.remove(pod("a"))
            server.put(service("web", ["10.96.0.2"], {"port": 80}))
            await until(lambda: pod_names(inventory) == ["b"])
            await until(lambda: watchers.stats.events == 3)
            await until(lambda: watchers.stats.watches == 4)
            assert watchers.stats.lists == 4
            assert inventory.services.objects[0].addresses[0].endswith(bytes([10, 96, 0, 2]))
        await until(lambda: server.watching == 0)


async def test_only_the_nodes_own_pods() -> None:
    inventory = Inventory()
    async with running(ApiServer()) as server:
        server.put(pod("here", "10.0.0.1", node="node-1"))
        server.put(pod("there", "10.0.1.1", node="node-2"))
        selector = {"fieldSelector": "spec.nodeName=node-1"}
        async with following(server, inventory, selector=selector, cached=True):
            assert pod_names(inventory) == ["here"]
            server.put(pod("elsewhere", "10.0.1.2", node="node-2"))
            server.put(pod("also-here", "10.0.0.2", node="node-1"))
            await until(lambda: pod_names(inventory) == ["also-here", "here"])
            assert server.requests[0].query["resourceVersion"] == "0"


async def test_lists_come_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PAGE", 10)
    inventory = Inventory()
    async with running(ApiServer()) as server:
        for i in range(35):
            server.put(pod(f"p{i}", f"10.0.0.{i}"))
        server.faults.expire_pages = 1
        async with following(server, inventory) as watchers:
            assert len(inventory) == 35
            assert watchers.stats.expired == 1
            assert watchers.stats.lists == 1
            pages = [r for r in server.requests if "continue" in r.query]
            assert len(pages) == 1 + 3


async def test_while_many_objects_are_taken_in_all_else_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy of a megabyte takes 0.4 s, and whoever may write one may write forty."""
    monkeypatch.setattr(watch, "SLICE_S", -1.0)
    turns, seen = 0, []

    class Slow(Names):
        def upsert(self, item: Mapping[str, Any], now_ms: int) -> None:
            super().upsert(item, now_ms)
            seen.append(turns)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    server, sink = ApiServer(), Slow()
    for number in range(20):
        server.put(pod(f"p{number}"))
    async with running(server):
        busy = asyncio.create_task(others())
        async with following(server, sink):
            assert len(set(seen)) == 20, "of one page of a list"
            for number in range(5):
                server.put(pod(f"q{number}"))
            await until(lambda: len(seen) == 25)
            assert len(set(seen)) == 25, "of events that came at once"
        busy.cancel()


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_module, "MAX_DOCUMENT_BYTES", 3000)
    inventory = Inventory()
    async with running(ApiServer()) as server:
        for i in range(40):
            server.put(pod(f"p{i}", f"10.0.0.{i}"))
        async with following(server, inventory):
            assert len(inventory) == 40


async def test_more_objects_than_any_cluster_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "MAX_OBJECTS", 3)
    async with running(ApiServer()) as server:
        for i in range(5):
            server.put(pod(f"p{i}", f"10.0.0.{i}"))
        async with following(server, Inventory(), wait_s=0.0) as watchers:
            await until(lambda: "more than 3 objects" in watchers.not_synced())


async def test_a_forgotten_version_means_a_new_list() -> None:
    inventory = Inventory()
    async with running(ApiServer(port=free_port())) as server:
        server.put(pod("a", "10.0.0.1"))
        server.put(pod("b", "10.0.0.2"))
        async with following(server, inventory) as watchers:
            await until(lambda: server.watching == 1)
            port = server.port
            await server.stop()
            server.remove(pod("a"))
            server.put(pod("c", "10.0.0.3"))
            server.forget()
            await server.start()
            assert server.port == port
            await until(lambda: pod_names(inventory) == ["b", "c"])
            assert watchers.stats.expired >= 1
            assert watchers.stats.lists == 2


@pytest.mark.parametrize("code", [410, 500])
async def test_an_error_within_the_stream(code: int) -> None:
    inventory = Inventory()
    async with running(ApiServer()) as server, following(server, inventory) as watchers:
        await until(lambda: server.watching == 1)
        server.break_off("Pod", code)
        server.put(pod("a", "10.0.0.1"))
        await until(lambda: pod_names(inventory) == ["a"])
        assert watchers.stats.failures == {str(code): 1}
        assert watchers.stats.lists == (2 if code == 410 else 1)


async def test_410_to_the_request_itself() -> None:
    def gone(request: web.Request) -> web.Response | None:
        return status(410, "too old") if "watch" in request.query and gone_for.pop() else None

    gone_for = [False] * 50 + [True, True]
    async with running(ApiServer()) as server:
        with server.failing(gone):
            async with following(server, Inventory()) as watchers:
                await until(lambda: server.watching == 1)
                assert watchers.stats.expired == 2
                assert watchers.stats.lists == 3


async def test_bookmarks_keep_a_quiet_watch_fresh() -> None:
    inventory = Inventory()
    async with (
        running(ApiServer(port=free_port())) as server,
        following(server, inventory) as watchers,
    ):
        await until(lambda: server.watching == 1)
        server.bookmark("Pod")
        await until(lambda: watchers.stats.bookmarks == 1)
        server.forgotten = server.version  # all before the bookmark is forgotten
        await server.stop()
        await server.start()
        await until(lambda: server.watching == 1)
        assert (watchers.stats.lists, watchers.stats.expired) == (1, 0)


async def test_an_expired_token_is_read_again(tmp_path: Path) -> None:
    ca = issue_ca("cluster")
    issue_server(ca, ["127.0.0.1"]).write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    account = service_account(tmp_path / "account", "first", pem(ca))
    inventory = Inventory()
    async with running(ApiServer(tokens={"first"}, tls=context, port=free_port())) as server:
        environment = {access_module.HOST: "127.0.0.1", access_module.PORT: str(server.port)}
        access = InCluster(environment, account)
        async with following(server, inventory, access=access) as watchers:
            server.tokens = {"second"}
            await server.stop()
            await server.start()
            await until(lambda: watchers.stats.failures.get("401", 0) > 1)
            assert "401 Unauthorized" in watchers.problem()
            (account / "token").write_text("second\n")
            server.put(pod("a", "10.0.0.1"))
            await until(lambda: pod_names(inventory) == ["a"])
            assert watchers.problem() == ""


async def test_a_server_that_is_not_the_clusters_is_not_believed(tmp_path: Path) -> None:
    issue_server(issue_ca("other"), ["127.0.0.1"]).write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    account = service_account(tmp_path / "account", "t", pem(issue_ca("cluster")))
    async with running(ApiServer(tls=context)) as server:
        environment = {access_module.HOST: "127.0.0.1", access_module.PORT: str(server.port)}
        access = InCluster(environment, account)
        async with following(server, Inventory(), access=access, wait_s=0.0) as watchers:
            said = "its certificate is not accepted: unable to get local"
            await until(lambda: said in watchers.not_synced())
    assert not server.requests


async def test_what_is_known_stays_while_the_server_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inventory = Inventory()
    with caplog.at_level(logging.INFO):
        async with running(ApiServer(port=free_port())) as server:
            server.put(pod("a", "10.0.0.1"))
            async with following(server, inventory, PODS, NODES) as watchers:
                for _ in range(2):
                    await server.stop()
                    await until(lambda: all(w.problem for w in watchers.watchers))
                    assert pod_names(inventory) == ["a"]
                    assert watchers.stale_s() > 0
                    assert re.match(r"stale for \d+ s: ", watchers.problem())
                    assert watchers.not_synced() == ""
                    await server.start()
                    await until(lambda: not watchers.problem())
                    assert watchers.stale_s() == 0
                assert watchers.stats.lists == 2  # watches go on where they were
                server.put(pod("b", "10.0.0.2"))
                await until(lambda: pod_names(inventory) == ["a", "b"])
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2
    assert all("what is known stays in use" in text for text in warnings)
    assert sum("watched again" in r.getMessage() for r in caplog.records) == 2


async def test_a_start_waits_for_the_first_lists() -> None:
    server = ApiServer(port=free_port())
    await server.start()
    await server.stop()
    inventory = Inventory()
    watchers = Watchers(lambda: Plain(server.url), [Watched(PODS, [inventory])], backoff=fast)
    assert watchers.not_synced() == "not started"
    starting = asyncio.create_task(watchers.start())
    await until(lambda: "pods: " in watchers.not_synced())
    assert not starting.done()
    server.put(pod("a", "10.0.0.1"))
    async with running(server):
        await starting
        assert pod_names(inventory) == ["a"]
        await watchers.stop()


async def test_a_start_that_may_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    server = ApiServer(port=free_port())
    await server.start()
    await server.stop()
    inventory = Inventory()
    async with following(server, inventory, wait_s=0.05):
        assert "started without all" in caplog.text
        server.put(pod("a", "10.0.0.1"))
        async with running(server):
            await until(lambda: pod_names(inventory) == ["a"])


async def test_a_start_that_is_cut_short_leaves_nothing() -> None:
    watchers = Watchers(lambda: Plain("http://127.0.0.1:9"), [Watched(PODS, [Inventory()])])
    starting = asyncio.create_task(watchers.start())
    await until(lambda: watchers.stats.failures)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert len(asyncio.all_tasks()) == 1


async def test_slow_streams_are_put_together() -> None:
    inventory = Inventory()
    async with running(ApiServer()) as server:
        server.faults.delay_s = 0.002
        async with following(server, inventory):
            for i in range(5):
                server.put(pod(f"p{i}", f"10.0.0.{i}"))
            await until(lambda: len(inventory) == 5)


async def test_silence_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api_module, "QUIET_S", 0.05)
    async with running(ApiServer()) as server, following(server, Inventory()) as watchers:
        await until(lambda: watchers.stats.silent >= 3)
        assert (watchers.stats.lists, watchers.problem()) == (1, "")
        assert not watchers.stats.failures
        assert not caplog.records
        with server.failing(lambda _: status(503, "no")):
            await until(lambda: "503 no" in watchers.problem())  # a busy machine is silent as well
    assert ": what is known stays in use" in caplog.text


def error_event(**failure: Any) -> web.Response:
    text = json.dumps({"type": "ERROR", "object": {"kind": "Status", **failure}}) + "\n"
    return web.Response(text=text, content_type="application/json")


def event(kind: str, item: Mapping[str, Any], version: str = "1") -> web.Response:
    about = {**item.get("metadata", {}), "resourceVersion": version}
    return web.Response(
        text=json.dumps({"type": kind, "object": {**item, "metadata": about}}) + "\n"
    )


def hung_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


NO_PROGRESS = {
    "error 500": lambda _: error_event(code=500, message="cannot decode"),
    "error 504": lambda _: error_event(code=504, message="etcd timed out"),
    "error without a code": lambda _: error_event(),
    "error of an odd code": lambda _: error_event(code=["x"], message={}),
    "http 500": lambda _: status(500, "no"),
    "http 503": lambda _: status(503, "no"),
    "http 504": lambda _: status(504, "no"),
    "http 429": lambda _: status(429, "later"),
    "http 403": lambda _: status(403, "may list but not watch"),
    "a redirect": lambda _: web.Response(status=302, headers={"Location": "/elsewhere"}),
    "an end at once": lambda _: web.Response(),
    "a bookmark of where we are": lambda request: event(
        "BOOKMARK", {"kind": "Pod"}, request.query["resourceVersion"]
    ),
    "an event of another kind": lambda _: event("ADDED", node("n", "192.0.2.1"), "900"),
    "another kind's bookmark": lambda _: event("BOOKMARK", {"kind": "Service"}, "900"),
    "a page for people": lambda _: web.Response(text="<html>\n<body>login</body>\n</html>\n"),
    "a list": lambda _: web.json_response({"kind": "PodList", "items": [], "metadata": {}}),
    "a connection that ends": hung_up,
}


@pytest.mark.parametrize("answer", NO_PROGRESS.values(), ids=NO_PROGRESS)
async def test_a_server_that_cannot_go_on_from_a_version_is_asked_for_a_list(
    answer: Callable[[web.Request], web.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SHORT_S", 0.1)
    inventory = Inventory()
    async with running(ApiServer()) as server:
        server.put(pod("a", "10.0.0.1"))
        async with following(server, inventory) as watchers:
            await until(lambda: server.watching == 1)
            stuck = server.version

            def fault(request: web.Request) -> web.Response | None:
                bad = "watch" in request.query and int(request.query["resourceVersion"]) <= stuck
                return answer(request) if bad else None

            with server.failing(fault):
                cut_off(server)
                server.put(pod("b", "10.0.0.2"))
                await until(lambda: pod_names(inventory) == ["a", "b"])
                await until(lambda: not watchers.problem())
                assert watchers.stats.lists == 2
                assert 1 <= sum(watchers.stats.failures.values()) <= watch.FAILED_WATCHES + 1


@pytest.mark.parametrize("answer", NO_PROGRESS.values(), ids=NO_PROGRESS)
async def test_what_is_known_is_as_old_as_the_last_list(
    answer: Callable[[web.Request], web.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watches never work, and then lists do not either."""
    monkeypatch.setattr(watch, "SHORT_S", 0.1)
    inventory, lists = Inventory(), 3

    def fault(request: web.Request) -> web.Response | None:
        nonlocal lists
        if "watch" in request.query:
            return answer(request)
        lists -= 1
        return status(503, "not now") if lists < 0 else None

    async with running(ApiServer()) as server:
        with server.failing(fault):
            began = time.monotonic()
            async with following(server, inventory) as watchers:
                await until(lambda: watchers.stats.failures["503"] > 5 and lists < -3)
                listed = watchers.watchers[0].in_step_s
                await asyncio.sleep(0.6)  # it grows older
                assert watchers.watchers[0].in_step_s == listed
                assert watchers.stats.lists == 3
                assert 0.6 < watchers.stale_s() < time.monotonic() - began
                assert re.match(r"stale for [1-9]\d* s: pods: ", watchers.problem())


async def test_silence_for_long_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that stands but says nothing of what changed."""
    monkeypatch.setattr(api_module, "QUIET_S", 0.02)
    inventory = Inventory()
    async with running(ApiServer()) as server, following(server, inventory) as watchers:
        await until(lambda: server.watching == 1)
        server.put(pod("a", "10.0.0.1"))
        server.log.clear()
        await until(lambda: pod_names(inventory) == ["a"])
        assert watchers.stats.silent + 1 >= watch.FRUITLESS_WATCHES
        assert not watchers.stats.failures


class Clock:
    """The watcher's, which a test puts forward: nobody waits for an hour."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed_s = 0.0
        monkeypatch.setattr(watch, "time", self)
        monkeypatch.setattr(watch, "SHORT_S", 0.05)
        monkeypatch.setattr(watch, "DOUBT_S", 3600.0)

    def monotonic(self) -> float:
        return time.monotonic() + self.passed_s


async def test_after_a_connection_that_broke_the_next_is_good_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the API server was restarted: how long the one before stood says nothing."""
    clock = Clock(monkeypatch)
    async with running(ApiServer()) as server, following(server, Inventory()) as watchers:
        await until(lambda: server.watching == 1)
        clock.passed_s += 3600.0  # were it counted, the next would have to stand as long
        cut_off(server)
        await until(watchers.problem)
        await until(lambda: not watchers.problem())


async def test_a_watch_that_fails_late_must_stand_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that always ends in an error after a while is not good each time until then."""
    clock = Clock(monkeypatch)
    async with running(ApiServer()) as server, following(server, Inventory()) as watchers:
        problems = []
        for _ in range(watch.FAILED_WATCHES):
            await until(lambda: server.watching == 1)
            await asyncio.sleep(0.2)  # longer than is good the first time
            problems.append(watchers.problem() != "")
            clock.passed_s += 3600.0
            server.break_off("Pod", 500)
            await until(lambda: watchers.stats.failures["500"] >= len(problems))
        assert problems == [False, True, True]
        await until(lambda: watchers.stats.lists == 2)


async def test_a_version_that_is_always_too_old_is_a_problem() -> None:
    def gone(request: web.Request) -> web.Response | None:
        return status(410, "too old") if "watch" in request.query else None

    async with running(ApiServer()) as server:
        with server.failing(gone):
            async with following(server, Inventory()) as watchers:
                await until(lambda: watchers.stats.expired > 2)
                assert "410 too old" in watchers.problem()
        async with following(server, Inventory()) as watchers:
            await until(lambda: server.watching == 1)
            assert watchers.problem() == ""


async def test_pages_that_do_not_end() -> None:
    item = {"metadata": {"name": "a", "namespace": "shop"}}
    page = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [item]}

    async with running(ApiServer()) as server:
        with server.failing(lambda _: web.json_response(page)):
            async with following(server, Inventory(), wait_s=0.3) as watchers:
                await until(lambda: "pages of the list had nothing new" in watchers.not_synced())


@pytest.mark.parametrize(
    "metadata",
    [None, 7, {}, {"name": ["x"]}, {"name": "x", "namespace": 3}, {"name": "x", "uid": {}}],
)
async def test_an_object_without_a_usable_name_costs_no_other(metadata: Any) -> None:
    inventory = Inventory()
    named = {"name": "good", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}
    bodies = {
        "items": [{"metadata": metadata}, {"metadata": named, "spec": {}}],
        "metadata": {"resourceVersion": "9"},
    }
    gone = {**metadata, "resourceVersion": "10"} if isinstance(metadata, dict) else metadata

    def answer(request: web.Request) -> web.Response | None:
        if "watch" not in request.query:
            return web.json_response(bodies)
        lines = [json.dumps({"type": "DELETED", "object": {"metadata": gone}}) + "\n"]
        return web.Response(text="".join(lines))

    async with running(ApiServer()) as server:
        with server.failing(answer):
            async with following(server, inventory) as watchers:
                await until(lambda: watchers.stats.watches > 1)
                assert pod_names(inventory) == ["good"]
                assert watchers.stats.bad_objects >= 1


async def test_the_server_ends_watches_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCH_S", (1.0, 1.0))
    monkeypatch.setattr(watch, "SHORT_S", 0.1)
    inventory = Inventory()
    async with running(ApiServer()) as server, following(server, inventory) as watchers:
        await until(lambda: watchers.stats.watches == 2)
        server.put(pod("a", "10.0.0.1"))
        await until(lambda: len(inventory) == 1)
        assert not watchers.stats.failures
        assert watchers.stats.lists == 1


async def test_watches_that_end_at_once_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCH_S", (0.0, 0.0))
    async with running(ApiServer()) as server, following(server, Inventory()) as watchers:
        await until(lambda: watchers.stats.failures.get("none", 0) >= 3)
        assert "ended at once" in watchers.problem() or watchers.problem() == ""


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe{{{\n",
        b"[]\n",
        b"{}\n",
        b'{"type": "ADDED", "object": 7}\n',
        b'{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n',
        b'{"type": "WHAT", "object": {"metadata": {"resourceVersion": "1"}}}\n',
        b"[" * 100_000 + b"\n",
        b"x" * 5000,
    ],
)
async def test_garbage_means_a_new_list(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_LINE_BYTES", 200_000 if b"[[" in garbage else 4000)
    inventory = Inventory()
    async with running(ApiServer()) as server, following(server, inventory) as watchers:
        await until(lambda: server.watching == 1)
        server.faults.garbage = garbage
        server.put(pod("a", "10.0.0.1"))
        await until(lambda: watchers.stats.failures.get("none", 0) >= 1)
        server.faults.garbage = b""
        await until(lambda: pod_names(inventory) == ["a"])
        assert watchers.stats.lists >= 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind": "ServiceList", "metadata": {"resourceVersion": "7"}, "items": []}',
        b'{"kind": "Status", "metadata": {"resourceVersion": "7"}}',
        b"",
        b"[]",
        b"{}",
        b'{"metadata": {}, "items": [7]}',
        b'{"metadata": {}, "items": []}',
    ],
)
async def test_a_list_that_is_none(body: bytes) -> None:
    bad = 3

    def answer(request: web.Request) -> web.Response | None:
        nonlocal bad
        bad -= 1
        return web.Response(body=body) if bad >= 0 else None

    async with running(ApiServer()) as server:
        with server.failing(answer):
            async with following(server, Inventory()) as watchers:
                assert watchers.stats.failures == {"none": 3}


async def test_objects_that_are_not_what_their_kind_says_are_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inventory = Inventory()
    async with running(ApiServer()) as server:
        server.put(pod("bad", "10.0.0.300"))
        server.put(pod("a", "10.0.0.1"))
        async with following(server, inventory) as watchers:
            assert pod_names(inventory) == ["a"]
            server.put(pod("b", "not-an-ip"))
            server.put(pod("c", "10.0.0.3"))
            await until(lambda: pod_names(inventory) == ["a", "c"])
            assert watchers.stats.bad_objects == 2
    assert "Pod shop/bad" in caplog.text


async def test_refusals_are_reported_in_the_servers_words() -> None:
    def forbidden(request: web.Request) -> web.Response | None:
        return status(403, 'pods is forbidden: User "x" cannot list resource')

    async with running(ApiServer()) as server:
        with server.failing(forbidden):
            async with following(server, Inventory(), wait_s=0.0) as watchers:
                await until(lambda: watchers.stats.failures["403"] >= 2)
                assert "403 pods is forbidden" in watchers.not_synced()


async def test_kinds_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_AGAIN_S", 0.02)
    kind = next(r for r in POLICIES if r.group == "policy.networking.k8s.io" and r.versions[1:])
    sink = Names()
    policy = {"kind": kind.kind, "metadata": {"name": "deny"}}
    old, new = f"{kind.group}/v1alpha2", f"{kind.group}/v1beta1"
    async with (
        running(ApiServer(port=free_port())) as server,
        following(server, sink, kind) as watchers,
    ):
        assert watchers.not_synced() == ""
        assert not sink.items
        server.put(policy, old)
        server.served[old] = {kind.plural}
        await until(lambda: "deny" in sink.items)
        assert sink.items["deny"]["apiVersion"] == old
        assert sink.items["deny"]["kind"] == kind.kind
        server.served = {new: {"other"}}
        await server.stop()
        await server.start()
        await until(lambda: not sink.items)
        server.put(policy, new)
        server.served[new].add(kind.plural)
        await until(lambda: "deny" in sink.items)
        assert sink.items["deny"]["apiVersion"] == new


async def test_a_kind_that_may_not_be_read_does_not_hold_up_the_start() -> None:
    def forbidden(request: web.Request) -> web.Response | None:
        return status(403, "no") if "networkpolicies" in request.path else None

    async with running(ApiServer(served={"networking.k8s.io/v1": {"networkpolicies"}})) as server:
        with server.failing(forbidden):
            async with following(server, Inventory(), PODS, POLICY) as watchers:
                await until(lambda: bool(watchers.problem()))
                assert watchers.not_synced() == ""
                assert "networkpolicies.networking.k8s.io: " in watchers.problem()


async def test_sinks_are_reported_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EXPIRE_S", 0.01)
    sink = Names()
    async with running(ApiServer()) as server, following(server, sink, PODS, NODES):
        await until(lambda: sink.expired >= 2)


async def test_bad_access_stops_the_start() -> None:
    def none() -> Access:
        raise SettingsError(["no such file"])

    with pytest.raises(SettingsError, match="no such file"):
        await Watchers(none, []).start()


async def test_an_api_that_is_not_open() -> None:
    with pytest.raises(ValueError, match="not open"):
        await api_module.KubernetesApi(Plain("http://127.0.0.1:9")).get("/api/v1", {})


async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "ANSWER_S", 0.05)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    listener = await asyncio.start_server(nothing, "127.0.0.1", 0)
    api = api_module.KubernetesApi(
        Plain(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    )
    api.open()
    with pytest.raises(ApiError, match="no answer in time"):
        await api.get("/api/v1/pods", {})
    await api.close()
    await ended.wait()
    listener.close()
    await listener.wait_closed()


def test_all_policy_kinds_can_be_reported_apart() -> None:
    keys = {(resource.group, resource.kind) for resource in POLICIES}
    assert len(keys) == len(POLICIES)
    assert all(resource.optional for resource in POLICIES)
    assert str(POLICY) == "networkpolicies.networking.k8s.io"
    assert json.dumps(PODS.paths()) == '[["v1", "/api/v1"]]'
