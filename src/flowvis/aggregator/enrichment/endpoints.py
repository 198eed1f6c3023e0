"""What the inventory knows of connections' endpoints: which type a connection is of, whose half.

An exporter knows the Pods of its own node. Of other addresses it can only compare with the
networks of the Pods, as far as there are any: CNIs with pools of their own leave Node.spec.podCIDRs
empty or give addresses outside of them. The aggregator knows all Pods and all nodes, so it decides
before records are correlated, and once more as they are completed.

Types are those of Antrea's element flowType. A node's own addresses are inside of the cluster: a
connection of a Pod with a node (a Pod in the host's network, or a process of the node) is
intra-node or inter-node as one between Pods is.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.enrichment.reported_nodes import ReportedNodes
from flowvis.batch import Batch, Column
from flowvis.beginnings import began_ms
from flowvis.fields import FlowType
from flowvis.inventory.index import NONE, Inventory, text_codes
from flowvis.strings import Strings


class Endpoints:
    """Decides by the Pods and nodes that the inventory has."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._reported = ReportedNodes()

    def settle(self, batch: Batch) -> Batch:
        """Return exporters' records with the types that their endpoints give them.

        An exporter names the one endpoint that is its node's; looked up is the other one, where
        the exporter took it for one outside of the cluster. What goes to a node, or comes from
        one, is whole as it is: the node reports its part of it only if it has translated it, as a
        Service's port, or if its own process has called a Service.
        """
        self._reported.learn(batch)
        forward = batch["sourcePodName"] != 0
        backward = batch["destinationPodName"] != 0
        rows = np.flatnonzero((forward != backward) & by_ranges(batch["flowType"]))
        if not len(rows):
            return batch
        away = forward[rows]  # whether the other endpoint is the destination
        far = _either(away, batch["destinationIP"], batch["sourceIP"], rows)
        times = began_ms(batch, rows)
        index = self._inventory.pods
        pods = index.of_then(index.find(far, times), times)
        there = self._pod_nodes(pods, batch.strings)
        to, come = (np.flatnonzero((pods == NONE) & which) for which in (away, ~away))
        there[to] = self._forwarding(batch, rows[to], far.take(to, axis=0))
        there[come] = self._reported.find(
            far.take(come, axis=0), batch.strings, self._is_node_there
        )
        found = np.flatnonzero(there != 0)
        if not len(found):
            return batch
        rows, away, there = rows[found], away[found], there[found]
        here = _either(away, batch["sourceNodeName"], batch["destinationNodeName"], rows)
        if not here.all():
            near = _either(away, batch["sourceIP"], batch["destinationIP"], rows)
            own = self._inventory.pods.find(near, times[found])
            here = np.where(here == 0, self._pod_nodes(own, batch.strings), here)
        placed = here != 0
        types = batch["flowType"].copy()
        types[rows[placed]] = _type(here[placed], there[placed])
        return Batch({**batch.columns, "flowType": types}, batch.strings, batch.mark)

    def complete(self, batch: Batch) -> None:
        """Set the types of records, in place, whose Pods and nodes have been named."""
        rows = np.flatnonzero(by_ranges(batch["flowType"]))
        if not len(rows):
            return
        pods, nodes, elsewhere = [], [], []
        for side in ("source", "destination"):
            pods.append(batch[f"{side}PodName"][rows] != 0)
            nodes.append(batch[f"{side}NodeName"][rows])
            elsewhere.append(~self._inventory.are_pods(batch[f"{side}IP"][rows]))
        types = batch["flowType"].copy()
        untyped = types[rows] == FlowType.UNSPECIFIED
        types[rows] = np.select(
            [
                (pods[0] | pods[1]) & (nodes[0] != 0) & (nodes[1] != 0),
                untyped & pods[0] & elsewhere[1],
                untyped & elsewhere[0] & pods[1],
            ],
            [_type(*nodes), np.uint8(FlowType.TO_EXTERNAL), np.uint8(FlowType.FROM_EXTERNAL)],
            types[rows],
        )
        batch["flowType"] = types

    def _is_node_there(self, name: str) -> bool:
        """Whether a node has an object; any name may be one's where no node has."""
        return self._inventory.node(name) is not None or not self._inventory.nodes.objects

    def _forwarding(
        self, batch: Batch, rows: NDArray[np.int64], addresses: NDArray[np.uint8]
    ) -> NDArray[np.uint32]:
        """Return the codes of the nodes whose ports, called by records, are Services'; else 0."""
        nodes = self._inventory.nodes.find(addresses)
        called = np.flatnonzero(nodes != NONE)
        if not len(called):
            return np.zeros(len(rows), dtype=np.uint32)
        services = self._inventory.services.find(
            addresses[called],
            batch["destinationTransportPort"][rows[called]],
            batch["protocolIdentifier"][rows[called]],
        )
        nodes[called[services == NONE]] = NONE
        objects = self._inventory.nodes.objects
        return text_codes(nodes, objects, lambda node: node.name, batch.strings)

    def _pod_nodes(self, handles: NDArray[np.int64], strings: Strings) -> NDArray[np.uint32]:
        return text_codes(handles, self._inventory.pods.objects, lambda pod: pod.node, strings)


def by_ranges(types: Column) -> NDArray[np.bool_]:
    """Which types an exporter may have given for want of knowing the other endpoint."""
    return np.asarray((types != FlowType.INTRA_NODE) & (types != FlowType.INTER_NODE))


def _type(one: Column, other: Column) -> NDArray[np.uint8]:
    """The types of connections between nodes, by their names."""
    return np.where(one == other, FlowType.INTRA_NODE, FlowType.INTER_NODE).astype(np.uint8)


def _either(
    which: NDArray[np.bool_], one: Column, other: Column, rows: NDArray[np.int64]
) -> Column:
    """Rows of one column, or of the other one."""
    chosen = one.take(rows, axis=0)
    rest = np.flatnonzero(~which)
    chosen[rest] = other.take(rows[rest], axis=0)
    return chosen
