import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml
from aiohttp import web

from flowvis.aggregator import replica as replica_module
from flowvis.aggregator.daemon import Aggregator as Built
from flowvis.aggregator.lease import LONGEST_S, Candidate, Claim, Elsewhere, decide, released
from flowvis.aggregator.replica import Replica
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.inventory.sources.access import HOST, PORT, Kubeconfig
from flowvis.inventory.sources.written import WrittenObjects
from flowvis.lab.apiserver import ApiServer, kubeconfig, status
from flowvis.runtime.settings import load
from ports import free_port
from waiting import PATIENCE_S, until

from .harness import Aggregator

NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
NOW_TEXT = "2026-01-02T03:04:05.678900Z"
US = Candidate("pod-b", "flow-aggregator", "here", 15.0)
PLACE = ("coordination.k8s.io/v1", "leases", "here", "flow-aggregator")


def lease(holder: object, duration: object = 15, **spec: object) -> dict[str, Any]:
    return {
        "metadata": {"name": "flow-aggregator", "namespace": "here", "resourceVersion": "7"},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": duration,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:10.000000Z",
            "leaseTransitions": 4,
            **spec,
        },
    }


def test_a_lease_that_is_not_there_is_made() -> None:
    step = decide(None, US, unchanged_s=0, now=NOW)
    assert isinstance(step, Claim)
    assert step.creates
    assert step.item["metadata"]["name"] == "flow-aggregator"
    assert step.item["metadata"]["namespace"] == "here"
    assert step.item["spec"] == {
        "holderIdentity": "pod-b",
        "leaseDurationSeconds": 15,
        "acquireTime": NOW_TEXT,
        "renewTime": NOW_TEXT,
        "leaseTransitions": 0,
    }


def test_our_own_is_renewed() -> None:
    step = decide(lease("pod-b", strategy="kept"), US, unchanged_s=1000, now=NOW)
    assert isinstance(step, Claim)
    assert not step.creates
    assert step.reason == ""
    assert step.item["metadata"]["resourceVersion"] == "7"
    assert step.item["spec"] == {**lease("pod-b", strategy="kept")["spec"], "renewTime": NOW_TEXT}


@pytest.mark.parametrize(
    ("found", "unchanged_s", "taken"),
    [
        (lease("pod-a"), 0.0, False),
        (lease("pod-a"), 14.9, False),
        (lease("pod-a"), 15.0, True),
        (lease("pod-a", 40), 39.9, False),  # the holder's own promise counts
        (lease("pod-a", 40), 40.0, True),
        (lease("pod-a", 10**9), LONGEST_S, True),  # nobody has it for ever
        (lease("pod-a", "?"), 14.9, False),
        (lease("pod-a", -3), 15.0, True),
        (lease(""), 0.0, True),
        (lease(None), 0.0, True),
        ({"metadata": {"resourceVersion": "7"}, "spec": "?"}, 0.0, True),
    ],
)
def test_anothers_is_taken_when_it_is_free_or_has_not_changed_for_long(
    found: dict[str, Any], unchanged_s: float, taken: bool
) -> None:
    step = decide(found, US, unchanged_s=unchanged_s, now=NOW)
    if not taken:
        assert step == Elsewhere("pod-a")
        return
    assert isinstance(step, Claim)
    assert step.reason
    assert step.item["metadata"]["resourceVersion"] == "7"
    assert step.item["spec"]["holderIdentity"] == "pod-b"
    assert step.item["spec"]["acquireTime"] == NOW_TEXT
    if isinstance(found["spec"], dict):
        assert step.item["spec"]["leaseTransitions"] == 5


def test_only_our_own_is_given_back() -> None:
    assert released(None, US, NOW) is None
    assert released(lease("pod-a"), US, NOW) is None
    free = released(lease("pod-b"), US, NOW)
    assert free is not None
    assert free["spec"]["holderIdentity"] == ""
    other = Candidate("pod-c", "flow-aggregator", "here", 15.0)
    assert isinstance(decide(free, other, unchanged_s=0, now=NOW), Claim)


@asynccontextmanager
async def cluster() -> AsyncIterator[ApiServer]:
    server = ApiServer(tokens={"good"}, port=free_port())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def replica(server: ApiServer, folder: Path, identity: str, *, duration_s: float = 3.0) -> Replica:
    """Return one whose Lease lasts longer than a busy machine takes to renew it."""
    path = kubeconfig(folder / identity, server.url, {"token": "good"})
    us = Candidate(identity, "flow-aggregator", "here", duration_s)
    return Replica(lambda: Kubeconfig(path), us)


def holder(server: ApiServer) -> str:
    found = server.objects.get(PLACE)
    return str(found["spec"]["holderIdentity"]) if found else "nobody"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "LOOK_S", 0.02)
    monkeypatch.setattr(replica_module, "UNANSWERED_S", 0.2)


async def test_the_second_waits_until_the_first_has_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster() as server:
        first, second = (replica(server, tmp_path, name) for name in ("pod-a", "pod-b"))
        await first.start()
        assert first.holds
        assert first.problem() == ""
        starting = asyncio.create_task(second.start())
        await until(second.waiting)
        assert "pod-a receives, as Lease here/flow-aggregator says" in second.waiting()
        assert "set replicas: 1" in second.waiting()
        await until(lambda: first.stats.renewals >= 4)  # longer than the Lease lasts
        assert not starting.done()
        assert caplog.text.count("pod-a receives") == 1
        await first.stop()
        await starting
        assert holder(server) == "pod-b"
        assert second.waiting() == ""
        assert server.objects[PLACE]["spec"]["leaseTransitions"] == 1
        await second.stop()
        assert holder(server) == ""


async def test_the_lease_of_one_that_died_comes_to_its_end(tmp_path: Path) -> None:
    async with cluster() as server:
        server.put({"kind": "Lease", **lease("pod-dead", 1)}, "coordination.k8s.io/v1")
        waits = replica(server, tmp_path, "pod-b")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await waits.start()
        assert loop.time() - began >= 1.0
        assert holder(server) == "pod-b"
        await waits.stop()


async def test_a_container_that_begins_again_has_its_pods_lease(tmp_path: Path) -> None:
    async with cluster() as server:
        server.put({"kind": "Lease", **lease("pod-b", 300)}, "coordination.k8s.io/v1")
        again = replica(server, tmp_path, "pod-b")
        async with asyncio.timeout(PATIENCE_S):
            await again.start()
        await again.stop()


async def test_of_many_that_start_together_one_receives(tmp_path: Path) -> None:
    async with cluster() as server:
        many = [replica(server, tmp_path, f"pod-{i}") for i in range(5)]
        tasks = [asyncio.create_task(one.start()) for one in many]
        await until(lambda: sum(bool(one.waiting()) for one in many) == 4)
        await until(lambda: any(task.done() for task in tasks))  # it may hear of it last
        assert sum(task.done() for task in tasks) == 1
        for _ in many:
            await until(lambda: any(one.holds for one in many))
            now = next(one for one in many if one.holds)
            await tasks[many.index(now)]
            assert holder(server) == f"pod-{many.index(now)}"
            await now.stop()


async def test_without_a_right_it_works_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(request: web.Request) -> web.Response | None:
        return status(403, "leases is forbidden") if "leases" in request.path else None

    async with cluster() as server:
        with server.failing(forbidden):
            one = replica(server, tmp_path, "pod-a")
            await one.start()
            assert one.waiting() == ""
            assert "403 leases is forbidden; may it get, create and update" in one.problem()
            assert "nothing keeps a second replica from receiving" in caplog.text
        await until(lambda: one.holds)  # as soon as it may
        assert one.problem() == ""
        await one.stop()


async def test_without_the_api_server_it_works(tmp_path: Path) -> None:
    async with cluster() as server:
        await server.stop()
        one = replica(server, tmp_path, "pod-a")
        await one.start()
        assert not one.holds
        assert "connection refused" in one.problem()
        await server.start()
        await until(lambda: one.holds)
        await server.stop()
        await until(one.problem)
        assert one.waiting() == ""
        await one.stop()


async def test_who_waits_goes_on_waiting_while_the_api_server_is_away(tmp_path: Path) -> None:
    async with cluster() as server:
        server.put({"kind": "Lease", **lease("pod-a", 2)}, "coordination.k8s.io/v1")
        waits = replica(server, tmp_path, "pod-b")
        starting = asyncio.create_task(waits.start())
        await until(waits.waiting)
        with server.failing(lambda _: status(503, "no leader")):
            await until(lambda: waits.stats.failures > 3)
            await asyncio.sleep(0.3)  # it goes on waiting
            assert not starting.done()
        await starting
        assert waits.holds
        await waits.stop()


async def test_while_the_api_server_is_away_nobody_can_renew_and_nobody_is_late(
    tmp_path: Path,
) -> None:
    now_s = 1000.0
    async with cluster() as server:
        server.put({"kind": "Lease", **lease("pod-a")}, "coordination.k8s.io/v1")
        path = kubeconfig(tmp_path / "config", server.url, {"token": "good"})
        us = Candidate("pod-b", "flow-aggregator", "here", 15.0)
        waits = Replica(lambda: Kubeconfig(path), us, clock=lambda: now_s)
        starting = asyncio.create_task(waits.start())
        await until(waits.waiting)
        with server.failing(lambda _: status(503, "no leader")):
            failures = waits.stats.failures
            await until(lambda: waits.stats.failures > failures)
            now_s += 100.0
        looks = len(server.requests)
        await until(lambda: len(server.requests) > looks + 3)
        assert not starting.done()
        assert holder(server) == "pod-a"
        for _ in range(2):  # nobody renews it although they could
            now_s += 5.0
            looks = len(server.requests)
            await until(lambda: len(server.requests) > looks + 3 or starting.done())  # noqa: B023
        await starting
        assert holder(server) == "pod-b"
        await waits.stop()


async def test_one_whose_lease_was_taken_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster() as server:
        one = replica(server, tmp_path, "pod-a")
        await one.start()
        server.put({"kind": "Lease", **lease("pod-b")}, "coordination.k8s.io/v1")
        await until(lambda: "pod-b has Lease here/flow-aggregator" in caplog.text)
        await one.stop()
        assert holder(server) == "pod-b"


async def test_renewals_that_fail_are_tried_again_before_another_may_take_it(
    tmp_path: Path,
) -> None:
    left = [3]  # as many as there are in the time that the Lease lasts

    def unwell(request: web.Request) -> web.Response | None:
        if request.method != "PUT" or not left[0]:
            return None
        left[0] -= 1
        return status(503, "no leader")

    async with cluster() as server:
        first, second = (replica(server, tmp_path, name) for name in ("pod-a", "pod-b"))
        await first.start()
        starting = asyncio.create_task(second.start())
        await until(second.waiting)
        renewed = first.stats.renewals
        with server.failing(unwell):
            await until(lambda: not left[0])
            await until(lambda: first.stats.renewals > renewed + 1 or starting.done())
        assert first.stats.failures == 3
        assert holder(server) == "pod-a"
        assert first.problem() == ""
        await first.stop()
        await starting
        await second.stop()


async def test_a_start_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    async with cluster() as server:
        server.put({"kind": "Lease", **lease("pod-a")}, "coordination.k8s.io/v1")
        waits = replica(server, tmp_path, "pod-b")
        starting = asyncio.create_task(waits.start())
        await until(waits.waiting)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert holder(server) == "pod-a"


async def test_a_start_that_is_cut_short_gives_back_what_it_may_have_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Lease was written, and the answer is still on its way."""
    written = asyncio.Event()

    class Unheard(WrittenObjects):
        async def write(self, *arguments: Any, **options: Any) -> bool:
            done = await super().write(*arguments, **options)
            if not written.is_set():
                written.set()
                await asyncio.Event().wait()
            return done

    monkeypatch.setattr(replica_module, "WrittenObjects", Unheard)
    async with cluster() as server:
        starting = asyncio.create_task(replica(server, tmp_path, "pod-a").start())
        await written.wait()
        assert holder(server) == "pod-a"
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert holder(server) == ""


async def test_a_stop_without_an_answer_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica_module, "RELEASE_S", 0.1)
    async with cluster() as server:
        one = replica(server, tmp_path, "pod-a")
        await one.start()
        with server.failing(lambda _: status(500, "out of order")):
            await one.stop()
            await one.stop()  # as after a start that was cut short
    assert "is not given back, so the next replica waits for 3 s" in caplog.text


def asked(port: int) -> tuple[int, str]:
    """What the kubelet is reported."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_two_daemons(tmp_path: Path) -> None:
    """The second listens only when the first has gone, and says meanwhile what it waits for."""
    async with cluster() as server:
        path = kubeconfig(tmp_path / "config", server.url, {"token": "good"})
        settings = {
            "inventory": {"kubernetes": {"kubeconfig": str(path)}},
            "lease": {"enable": True, "duration": "30s"},
            "certificates": {"namespace": "here"},
        }
        first, second = (Aggregator(tmp_path / name, settings) for name in ("one", "two"))
        try:
            await asyncio.to_thread(first.start)
            starting = asyncio.create_task(asyncio.to_thread(second.start))
            log = tmp_path / "two" / "log"
            await until(lambda: log.exists() and "waiting: " in log.read_text())
            shown = await asyncio.to_thread(second.control.get, "status")
            assert not shown["ready"]
            assert "set replicas: 1" in shown["replica"]
            assert holder(server) in shown["replica"]
            code, page = await asyncio.to_thread(asked, shown["statusPort"])
            assert code == 503
            assert f"replica: {holder(server)} receives, as Lease here/flow-aggregator says" in page
            assert not starting.done()
            assert await asyncio.to_thread(first.stop) == 0
            await starting
            assert await asyncio.to_thread(second.stop) == 0
        finally:
            first.end()
            second.end()
        assert holder(server) == ""


@pytest.mark.parametrize(
    ("configured", "pod", "wanted"),
    [
        ({}, "pod-a", True),
        ({}, "", False),  # on somebody's own machine
        ({"inventory": {"files": ["/nowhere"]}}, "pod-a", False),
        ({"lease": {"enable": False}}, "pod-a", False),
        ({"inventory": {"files": ["/nowhere"]}, "lease": {"enable": True}}, "", True),
    ],
)
def test_where_there_is_a_lease(
    monkeypatch: pytest.MonkeyPatch, configured: dict[str, Any], pod: str, wanted: bool
) -> None:
    monkeypatch.setenv(HOST, "10.96.0.1")
    monkeypatch.setenv(PORT, "443")
    monkeypatch.setenv("POD_NAME", pod)
    document = {**configured, "controlSocket": "/nowhere"}
    built = Built(load(AggregatorSettings, yaml.safe_dump(document).encode(), os.environ))
    names = [component.name for component in built.components]
    assert ("replica" in names) is ("lease" in names) is wanted
    if wanted:
        # Given back when all is stored, as the next one asks the store.
        places = [names.index(name) for name in ("lease", "destinations", "correlator", "replica")]
        assert places == sorted(places)
        assert names.index("replica") < built.components.index(built.server)


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
