"""A small cluster, and what explains its connections on a control socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flowvis.aggregator.api.application import Application, Door, LocalDoor
from flowvis.aggregator.api.listeners import ControlSocket
from flowvis.aggregator.api.paths import explain
from flowvis.aggregator.api.paths import policies as policy_paths
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.explanations import Explanations
from flowvis.cli.client import ControlClient
from flowvis.clickhouse.query import Query
from flowvis.clickhouse.store import Store
from flowvis.inventory.index import Inventory
from flowvis.policies import Policies
from flowvis.questions.kept_books import Uncommitted

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
BEGAN = NOW - 3_600_000


def pod(namespace: str, name: str, address: str, **more: Any) -> dict[str, Any]:
    spec = {"nodeName": more.get("node", "node-1"), "serviceAccountName": "default"}
    ports = [
        {"name": port, "containerPort": number} for port, number in more.get("ports", {}).items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"{namespace}-{name}",
            "labels": more.get("labels", {}),
            "creationTimestamp": "2025-12-31T00:00:00Z",
        },
        "spec": spec
        | {"containers": [{"name": "c", "ports": ports}], "hostNetwork": more.get("host", False)},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": one} for one in address.split(",") if one],
        },
    }


def named(kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": more.pop("labels", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


OBJECTS = [
    named("Namespace", "shop", labels={"team": "a"}),
    named("Namespace", "ops", labels={"team": "b"}),
    named("Node", "node-1", status={"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}),
    pod("shop", "cart-0", "10.0.0.1", labels={"app": "cart"}),
    pod(
        "shop", "orders-0", "10.0.0.2", labels={"app": "orders"}, ports={"http": 8080, "admin": 99}
    ),
    pod("shop", "orders-1", "10.0.0.3,fd00::3", labels={"app": "orders"}, ports={"http": 8081}),
    pod("ops", "probe", "10.0.1.1", labels={"app": "probe"}),
    pod("ops", "agent", "192.0.2.1", host=True),
    named(
        "Service",
        "orders",
        "shop",
        spec={
            "clusterIP": "10.96.0.7",
            "selector": {"app": "orders"},
            "ports": [
                {"name": "web", "port": 80, "targetPort": "http"},
                {"name": "admin", "port": 99},
            ],
        },
    ),
    named("Service", "nobody", "shop", spec={"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}),
]
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {
        "name": "orders",
        "namespace": "shop",
        "creationTimestamp": "2025-12-31T23:30:00Z",
    },
    "spec": {
        "podSelector": {"matchLabels": {"app": "orders"}},
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": {"app": "cart"}}}],
                "ports": [{"port": 8080}],
            },
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]},
        ],
    },
}


def cluster(*more: Any) -> tuple[Inventory, Policies]:
    inventory, policies = Inventory(), Policies(known_from_ms=BEGAN)
    for item in (*OBJECTS, *more):
        inventory.upsert(item, BEGAN)
        policies.upsert(item, BEGAN)
    policies.upsert(POLICY, NOW - 1_000_000)
    return inventory, policies


@asynccontextmanager
async def explained(
    path: Path,
    inventory: Inventory,
    policies: Policies,
    store: Store | None = None,
    door: Door | None = None,
    *,
    cluster_id: str = "",
) -> AsyncIterator[ControlClient]:
    """Serve it, over the records of a store."""

    async def nothing() -> None:
        pass

    def ask(sql: str) -> Query:
        if store is None:
            raise Problem("no-store", "no store is configured")
        return store.ask(sql, max_rows=10_000, max_length=1 << 20)

    def uncommitted() -> Uncommitted:
        return Uncommitted(NOW // 1000, NOW // 1000, ())

    questions = Questions(
        Answers(lambda: 2), ask, lambda: NOW, uncommitted, cluster=lambda: cluster_id
    )
    routes = [
        *explain.routes(Explanations(inventory, policies), questions, lambda: NOW),
        *policy_paths.routes(questions, policies),
    ]
    api = ControlSocket(path / "control.sock", Application(routes, door or LocalDoor()), nothing)
    await api.start()
    try:
        yield ControlClient(api.path)
    finally:
        await api.stop()
