import asyncio
import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flowvis.errors import SettingsError
from flowvis.inventory.index import Inventory
from flowvis.inventory.sources import files
from flowvis.inventory.sources.files import InventoryFiles, read
from inventory.kubernetes_objects import node, pod, service
from waiting import until

ITEMS = [
    pod("a", "10.0.0.1"),
    service("web", ["10.96.0.1"], {"name": "http", "port": 80}),
    node("node-1", "192.0.2.1"),
]


def test_list_as_kubectl_prints_it(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": ITEMS}))
    assert read([path]) == ITEMS


def test_json_and_typed_lists(tmp_path: Path) -> None:
    items = [{key: value for key, value in ITEMS[0].items() if key != "kind"}]
    path = tmp_path / "pods.json"
    path.write_text(json.dumps({"kind": "PodList", "items": items}))
    assert read([path]) == ITEMS[:1]


def test_several_documents_and_a_directory(tmp_path: Path) -> None:
    (tmp_path / "2.yml").write_text(yaml.safe_dump_all([ITEMS[0], None, ITEMS[1]]))
    (tmp_path / "1.json").write_text(json.dumps(ITEMS[2]))
    (tmp_path / "README.md").write_text("not ours")
    (tmp_path / ".2.yml.swp").write_text("\0")
    assert read([tmp_path]) == [ITEMS[2], ITEMS[0], ITEMS[1]]


def test_the_time_that_yaml_reads_itself(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(
        "kind: Pod\nmetadata: {namespace: s, name: a, creationTimestamp: 2026-01-01T00:00:00Z}\n"
        "status: {podIP: 10.0.0.1}\n"
    )
    inventory = Inventory()
    inventory.replace(read([path]), 0)
    assert inventory.pods.objects[0].created_ms == 1_767_225_600_000


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
"""Nine lines, of which the last stands for 9 ** 9 values."""


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "{", "while parsing"),
        ("b.json", "{", "Expecting property name"),
        ("c.yaml", "- 1", "not API objects"),
        ("d.yaml", "kind: PodList\nitems: [7]", "not API objects"),
        ("e.yaml", yaml.safe_dump(pod("x", "10.0.0.256")), "Pod shop/x"),
        ("f.yaml", b"\xff\xfe\xfa", "unacceptable character"),
        ("g.json", '{"kind": "List", "items": ' + "[" * 90_000 + "]" * 90_000 + "}", "too deeply"),
        ("h.yaml", "kind: Pod\nmetadata: &m {labels: *m}\n", "contains itself"),
        ("i.yaml", LAUGHS + "kind: Node\nmetadata: {name: *a8}\n", "aliases make more than"),
        ("k.yaml", "kind: Pod\nspec: {hostNetwork: !!bool maybe}\n", "this is no bool"),
        ("l.yaml", "kind: Pod\nspec: {since: !!timestamp soon}\n", "this is no timestamp"),
        ("j.yaml", LAUGHS + "kind: Node\nstatus: {addresses: *a8}\n", "aliases make more than"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=message) as caught:
        read([path, tmp_path / "absent.yaml"])
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        str(path),
        str(tmp_path / "absent.yaml"),
    ]


def test_files_are_read_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.01)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(ITEMS))
    inventory = Inventory()
    component = InventoryFiles([path], inventory)

    async def scene() -> None:
        await component.start()
        assert len(inventory) == 3
        path.write_text(yaml.safe_dump_all(ITEMS[:1]))
        await until(lambda: component.reloads == 1)
        assert len(inventory) == 1
        path.write_text("{")
        await until(lambda: component.failures == 1)
        assert len(inventory) == 1
        await component.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(scene())
    assert "the last good one stays" in caplog.text


def test_a_file_that_is_emptied_says_nothing_of_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a shell does it for `kubectl get ... > FILE`, seconds before that has an answer."""
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.01)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(ITEMS))
    (tmp_path / "of-nothing.yaml").write_text("")  # as it has always been
    inventory = Inventory()
    component = InventoryFiles([tmp_path], inventory)

    async def scene() -> None:
        await component.start()
        path.write_text("")
        await until(lambda: component.failures + component.reloads > 0)
        assert (component.failures, len(inventory)) == (1, 3)
        path.write_text(yaml.safe_dump_all(ITEMS[:1]))
        await until(lambda: component.reloads == 1)
        assert len(inventory) == 1
        path.write_text("{kind: List, items: []}")
        await until(lambda: component.reloads == 2)
        assert len(inventory) == 0
        await component.stop()

    asyncio.run(scene())
    assert f"{path}: it is empty" in caplog.text


def test_a_file_that_is_being_written_is_not_read_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.5)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(ITEMS))
    inventory = Inventory()
    component = InventoryFiles([path], inventory)

    async def scene() -> None:
        await component.start()
        with path.open("w") as file:
            for _ in range(10):
                file.write(yaml.safe_dump(ITEMS[0], explicit_start=True))
                file.flush()
                await asyncio.sleep(0.1)  # looks at what is half done
            assert (component.reloads, len(inventory)) == (0, 3)
            file.write(yaml.safe_dump_all(ITEMS, explicit_start=True))
        await until(lambda: component.reloads == 1)
        assert len(inventory) == 3
        await component.stop()

    asyncio.run(scene())


def test_a_directory_that_cannot_be_listed_is_a_failure_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.01)
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump_all(ITEMS))
    inventory = Inventory()
    component = InventoryFiles([tmp_path], inventory)

    def stale(_: Path) -> Iterator[Path]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    async def scene() -> None:
        await component.start()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", stale)
            await until(lambda: component.failures > 0)
        await until(lambda: component.reloads > 0)
        assert len(inventory) == 3
        await component.stop()

    asyncio.run(scene())


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pods.yaml")
    with pytest.raises(SettingsError, match=r"pods.yaml: no regular file"):
        read([tmp_path])


def test_bad_files_at_the_start_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml"):
        asyncio.run(InventoryFiles([tmp_path / "absent.yaml"], Inventory()).start())
