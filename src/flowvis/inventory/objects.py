"""What is kept of the Kubernetes API's objects, parsed from their JSON.

One odd value does not cost the rest of its object: it is noted, and read as the API server of its
time took it, or left out. ValueError names the object where nothing of use is left: a file or an
API server can be wrong.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from flowvis.addresses import Network, parse_address, parse_network
from flowvis.batch import address_bytes
from flowvis.fields import TRANSPORTS
from flowvis.inventory.workloads import Workload, workload
from flowvis.strings import MAX_TEXT_BYTES, shortened_object

Note = Callable[[str], None]
"""Takes a sentence on an odd value: which object, which field, what became of it."""

TERMINATED = frozenset({"Succeeded", "Failed"})
LISTS = (list, tuple)
MAPPINGS = (dict, Mapping)  # the first is what JSON and YAML have, and asking for the other is slow
MAX_PORT = 65535
NO_ADDRESS = (None, "", "None")  # "None" is a headless Service's
TOPOLOGY_LABELS = {
    "zone": ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    "region": ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
}
"""Labels of nodes that say where they are (Kubernetes' well-known labels), the older ones last."""
SHARED = 1 << 14  # workloads, and sets of ports, that are held once for all their Pods
FEW = 32  # ports of such a set: what is held is held on to when its Pods are gone
LATELY = 1 << 12  # addresses that need not be read again: a Pod's comes in several of its changes

_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_address_bytes = lru_cache(LATELY)(address_bytes)


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
    exported_labels: str
    """Those of them, in the same form, that a text of a record has room for."""
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
    target: int | str
    """The Pods' port, by number or by the name that they give it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, its addresses and the networks that its Pods' addresses come from."""

    name: str
    uid: str
    addresses: tuple[bytes, ...]
    pod_networks: tuple[Network, ...]
    zone: str = ""
    region: str = ""
    created_ms: int = 0
    """0: not said."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace and what policies select it by."""

    name: str
    uid: str
    labels: Mapping[str, str]


def unnoted(text: str) -> None:
    """Note nothing."""


def parse_pod(item: Mapping[str, Any], note: Note = unnoted) -> Pod:
    """Read a v1 Pod."""
    metadata, spec, status = _parts(item)
    values = _Values(item, note)
    entries = values.entries("status.podIPs", status.get("podIPs"))
    ips = [entry.get("ip") for entry in entries] or [status.get("podIP")]
    shares_node = bool(spec.get("hostNetwork"))
    labels = sys.intern(_written(_mapping(item, "labels", metadata.get("labels"))))
    created_ms = _milliseconds(item, "creationTimestamp", metadata.get("creationTimestamp"))
    kind, name = workload(metadata, created_ms)
    return Pod(
        sys.intern(metadata["namespace"]),
        metadata["name"],
        metadata.get("uid", ""),
        sys.intern(spec.get("nodeName", "")),
        () if shares_node else values.addresses("status.podIPs", ips, needed=True),
        created_ms,
        status.get("phase") == "Pending",
        labels,
        _exported(labels, describe(item), note),
        _workload(kind, name),
        sys.intern(spec.get("serviceAccountName", "")),
        _ports(tuple(_named_ports(spec, values, all_of_them=shares_node))),
        shares_node,
        _ended_ms(item, status) if status.get("phase") in TERMINATED else None,
    )


def _mapping(item: Mapping[str, Any], field: str, value: Any) -> Mapping[str, Any]:
    if value and not isinstance(value, Mapping):
        problem = f"metadata.{field} {value!r:.80} is no object"
        raise ValueError(f"{describe(item)}: {problem}")
    return value or {}


def _written(labels: Mapping[str, Any]) -> str:
    return json.dumps(labels, sort_keys=True, separators=(",", ":"))


def _exported(labels: str, who: str, note: Note) -> str:
    """Return labels as a text of a record can have them, the first ones if all are too many."""
    if len(labels) <= MAX_TEXT_BYTES:
        return labels
    members = json.loads(labels)
    shown = shortened_object(members, MAX_TEXT_BYTES)
    note(
        f"{who}: its {len(members)} labels take {len(labels)} bytes, of which a record has room "
        f"for {MAX_TEXT_BYTES}: records have the first {len(json.loads(shown))}"
    )
    return sys.intern(shown)


@lru_cache(SHARED)
def _workload(kind: str, name: str) -> Workload:
    return Workload(kind, name)


def _ports(named: tuple[tuple[str, int, int], ...]) -> tuple[tuple[str, int, int], ...]:
    return _shared_ports(named) if len(named) <= FEW else named


@lru_cache(SHARED)
def _shared_ports(named: tuple[tuple[str, int, int], ...]) -> tuple[tuple[str, int, int], ...]:
    return named


def _named_ports(
    spec: Mapping[str, Any], values: "_Values", *, all_of_them: bool
) -> Iterator[tuple[str, int, int]]:
    """Go through the ports with names, or all.

    Of init containers only those that go on running have ports: sidecars, which restart always.
    """
    for kind in ("containers", "initContainers"):
        for container in values.entries(kind, spec.get(kind)):
            ports = container.get("ports")
            if kind == "initContainers" and container.get("restartPolicy") != "Always":
                continue
            for port in values.entries("ports", ports) if ports else ():
                protocol = _protocol(port)
                if protocol and (port.get("name") or all_of_them):
                    number = values.port("containerPort", port)
                    if number:
                        yield port.get("name") or "", protocol, number


def _protocol(port: Mapping[str, Any]) -> int:
    """Return the number of a port's protocol; 0 where it is none that has ports."""
    return TRANSPORTS.get(str(port.get("protocol", "TCP")), 0)


def _ended_ms(item: Mapping[str, Any], status: Mapping[str, Any]) -> int:
    """Return when the last container ended: sidecars, init containers, do after all others."""
    ends = [
        ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
        for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
        for container in status.get(kind) or ()
    ]
    return max((_milliseconds(item, "finishedAt", end) for end in ends), default=0)


def parse_service(item: Mapping[str, Any], note: Note = unnoted) -> tuple[ServicePort, ...]:
    """Read a v1 Service; a headless one is called at its Pods' addresses and has no port here."""
    metadata, spec, status = _parts(item)
    values = _Values(item, note)
    cluster_ips = spec.get("clusterIPs") or [spec.get("clusterIP")]
    balancer = (status.get("loadBalancer") or {}).get("ingress")
    ingress = values.entries("status.loadBalancer.ingress", balancer)
    addresses = (
        *values.addresses("spec.clusterIPs", cluster_ips),
        *values.addresses("spec.externalIPs", spec.get("externalIPs")),
        *values.addresses("status.loadBalancer.ingress", [entry.get("ip") for entry in ingress]),
    )
    full = f"{metadata['namespace']}/{metadata['name']}"
    ports = [
        ServicePort(
            f"{full}:{port['name']}" if port.get("name") else full,
            metadata.get("uid", ""),
            _protocol(port),
            values.port("port", port),
            addresses,
            values.port("nodePort", port) if port.get("nodePort") else 0,
            _target(port),
        )
        for port in values.entries("spec.ports", spec.get("ports"))
        if _protocol(port)
    ]
    good = tuple(port for port in ports if port.port)
    if ports and not good:
        raise ValueError(f"{describe(item)}: {values.problem}")
    return good


def _target(port: Mapping[str, Any]) -> int | str:
    """Return a Service port's targetPort, which is the port itself where there is none."""
    target = port.get("targetPort") or port.get("port")
    return target if isinstance(target, int | str) else 0


def parse_node(item: Mapping[str, Any], note: Note = unnoted) -> Node:
    """Read a v1 Node."""
    metadata, spec, status = _parts(item, namespaced=False)
    values = _Values(item, note)
    cidrs = spec.get("podCIDRs") or [cidr for cidr in (spec.get("podCIDR"),) if cidr]
    ips = [
        entry.get("address")
        for entry in values.entries("status.addresses", status.get("addresses"))
        if entry.get("type") in ("InternalIP", "ExternalIP")
    ]
    zone, region = values.labels(metadata.get("labels"), TOPOLOGY_LABELS.values())
    return Node(
        metadata["name"],
        metadata.get("uid", ""),
        values.addresses("status.addresses", ips),
        values.networks("spec.podCIDRs", cidrs),
        zone,
        region,
        values.time_ms("metadata.creationTimestamp", metadata.get("creationTimestamp")),
    )


def parse_namespace(item: Mapping[str, Any]) -> Namespace:
    """Read a v1 Namespace."""
    metadata, _, _ = _parts(item, namespaced=False)
    labels = _mapping(item, "labels", metadata.get("labels"))
    return Namespace(metadata["name"], metadata.get("uid", ""), dict(labels))


def describe(item: Mapping[str, Any]) -> str:
    """Name an object as `kubectl` does: `Pod shop/cart-1`."""
    metadata = item.get("metadata")
    about = metadata if isinstance(metadata, MAPPINGS) else {}
    parts = (about.get("namespace"), about.get("name") or "without a name")
    texts = (part if isinstance(part, str) else f"{part!r:.80}" for part in parts if part)
    return f"{item.get('kind', 'object')} {'/'.join(texts)}"


def _parts(
    item: Mapping[str, Any], *, namespaced: bool = True
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return metadata, spec and status, each a mapping."""
    parts = {name: item.get(name) or {} for name in ("metadata", "spec", "status")}
    for name, part in parts.items():
        if not isinstance(part, MAPPINGS):
            raise ValueError(f"{item.get('kind', 'object')}: {name} is not a mapping")  # noqa: TRY004  bad data, not misuse
    metadata, spec, status = parts.values()
    for key in ("name", "namespace") if namespaced else ("name",):
        if not metadata.get(key):
            raise ValueError(f"{describe(item)}: metadata.{key} is missing")
    for key in ("name", "namespace", "uid"):  # by which it is kept; YAML reads `name: 007` as 7
        if not isinstance(value := metadata.get(key) or "", str):
            raise ValueError(f"{describe(item)}: metadata.{key} {value!r:.80} is not a text")  # noqa: TRY004  as above
    return metadata, spec, status


class _Values:
    """Reads an object's values one by one; what is odd with one is noted and costs no other."""

    def __init__(self, item: Mapping[str, Any], note: Note) -> None:
        self.problem = ""
        """The last one."""
        self._item, self._note = item, note

    def addresses(self, field: str, texts: Any, *, needed: bool = False) -> tuple[bytes, ...]:
        """Return 16 bytes for each address, each once; ValueError: one is needed, all are bad."""
        given = [text for text in self._listed(field, texts) if text not in NO_ADDRESS]
        found = [address for text in given if (address := self._address(field, text))]
        if needed and given and not found:
            raise ValueError(f"{describe(self._item)}: {self.problem}")
        return tuple(dict.fromkeys(found))

    def networks(self, field: str, texts: Any) -> tuple[Network, ...]:
        """Return the networks of CIDRs."""
        found = []
        for text in self._listed(field, texts):
            try:
                network = parse_network(text)
            except ValueError as error:
                self._leave_out(field, str(error))
                continue
            found.append(network)
            if not _is_plain(text):
                self._odd(field, f"{text!r} is read as {network}")
        return tuple(found)

    def port(self, field: str, entry: Mapping[str, Any]) -> int:
        """Return the number of an entry's port; 0 where it is none."""
        if field not in entry:
            self.problem = f"{field!r} is missing"
            self._note(f"{describe(self._item)}: {self.problem} of a port: it is left out")
            return 0
        number = entry[field]
        if isinstance(number, int) and 1 <= number <= MAX_PORT:
            return int(number)
        self._leave_out(field, f"{number!r:.80} is no port from 1 to {MAX_PORT}")
        return 0

    def time_ms(self, field: str, when: Any) -> int:
        """Return a time; 0 where there is none."""
        try:
            return _milliseconds(self._item, field, when)
        except ValueError:
            self._leave_out(field, f"{when!r:.80} is no time")
            return 0

    def labels(self, labels: Any, wanted: Iterable[Sequence[str]]) -> Iterator[str]:
        """Go through labels of several keys each: the first value that there is, else ""."""
        if labels and not isinstance(labels, MAPPINGS):
            self._leave_out("metadata.labels", f"{labels!r:.80} is no object")
            labels = None
        for keys in wanted:
            yield next(filter(None, (self._label(key, labels) for key in keys if labels)), "")

    def _label(self, key: str, labels: Mapping[str, Any]) -> str:
        value = labels.get(key) or ""
        if isinstance(value, str):
            return sys.intern(value)
        self._leave_out(f"metadata.labels[{key}]", f"{value!r:.80} is no text")
        return ""

    def entries(self, field: str, entries: Any) -> list[Mapping[str, Any]]:
        """Return the objects in a list."""
        found: list[Mapping[str, Any]] = []
        for entry in self._listed(field, entries):
            if isinstance(entry, dict):  # as JSON and YAML have them; Mapping would be slow
                found.append(entry)
            else:
                self._leave_out(field, f"{entry!r:.80} is no object")
        return found

    def _listed(self, field: str, entries: Any) -> Sequence[Any]:
        if not entries:
            return ()
        if not isinstance(entries, LISTS):
            self._leave_out(field, f"{entries!r:.80} is no list")
            return ()
        listed: Sequence[Any] = entries
        return listed

    def _address(self, field: str, text: Any) -> bytes | None:
        if not isinstance(text, str):
            return self._odd_address(field, text)
        try:
            return _address_bytes(text)
        except ValueError:
            return self._odd_address(field, text)

    def _odd_address(self, field: str, text: Any) -> bytes | None:
        try:
            address = str(parse_address(text))
        except ValueError as error:
            self._leave_out(field, str(error))
            return None
        self._odd(field, f"{text!r} is read as {address}")
        return address_bytes(address)

    def _leave_out(self, field: str, problem: str) -> None:
        self._odd(field, f"{problem}: it is left out")

    def _odd(self, field: str, problem: str) -> None:
        self.problem = f"{field}: {problem}"
        self._note(f"{describe(self._item)}: {self.problem}")


def _is_plain(text: str) -> bool:
    """Whether a CIDR has nothing odd, however it is written."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _milliseconds(item: Mapping[str, Any], name: str, when: Any) -> int:
    """Read an RFC 3339 time, which YAML may have read already; 0 where there is none."""
    if not when:
        return 0
    try:
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(when)
        return round(moment.timestamp() * 1000)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"{describe(item)}: {name} {when!r:.80} is no time") from None
