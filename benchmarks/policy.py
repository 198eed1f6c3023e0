"""Decide over the records of a cluster with 1,000 policies and 20,000 Pods.

100 namespaces of 10 workloads with 20 Pods each; nine policies of ten are of Kubernetes, the others
cluster-wide ones of both makes. Of the connections 70 % are between a few Pods each and the Pods
that they always call, 20 % leave the cluster, 10 % come from outside; some ports are ephemeral.
Measured is `decide` on batches of the aggregator's size when every pair of classes has been seen
(warm), right after the policies were loaded, compiling included (cold), right after one of them has
changed, and right after a namespace was made.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowvis.batch import V4_MAPPED, Batch
from flowvis.fields import BY_NAME
from flowvis.native import StringTable
from flowvis.policies import Policies

NAMESPACES = 100
WORKLOADS = 10
REPLICAS = 20
POLICIES = 1000
RECORDS = 400_000
BATCH = 8192
NOW_MS = 1_767_225_600_000
OUTSIDE = 20_000  # addresses


@dataclass(frozen=True)
class Pod:
    """As the inventory has it."""

    namespace: str
    labels: str
    node: str
    service_account: str = "default"
    named_ports: tuple[tuple[str, int, int], ...] = (("http", 6, 8080), ("metrics", 6, 9090))


def run() -> dict[str, Any]:
    random = np.random.default_rng(1)
    pods = _pods()
    items = _items()
    policies = Policies()
    began = time.process_time()
    for item in items:
        policies.upsert(item, NOW_MS - 60_000)
    loaded = time.process_time() - began
    strings = StringTable()
    batches = [
        _records(random, strings, min(BATCH, RECORDS - at)) for at in range(0, RECORDS, BATCH)
    ]
    cold, _ = _decide(policies, pods, batches)
    evaluated = policies.stats.evaluated
    wall = time.perf_counter()
    warm, found = _decide(policies, pods, batches)
    wall = time.perf_counter() - wall
    assert policies.stats.evaluated == evaluated
    assert {1, 2} <= set(found)
    policies.upsert(_policy(0, "changed"), NOW_MS - 1)
    changed, _ = _decide(policies, pods, batches)
    policies.upsert({"kind": "Namespace", "metadata": {"name": "another"}}, NOW_MS - 1)
    beside, _ = _decide(policies, pods, batches)
    return {
        "records": RECORDS,
        "cpu_seconds": round(warm, 3),
        "wall_seconds": round(wall, 3),
        "warm_ns": round(warm / RECORDS * 1e9),
        "cold_ns": round(cold / RECORDS * 1e9),
        "after_change_ns": round(changed / RECORDS * 1e9),
        "after_namespace_ns": round(beside / RECORDS * 1e9),
        "load_seconds": round(loaded, 3),
        "policies": POLICIES,
        "pods": len(pods),
        "pairs_of_classes": evaluated,
        "verdicts": len(np.unique(found)),
    }


def _decide(policies: Policies, pods: list[Pod], batches: list[Any]) -> tuple[float, Any]:
    began = time.process_time()
    for batch, sources, destinations in batches:
        columns = policies.decide(batch, pods, sources, destinations)
    return time.process_time() - began, columns["ingressNetworkPolicyRuleAction"]


def _pods() -> list[Pod]:
    return [
        Pod(
            f"team-{ns}",
            json.dumps({"app": f"app-{app}", "pod-template-hash": f"{ns}{app}", "index": str(pod)}),
            f"node-{pod}",
        )
        for ns in range(NAMESPACES)
        for app in range(WORKLOADS)
        for pod in range(REPLICAS)
    ]


def _items() -> list[dict[str, Any]]:
    spaces = [
        {
            "kind": "Namespace",
            "metadata": {
                "name": f"team-{ns}",
                "labels": {"kubernetes.io/metadata.name": f"team-{ns}", "tier": f"t{ns % 5}"},
            },
        }
        for ns in range(NAMESPACES)
    ]
    return [*spaces, *(_policy(number) for number in range(POLICIES))]


def _policy(number: int, name: str = "") -> dict[str, Any]:
    ns, app = number % NAMESPACES, number // NAMESPACES
    metadata = {"name": name or f"policy-{number}", "namespace": f"team-{ns}"}
    if app == WORKLOADS - 1:
        return _cluster_policy(number, {"name": metadata["name"]})
    callers = [{"podSelector": {"matchLabels": {"app": f"app-{(app + 1) % WORKLOADS}"}}}]
    if app == 0:
        spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
    else:
        tiers = {"namespaceSelector": {"matchLabels": {"tier": f"t{app % 5}"}}}
        outside = {"ipBlock": {"cidr": f"198.{18 + app % 2}.{number % 64}.0/24"}}
        spec = {
            "podSelector": {"matchLabels": {"app": f"app-{app}"}},
            "policyTypes": ["Ingress", "Egress"] if app % 3 == 0 else ["Ingress"],
            "ingress": [
                {"from": [*callers, tiers, outside], "ports": [{"port": "http"}, {"port": 443}]},
                {"from": [tiers], "ports": [{"port": 9000, "endPort": 9100}]},
            ],
            "egress": [{"to": [tiers, {"podSelector": {}}]}, {"ports": [{"port": 443}]}],
        }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }


def _cluster_policy(number: int, metadata: dict[str, Any]) -> dict[str, Any]:
    app = {"matchLabels": {"app": f"app-{number % WORKLOADS}"}}
    tier = {"matchLabels": {"tier": f"t{number % 5}"}}
    if number % 2:
        return {
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": metadata,
            "spec": {
                "tier": "Admin" if number % 4 == 1 else "Baseline",
                "priority": number,
                "subject": {"pods": {"namespaceSelector": tier, "podSelector": app}},
                "egress": [
                    {"action": "Deny", "to": [{"networks": [f"198.18.{number % 256}.0/28"]}]}
                ],
            },
        }
    return {
        "apiVersion": "crd.antrea.io/v1beta1",
        "kind": "ClusterNetworkPolicy",
        "metadata": metadata,
        "spec": {
            "priority": number,
            "appliedTo": [{"podSelector": app, "namespaceSelector": tier}],
            "ingress": [
                {
                    "name": "no-database",
                    "action": "Drop",
                    "ports": [{"protocol": "TCP", "port": 5432}],
                    "from": [{"namespaces": {"match": "Self"}}],
                }
            ],
        },
    }


def _records(random: Any, strings: StringTable, count: int) -> tuple[Batch, Any, Any]:
    """Return a batch and the handles of both endpoints' Pods."""
    pods = NAMESPACES * WORKLOADS * REPLICAS
    sources = random.integers(0, pods, count)
    # What a Pod calls: three workloads, any of their replicas.
    called = (sources // REPLICAS * 7 + random.integers(0, 3, count) * 11) % (pods // REPLICAS)
    destinations = called * REPLICAS + random.integers(0, REPLICAS, count)
    kind = random.random(count)
    sources[kind >= 0.9] = -1
    destinations[(kind >= 0.7) & (kind < 0.9)] = -1
    ports = random.choice([80, 443, 5432, 8080, 9090], count)
    ephemeral = random.random(count) < 0.02
    ports[ephemeral] = random.integers(32768, 61000, int(ephemeral.sum()))
    columns: dict[str, Any] = {
        "sourceIP": _addresses(random, sources),
        "destinationIP": _addresses(random, destinations),
        "destinationTransportPort": ports.astype(np.uint16),
        "protocolIdentifier": np.where(random.random(count) < 0.9, 6, 17).astype(np.uint8),
        "flowStartMilliseconds": np.full(count, NOW_MS, dtype=np.uint64),
    }
    for name, row in BY_NAME.items():
        if "NetworkPolicy" in name:
            columns[name] = np.zeros(count, dtype=row.kind.dtype)
    return Batch(columns, strings), sources, destinations


def _addresses(random: Any, handles: Any) -> Any:
    numbers = np.where(
        handles >= 0,
        (10 << 24) + handles,
        (198 << 24) + (18 << 16) + random.integers(0, OUTSIDE, len(handles)),
    )
    found = np.zeros((len(handles), 16), dtype=np.uint8)
    found[:, :12] = np.frombuffer(V4_MAPPED, dtype=np.uint8)
    found[:, 12:] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    return found
