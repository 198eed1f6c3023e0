"""What this node knows of a connection's endpoints: Pods, the called Service, the flow type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column, only
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.fields import FlowType, Source, provides
from flowvis.inventory.index import NONE, Inventory, text_codes
from flowvis.inventory.objects import Pod
from flowvis.parts import each_part
from flowvis.strings import Strings


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """Which connections are to be reported, and fields that were found out about them."""

    wanted: NDArray[np.bool_]
    columns: Mapping[str, Column]
    failed: NDArray[np.bool_] | None = None
    """Of which of them nothing could be found out, by a defect of ours: they are not wanted."""


class Enricher(Protocol):
    """Tells what is known of connections."""

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:
        """Describe connections; text goes into `strings`."""


class Careful:
    """Another enricher, of which no odd object or connection costs others more than itself.

    `report` gets each error, and how many connections are left out over it.
    """

    def __init__(self, inner: Enricher, report: Callable[[Exception, int], None]) -> None:
        self._inner = inner
        self._report = report

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:
        """Describe connections; what fails over some is tried without them."""
        parts: list[tuple[int, Description | None]] = []

        def work(part: ConnectionTuples) -> None:
            parts.append((len(part), self._inner.describe(part, strings)))

        def give_up(error: Exception, part: ConnectionTuples) -> None:
            self._report(error, len(part))
            parts.append((len(part), None))

        each_part(tuples, work, give_up)
        if len(parts) == 1 and parts[0][1] is not None:
            return parts[0][1]
        return _joined(parts)


def _joined(parts: list[tuple[int, Description | None]]) -> Description:
    """Put descriptions of parts together, of which those that failed have none."""
    made = [description for _, description in parts if description is not None]
    columns = {}
    for name, like in made[0].columns.items() if made else ():
        pieces = [
            np.zeros((count, *like.shape[1:]), like.dtype) if part is None else part.columns[name]
            for count, part in parts
        ]
        columns[name] = np.concatenate(pieces)
    wanted = [np.zeros(count, dtype=bool) if part is None else part.wanted for count, part in parts]
    failed = [np.full(count, part is None) for count, part in parts]
    return Description(np.concatenate(wanted), columns, np.concatenate(failed))


class PlainHost:
    """A host outside of any cluster: every connection is reported, and nothing known about it."""

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:  # noqa: ARG002  the protocol
        """Take all connections as they are."""
        return Description(np.ones(len(tuples.start_ms), dtype=bool), {})


class Addresses(Protocol):
    """A set of addresses that may change."""

    def contain(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which rows of an `(n, 16)` address column are in it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Endpoint:
    """One endpoint of connections: where it is what, one place per connection."""

    pod: NDArray[np.bool_]
    """A Pod of this node."""
    own: NDArray[np.bool_]
    """This node itself: a process in its network."""
    other_node: NDArray[np.bool_]
    ranges: NDArray[np.bool_]
    """An address in a network of Pods."""


_POD: dict[str, Callable[[Pod], str]] = {
    "PodName": lambda pod: pod.name,
    "PodNamespace": lambda pod: pod.namespace,
}
_ENDPOINT = [f"{side}{name}" for side in ("source", "destination") for name in (*_POD, "NodeName")]
_SERVICE = ("destinationServicePortName", "destinationServiceIP", "destinationServicePort")
provides(Source.NODE, (*_ENDPOINT, *_SERVICE, "flowType"))


class ClusterNode:
    """A Kubernetes node: reported are the connections of the Pods that run on it.

    Pods of other nodes stay unnamed here even if they are known: which endpoint is named says which
    half of a connection a record is, and the aggregator completes it. `own` has the addresses of
    this node beside those that its object in the API names.
    """

    def __init__(self, node_name: str, inventory: Inventory, own: Addresses | None = None) -> None:
        self.node_name = node_name
        self.inventory = inventory
        self._own = own

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:
        """Name the endpoints that are this node's, and the Service; decide on the flow's type."""
        source, columns = self._endpoint("source", tuples.source, tuples.start_ms, strings)
        destination, more = self._endpoint(
            "destination", tuples.destination, tuples.start_ms, strings
        )
        columns.update(more)
        arrived = destination.pod & ~source.pod
        called = self._service(tuples, strings, columns, arrived)
        columns["flowType"], wanted = _flow_type(
            source, destination, called, self._to_node_port(tuples, source.pod)
        )
        return Description(wanted, columns)

    def _endpoint(
        self, side: str, addresses: NDArray[np.uint8], at_ms: NDArray[np.uint64], strings: Strings
    ) -> tuple[_Endpoint, dict[str, Column]]:
        """Return what is at the addresses, and the fields that name it."""
        pods = self.inventory.pods
        handles = pods.find(addresses, at_ms)
        here = strings.intern(self.node_name.encode())
        local = text_codes(handles, pods.objects, lambda pod: pod.node, strings) == here
        local &= handles != NONE
        handles[~local] = NONE
        nodes = self.inventory.nodes
        at = nodes.find(addresses)
        own = text_codes(at, nodes.objects, lambda node: node.name, strings) == here
        if self._own is not None:
            own |= self._own.contain(addresses)
        own &= ~local
        endpoint = _Endpoint(
            local,
            own,
            (at != NONE) & ~own,
            local | (self.inventory.are_pods(addresses) & ~own),
        )
        return endpoint, {
            **{
                f"{side}{name}": text_codes(handles, pods.objects, text, strings)
                for name, text in _POD.items()
            },
            f"{side}NodeName": np.where(local | own, np.uint32(here), np.uint32(0)),
        }

    def _service(
        self,
        tuples: ConnectionTuples,
        strings: Strings,
        columns: dict[str, Column],
        arrived: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Fill in the Service that was called; return where one was.

        Of what `arrived` from elsewhere also what was called where no Service is known, as with a
        hostPort: by it the half of the client's node, which knows nothing else, is found.
        """
        services = self.inventory.services
        handles = np.full(len(tuples.start_ms), NONE, dtype=np.int64)
        moved = np.flatnonzero(tuples.translated)
        addresses = tuples.original_destination[moved]
        handles[moved] = services.find(
            addresses,
            tuples.original_port[moved],
            tuples.protocol[moved],
            # A node's port is called at each of its addresses.
            None if self._own is None else self._own.contain(addresses),
        )
        called = handles != NONE
        columns["destinationServicePortName"] = text_codes(
            handles, services.objects, lambda port: port.service, strings
        )
        known = called | (arrived & tuples.translated)
        columns["destinationServiceIP"] = only(tuples.original_destination, known)
        columns["destinationServicePort"] = np.where(known, tuples.original_port, np.uint16(0))
        return np.asarray(called)

    def _to_node_port(
        self, tuples: ConnectionTuples, source: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which connections of local Pods call a Service's port at another node.

        That node translates it, and has the other half.
        """
        found = source & ~tuples.translated
        rows = np.flatnonzero(found)
        rows = rows[self.inventory.nodes.find(tuples.destination[rows]) != NONE]
        found[:] = False
        called = self.inventory.services.find(
            tuples.destination[rows], tuples.destination_port[rows], tuples.protocol[rows]
        )
        found[rows] = called != NONE
        return found


def _flow_type(
    source: _Endpoint,
    destination: _Endpoint,
    called: NDArray[np.bool_],
    to_port: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the flow types, and which connections are of a local Pod's or enter here.

    What comes from outside through a Service is reported here even if its Pod is elsewhere: only
    this node knows the client. The Pod's node sees it come from a node's address, as a half that
    wants its other one; what was translated here has no half there. So it is with the calls of this
    node's own processes. A Service has nobody but Pods and nodes behind it, so what was called by
    its address needs no network to be known for a Pod's.

    A Pod's connection with another node's own address is "to external" here, as Antrea's agents
    have it, unless it goes `to_port`, a Service's: who waits for halves of what is "inter-node"
    would wait in vain for that node's.
    """
    to_pod = destination.ranges | (called & ~destination.own & ~destination.other_node)
    types = np.select(
        [
            (source.pod & (destination.pod | destination.own)) | (source.own & destination.pod),
            source.own & to_pod & called,
            (~source.ranges & source.other_node & destination.pod) | to_port,
            ~source.ranges & to_pod,
            ~destination.ranges,
        ],
        [
            FlowType.INTRA_NODE,
            FlowType.INTER_NODE,
            FlowType.INTER_NODE,
            FlowType.FROM_EXTERNAL,
            FlowType.TO_EXTERNAL,
        ],
        FlowType.INTER_NODE,
    ).astype(np.uint8)
    enters = ~source.ranges & to_pod & called
    return types, np.asarray(source.pod | destination.pod | enters)
