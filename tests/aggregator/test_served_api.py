"""The API on TCP of a real aggregator: over its own certificate, with tokens from a file."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from waiting import PATIENCE_S, block_until

from .harness import Aggregator, connection, deliver, exported, running

TOKEN, OTHER = "admin-0123456789abcdef", "other-0123456789abcdef"


def test_flows_by_https(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN} admin\n{OTHER} sam shop\n")
    tokens.chmod(0o600)
    settings = {"apiServer": {"apiPort": 0, "tokenFile": str(tokens)}}
    with running(tmp_path / "aggregator", settings) as aggregator:
        pod = {"sourcePodNamespace": "shop"}
        deliver(aggregator, exported(connection(1) | pod, connection(2)))
        aggregator.settled(2)
        with readers(aggregator, "", TOKEN, OTHER) as (nobody, admin, sam):
            assert nobody.ask("/api/v1/me")[0] == 401
            assert sam.ask("/api/v1/me")[1]["namespaces"] == ["shop"]

            def seen(reader: Reader) -> set[str]:
                return {row["sourcePodName"] for row in reader.ask("/flows")[1]}

            block_until(lambda: seen(admin) == {"client-1", "client-2"})
            assert seen(sam) == {"client-1"}
            assert sam.ask("/api/v1/status")[0] == 403
            assert admin.ask("/api/v1/status")[1]["ready"]
        metrics = aggregator.metrics()
        assert metrics['flowvis_aggregator_api_refused_total{reason="unauthenticated"}'] == 1
        assert metrics['flowvis_aggregator_api_refused_total{reason="forbidden"}'] == 1
        assert metrics["flowvis_aggregator_api_connections_total"] == 3
        assert aggregator.stop() == 0
    assert TOKEN not in aggregator.log()


SECRET = "vault"
"""What names everything of the namespace that the other token does not show."""


def test_no_path_shows_what_one_may_not_see(tmp_path: Path) -> None:
    """Each path of the document, with attempts in each parameter; who sees all sees it there."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN} admin\n{OTHER} sam shop\n")
    settings = {
        "apiServer": {
            "apiPort": 0,
            "tokenFile": str(tokens),
            "requestsPerSecond": 10_000,
            "maxConcurrent": 100,
        },
        "clickHouse": {
            "enable": True,
            "databaseURL": f"embedded://{tmp_path}/store",
            "commitInterval": "1s",
        },
        "correlationTimeout": "100ms",
        "inactiveFlowRecordTimeout": "10m",
    }
    with running(tmp_path / "aggregator", settings) as aggregator:
        shop, hidden = connection(1), connection(2)
        for record, namespace in ((shop, "shop"), (hidden, f"{SECRET}-ns")):
            record["sourcePodNamespace"] = namespace
            record["sourcePodName"] = f"{namespace}-client"
            record["sourceNodeName"] = f"{namespace}-node"
            record["destinationServicePortName"] = f"{namespace}/web:http"
            record["egressNetworkPolicyName"] = f"{namespace}-policy"
            record["egressNetworkPolicyNamespace"] = namespace
            record["egressNetworkPolicyRuleAction"] = 1
        deliver(aggregator, exported(shop, hidden))
        aggregator.settled(2)
        shown = set()
        with readers(aggregator, TOKEN, OTHER) as (admin, sam):
            for path, query in attempts(admin.ask("/api/v1/openapi.json")[1]):
                for reader in (admin, sam):
                    status, text = reader.text(f"{path}?{urlencode(query)}")
                    assert status < 500, (path, query, text)
                    for asked in query.values():
                        text = text.replace(asked, "") if asked else text
                    found = SECRET in text
                    if reader is admin and found:
                        shown.add(path)
                    assert reader is admin or status >= 400 or not found, (path, query, text)
        assert shown >= {
            "/flows",
            "/flowrecords",
            "/api/v1/live",
            "/api/v1/flows",
            "/api/v1/query",
            "/api/v1/graph",
            "/api/v1/complete",
            "/api/v1/policies",
            "/api/v1/explain",
        }
        assert aggregator.stop() == 0


FILTERS = (
    "",
    f"namespace = shop or namespace = {SECRET}-ns",
    "not namespace = shop",
    f"{SECRET}",
    "namespace != shop or namespace ~ '.*'",
)
VALUES = {
    "filter": FILTERS,
    "by": ("src.pod", "src.namespace,src.node", "service", "src.policy"),
    "measure": ("connections,octets",),
    "compare": ("previous",),
    "interval": ("auto",),
    "source": ("src.pod", f"{SECRET}-ns/{SECRET}-ns-client"),
    "target": ("service",),
    "destination": ("10.200.0.1:80",),
    "text": ("src.namespace = ", "pod = va", "policy = ", "service = ", "node = ", "va"),
    "columns": ("*", "sourcePodName,sourcePodNamespace"),
    "namespace": (f"{SECRET}-ns",),
    "pod": (f"{SECRET}-ns-client",),
    "srcip": ("10.0.0.2",),
}
"""What is tried in a parameter of this name."""


def attempts(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Go through paths, with each value of each parameter."""
    for path, operations in document["paths"].items():
        if "get" not in operations or path == "/api/v1/stream":
            continue
        names = [parameter["name"] for parameter in operations["get"]["parameters"]]
        range_ = {"from": "-1d"} if {"from", "filter"} <= set(names) else {}
        yield path, {}
        for name in names:
            named = path == "/api/v1/explain" and name != "filter"
            for value in VALUES.get(name, ()):
                yield path, {name: value} | ({} if named else range_)
        for chosen in FILTERS if "by" in names else ():
            yield path, {"by": "src.pod,dst.ip", "filter": chosen, "compare": "previous"} | range_
        if path == "/api/v1/explain":
            yield path, {"filter": f"src.pod = {SECRET}-ns/{SECRET}-ns-client"} | range_


class Reader:
    """Somebody with a token, on one connection."""

    def __init__(self, aggregator: Aggregator, token: str) -> None:
        port = aggregator.control.get("status")["apiPort"]
        context = ssl.create_default_context(cafile=str(aggregator.path / "ca.crt"))
        self._http = HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=context)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def text(self, path: str) -> tuple[int, str]:
        """Return an answer as it came."""
        self._http.request("GET", path, headers=self._headers)
        with self._http.getresponse() as answer:
            return answer.status, answer.read().decode()

    def ask(self, path: str) -> tuple[int, Any]:
        """Return an answer: JSON, or the lines of it."""
        status, text = self.text(path)
        if path == "/flows":
            return status, [json.loads(line) for line in text.splitlines()]
        return status, json.loads(text)

    def close(self) -> None:
        self._http.close()


@contextmanager
def readers(aggregator: Aggregator, *tokens: str) -> Iterator[list[Reader]]:
    made = [Reader(aggregator, token) for token in tokens]
    try:
        yield made
    finally:
        for reader in made:
            reader.close()
