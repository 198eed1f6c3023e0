"""The lab's files are what the daemons take."""

from pathlib import Path

import pytest

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.exporter.settings import ExporterSettings
from flowvis.lab import configuration
from flowvis.lab.configuration import AGGREGATOR, Asked, exporter_name
from flowvis.lab.plan import NODE_2, NODES, LabNode
from flowvis.runtime.settings import load


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    room = tmp_path / "room"
    monkeypatch.setattr(configuration, "ROOM", room)
    configuration.write(Asked(events=False))
    return room


def test_the_aggregator_takes_its_configuration(room: Path) -> None:
    settings = load(AggregatorSettings, (room / f"{AGGREGATOR}.yaml").read_bytes(), {})
    assert settings.click_house.enable
    assert settings.active_flow_record_timeout == configuration.ACTIVE_RECORD_S
    assert settings.certificates.issue


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_exporters_take_theirs(room: Path, node: LabNode) -> None:
    settings = load(ExporterSettings, (room / f"{exporter_name(node)}.yaml").read_bytes(), {})
    assert settings.node_name == node.name
    assert (
        str(settings.flow_exporter.flow_collector_addr)
        == "flow-aggregator/flow-aggregator:4739:tls"
    )
    assert not settings.conntrack.events
    assert settings.denied.wanted
    by_the_api = settings.tls.client_object is not None
    assert by_the_api == (node == NODE_2) == (settings.tls.ca is None)


@pytest.mark.parametrize("short", [True, False])
def test_sessions_are_short_only_where_nobody_looks_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, short: bool
) -> None:
    monkeypatch.setattr(configuration, "ROOM", tmp_path / "room")
    configuration.write(Asked(short_sessions=short))
    written = (tmp_path / "room" / f"{AGGREGATOR}.yaml").read_bytes()
    age_s = load(AggregatorSettings, written, {}).listen.max_session_age
    assert (age_s < 10) == short
