"""The API's objects that a decision depends on, and what is kept of each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from flowvis.addresses import Address, Network, parse_address
from flowvis.batch import V4_MAPPED
from flowvis.policies.admin import parse_admin_policy
from flowvis.policies.antrea import parse_antrea_policy, parse_group, parse_tier
from flowvis.policies.kubernetes import parse_network_policy
from flowvis.policies.model import (
    GroupName,
    Peer,
    Pods,
    Policy,
    ServicePods,
    Unknowable,
    namespace_of,
    parse_network,
)
from flowvis.policies.selectors import parse_selector

ANTREA = "crd.antrea.io"
ADMIN = "policy.networking.k8s.io"
NAME_LABEL = "kubernetes.io/metadata.name"
TRANSPORT = "node.antrea.io/transport-addresses"
"""Annotation of Antrea's agents: the addresses by which a node carries its Pods' traffic."""

MAX_DEPTH = 8
"""Groups in groups; Antrea allows one level."""

Labels = Mapping[str, str]
Parsers = Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Any]]
"""By API group and kind: what returns what is kept of an object."""
Key = tuple[str, str, str, str]
"""API group, kind, namespace, name."""


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """A node's labels, and its addresses with its legs in its Pods' networks; 16 bytes each."""

    labels: Labels
    addresses: frozenset[bytes]
    antrea: frozenset[bytes] = frozenset()
    """The addresses that a nodeSelector of Antrea selects it by."""
    created_ms: int = 0
    """0: not said."""


@dataclass(slots=True)
class Snapshot:
    """All that decisions depended on at one time."""

    policies: list[Policy] = field(default_factory=list)
    groups: dict[tuple[str, str], tuple[Peer, ...]] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    namespaces: dict[str, Labels] = field(default_factory=dict)
    nodes: dict[str, NodeAddresses] = field(default_factory=dict)
    services: dict[tuple[str, str], tuple[Pods, ...]] = field(default_factory=dict)
    """The Pods of Services; of those, at least, that groups name."""
    reaching: frozenset[tuple[str, str]] = frozenset()
    """Groups of a namespace that have Pods of others."""

    @classmethod
    def of(cls, objects: Iterable[tuple[Key, Any]]) -> Self:
        """Put objects, as `parse` returned them, in their places."""
        found = cls()
        for key, value in objects:
            found.add(key, value)
        return found

    def expand(self, peers: Iterable[Peer]) -> Iterator[Peer]:
        """Go through peers with those of groups and Services in their places, each group once."""
        yield from self._expand(peers, {}, MAX_DEPTH)

    def _expand(
        self, peers: Iterable[Peer], open_: dict[GroupName, bool], depth: int
    ) -> Iterator[Peer]:
        """`open_` has the groups seen so far, and whether their members are still gone through."""
        for peer in peers:
            if isinstance(peer, ServicePods):
                yield from self.services.get((peer.namespace, peer.name), ())
            elif not isinstance(peer, GroupName):
                yield peer
            elif open_.get(peer) or not depth:
                yield Unknowable("groups in groups")
            elif peer not in open_:
                open_[peer] = True
                members = self.groups.get((peer.namespace, peer.name), ())
                yield from self._expand(members, open_, depth - 1)
                open_[peer] = False

    def node_addresses(self) -> dict[bytes, str]:
        """Return the name of each node by its addresses: of one that several have, the youngest's.

        The object of a node that is gone may stay for a while, and its address be another's then.
        """
        by_age = sorted(self.nodes.items(), key=lambda found: found[1].created_ms)
        return {address: name for name, node in by_age for address in node.addresses}

    def labels_of(self, namespace: str) -> Labels:
        """Return a namespace's labels; of one that is not known, the one for its name."""
        return self.namespaces.get(namespace) or {NAME_LABEL: namespace}

    def add(self, key: Key, value: Any) -> None:
        """Add what `parse` returned for an object."""
        _, kind, namespace, name = key
        match kind:
            case "Group" | "ClusterGroup":
                self.groups[namespace, name] = value
            case "Tier":
                self.tiers[name.lower()] = value
            case "Namespace":
                self.namespaces[name] = value
            case "Node":
                self.nodes[name] = value
            case "Service":
                self.services[namespace, name] = value
            case _:
                self.policies.append(value)


def key_of(item: Mapping[str, Any], parsers: Parsers) -> Key | None:
    """Return the key of an object; None if its kind is none of these. ValueError: no name."""
    group = str(item.get("apiVersion") or "").rpartition("/")[0]
    kind = str(item.get("kind"))
    if (group, kind) not in parsers:
        return None
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not name:
        raise ValueError(f"{kind}: metadata.name is missing")
    namespace = metadata.get("namespace")
    if not isinstance(name, str) or not isinstance(namespace, str | None):
        raise ValueError(f"{kind}: metadata.name and metadata.namespace have to be texts")  # noqa: TRY004  bad data, not misuse
    return group, kind, namespace or "", name


def parse(key: Key, item: Mapping[str, Any], parsers: Parsers) -> Any:
    """Return what is kept of an object; ValueError names the object and what is wrong."""
    group, kind, namespace, name = key
    try:
        return parsers[group, kind](item)
    except KeyError as error:
        problem = f"no or bad value for {error}"
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        problem = str(error)
    raise ValueError(f"{kind} {namespace + '/' if namespace else ''}{name}: {problem}")


def created_ms(item: Mapping[str, Any]) -> int | None:
    """Return when an object was created (a YAML reader may have parsed it); None if unreported."""
    when = item["metadata"].get("creationTimestamp")
    try:
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(when)
        return round(moment.timestamp() * 1000)
    except (OverflowError, TypeError, ValueError):
        return None


def parse_namespace(item: Mapping[str, Any]) -> Labels:
    """Read a Namespace: its labels, with the one for its name."""
    metadata = item["metadata"]
    return {NAME_LABEL: metadata["name"], **_labels(metadata)}


def _labels(metadata: Mapping[str, Any]) -> Labels:
    return {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()}


def _parse_node(item: Mapping[str, Any]) -> NodeAddresses:
    metadata, status, spec = item["metadata"], item.get("status") or {}, item.get("spec") or {}
    by_type: dict[str, list[bytes]] = {}
    for entry in status.get("addresses") or ():
        if str(entry.get("type")).endswith("IP"):
            by_type.setdefault(str(entry["type"]), []).extend(_packed([entry.get("address")]))
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else ())
    legs = _packed(cidrs, lambda cidr: _leg(parse_network(cidr)))
    annotations = metadata.get("annotations") or {}
    transport = _packed(part.strip() for part in str(annotations.get(TRANSPORT) or "").split(","))
    own = by_type.get("InternalIP") or by_type.get("ExternalIP") or []
    return NodeAddresses(
        _labels(metadata),
        frozenset([*(a for those in by_type.values() for a in those), *legs, *transport]),
        frozenset([*_one_each(own), *_one_each(legs), *_one_each(transport[::-1])]),
        created_ms(item) or 0,
    )


def _packed(texts: Iterable[Any], read: Callable[[Any], Address] = parse_address) -> list[bytes]:
    """Return the 16 bytes of addresses, without those that are none: the inventory reports them."""
    found = []
    for text in texts:
        with suppress(ValueError):
            packed = read(text).packed
            found.append(packed if len(packed) == 16 else V4_MAPPED + packed)
    return found


def _leg(network: Network) -> Address:
    """The node's own address in a network of its Pods: the first, if there is room for one."""
    first = network.network_address
    return first + 1 if network.num_addresses > 1 else first


def _one_each(addresses: Sequence[bytes]) -> list[bytes]:
    """The first address of each family: Antrea takes no more."""
    firsts = {address.startswith(V4_MAPPED): address for address in reversed(addresses)}
    return list(firsts.values())


def _parse_service(item: Mapping[str, Any]) -> tuple[Pods, ...]:
    """Read a Service: the Pods that it selects; none without a selector."""
    labels = (item.get("spec") or {}).get("selector")
    if not labels:
        return ()
    namespace = namespace_of(item["metadata"])
    return (Pods(namespace, pods=parse_selector({"matchLabels": labels})),)


PARSERS: Parsers = {
    ("", "Namespace"): parse_namespace,
    ("", "Node"): _parse_node,
    ("", "Service"): _parse_service,
    ("networking.k8s.io", "NetworkPolicy"): parse_network_policy,
    (ADMIN, "AdminNetworkPolicy"): parse_admin_policy,
    (ADMIN, "BaselineAdminNetworkPolicy"): parse_admin_policy,
    (ADMIN, "ClusterNetworkPolicy"): parse_admin_policy,
    (ANTREA, "NetworkPolicy"): parse_antrea_policy,
    (ANTREA, "ClusterNetworkPolicy"): parse_antrea_policy,
    (ANTREA, "Group"): parse_group,
    (ANTREA, "ClusterGroup"): parse_group,
    (ANTREA, "Tier"): parse_tier,
}

GROUPS = frozenset({"Group", "ClusterGroup"})
SELECTED_BY = GROUPS | {"Namespace", "Node", "Service", "Tier"}
"""Kinds that policies refer to, which decide nothing by themselves."""
KINDS = frozenset(PARSERS)
"""(API group, kind) of all objects that `Policies` wants to hear of."""
