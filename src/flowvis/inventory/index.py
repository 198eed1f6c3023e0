"""What Kubernetes says of addresses: Pods, Services and Nodes, for whole columns at a time.

Namespaces are kept by name.

Fed with the API's objects as plain parsed JSON, by files or by watchers.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowvis.addresses import Network
from flowvis.counts import count, counts_by_reason
from flowvis.inventory.networks import NONE
from flowvis.inventory.objects import (
    Namespace,
    Node,
    ServicePort,
    describe,
    parse_namespace,
    parse_node,
    parse_pod,
    parse_service,
)
from flowvis.inventory.pods import MAX_ADDRESSES, PodIndex
from flowvis.inventory.services import NodeIndex, ServiceIndex
from flowvis.strings import Strings

__all__ = ["NONE", "Inventory", "text_codes"]

T = TypeVar("T")

MAX_NOTES = 1000  # odd values that are remembered, so that each is reported once

KINDS = ("Pod", "Service", "Node", "Namespace")


@dataclass(slots=True)
class InventoryStats:
    """What was read from objects."""

    odd_values: dict[str, int] = counts_by_reason(
        "Values of objects that were read in an older form, or left out, by kind; each once"
    )
    odd_values_unnoted: int = count("Odd values that were too many to be remembered and reported")


class Inventory:
    """Pods, Services and Nodes.

    Each of `pods`, `services` and `nodes` finds handles for columns of addresses: places in its
    `objects`, NONE where there is nothing, good until the inventory changes. `text_codes` turns
    handles into a column of text.
    """

    def __init__(
        self,
        *,
        pod_networks: Sequence[Network] = (),
        max_addresses: int = MAX_ADDRESSES,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """`report` is called with each odd value of an object, once, as a line of text."""
        self.stats = InventoryStats()
        self._report = report
        self._noted: set[str] = set()
        self.pods = PodIndex(max_addresses)
        self.namespaces: dict[str, Namespace] = {}
        self._service_ports: dict[tuple[str, str], tuple[ServicePort, ...]] = {}
        self._nodes: dict[str, Node] = {}
        self._pod_networks = tuple(pod_networks)
        self._node_index: NodeIndex | None = None
        self._service_index: ServiceIndex | None = None

    def __len__(self) -> int:
        """How many living objects there are."""
        return len(self.pods) + len(self._service_ports) + len(self._nodes) + len(self.namespaces)

    @property
    def nodes(self) -> NodeIndex:
        """The nodes; built anew after a change, as nodes change seldom."""
        if self._node_index is None:
            self._node_index = NodeIndex(list(self._nodes.values()), self._pod_networks)
        return self._node_index

    def node(self, name: str) -> Node | None:
        """Return the node of that name."""
        return self._nodes.get(name)

    def service_ports(self, namespace: str, name: str) -> tuple[ServicePort, ...] | None:
        """Return the ports of a Service; None where there is no such Service."""
        return self._service_ports.get((namespace, name))

    def set_pod_networks(self, networks: Sequence[Network]) -> None:
        """Take other networks for those of Pods, beside the nodes' own."""
        self._pod_networks = tuple(networks)
        self._node_index = self._service_index = None

    @property
    def services(self) -> ServiceIndex:
        """The ports of all Services; built anew after a change, as Services change seldom."""
        if self._service_index is None:
            ports = [port for ports in self._service_ports.values() for port in ports]
            self._service_index = ServiceIndex(ports, self.nodes)
        return self._service_index

    def are_pods(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which addresses are Pods', by the Pods that are known and by the Pod networks."""
        return self.pods.known(addresses) | self.nodes.have_pods_at(addresses)

    def pod_addresses(self, *, outside_ranges: bool = False) -> NDArray[np.uint8]:
        """Return the addresses of Pods, `(n, 16)`; only those that lie in no Pod network."""
        addresses = self.pods.addresses()
        return addresses[~self.nodes.in_ranges(addresses)] if outside_ranges else addresses

    def upsert(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Learn of an object, new or changed; other kinds are passed over.

        ValueError, and nothing changed, if the object is not what its kind says.
        """
        try:
            self._upsert(item, now_ms)
        except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{describe(item)}: {what}") from error

    def delete(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Note that an object is gone; one that was not known is passed over."""
        namespace, name = _name(item)
        if item.get("kind") == "Pod":
            self.pods.delete(namespace, name, now_ms, item["metadata"].get("uid", ""))
        else:
            self._forget(str(item.get("kind")), (namespace, name), now_ms)

    def retain(
        self, group: str, kind: str, names: Collection[tuple[str, str]], now_ms: int
    ) -> None:
        """Note that of a kind there are only those of these (namespace, name)."""
        if group:
            return
        known: Mapping[str, Callable[[], list[tuple[str, str]]]] = {
            "Pod": self.pods.names,
            "Service": lambda: list(self._service_ports),
            "Node": lambda: [("", name) for name in self._nodes],
            "Namespace": lambda: [("", name) for name in self.namespaces],
        }
        for name in known[kind]() if kind in known else ():
            if name not in names:
                self._forget(kind, name, now_ms)

    def replace(self, items: Sequence[Mapping[str, Any]], now_ms: int) -> None:
        """Learn of all objects there are: what is not among them is gone.

        ValueError, and nothing changed, if one is not what its kind says.
        """
        whole = Inventory(max_addresses=1)
        for item in items:
            whole.upsert(item, now_ms)
        for kind in KINDS:
            names = {_name(item) for item in items if item.get("kind") == kind}
            self.retain("", kind, names, now_ms)
        for item in items:
            self.upsert(item, now_ms)

    def expire(self, now_ms: int) -> None:
        """Forget what was deleted too long ago; to be called now and then."""
        self.pods.expire(now_ms)

    def _upsert(self, item: Mapping[str, Any], now_ms: int) -> None:
        kind = str(item.get("kind"))

        def note(text: str) -> None:
            self._note(kind, text)

        match kind:
            case "Pod":
                self.pods.upsert(parse_pod(item, note), now_ms)
            case "Service":
                self._put_service(_name(item), parse_service(item, note))
            case "Node":
                self._put_node(parse_node(item, note))
            case "Namespace":
                namespace = parse_namespace(item)
                self.namespaces[namespace.name] = namespace

    def _note(self, kind: str, text: str) -> None:
        """Count and report an odd value, once however often its object comes."""
        if text in self._noted:
            return
        if len(self._noted) >= MAX_NOTES:
            self.stats.odd_values_unnoted += 1
            return
        self._noted.add(text)
        self.stats.odd_values[kind] += 1
        if self._report is not None:
            self._report(text)

    def _forget(self, kind: str, name: tuple[str, str], now_ms: int) -> None:
        match kind:
            case "Pod":
                self.pods.delete(*name, now_ms)
            case "Service":
                if self._service_ports.pop(name, None):
                    self._service_index = None
            case "Node":
                if self._nodes.pop(name[1], None):
                    self._node_index = self._service_index = None
            case "Namespace":
                self.namespaces.pop(name[1], None)

    def _put_service(self, name: tuple[str, str], ports: tuple[ServicePort, ...]) -> None:
        if self._service_ports.get(name) != ports:
            self._service_ports[name] = ports
            self._service_index = None

    def _put_node(self, node: Node) -> None:
        """Note a node; most of its changes are of its state and change nothing here."""
        if self._nodes.get(node.name) != node:
            self._nodes[node.name] = node
            self._node_index = self._service_index = None


def text_codes(
    handles: NDArray[np.int64],
    objects: Sequence[T],
    text: Callable[[T], str],
    strings: Strings,
) -> NDArray[np.uint32]:
    """Return the codes of a text of the handles' objects; 0 (empty) where the handle is NONE.

    Each distinct object is asked once.
    """
    codes = np.zeros(len(objects) + 1, dtype=np.uint32)  # the last: handle NONE
    used = np.zeros(len(objects) + 1, dtype=bool)
    used[handles] = True
    places = np.flatnonzero(used[:-1])
    codes[places] = strings.encode(text(objects[place]) for place in places.tolist())
    return codes[handles]


def _name(item: Mapping[str, Any]) -> tuple[str, str]:
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(name, str):
        raise ValueError(f"{describe(item)}: metadata.name is missing")  # noqa: TRY004  bad data
    return str(metadata.get("namespace") or ""), name
