"""Policies from the aggregator's inventory files."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flowvis.errors import SettingsError
from flowvis.inventory.index import Inventory
from flowvis.inventory.sources import files
from flowvis.inventory.sources.files import InventoryFiles
from flowvis.runtime.clock import now_ms
from policies.cluster import NOTHING, NOW, Cluster, Pod, namespace, network_policy
from waiting import until

OPEN = network_policy("p", ingress=[{}])
BAD = network_policy("p", ingress=[{"ports": [{"port": -1}]}])


def test_policies_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.01)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all([namespace("x"), OPEN]))
    cluster = Cluster([Pod("x", "a", "10.0.0.1")])
    component = InventoryFiles([path], Inventory(), cluster.policies)

    async def changed(text: str) -> None:
        before = component.reloads + component.failures
        path.write_text(text)
        await until(lambda: component.reloads + component.failures > before)

    async def scene() -> None:
        await component.start()
        old = cluster.one("192.0.2.1", "x/a", start_ms=0)["ingress"]
        assert old.name == "p", "what the files have at first has always been so"
        await changed(yaml.safe_dump_all([namespace("x"), BAD]))
        assert (component.reloads, component.failures) == (0, 1)
        assert cluster.one("192.0.2.1", "x/a", start_ms=2 * NOW)["ingress"].name == "p"
        await changed(yaml.safe_dump(namespace("x")))
        assert cluster.one("192.0.2.1", "x/a", start_ms=2 * NOW)["ingress"] == NOTHING
        await component.stop()

    asyncio.run(scene())


def test_what_the_files_have_at_first_counts_from_when_it_says_that_it_was_created(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cluster.yaml"
    created = now_ms() - 60_000
    when = datetime.fromtimestamp(created // 1000, UTC).isoformat()
    dated = OPEN | {"metadata": OPEN["metadata"] | {"creationTimestamp": when}}
    path.write_text(yaml.safe_dump_all([namespace("x"), dated]))
    cluster = Cluster([Pod("x", "a", "10.0.0.1")])

    async def scene() -> None:
        component = InventoryFiles([path], Inventory(), cluster.policies)
        await component.start()
        await component.stop()

    asyncio.run(scene())
    assert list(cluster.policies.since().values()) == [created // 1000 * 1000]
    found = [
        cluster.one("192.0.2.1", "x/a", start_ms=created + at)["ingress"].name
        for at in (-30_000, 30_000)
    ]
    assert found == ["", "p"]


def test_a_bad_policy_at_the_start_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(BAD))
    component = InventoryFiles([path], Inventory(), Cluster([]).policies)
    with pytest.raises(SettingsError, match="NetworkPolicy x/p: ports -1"):
        asyncio.run(component.start())
