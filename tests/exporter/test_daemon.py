import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from exporter.denied_packets import T0, packet, packets
from exporter.kernel_entries import Connection, entries
from flowvis.conntrack.sources.source import Conntrack
from flowvis.exporter import daemon, gateway, metrics
from flowvis.exporter.daemon import FlowExporter
from flowvis.exporter.settings import ExporterSettings
from flowvis.ipfix.exporter import observation_domain_id
from flowvis.runtime.changes import changes, options
from flowvis.runtime.component import run as run_components
from flowvis.runtime.settings import load
from flowvis.runtime.status import StatusServer
from namespaces import run

PLAIN = {"flowExporter": {"flowCollectorAddr": "[::1]:4739:tcp"}}


def build(settings: dict[str, Any]) -> FlowExporter:
    return FlowExporter(load(ExporterSettings, yaml.safe_dump(settings).encode(), {}))


def test_building_opens_nothing(tmp_path: Path) -> None:
    files = {name: str(tmp_path / "absent") for name in ("ca", "certificate", "key")}
    built = build({"tls": files, "inventory": {"files": [str(tmp_path / "absent")]}})
    assert [component.name for component in built.components] == [
        "status",
        "inventory files",
        "own-addresses",
        "ranges",
        "own sessions",
        "unacknowledged",
        "state",
        "exporter",
        "watch",
        "gateway",
        "readiness",
    ]


def test_without_state() -> None:
    built = build(PLAIN | {"state": {"enable": False}})
    names = {component.name for component in built.components}
    assert not names & {"state", "unacknowledged", "own sessions"}


def test_denied_connections_are_watched_where_something_tells_of_them() -> None:
    assert build(PLAIN).denied is None
    built = build(PLAIN | {"denied": {"nflogGroups": [5, 6], "auditLog": "np.log"}})
    names = [component.name for component in built.components]
    assert names[-4:] == ["watch", "gateway", "denied", "readiness"]
    assert built.denied is not None
    assert [one.group for one in built.denied.logs] == [5, 6]
    assert built.ledger.imbalance() == {}
    assert built.ledger.stages.keys() >= {"denied packets", "denied connections"}


def test_switched_off_only_the_status_is_served() -> None:
    built = build({"flowExporter": {"enable": False}})
    assert [component.name for component in built.components] == ["status", "readiness"]


@pytest.mark.parametrize("enable", [True, False])
def test_switched_off_it_lacks_no_session(enable: bool) -> None:
    """A 0 is an alert: of a session that is wanted."""
    status, *_ = build({"flowExporter": {"enable": enable}}).components
    assert isinstance(status, StatusServer)
    connected = status.registry.get_sample_value("flowvis_exporter_client_connected")
    assert connected == (0 if enable else None)


@pytest.mark.parametrize("kubernetes", [True, False])
async def test_switched_off_it_is_ready(kubernetes: bool) -> None:
    """Else a DaemonSet would never come to its next node."""
    built = build(
        {
            "flowExporter": {"enable": False},
            "inventory": {"kubernetes": {"enable": kubernetes}},
            "status": {"address": "127.0.0.1", "port": 0},
        }
    )
    assert (built.kubernetes is not None) == kubernetes
    status, started = built.components
    assert isinstance(status, StatusServer)
    await status.start()
    assert await readiness(status) == "503"
    await started.start()
    assert await readiness(status) == "200"
    await started.stop()
    await status.stop()


def test_the_zones_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def conntrack(zones: tuple[int, ...], *, events: bool) -> object:
        seen.append(zones)
        return Conntrack(zones, events=events)

    monkeypatch.setattr(daemon, "Conntrack", conntrack)
    build(PLAIN)
    build(PLAIN | {"conntrack": {"zones": [5]}})
    monkeypatch.setattr(daemon, "ANTREA_GATEWAY", "lo")
    assert build(PLAIN).default_zone is not None
    assert build(PLAIN | {"conntrack": {"zones": [0, 5]}}).default_zone is None
    assert seen == [(0,), (5,), (65520, 65510, 0), (0, 5)]


def test_the_nodes_name_is_the_hosts_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "host-a")
    assert build(PLAIN).node_name == "host-a"
    assert build(PLAIN | {"nodeName": "node-b"}).node_name == "node-b"
    assert observation_domain_id("host-a") != observation_domain_id("node-b")


def test_deadlines_go_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0]
    monkeypatch.setattr(daemon, "monotonic_ms", lambda: passed[0])
    built = build(PLAIN | {"denied": {"nflogGroups": [5]}})
    assert built.denied is not None
    built.table.poll(entries(Connection(counters=(1, 100, 0, 0))), T0)
    built.denied.table.add(packets([packet()]), T0)
    for table in (built.table, built.denied.table):
        assert not len(table.due(T0 + 300_000))
    passed[0] += 15_000
    for table in (built.table, built.denied.table):
        assert len(table.due(T0 - 300_000)) == 1


def test_hosts_of_one_name_have_observation_domains_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a cluster the name is the node's alone, and the domain is Antrea's."""
    found = []
    for machine in ("one", "other"):
        monkeypatch.setattr(daemon, "machine_id", lambda machine=machine: machine)
        for more in ({}, {"inventory": {"files": ["pods.yaml"]}}):
            built = build(PLAIN | {"nodeName": "localhost"} | more)
            found.append(built.exporter._domain)
    assert found[1] == found[3] == observation_domain_id("localhost")
    assert len(set(found)) == 3


def test_every_number_is_a_metric() -> None:
    built = build(PLAIN)
    registry = CollectorRegistry()
    metrics.register(registry, built.conntrack, built.table, built.watch, built.exporter)
    built.watch.stats.took(0.03)
    text = generate_latest(registry).decode()
    for line in (
        "antrea_agent_conntrack_total_connection_count 0.0",
        "antrea_agent_conntrack_antrea_connection_count 0.0",
        "antrea_agent_denied_connection_count 0.0",
        "antrea_agent_conntrack_max_connection_count 0.0",
        "antrea_agent_flow_collector_reconnection_count 0.0",
        'antrea_agent_conntrack_poll_cycle_duration_seconds_bucket{le="0.025"} 0.0',
        'antrea_agent_conntrack_poll_cycle_duration_seconds_bucket{le="0.05"} 1.0',
        "antrea_agent_conntrack_poll_cycle_duration_seconds_count 1.0",
        "flowvis_exporter_conntrack_overruns_total 0.0",
        "flowvis_exporter_table_evicted_total 0.0",
        "flowvis_exporter_client_sessions_total 0.0",
        "flowvis_exporter_client_connected 0.0",
        "flowvis_exporter_delivery_sent_again_total 0.0",
        "flowvis_exporter_delivery_unacknowledged 0.0",
    ):
        assert line in text.splitlines()


def test_the_numbers_of_denied_connections() -> None:
    built = build(PLAIN | {"denied": {"nflogGroups": [5, 6], "auditLog": "np.log"}})
    assert built.denied is not None
    registry = CollectorRegistry()
    metrics.register_denied(registry, built.denied.table, built.denied)
    for one in built.denied.logs:
        one.stats.lost += 2
    text = generate_latest(registry).decode()
    for line in (
        "flowvis_exporter_denied_table_evicted_total 0.0",
        "flowvis_exporter_denied_log_lost_total 4.0",
        "flowvis_exporter_denied_watch_listening 0.0",
        "flowvis_exporter_denied_audit_log_malformed_total 0.0",
        "flowvis_exporter_denied_audit_log_file_rotations_total 0.0",
    ):
        assert line in text.splitlines()


def test_books_that_do_not_balance_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    built = build(PLAIN)
    with caplog.at_level(logging.INFO):
        assert built.ledger.close()
        built.pending.stage.received += 1
        assert not built.ledger.close()
    assert "the books do not balance: {'records': 1}" in caplog.text


def test_live_options_without_anything_to_change(tmp_path: Path) -> None:
    """Each can be applied before anything has started, and where denied ones are not watched."""
    changed = {
        "flowExporter": {
            "flowCollectorAddr": "[::1]:4740:tls", "flowPollInterval": "1s",
            "activeFlowExportTimeout": "2s", "idleFlowExportTimeout": "3s", "protocolFilter": [],
            "antreaVersion": "2.2",
        },
        "denied": {"prefixes": ["calico"], "maxPacketsPerSecond": 1},
        "tls": {"serverName": "x"},
        "inventory": {"podCIDRs": ["10.0.0.0/8"]},
    }  # fmt: skip
    wanted = load(ExporterSettings, yaml.safe_dump(changed).encode(), {})
    live = {path for path, is_live in options(ExporterSettings).items() if is_live}
    assert live - {change.path for change in changes(ExporterSettings(), wanted)} == {
        "log.format",
        "log.level",
    }
    for more in ({}, {"denied": {"nflogGroups": [5]}}, {"flowExporter": {"enable": False}}):
        built = build(more)
        asyncio.run(built.configuration.take(wanted))
        assert built.configuration.problems == ()
        assert str(built.exporter.client.address) == "[::1]:4740:tls"


@pytest.mark.parametrize("source", ["kernel", "ovs"])
def test_who_waits_for_a_gateway(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    """Of a switch zone 0 is hardly all there is: that no other is read is said."""
    of_source = {"conntrack": {"source": source}}
    assert build(PLAIN | of_source).gateway is not None
    assert ("conntrack.zones" in caplog.text) == (source == "ovs")
    caplog.clear()
    zones = [0, 64000]
    assert build(PLAIN | {"conntrack": {"source": source, "zones": zones}}).gateway is None
    monkeypatch.setattr(daemon, "ANTREA_GATEWAY", "lo")
    assert build(PLAIN | of_source).gateway is None
    assert "conntrack.zones" not in caplog.text


@pytest.mark.kernel
async def test_a_gateway_that_comes_later_has_it_begin_anew(
    tracked: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At a boot the exporter may be there before Antrea's agent is."""
    monkeypatch.setattr(gateway, "LOOK_S", 0.01)
    waiting = build(PLAIN).gateway
    assert waiting is not None
    running = asyncio.create_task(run_components([waiting], grace_s=1.0))
    await asyncio.sleep(0.05)
    assert not running.done()
    run("ip", "link", "add", "antrea-gw0", "type", "veth", "peer", "name", "ovs")
    assert await running == 1
    assert "antrea-gw0 is there now" in caplog.text


@pytest.mark.kernel
async def test_it_is_ready_once_all_has_started(tracked: None) -> None:
    """What is denied before its log is bound is lost: it is bound first, though read last."""
    built = build(
        PLAIN
        | {
            "denied": {"nflogGroups": [5]},
            "state": {"enable": False},
            "status": {"address": "127.0.0.1", "port": 0},
        }
    )
    status, *others = built.components
    assert isinstance(status, StatusServer)
    assert built.denied is not None
    assert [others[0].name, others[-2].name] == ["denied log", "denied"]
    started: list[str] = []
    await status.start()
    assert await readiness(status) == "503"
    for component in others:
        await component.start()
        started.append(component.name)
        ready = await readiness(status) == "200"
        assert ready == (component is others[-1]), started
    assert built.denied.stats.listening == 1
    for component in reversed(others):
        await component.stop()
        assert await readiness(status) == "503"
    await status.stop()


async def readiness(status: StatusServer) -> str:
    """The code of the answer to a probe."""
    reader, writer = await asyncio.open_connection("127.0.0.1", status.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    return answer.split(" ")[1]
