"""Which cluster the records are from."""

import logging
from uuid import UUID

from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import CONFIG_MAPS
from flowvis.inventory.settings import ObjectName
from flowvis.inventory.sources.contents import Contents
from flowvis.ipfix.exporter import fnv1

log = logging.getLogger(__name__)

SYSTEM = "kube-system"
ANTREA = ObjectName(SYSTEM, "antrea-cluster-identity")
KEY = "uuid"


class ClusterIdentity:
    """The id of a cluster, as it is known now: a ConfigMap of Antrea's may come later.

    The configuration's id wins; else it is Antrea's; else the UID of the namespace kube-system,
    which lives as long as the cluster.
    """

    def __init__(self, inventory: Inventory, configured: str = "") -> None:
        self.configured = configured
        self.antrea = Contents(CONFIG_MAPS, ANTREA)
        self._inventory = inventory
        self._said = self._garbled = ""
        self._ever: set[str] = set()

    def id(self) -> str:
        """Return it; "" while it is not known. What is new is logged."""
        found = self.configured or self._antreas() or self._systems()
        if found != self._said:
            self._said = found
            log.info("clusterId of records from now on: %s", found or "none")
            self._ever.add(found)
        return found

    def ids(self) -> tuple[str, ...]:
        """Return all that records of the cluster may have as their id; () while it is not known.

        It is another one before it is known, before Antrea's is, and before it was configured.
        """
        if not self.id():
            return ()
        return tuple(sorted({"", *self._ever, self._antreas(), self._systems()}))

    def observation_domain(self) -> int:
        """Return the number of an exporter that speaks for the cluster.

        That is Antrea's: a hash of the 16 bytes of a UUID. What is no UUID is hashed as text.
        """
        found = self.id()
        try:
            return fnv1(UUID(found).bytes)
        except ValueError:
            return fnv1(found.encode())

    def _antreas(self) -> str:
        content = (self.antrea.data or {}).get(KEY)
        if content is None:
            return ""
        text = content[:100].decode("ascii", "replace").strip()
        try:
            return str(UUID(text))
        except ValueError:
            if text != self._garbled:
                self._garbled = text
                log.warning("%s: %s is %r, which is no UUID: not used", self.antrea, KEY, text)
            return ""

    def _systems(self) -> str:
        namespace = self._inventory.namespaces.get(SYSTEM)
        return str(namespace.uid) if namespace is not None else ""
