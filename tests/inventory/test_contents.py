import base64
import logging
from typing import Any

import pytest

from flowvis.inventory.resources import CONFIG_MAPS, PODS, SECRETS
from flowvis.inventory.settings import ObjectName, parse_object_name
from flowvis.inventory.sources.contents import Contents, Entry
from flowvis.inventory.sources.watch import Watched, Watchers
from flowvis.lab.apiserver import ApiServer, status
from waiting import until

from .test_watch import Names, Plain, fast, running

NAME = ObjectName("here", "mine")


def config_map(name: str = "mine", namespace: str = "here", **data: Any) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name}
    return {"kind": "ConfigMap", "metadata": metadata, "data": data}


def secret(**data: bytes) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return config_map(**encoded) | {"kind": "Secret"}


def watched(server: ApiServer, *contents: Contents) -> Watchers:
    access = Plain(server.url)
    return Watchers(lambda: access, [each.watched for each in contents], wait_s=5.0, backoff=fast)


async def test_one_object_is_watched_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowvis.inventory.sources.contents")
    published, private = Contents(CONFIG_MAPS, NAME), Contents(SECRETS, NAME)
    async with running(ApiServer()) as server:
        server.put(config_map("other", key="no"))
        server.put(config_map(namespace="there", key="no"))
        server.put(config_map(key="first"))
        watchers = watched(server, published, private)
        await watchers.start()
        assert published.data == {"key": b"first"}
        assert private.listed
        assert private.data is None
        server.put(config_map("other", key="later"))
        server.put(config_map(key="second"))
        server.put(secret(key=b"\x00\xff"))
        await until(lambda: private.data == {"key": b"\x00\xff"})
        await until(lambda: published.data == {"key": b"second"})
        server.remove(config_map())
        await until(lambda: published.data is None)
        await watchers.stop()
        reported = [text for text in caplog.messages if "ConfigMap" in text]
        assert [text.removeprefix("ConfigMap here/mine ") for text in reported] == [
            "is there",
            "has changed",
            "is gone",
        ]
        paths = {(request.path, request.query["fieldSelector"]) for request in server.requests}
        assert paths == {
            ("/api/v1/namespaces/here/configmaps", "metadata.name=mine"),
            ("/api/v1/namespaces/here/secrets", "metadata.name=mine"),
        }


async def test_what_goes_while_nobody_watches_is_noticed_and_an_outage_changes_nothing() -> None:
    contents = Contents(CONFIG_MAPS, NAME)
    server = ApiServer()
    async with running(server):
        server.put(config_map(key="v"))
        watchers = watched(server, contents)
        await watchers.start()
    await until(lambda: bool(watchers.problem()))
    assert contents.data == {"key": b"v"}
    server.remove(config_map())
    server.forget()
    async with running(server):
        await until(lambda: contents.data is None)
        await watchers.stop()


async def test_without_the_right_a_start_does_not_wait_for_it() -> None:
    contents, names = Contents(SECRETS, NAME), Names()
    async with running(ApiServer()) as server:
        server.put(secret(key=b"v"))
        server.faults.answer = lambda request: (
            status(403, "secrets is forbidden") if "secrets" in request.path else None
        )
        access = Plain(server.url)
        watched = [Watched(PODS, [names]), contents.watched]
        watchers = Watchers(lambda: access, watched, backoff=fast)
        await watchers.start()
        assert watchers.not_synced() == ""
        assert "secrets is forbidden" in watchers.problem()
        with pytest.raises(PermissionError, match="may we get, list and watch it"):
            Entry(contents, "key", "").read_bytes()
        server.faults.answer = None
        await until(lambda: contents.data == {"key": b"v"})
        await until(lambda: not watchers.problem())
        await watchers.stop()


async def test_any_other_failure_is_waited_for() -> None:
    contents = Contents(SECRETS, NAME)
    async with running(ApiServer()) as server:
        left = [3]

        def answer(_: Any) -> Any:
            left[0] -= 1
            return status(500, "etcd is away") if left[0] > 0 else None

        server.faults.answer = answer
        watchers = watched(server, contents)
        await watchers.start()
        assert contents.listed
        await watchers.stop()


def test_an_entry_reads_like_a_file_and_says_what_is_missing() -> None:
    contents = Contents(SECRETS, NAME)
    entry = Entry(contents, "tls.key", "somebody makes it")
    assert str(entry) == "tls.key of Secret here/mine"
    contents.retain("", "Secret", set(), 0)
    with pytest.raises(FileNotFoundError, match="no such Secret: somebody makes it"):
        entry.read_bytes()
    contents.upsert(secret(other=b"x"), 0)
    with pytest.raises(FileNotFoundError, match="no such key: somebody makes it"):
        entry.read_bytes()
    contents.upsert(secret(**{"tls.key": b"PEM"}), 0)
    assert entry.read_bytes() == b"PEM"
    contents.delete(config_map("other"), 0)
    contents.retain("apps", "Secret", set(), 0)
    assert entry.read_bytes() == b"PEM"
    contents.delete(secret(), 0)
    assert contents.data is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"key": "%"}, "key is not base64"),
        ({"key": 7}, "key is not a text"),
        ([1], "not a mapping"),
    ],
)
def test_what_cannot_be_read_changes_nothing(data: Any, problem: str) -> None:
    contents = Contents(SECRETS, NAME)
    contents.upsert(secret(key=b"good"), 0)
    with pytest.raises(ValueError, match=f"Secret here/mine: .*{problem}"):
        contents.upsert(secret() | {"data": data}, 0)
    assert contents.data == {"key": b"good"}


def test_names_of_objects() -> None:
    name = parse_object_name("flow-aggregator/flow-aggregator.ca")
    assert name == ObjectName("flow-aggregator", "flow-aggregator.ca")
    assert str(name) == "flow-aggregator/flow-aggregator.ca"
    long = ("a" * 64 + "/b", "a/" + "b" * 254)
    for text in ("", "a", "a/", "/a", "a/b/c", "A/b", "a/b?", "-a/b", *long):
        with pytest.raises(ValueError, match="write <namespace>/<name>"):
            parse_object_name(text)
