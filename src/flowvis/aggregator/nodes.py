"""The nodes, and what came from each: by the collector's sessions and the inventory."""

import time
from typing import Any

from flowvis.aggregator.collector import Collector
from flowvis.aggregator.reporters import NodeReports, by_node, nodes_of
from flowvis.inventory.index import Inventory


class Nodes:
    """All nodes that are known, also those that nothing ever came from."""

    def __init__(self, collector: Collector, inventory: Inventory) -> None:
        self._collector, self._inventory = collector, inventory

    def reports(self) -> list[NodeReports]:
        """Return what came from each, by name."""
        return by_node(self._collector.reporters(), self._inventory.nodes)

    def listed(self) -> frozenset[str]:
        """Return the names of those that the inventory has."""
        return frozenset(node.name for node in self._inventory.nodes.objects)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return them as the API shows nodes."""
        now = time.monotonic()
        return [node.as_dict(now) for node in self.reports()]

    def briefly(self) -> list[dict[str, Any]]:
        """Return them as the status has them."""
        now = time.monotonic()
        return [
            {
                "name": node.name,
                "sessions": node.sessions,
                "records": node.records,
                **node.acknowledgement(),
                "missing": node.missing(),
                "missedLastSeconds": node.missed_ago_s(now),
                "lastReportSeconds": None if node.last_s is None else round(now - node.last_s, 1),
            }
            for node in self.reports()
        ]

    def sessions(self) -> list[dict[str, Any]]:
        """Return the open sessions as the status has them, each with its node."""
        now = time.monotonic()
        sessions = list(self._collector.sessions.values())
        nodes = nodes_of([session.reporter() for session in sessions], self._inventory.nodes)
        return [
            session.as_dict() | {"node": node, "lastReportSeconds": round(now - session.last_s, 1)}
            for session, node in zip(sessions, nodes, strict=True)
        ]
