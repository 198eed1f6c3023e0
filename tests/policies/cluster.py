"""A cluster's Pods and policies, and what is decided over connections between them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from flowvis.batch import Batch, address_bytes
from flowvis.fields import TRANSPORTS
from flowvis.native import StringTable
from flowvis.policies import Policies
from flowvis.policies.model import Action

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DIRECTIONS = ("ingress", "egress")
FIELDS = ("Name", "Namespace", "Type", "RuleName", "RuleAction")
COUNTERS = (
    "octetTotalCount",
    "packetTotalCount",
    "reverseOctetTotalCount",
    "reversePacketTotalCount",
)
ALLOWING = (Action.NONE, Action.ALLOW)


@dataclass(frozen=True)
class Pod:
    """As the inventory has it."""

    namespace: str
    name: str
    address: str
    labels: str = "{}"
    node: str = "node-1"
    service_account: str = "default"
    named_ports: tuple[tuple[str, int, int], ...] = ()


class Verdict(NamedTuple):
    name: str
    namespace: str
    type: int
    rule: str
    action: int


NOTHING = Verdict("", "", 0, "", 0)


class Connection(NamedTuple):
    """Ends are `namespace/name` of a Pod, or an address."""

    source: str
    destination: str
    port: int = 80
    protocol: str | int = "TCP"
    start_ms: int = NOW


@dataclass
class Cluster:
    pods: Sequence[Pod]
    policies: Policies = field(default_factory=Policies)
    strings: StringTable = field(default_factory=StringTable)

    def apply(self, *items: Mapping[str, Any], now_ms: int = NOW - 60_000) -> None:
        for item in items:
            self.policies.upsert(item, now_ms)

    def batch(self, connections: Sequence[Connection], **said: Iterable[Any]) -> Batch:
        """The records of connections; `said` are columns that they already have."""
        count = len(connections)
        columns: dict[str, Any] = {
            "sourceIP": self._addresses(c.source for c in connections),
            "destinationIP": self._addresses(c.destination for c in connections),
            "destinationTransportPort": np.array([c.port for c in connections], dtype=np.uint16),
            "protocolIdentifier": np.array(
                [TRANSPORTS.get(str(c.protocol), c.protocol) for c in connections], dtype=np.uint8
            ),
            "flowStartMilliseconds": np.array([c.start_ms for c in connections], dtype=np.uint64),
            "tcpState": self.strings.encode(said.get("tcpState", [""] * count)),
        }
        for name in COUNTERS:
            columns[name] = np.array(list(said.get(name, [0] * count)), dtype=np.uint64)
        for direction in DIRECTIONS:
            for name in FIELDS:
                text = name in {"Name", "Namespace", "RuleName"}
                full = f"{direction}NetworkPolicy{name}"
                values = list(said.get(full, [""] * count if text else [0] * count))
                columns[full] = (
                    self.strings.encode(values) if text else np.array(values, dtype=np.uint8)
                )
        return Batch(columns, self.strings)

    def decide(
        self, connections: Sequence[Connection], **said: Iterable[Any]
    ) -> list[dict[str, Verdict]]:
        """The verdicts of each connection by direction."""
        found = self.policies.decide(
            self.batch(connections, **said),
            self.pods,
            self._handles(c.source for c in connections),
            self._handles(c.destination for c in connections),
        )
        rows: list[dict[str, Verdict]] = [{} for _ in connections]
        for direction in DIRECTIONS:
            columns = []
            for name in FIELDS:
                column = found[f"{direction}NetworkPolicy{name}"]
                text = column.dtype == np.uint32
                columns.append(self.strings.texts(column) if text else column.tolist())
            for row, values in zip(rows, zip(*columns, strict=True), strict=True):
                row[direction] = Verdict(*values)
        return rows

    def one(self, source: str, destination: str, *rest: Any, **more: Any) -> dict[str, Verdict]:
        return self.decide([Connection(source, destination, *rest, **more)])[0]

    def _handles(self, names: Iterable[str]) -> Any:
        places = {f"{pod.namespace}/{pod.name}": at for at, pod in enumerate(self.pods)}
        return np.array([places.get(name, -1) for name in names], dtype=np.int64)

    def _addresses(self, names: Iterable[str]) -> Any:
        known = {f"{pod.namespace}/{pod.name}": pod.address for pod in self.pods}
        packed = [address_bytes(known.get(name, name)) for name in names]
        return np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(-1, 16)


def labels(**pairs: str) -> str:
    return json.dumps(pairs, sort_keys=True)


def passes(verdicts: Mapping[str, Verdict]) -> bool:
    """Whether both directions let the connection through."""
    return all(verdict.action in ALLOWING for verdict in verdicts.values())


def namespace(name: str, **pairs: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **pairs}},
    }


def service(name: str, namespace: str, **selector: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector},
    }


def network_policy(name: str, namespace: str = "x", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, **spec},
    }


def admin_policy(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return {
        "apiVersion": f"policy.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def antrea(kind: str, name: str, namespace: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {
        "apiVersion": "crd.antrea.io/v1beta1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def matching(**pairs: str) -> dict[str, Any]:
    """A label selector."""
    return {"matchLabels": {key.replace("__", "/"): value for key, value in pairs.items()}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    """A label selector of one expression."""
    found: dict[str, Any] = {"key": key, "operator": operator}
    if values:
        found["values"] = list(values)
    return {"matchExpressions": [found]}
