"""Adds what the nodes could not know: Pods, nodes, zones, workloads, policies, the cluster."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.enrichment.endpoints import Endpoints
from flowvis.aggregator.enrichment.uids import Uids
from flowvis.batch import Batch, Column, is_unset
from flowvis.beginnings import began_ms
from flowvis.fields import Source, provides
from flowvis.inventory.index import NONE, Inventory, text_codes
from flowvis.inventory.objects import Pod
from flowvis.policies import EGRESS_FIELDS, GONE, Egresses, Policies
from flowvis.policies.model import Direction

Handles = NDArray[np.int64]

SIDES = ("source", "destination")

_POD: tuple[tuple[str, Callable[[Pod], str]], ...] = (
    ("PodName", lambda pod: pod.name),
    ("PodNamespace", lambda pod: pod.namespace),
    ("NodeName", lambda pod: pod.node),
)


_NAMED = ("WorkloadKind", "WorkloadName", "PodLabels", "Zone", "Region")
provides(
    Source.ENRICHMENT,
    (*(side + name for side in SIDES for name in _NAMED), *EGRESS_FIELDS, "clusterId"),
)


class Completer:
    """Completes batches in place, by the aggregator's own inventory and the policies it knows.

    What a record says itself stays; exporters name only their own node's Pods, older ones do not
    know of some fields.
    """

    def __init__(
        self,
        inventory: Inventory,
        cluster_id: Callable[[], str],
        *,
        pod_labels: bool,
        policies: Policies | None = None,
        egresses: Egresses | None = None,
    ) -> None:
        self.inventory = inventory
        self.pod_labels = pod_labels
        self._policies = policies
        self._egresses = egresses
        self._cluster_id = cluster_id
        self._endpoints = Endpoints(inventory)
        self.with_uids = False
        """Whether records have the columns of `uids.UIDS`."""
        self._uids = Uids(inventory, policies, egresses)

    def complete(self, batch: Batch, *, counts: bool = True) -> None:
        """Fill in what is missing, and labels where they are wanted.

        Without `counts` somebody only looks: nothing of it is in the statistics of policies.
        """
        cluster = batch.strings.intern(self._cluster_id().encode())
        batch["clusterId"] = np.full(len(batch), cluster, dtype=np.uint32)
        times = began_ms(batch)
        pods, ends, named = {}, {}, {}
        self._add_services(batch)
        for side in SIDES:
            pods[side], before = self._pods(batch, side, times)
            ends[side] = self._with_gone(batch, side, pods[side], before)
            handles = named[side] = self._name(batch, side, pods[side])
            kinds, names = self.inventory.pods.workloads(handles, batch.strings)
            batch[f"{side}WorkloadKind"], batch[f"{side}WorkloadName"] = kinds, names
            zones, regions = self.inventory.nodes.topology(batch[f"{side}NodeName"], batch.strings)
            batch[f"{side}Zone"], batch[f"{side}Region"] = zones, regions
            if self.pod_labels:
                codes = self._codes(batch, handles, lambda pod: pod.exported_labels)
                batch[f"{side}PodLabels"] = codes
        self._endpoints.complete(batch)
        if self._policies is not None and self._policies.active:
            pods_index = self.inventory.pods
            found = self._policies.decide(
                batch,
                pods_index.objects,
                *ends.values(),
                living=pods_index.living,
                to_own_node=_at_own_node(batch, "source", "destination"),
                counts=counts,
            )
            batch.columns.update(_without_own_node(batch, found))
        if self._egresses is not None and self._egresses.active:
            # What goes to a node is never given another address.
            away = self.inventory.nodes.find(batch["destinationIP"]) == NONE
            leaving = np.where(away, pods["source"], NONE)
            pods_there = self.inventory.pods.objects
            batch.columns.update(self._egresses.find(batch, pods_there, leaving, counts=counts))
        if self.with_uids:
            batch.columns.update(self._uids.of(batch, named))

    def _pods(self, batch: Batch, side: str, times: Column) -> tuple[Handles, NDArray[np.bool_]]:
        """Find the Pods at addresses, and where it was one before that nobody knows any more.

        What a record names is better known: another one is none.
        """
        handles = self.inventory.pods.find(batch[f"{side}IP"], times)
        reported, namespaces = batch[f"{side}PodName"], batch[f"{side}PodNamespace"]
        known = np.flatnonzero((handles != NONE) & (reported != 0))
        ours = self._codes(batch, handles[known], lambda pod: pod.name)
        others = ours != reported[known]
        within = self.inventory.pods.namespaces(handles[known], batch.strings)
        others |= (namespaces[known] != 0) & (namespaces[known] != within)
        handles[known[others]] = NONE
        before = (reported == 0) & (self.inventory.pods.of_then(handles, times) != handles)
        handles[before] = NONE
        return handles, before

    def _with_gone(
        self, batch: Batch, side: str, handles: Handles, before: NDArray[np.bool_]
    ) -> Handles:
        """Mark the Pods that only records know, and those of which nothing is known any more.

        One at a node's address is none to policies.
        """
        gone = np.flatnonzero((handles == NONE) & (before | (batch[f"{side}PodName"] != 0)))
        gone = gone[self.inventory.nodes.find(batch[f"{side}IP"][gone]) == NONE]
        if not len(gone):
            return handles
        marked = handles.copy()
        marked[gone] = GONE
        return marked

    def _name(self, batch: Batch, side: str, handles: Handles) -> Handles:
        """Name Pods and nodes where the record does not; return the Pods that are named there."""
        reported = batch[f"{side}PodName"]
        blank = np.flatnonzero((reported == 0) & (handles == NONE))
        nodes = self.inventory.nodes.find(batch[f"{side}IP"][blank])
        blank, nodes = blank[nodes != NONE], nodes[nodes != NONE]
        if len(blank):
            names = [node.name for node in self.inventory.nodes.objects]
            _fill(batch, f"{side}NodeName", blank, text_codes(nodes, names, str, batch.strings))
            if side == "destination":
                handles = handles.copy()
                handles[blank] = self._on_nodes(batch, blank, names, nodes)
        lacking = np.flatnonzero(
            (handles != NONE) & ((reported == 0) | (batch[f"{side}NodeName"] == 0))
        )
        for name, text in _POD:
            if len(lacking):
                _fill(batch, side + name, lacking, self._codes(batch, handles[lacking], text))
        return np.where(batch[f"{side}PodName"] != 0, handles, NONE)

    def _on_nodes(
        self, batch: Batch, rows: NDArray[np.int64], names: list[str], nodes: Handles
    ) -> Handles:
        """Find the Pods that serve ports of nodes' own addresses."""
        return self.inventory.pods.find_on_nodes(
            names,
            nodes,
            batch["protocolIdentifier"][rows],
            batch["destinationTransportPort"][rows],
            began_ms(batch)[rows],
        )

    def _add_services(self, batch: Batch) -> None:
        """Name the Services that were called; older records have their address in one field."""
        rows = np.flatnonzero(batch["destinationServicePort"] != 0)
        unset = rows[is_unset(batch["destinationServiceIP"][rows])]
        if len(unset):
            column = batch["destinationServiceIP"].copy()
            column[unset] = batch["destinationClusterIP"][unset]
            batch["destinationServiceIP"] = column
        rows = rows[batch["destinationServicePortName"][rows] == 0]
        if len(rows):
            services = self.inventory.services
            handles = services.find(
                batch["destinationServiceIP"][rows],
                batch["destinationServicePort"][rows],
                batch["protocolIdentifier"][rows],
            )
            names = text_codes(handles, services.objects, lambda p: p.service, batch.strings)
            _fill(batch, "destinationServicePortName", rows, names)

    def _codes(
        self, batch: Batch, handles: Handles, text: Callable[[Pod], str]
    ) -> NDArray[np.uint32]:
        return text_codes(handles, self.inventory.pods.objects, text, batch.strings)


def _without_own_node(batch: Batch, found: Mapping[str, Column]) -> dict[str, Column]:
    """Return policies' columns; of what a node sends to its own Pods only what records say.

    Kubernetes: a Pod cannot block access from its own node (the kubelet's probes). Exporters name
    the node at addresses that no object has, as the gateway of its Pods.
    """
    own = _at_own_node(batch, "destination", "source")
    if not own.any():
        return dict(found)
    ingress = Direction.INGRESS.value
    return {
        name: np.where(own, batch[name], column) if name.startswith(ingress) else column
        for name, column in found.items()
    }


def _at_own_node(batch: Batch, pod: str, node: str) -> NDArray[np.bool_]:
    """Where one side is a Pod, and the other one the node itself that the Pod runs on."""
    found = (batch[f"{node}PodName"] == 0) & (batch[f"{node}NodeName"] != 0)
    return np.asarray(found & (batch[f"{node}NodeName"] == batch[f"{pod}NodeName"]))


def _fill(batch: Batch, name: str, rows: NDArray[np.int64], values: Column) -> None:
    """Set a field of some records where it is empty."""
    column = batch[name].copy()
    empty = column[rows] == 0
    column[rows[empty]] = values[empty]
    batch[name] = column
