"""What the manifests' ClickHouse writes about itself, on the volume that the flows are on."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clickhouse.server import Server
from deploy.rendered import OPERATED, configuration, of

KEPT = {"query_log", "part_log"}
ENDLESS = {
    "text_log", "trace_log", "metric_log", "asynchronous_metric_log", "latency_log", "error_log",
    "query_metric_log", "query_thread_log", "query_views_log", "opentelemetry_span_log",
    "backup_log", "s3queue_log", *KEPT,
}  # fmt: skip
"""The logs that the image's config.xml has on, without an end: but for crashes, which are few."""

SECTION = "<{name}><database>system</database><table>{name}</table>{more}</{name}>"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314  # ours


def removed(root: ElementTree.Element) -> set[str]:
    return {each.tag for each in root if each.get("remove")}


def test_no_log_of_the_server_is_endless() -> None:
    root = parsed(configuration("", "server.xml"))
    ending = {each.tag for each in root if (each.findtext("ttl") or "").startswith("event_date +")}
    assert ending == KEPT
    assert ENDLESS - removed(root) == KEPT


def test_the_operator_s_servers_keep_as_little() -> None:
    """Of queries and parts the operator has a whole engine, which a TTL beside it contradicts."""
    (servers,) = of("overlays/clickhouse-operator", OPERATED[0])
    theirs = servers["spec"]["configuration"]["files"]["config.d/own-logs.xml"]
    root = parsed(theirs)
    assert removed(root) == {each.tag for each in root}
    ours = removed(parsed(configuration("", "server.xml")))
    assert removed(root) == {name for name in ours if name.endswith("_log")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One whose own configuration has logs as the image's does, and the manifests' beside."""
    one = Server(tmp_path)
    base = "".join(
        SECTION.format(name=name, more="<partition_by>toYYYYMM(event_date)</partition_by>")
        for name in ("query_log", "trace_log", "text_log", "part_log")
    )
    one.configure(base)
    (tmp_path / "config.d").mkdir()
    ours = configuration("", "server.xml").replace("clickhouse>", "yandex>")
    (tmp_path / "config.d" / "server.xml").write_text(ours)
    one.start()
    yield one
    one.kill()


@pytest.mark.clickhouse
def test_a_server_merges_it_with_the_image_s(server: Server) -> None:
    merged = parsed((server.path / "data" / "preprocessed_configs" / "config.xml").read_text())
    logs = {each.tag: each for each in merged if each.tag.endswith("_log")}
    assert set(logs) == KEPT
    for each in logs.values():
        assert [child.tag for child in each] == ["database", "table", "partition_by", "ttl"]
