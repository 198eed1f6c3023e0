import logging
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from flowvis.aggregator.cluster_identity import ClusterIdentity
from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli.status import _show as show
from flowvis.inventory.index import Inventory
from flowvis.ipfix.exporter import fnv1
from flowvis.lab.apiserver import ApiServer, kubeconfig, status
from flowvis.runtime.settings import load
from waiting import until

from .records import records

ANTREAS = "0f6b4e5c-3ad0-4c0b-9a38-3f8f2a2b7c11"
SYSTEMS = "7d1f2c1e-98a5-4b0e-8f43-0a6a4a0c9f55"


def namespace(uid: str = SYSTEMS) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}


def config_map(uuid: str = ANTREAS) -> dict[str, Any]:
    metadata = {"namespace": "kube-system", "name": "antrea-cluster-identity"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": {"uuid": uuid}}


def build(path: Path, **settings: Any) -> Aggregator:
    document = {"controlSocket": str(path / "control.sock"), **settings}
    return Aggregator(load(AggregatorSettings, yaml.safe_dump(document).encode(), {}))


def cluster_of_records(aggregator: Aggregator) -> str:
    batch = records({})
    aggregator.correlator._completer.complete(batch)
    (found,) = batch.texts("clusterId")
    return found


def test_the_configuration_wins_then_antrea_then_kube_system() -> None:
    inventory = Inventory()
    identity = ClusterIdentity(inventory)
    assert identity.id() == ""
    inventory.upsert(namespace(), 0)
    assert identity.id() == SYSTEMS
    identity.antrea.upsert(config_map(ANTREAS.upper()), 0)
    assert identity.id() == ANTREAS
    identity.configured = "east"
    assert identity.id() == "east"
    identity.configured = ""
    identity.antrea.delete(config_map(), 0)
    assert identity.id() == SYSTEMS


def test_records_of_the_cluster_may_have_any_id_that_it_had() -> None:
    inventory = Inventory()
    identity = ClusterIdentity(inventory)
    assert identity.ids() == ()
    inventory.upsert(namespace(), 0)
    assert set(identity.ids()) == {"", SYSTEMS}
    identity.antrea.upsert(config_map(), 0)
    identity.configured = "east"  # from the start: what was written before may be Antrea's
    assert set(identity.ids()) == {"", SYSTEMS, ANTREAS, "east"}
    identity.configured = "west"
    identity.antrea.delete(config_map(), 0)
    assert set(identity.ids()) == {"", SYSTEMS, "east", "west"}


def test_what_is_no_uuid_is_not_used_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    inventory = Inventory()
    inventory.upsert(namespace(), 0)
    identity = ClusterIdentity(inventory)
    for text in ("", "not-a-uuid", "x" * 5000, "é"):
        identity.antrea.upsert(config_map(text), 0)
        assert identity.id() == identity.id() == SYSTEMS
    texts = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(texts) == 3
    assert "ConfigMap kube-system/antrea-cluster-identity: uuid is 'not-a-uuid'" in texts[0]
    assert all(len(text) < 250 for text in texts)


def test_the_observation_domain_is_antreas() -> None:
    identity = ClusterIdentity(Inventory(), ANTREAS)
    assert identity.observation_domain() == fnv1(UUID(ANTREAS).bytes)
    identity.configured = "east"
    assert identity.observation_domain() == fnv1(b"east")


async def test_it_is_known_at_the_start_and_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    server = ApiServer()
    server.put(namespace())
    await server.start()
    path = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    built = build(tmp_path, inventory={"kubernetes": {"kubeconfig": str(path)}})
    assert cluster_of_records(built) == ""
    following: Any = built.components[1]
    await following.start()
    assert cluster_of_records(built) == SYSTEMS
    server.put(config_map())
    await until(lambda: cluster_of_records(built) == ANTREAS)
    show(built._status())
    assert f"cluster {ANTREAS}" in capsys.readouterr().out
    await server.stop()
    assert cluster_of_records(built) == ANTREAS
    await following.stop()
    assert f"clusterId of records from now on: {ANTREAS}" in caplog.messages


async def test_without_the_right_to_read_antreas_it_is_kube_systems(tmp_path: Path) -> None:
    server = ApiServer()
    server.put(namespace())
    server.put(config_map())
    server.faults.answer = lambda request: (
        status(403, "configmaps is forbidden") if "configmaps" in request.path else None
    )
    await server.start()
    path = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    built = build(tmp_path, inventory={"kubernetes": {"kubeconfig": str(path)}})
    following: Any = built.components[1]
    await following.start()
    assert built._status()["clusterId"] == SYSTEMS
    assert following.not_synced() == ""
    assert "configmaps is forbidden" in built._status()["kubernetes"]
    await following.stop()
    await server.stop()


async def test_files_have_the_namespace_too(tmp_path: Path) -> None:
    (tmp_path / "namespaces.yaml").write_text(yaml.safe_dump(namespace()))
    built = build(tmp_path, inventory={"files": [str(tmp_path / "namespaces.yaml")]})
    files: Any = built.components[1]
    await files.start()
    assert cluster_of_records(built) == SYSTEMS
    await files.stop()


def test_the_configured_observation_domain_wins(tmp_path: Path) -> None:
    collector = {"enable": True, "address": "127.0.0.1:4739"}
    built = build(tmp_path, flowCollector=collector, clusterID=ANTREAS)
    sink: Any = built.destinations.current("ipfix")
    assert sink._domain() == fnv1(UUID(ANTREAS).bytes)
    built = build(tmp_path, flowCollector=collector | {"observationDomainID": 7})
    sink = built.destinations.current("ipfix")
    assert sink._domain() == 7


async def test_a_collector_that_changes_with_the_cluster_has_the_number_of_the_new_one(
    tmp_path: Path,
) -> None:
    """Also where another destination's change waits for one before it meanwhile."""

    def wanted(cluster: str, **options: Any) -> dict[str, Any]:
        dead = {"address": "127.0.0.1:9"}
        return {
            "clusterID": cluster,
            "flowCollector": {"enable": True, **dead, **options},
            "flowCollectors": [{"name": "slow", **dead, **options}],
        }

    async def take(cluster: str, **options: Any) -> None:
        document = yaml.safe_dump(wanted(cluster, **options)).encode()
        assert await built.configuration.take(load(AggregatorSettings, document, {}))

    built = build(tmp_path, gracePeriod="5s", **wanted("west"))
    await built.destinations.start()
    for outlet in built.destinations:
        if outlet.name == "collector-slow":
            outlet.put(records({}))
    await take("west", includeK8sUIDs=True)
    await take("east")
    sink: Any = built.destinations.current("ipfix")
    await until(lambda: sink._task is not None)
    assert sink._number == fnv1(b"east")
    await built.destinations.stop()
