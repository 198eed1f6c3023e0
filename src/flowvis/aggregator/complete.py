"""Adds what the nodes could not know: the other side's Pod, labels, policies, the cluster."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch
from flowvis.fields import FlowType
from flowvis.inventory.index import NONE, Inventory, text_codes
from flowvis.inventory.objects import Pod
from flowvis.policies import Policies

_TEXTS: tuple[tuple[str, Callable[[Pod], str]], ...] = (
    ("PodName", lambda pod: pod.name),
    ("PodNamespace", lambda pod: pod.namespace),
    ("NodeName", lambda pod: pod.node),
)

_LOCAL_TO_ANOTHER_NODE = {
    "source": (FlowType.INTER_NODE,),
    "destination": (FlowType.INTER_NODE, FlowType.FROM_EXTERNAL),
}
"""Which records may lack a Pod that the exporter, which names only its own node's, did not see."""


class Completer:
    """Completes batches in place, by the aggregator's own inventory and the policies it knows."""

    def __init__(
        self,
        inventory: Inventory,
        cluster_id: str,
        *,
        pod_labels: bool,
        policies: Policies | None = None,
    ) -> None:
        self.inventory = inventory
        self.cluster_id = cluster_id
        self.pod_labels = pod_labels
        self._policies = policies

    def complete(self, batch: Batch) -> None:
        """Fill in Pods, nodes, labels (where they are wanted), policies and the cluster."""
        batch["clusterId"] = np.full(
            len(batch), batch.strings.intern(self.cluster_id.encode()), dtype=np.uint32
        )
        for side, types in _LOCAL_TO_ANOTHER_NODE.items():
            self._fill_pods(batch, side, types)
            if self.pod_labels:
                self._add_labels(batch, side)
        if self._policies is not None and self._policies.active:
            self._add_policies(batch, self._policies)

    def _fill_pods(self, batch: Batch, side: str, types: tuple[int, ...]) -> None:
        lacking = np.isin(batch["flowType"], types) & (batch[f"{side}PodName"] == 0)
        rows = np.flatnonzero(lacking)
        if not len(rows):
            return
        handles = self._pods(batch, side, rows)
        rows, handles = rows[handles != NONE], handles[handles != NONE]
        for name, text in _TEXTS:
            column = batch[side + name].copy()
            column[rows] = self._codes(batch, handles, text)
            batch[side + name] = column

    def _add_labels(self, batch: Batch, side: str) -> None:
        rows = np.flatnonzero(batch[f"{side}PodName"] != 0)
        column = np.zeros(len(batch), dtype=np.uint32)
        column[rows] = self._codes(batch, self._pods(batch, side, rows), lambda pod: pod.labels)
        batch[f"{side}PodLabels"] = column

    def _add_policies(self, batch: Batch, policies: Policies) -> None:
        every = np.arange(len(batch))
        handles = (self._pods(batch, side, every) for side in ("source", "destination"))
        found = policies.decide(batch, self.inventory.pods.objects, *handles)
        for name, column in found.items():
            batch[name] = column

    def _pods(self, batch: Batch, side: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the Pods of one side's addresses at the connections' starts."""
        times_ms = batch["flowStartSeconds"][rows].astype(np.uint64) * 1000
        return self.inventory.pods.find(batch[f"{side}IP"][rows], times_ms)

    def _codes(
        self, batch: Batch, handles: NDArray[np.int64], text: Callable[[Pod], str]
    ) -> NDArray[np.uint32]:
        def known(pod: Pod | None) -> str:
            return text(pod) if pod is not None else ""

        return text_codes(handles, self.inventory.pods.objects, known, batch.strings)
