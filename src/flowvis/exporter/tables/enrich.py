"""What this node knows of a connection's endpoints: Pods, the called Service, the flow type."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.fields import FlowType
from flowvis.inventory.index import NONE, Inventory, text_codes
from flowvis.strings import Strings


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """Which connections are to be reported, and fields that were found out about them."""

    wanted: NDArray[np.bool_]
    columns: Mapping[str, Column]


class Enricher(Protocol):
    """Tells what is known of connections."""

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:
        """Describe connections; text goes into `strings`."""


class PlainHost:
    """A host outside of any cluster: every connection is reported, and nothing known about it."""

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:  # noqa: ARG002  the protocol
        """Take all connections as they are."""
        return Description(np.ones(len(tuples.start_ms), dtype=bool), {})


class ClusterNode:
    """A Kubernetes node: reported are the connections of the Pods that run on it.

    Pods of other nodes stay unnamed here even if they are known: which end is named says which half
    of a connection a record is, and the aggregator completes it.
    """

    def __init__(self, node_name: str, inventory: Inventory) -> None:
        self.node_name = node_name
        self.inventory = inventory

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:
        """Name the ends that are local Pods, and the Service; decide on the flow's type."""
        source, columns = self._endpoint("source", tuples.source, tuples.start_ms, strings)
        destination, more = self._endpoint(
            "destination", tuples.destination, tuples.start_ms, strings
        )
        columns.update(more)
        called = self._service(tuples, strings, columns, destination & ~source)
        columns["flowType"], wanted = self._flow_type(tuples, source, destination, called)
        return Description(wanted, columns)

    def _endpoint(
        self, end: str, addresses: NDArray[np.uint8], at_ms: NDArray[np.uint64], strings: Strings
    ) -> tuple[NDArray[np.bool_], dict[str, Column]]:
        """Return which addresses were local Pods' then, and the fields that name them."""
        pods = self.inventory.pods
        handles = pods.find(addresses, at_ms)
        here = strings.intern(self.node_name.encode())
        local = text_codes(handles, pods.objects, lambda pod: pod.node, strings) == here
        local &= handles != NONE
        handles[~local] = NONE
        return local, {
            f"{end}PodName": text_codes(handles, pods.objects, lambda pod: pod.name, strings),
            f"{end}PodNamespace": text_codes(
                handles, pods.objects, lambda pod: pod.namespace, strings
            ),
            f"{end}NodeName": np.where(local, np.uint32(here), np.uint32(0)),
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
        handles[moved] = services.find(
            tuples.original_destination[moved],
            tuples.original_port[moved],
            tuples.protocol[moved],
        )
        called = handles != NONE
        columns["destinationServicePortName"] = text_codes(
            handles, services.objects, lambda port: port.service, strings
        )
        known = called | (arrived & tuples.translated)
        columns["destinationServiceIP"] = np.where(
            known[:, None], tuples.original_destination, np.uint8(0)
        )
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
        self,
        tuples: ConnectionTuples,
        source: NDArray[np.bool_],
        destination: NDArray[np.bool_],
        called: NDArray[np.bool_],
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the flow types, and which connections are of a local Pod's or come in here.

        `source` and `destination` say which ends are local Pods. What comes from outside through a
        Service is reported here even if its Pod is elsewhere: only this node knows the client. The
        Pod's node sees it come from a node's address, as a half that wants its other one; so does
        the node whose port a masqueraded Pod of another one calls.
        """
        from_pod = source | self.inventory.are_pods(tuples.source)
        to_pod = destination | self.inventory.are_pods(tuples.destination)
        nodes = self.inventory.nodes
        handles = nodes.find(tuples.source)
        from_node = handles != NONE
        names = [node.name for node in nodes.objects]
        here = names.index(self.node_name) if self.node_name in names else NONE
        from_other_node = from_node & (handles != here)
        types = np.select(
            [
                (~from_pod & from_other_node & destination) | self._to_node_port(tuples, source),
                ~from_pod & to_pod,
                ~to_pod,
                source & destination,
            ],
            [
                FlowType.INTER_NODE,
                FlowType.FROM_EXTERNAL,
                FlowType.TO_EXTERNAL,
                FlowType.INTRA_NODE,
            ],
            FlowType.INTER_NODE,
        ).astype(np.uint8)
        comes_in = ~from_pod & (~from_node | from_other_node) & to_pod & called
        return types, np.asarray(source | destination | comes_in)
