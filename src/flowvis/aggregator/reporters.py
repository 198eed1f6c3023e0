"""Which nodes report: sessions that are open or were, and the nodes that the inventory has."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.batch import address_bytes
from flowvis.inventory.networks import NONE, address_column
from flowvis.inventory.services import NodeIndex


@dataclass(frozen=True, slots=True)
class Reporter:
    """One exporter's session, open or over."""

    address: str
    """Where it comes from: exporters use the node's network."""
    named: str
    """The node that its records name; "" where they name none."""
    records: int
    last_s: float
    """When something came from it at last, by a clock that does not jump."""
    open: bool
    lost: int = 0
    """Records that never came, by the sequence numbers."""


@dataclass(frozen=True, slots=True)
class NodeReports:
    """What came from one node."""

    name: str
    sessions: int
    """Those that are open."""
    records: int
    last_s: float | None
    """None where nothing ever came."""
    lost: int = 0
    """Records that never came, by the sequence numbers."""


def nodes_of(reporters: Sequence[Reporter], nodes: NodeIndex) -> list[str]:
    """Return the node of each: by its address, else as its records name it; "" where unknown."""
    column = address_column(_bytes(reporter.address) for reporter in reporters)
    handles = nodes.find(column).tolist()
    return [
        reporter.named if handle == NONE else nodes.objects[handle].name
        for reporter, handle in zip(reporters, handles, strict=True)
    ]


def by_node(reporters: Sequence[Reporter], nodes: NodeIndex) -> list[NodeReports]:
    """Return what came from each node, also from those that nothing came from, by name."""
    found = {node.name: NodeReports(node.name, 0, 0, None) for node in nodes.objects}
    for name, reporter in zip(nodes_of(reporters, nodes), reporters, strict=True):
        if name:
            before = found.get(name) or NodeReports(name, 0, 0, None)
            found[name] = NodeReports(
                name,
                before.sessions + reporter.open,
                before.records + reporter.records,
                max(reporter.last_s, before.last_s or 0.0),
                before.lost + reporter.lost,
            )
    return [found[name] for name in sorted(found)]


def _bytes(address: str) -> bytes:
    try:
        return address_bytes(address.partition("%")[0])
    except ValueError:
        return bytes(16)  # no node's
