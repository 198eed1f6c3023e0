"""The API on TCP of a real aggregator: over its own certificate, with tokens from a file."""

import json
import ssl
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from waiting import block_until

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
        assert ask(aggregator, "/api/v1/me", "")[0] == 401
        assert ask(aggregator, "/api/v1/me", OTHER)[1]["namespaces"] == ["shop"]

        def seen(token: str) -> set[str]:
            rows = ask(aggregator, "/flows", token)[1]
            return {row["sourcePodName"] for row in rows}

        block_until(lambda: seen(TOKEN) == {"client-1", "client-2"})
        assert seen(OTHER) == {"client-1"}
        assert ask(aggregator, "/api/v1/status", OTHER)[0] == 403
        assert ask(aggregator, "/api/v1/status", TOKEN)[1]["ready"]
        metrics = aggregator.metrics()
        assert metrics['flowvis_aggregator_api_refused_total{reason="unauthenticated"}'] == 1
        assert metrics['flowvis_aggregator_api_refused_total{reason="forbidden"}'] == 1
        assert metrics["flowvis_aggregator_api_connections_total"] >= 5
        assert aggregator.stop() == 0
    assert TOKEN not in aggregator.log()


def ask(aggregator: Aggregator, path: str, token: str) -> tuple[int, Any]:
    """Return an answer: JSON, or the lines of it."""
    port = aggregator.control.get("status")["apiPort"]
    context = ssl.create_default_context(cafile=str(aggregator.path / "ca.crt"))
    http = HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    http.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    with http.getresponse() as answer:
        text = answer.read()
    http.close()
    if answer.headers["Content-Type"] == "application/jsonl":
        return answer.status, [json.loads(line) for line in text.splitlines()]
    return answer.status, json.loads(text)
