"""The UIDs of the Kubernetes objects that records name, for collectors that want them.

They are found by the names, of which a collector may be sent none, as records are completed; the
store, files and the API have names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column
from flowvis.beginnings import began_ms
from flowvis.fields import Field, Kind, Merge, Source
from flowvis.inventory.index import NONE, Inventory
from flowvis.inventory.objects import Pod
from flowvis.inventory.pods import SKEW_MS
from flowvis.policies import Egresses, Policies
from flowvis.policies.model import PolicyType
from flowvis.policies.objects import ADMIN, ANTREA, Key

BYTES = 16

AFTER: Mapping[str, str] = {
    "sourcePodUUID": "sourcePodNamespace",
    "sourceNodeUUID": "sourceNodeName",
    "destinationPodUUID": "destinationPodNamespace",
    "destinationNodeUUID": "destinationNodeName",
    "destinationServiceUUID": "destinationServicePortName",
    "ingressNetworkPolicyUUID": "ingressNetworkPolicyNamespace",
    "egressNetworkPolicyUUID": "egressNetworkPolicyNamespace",
    "egressUUID": "egressName",
    "egressNodeUUID": "egressNodeName",
}
"""The elements of UIDs (Antrea's registry, 159 to 167), each with the one that it comes after."""

UIDS: tuple[Field, ...] = tuple(
    Field(
        name,
        Kind.UUID,
        Merge.ADDED,
        Source.ENRICHMENT,
        f"UID of the object that {before} names; zeros where it is not known",
        (name,),
        stored=False,
    )
    for name, before in AFTER.items()
)
"""Columns of completed batches beside the fields of records; they are neither merged nor stored."""

_KINDS: Mapping[int, tuple[tuple[str, str], ...]] = {
    PolicyType.KUBERNETES: (("networking.k8s.io", "NetworkPolicy"),),
    PolicyType.ANTREA: ((ANTREA, "NetworkPolicy"),),
    PolicyType.ANTREA_CLUSTER: ((ANTREA, "ClusterNetworkPolicy"),),
    PolicyType.KUBERNETES_CLUSTER: (
        (ADMIN, "ClusterNetworkPolicy"),
        (ADMIN, "AdminNetworkPolicy"),
        (ADMIN, "BaselineAdminNetworkPolicy"),
    ),
}


def with_uids(fields: Sequence[Field]) -> tuple[Field, ...]:
    """Return fields with those of UIDs among them, each after the one that it belongs to."""
    after = {before: field for field in UIDS for before in (AFTER[field.name],)}
    found: list[Field] = []
    for field in fields:
        found.append(field)
        if field.name in after:
            found.append(after[field.name])
    return tuple(found)


def uuid_text(value: bytes) -> str:
    """Return a UUID as Kubernetes writes it; "" where there is none."""
    return str(UUID(bytes=value)) if any(value) else ""


class Uids:
    """Finds UIDs, by what is known of the cluster."""

    def __init__(
        self, inventory: Inventory, policies: Policies | None, egresses: Egresses | None
    ) -> None:
        self._inventory = inventory
        self._policies, self._egresses = policies, egresses

    def of(self, batch: Batch, pods: Mapping[str, NDArray[np.int64]]) -> dict[str, Column]:
        """Return the columns of UIDS of completed records; `pods`: the handles by side."""
        found: dict[str, Column] = {}
        for side, handles in pods.items():
            found[f"{side}PodUUID"] = self._of_pods(batch, side, handles)
            found[f"{side}NodeUUID"] = _by_text(batch, f"{side}NodeName", self._node)
        found["egressNodeUUID"] = _by_text(batch, "egressNodeName", self._node)
        found["destinationServiceUUID"] = _by_text(
            batch, "destinationServicePortName", self._service
        )
        found["egressUUID"] = _by_text(batch, "egressName", self._egress)
        for way in ("ingress", "egress"):
            found[f"{way}NetworkPolicyUUID"] = self._of_policies(batch, f"{way}NetworkPolicy")
        return found

    def _of_pods(self, batch: Batch, side: str, handles: NDArray[np.int64]) -> Column:
        """By the handle, which tells a Pod from one of its name before; else by the name.

        What began before the Pod of that name was made is of another one, as in a StatefulSet.
        """
        objects = self._inventory.pods.objects
        found = _each(handles, lambda handle: objects[handle].uid if handle != NONE else "")
        name, namespace = batch[f"{side}PodName"], batch[f"{side}PodNamespace"]
        rest = np.flatnonzero((handles == NONE) & (name != 0))
        if len(rest):
            pairs = namespace[rest].astype(np.uint64) << np.uint64(32) | name[rest]
            different, places = np.unique(pairs, return_inverse=True)
            pods = [self._pod(batch, pair) for pair in different.tolist()]
            made = b"".join(_bytes(pod.uid if pod is not None else "") for pod in pods)
            created = np.array([pod.created_ms if pod is not None else 0 for pod in pods])[places]
            later = began_ms(batch, rest).astype(np.int64) + SKEW_MS < created
            named = np.frombuffer(made, dtype=np.uint8).reshape(-1, BYTES)[places]
            named[later] = 0
            found[rest] = named
        return found

    def _pod(self, batch: Batch, pair: int) -> Pod | None:
        return self._inventory.pods.named(*_texts(batch, pair >> 32, pair & 0xFFFFFFFF))

    def _node(self, name: str) -> str:
        node = self._inventory.node(name)
        return node.uid if node is not None else ""

    def _service(self, port_name: str) -> str:
        namespace, _, name = port_name.partition(":")[0].partition("/")
        ports = self._inventory.service_ports(namespace, name)
        return ports[0].uid if ports else ""

    def _egress(self, name: str) -> str:
        return self._egresses.uid((ANTREA, "Egress", "", name)) if self._egresses else ""

    def _of_policies(self, batch: Batch, policy: str) -> Column:
        names = batch[f"{policy}Namespace"].astype(np.uint64) << np.uint64(32)
        names |= batch[f"{policy}Name"]
        found = np.zeros((len(batch), BYTES), dtype=np.uint8)
        if self._policies is None:
            return found
        types = batch[f"{policy}Type"]
        for number in np.unique(types[names != 0]).tolist():
            rows = np.flatnonzero((types == number) & (names != 0))
            found[rows] = _each(names[rows], partial(self._policy, batch, number))
        return found

    def _policy(self, batch: Batch, number: int, pair: int) -> str:
        if self._policies is None:
            return ""
        namespace, name = _texts(batch, pair >> 32, pair & 0xFFFFFFFF)
        keys: Iterable[Key] = (
            (group, kind, namespace, name) for group, kind in _KINDS.get(number, ())
        )
        return self._policies.uid(*keys)


def _texts(batch: Batch, *codes: int) -> list[str]:
    return batch.strings.texts(np.array(codes, dtype=np.uint32))


def _by_text(batch: Batch, name: str, uid: Callable[[str], str]) -> Column:
    """The UIDs of what a text names; each different one is looked up once."""
    return _each(batch[name], lambda code: uid(_texts(batch, code)[0]) if code else "")


def _each(values: Column, uid: Callable[[int], str]) -> Column:
    """The UIDs of numbers `(n, BYTES)`; each different one is looked up once."""
    different, places = np.unique(values, return_inverse=True)
    made = b"".join(_bytes(uid(value)) for value in different.tolist())
    return np.frombuffer(made, dtype=np.uint8).reshape(-1, BYTES)[places]


def _bytes(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        return bytes(BYTES)
