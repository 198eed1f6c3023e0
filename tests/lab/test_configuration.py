"""The lab's files are what the daemons take."""

from datetime import UTC, datetime

import pytest

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.exporter.settings import ExporterSettings
from flowvis.inventory.files import read
from flowvis.lab import configuration
from flowvis.lab.configuration import AGGREGATOR, exporter_name
from flowvis.lab.plan import NODES
from flowvis.runtime.settings import load


@pytest.fixture
def room(tmp_path, monkeypatch):
    room = tmp_path / "room"
    monkeypatch.setattr(configuration, "ROOM", room)
    configuration.write(datetime.now(UTC), events=False)
    return room


def assert_files_exist(settings):
    tls = settings.tls
    for path in (tls.ca, tls.certificate, tls.key, *settings.inventory.files):
        assert path.is_file()
    assert read(settings.inventory.files)


def test_the_aggregator_takes_its_configuration(room):
    settings = load(AggregatorSettings, (room / f"{AGGREGATOR}.yaml").read_bytes(), {})
    assert settings.click_house.enable
    assert settings.active_flow_record_timeout == configuration.ACTIVE_RECORD_S
    assert_files_exist(settings)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_exporters_take_theirs(room, node):
    settings = load(ExporterSettings, (room / f"{exporter_name(node)}.yaml").read_bytes(), {})
    assert settings.node_name == node.name
    assert str(settings.flow_exporter.flow_collector_addr) == "192.0.2.1:4739:tls"
    assert not settings.conntrack.events
    assert_files_exist(settings)
