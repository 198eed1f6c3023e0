"""What is kept of the Kubernetes API's objects, parsed from their JSON.

ValueError names the object and what it lacks: a file or an API server can be wrong.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from flowvis.batch import address_bytes
from flowvis.inventory.workloads import Workload, workload

Network = IPv4Network | IPv6Network

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
TERMINATED = frozenset({"Succeeded", "Failed"})
SHARED = 1 << 14  # workloads, and sets of ports, that are held once for all their Pods


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod; what is equal in many Pods (namespace, node, labels, workload) is held once."""

    namespace: str
    name: str
    uid: str
    node: str
    addresses: tuple[bytes, ...]
    """16 bytes each; none of its own when the Pod shares the node's."""
    created_ms: int
    pending: bool
    labels: str
    """A JSON object with its keys in order."""
    workload: Workload
    service_account: str
    named_ports: tuple[tuple[str, int, int], ...]
    """The containers' ports that have a name: (name, protocol, number); where the Pod shares the
    node's addresses all of them, as these then are the node's."""
    shares_node: bool
    """Whether it uses the node's addresses (hostNetwork), so that no address names it."""
    ended_ms: int | None
    """When the last of its containers ended, once it has run to its end (a Job's); 0: unknown."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service and where it is called."""

    service: str
    """`namespace/name:portName`, or `namespace/name` where the port has no name."""
    uid: str
    protocol: int
    port: int
    addresses: tuple[bytes, ...]
    node_port: int
    """The port on every node's addresses, or 0."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, its addresses and the networks that its Pods' addresses come from."""

    name: str
    uid: str
    addresses: tuple[bytes, ...]
    pod_networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace and what policies select it by."""

    name: str
    uid: str
    labels: Mapping[str, str]


def parse_pod(item: Mapping[str, Any]) -> Pod:
    """Read a v1 Pod."""
    metadata, spec, status = _parts(item)
    ips = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    shares_node = bool(spec.get("hostNetwork"))
    labels = json.dumps(metadata.get("labels") or {}, sort_keys=True, separators=(",", ":"))
    kind, name = workload(metadata)
    return Pod(
        sys.intern(metadata["namespace"]),
        metadata["name"],
        metadata.get("uid", ""),
        sys.intern(spec.get("nodeName", "")),
        () if shares_node else _addresses(item, ips),
        _milliseconds(item, "creationTimestamp", metadata.get("creationTimestamp")),
        status.get("phase") == "Pending",
        sys.intern(labels),
        _workload(kind, name),
        sys.intern(spec.get("serviceAccountName", "")),
        _ports(tuple(_named_ports(spec, all_of_them=shares_node))),
        shares_node,
        _ended_ms(item, status) if status.get("phase") in TERMINATED else None,
    )


@lru_cache(SHARED)
def _workload(kind: str, name: str) -> Workload:
    return Workload(kind, name)


@lru_cache(SHARED)
def _ports(named: tuple[tuple[str, int, int], ...]) -> tuple[tuple[str, int, int], ...]:
    return named


def _named_ports(spec: Mapping[str, Any], *, all_of_them: bool) -> Iterator[tuple[str, int, int]]:
    """Go through the ports with names, or all.

    Of init containers only those that go on running have ports: sidecars, which restart always.
    """
    inits = spec.get("initContainers") or ()
    sidecars = (init for init in inits if init.get("restartPolicy") == "Always")
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            protocol = port.get("protocol", "TCP")
            if (port.get("name") or all_of_them) and protocol in PROTOCOLS:
                yield port.get("name") or "", PROTOCOLS[protocol], port["containerPort"]


def _ended_ms(item: Mapping[str, Any], status: Mapping[str, Any]) -> int:
    ends = [
        ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
        for container in status.get("containerStatuses") or ()
    ]
    return max((_milliseconds(item, "finishedAt", end) for end in ends), default=0)


def parse_service(item: Mapping[str, Any]) -> tuple[ServicePort, ...]:
    """Read a v1 Service; a headless one is called at its Pods' addresses and has no port here."""
    metadata, spec, status = _parts(item)
    balancer = (status.get("loadBalancer") or {}).get("ingress") or ()
    ips = [
        *(spec.get("clusterIPs") or [spec.get("clusterIP")]),
        *(spec.get("externalIPs") or ()),
        *(entry.get("ip") for entry in balancer),
    ]
    addresses = _addresses(item, [ip for ip in ips if ip != "None"])
    full = f"{metadata['namespace']}/{metadata['name']}"
    return tuple(
        ServicePort(
            f"{full}:{port['name']}" if port.get("name") else full,
            metadata.get("uid", ""),
            PROTOCOLS[port.get("protocol", "TCP")],
            port["port"],
            addresses,
            port.get("nodePort") or 0,
        )
        for port in spec.get("ports") or ()
        if port.get("protocol", "TCP") in PROTOCOLS
    )


def parse_node(item: Mapping[str, Any]) -> Node:
    """Read a v1 Node."""
    metadata, spec, status = _parts(item, namespaced=False)
    cidrs = spec.get("podCIDRs") or [cidr for cidr in (spec.get("podCIDR"),) if cidr]
    try:
        networks = tuple(ip_network(cidr) for cidr in cidrs)
    except ValueError as error:
        raise ValueError(f"{describe(item)}: spec.podCIDRs: {error}") from None
    ips = [
        entry.get("address")
        for entry in status.get("addresses") or ()
        if entry.get("type") in {"InternalIP", "ExternalIP"}
    ]
    name = metadata["name"]
    return Node(name, metadata.get("uid", ""), _addresses(item, ips), networks)


def parse_namespace(item: Mapping[str, Any]) -> Namespace:
    """Read a v1 Namespace."""
    metadata, _, _ = _parts(item, namespaced=False)
    return Namespace(metadata["name"], metadata.get("uid", ""), metadata.get("labels") or {})


def describe(item: Mapping[str, Any]) -> str:
    """Name an object as `kubectl` does: `Pod shop/cart-1`."""
    metadata = item.get("metadata") or {}
    parts = (metadata.get("namespace"), metadata.get("name") or "without a name")
    return f"{item.get('kind', 'object')} {'/'.join(part for part in parts if part)}"


def _parts(
    item: Mapping[str, Any], *, namespaced: bool = True
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return metadata, spec and status, each a mapping."""
    parts = [item.get(part) or {} for part in ("metadata", "spec", "status")]
    for name, part in zip(("metadata", "spec", "status"), parts, strict=True):
        if not isinstance(part, Mapping):
            raise ValueError(f"{item.get('kind', 'object')}: {name} is not a mapping")  # noqa: TRY004  bad data, not misuse
    wanted = {"name", "namespace"} if namespaced else {"name"}
    missing = sorted(key for key in wanted if not parts[0].get(key))
    if missing:
        raise ValueError(f"{describe(item)}: metadata.{missing[0]} is missing")
    return parts[0], parts[1], parts[2]


def _addresses(item: Mapping[str, Any], ips: list[Any]) -> tuple[bytes, ...]:
    try:
        return tuple(address_bytes(ip) for ip in ips if ip)
    except ValueError as error:
        raise ValueError(f"{describe(item)}: {error}") from None


def _milliseconds(item: Mapping[str, Any], name: str, when: Any) -> int:
    """Read an RFC 3339 time, which YAML may have read already; 0 where there is none."""
    if not when:
        return 0
    try:
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(when)
    except (TypeError, ValueError):
        raise ValueError(f"{describe(item)}: {name} {when!r} is no time") from None
    return round(moment.timestamp() * 1000)
