"""What is kept of the Kubernetes API's objects, parsed from their JSON.

ValueError names the object and what it lacks: a file or an API server can be wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from flowvis.batch import address_bytes

Network = IPv4Network | IPv6Network

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
TERMINATED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod with addresses of its own."""

    namespace: str
    name: str
    uid: str
    node: str
    addresses: tuple[bytes, ...]
    """16 bytes each; none when the Pod shares the node's or has terminated."""
    created_ms: int
    pending: bool
    labels: str
    """A JSON object with its keys in order."""


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


def parse_pod(item: Mapping[str, Any]) -> Pod:
    """Read a v1 Pod."""
    metadata, spec, status = _parts(item)
    ips = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    shared = spec.get("hostNetwork") or status.get("phase") in TERMINATED
    return Pod(
        metadata["namespace"],
        metadata["name"],
        metadata.get("uid", ""),
        spec.get("nodeName", ""),
        () if shared else _addresses(item, ips),
        _milliseconds(item, metadata.get("creationTimestamp")),
        status.get("phase") == "Pending",
        json.dumps(metadata.get("labels") or {}, sort_keys=True, separators=(",", ":")),
    )


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


def _milliseconds(item: Mapping[str, Any], when: Any) -> int:
    """Read an RFC 3339 time, which YAML may have read already; 0 where there is none."""
    if not when:
        return 0
    try:
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(when)
    except (TypeError, ValueError):
        raise ValueError(f"{describe(item)}: creationTimestamp {when!r} is no time") from None
    return round(moment.timestamp() * 1000)
